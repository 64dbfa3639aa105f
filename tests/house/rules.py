"""The house rules that neither the linter nor the import contracts can see.

A rule takes one parsed file and returns what is wrong with it, a line number each.
`test_house_rules.py` shows that every rule can fail, `test_house.py` applies them to the tree.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

FUNCTION_LINES = 70
FILE_LINES = 600
REASON_CHARACTERS = 8

VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "shared", "misc", "manager", "base"}
"""Names that say nothing, under which anything gathers."""


@dataclass(frozen=True)
class Fault:
    """What is wrong, and where."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


@dataclass(frozen=True)
class Source:
    """One Python file."""

    path: str
    """Relative to the repository, with forward slashes."""
    text: str
    tree: ast.Module = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tree", ast.parse(self.text, self.path))

    def fault(self, line: int, what: str) -> Fault:
        return Fault(self.path, line, what)


# --- size, names, docstrings --------------------------------------------------------------------
def long_functions(source: Source) -> Iterator[Fault]:
    """No function over `FUNCTION_LINES` lines, its docstring included."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES:
                yield source.fault(
                    node.lineno, f"{node.name} has {lines} lines, at most {FUNCTION_LINES}"
                )


def long_file(source: Source) -> Iterator[Fault]:
    """No file over `FILE_LINES` lines."""
    lines = source.text.count("\n")
    if lines > FILE_LINES:
        yield source.fault(lines, f"{lines} lines, at most {FILE_LINES}")


def vague_name(source: Source) -> Iterator[Fault]:
    """No module or folder called by a name that says nothing."""
    path = PurePosixPath(source.path)
    for name in (*path.parent.parts, path.stem):
        if name.strip("_") in VAGUE_NAMES:
            yield source.fault(1, f"the name {name!r} says nothing; call it what it does")


def missing_docstring(source: Source) -> Iterator[Fault]:
    """Every module says why it exists."""
    if not ast.get_docstring(source.tree):
        yield source.fault(1, "no docstring that says why the module exists")


# --- excuses ------------------------------------------------------------------------------------
EXCUSE = re.compile(
    r"#\s*(?:noqa\b(?P<noqa>:\s*[A-Z]+[0-9]+(?:[,\s]+[A-Z]+[0-9]+)*)?"
    r"|type:\s*ignore\b(?P<ignore>\[[a-z0-9, -]+\])?)"
    r"\W*(?P<reason>.*)"
)
WHOLESALE = re.compile(r"#\s*(?:ruff:\s*noqa|flake8:\s*noqa|mypy:\s*ignore-errors)")


def bare_excuses(source: Source) -> Iterator[Fault]:
    """Silencing a checker names the code, and why: behind it, or in a comment above the group."""
    lines = source.text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type != tokenize.COMMENT:
            continue
        line = token.start[0]
        if WHOLESALE.search(token.string):
            yield source.fault(line, "a checker is silenced for a whole file")
        elif found := EXCUSE.search(token.string):
            if not (found["noqa"] or found["ignore"]):
                yield source.fault(line, "a checker is silenced without naming the code")
            if len(found["reason"]) < REASON_CHARACTERS and not _comment_above(lines[: line - 1]):
                yield source.fault(line, "a checker is silenced without a reason")


def _comment_above(lines: list[str]) -> bool:
    """Whether a comment precedes, with only lines between that are excused as well."""
    for line in reversed(lines):
        if line.lstrip().startswith("#"):
            return True
        if not EXCUSE.search(line):
            return False
    return False


# --- the outside world --------------------------------------------------------------------------
FILE_METHODS = {"open", "read_text", "read_bytes", "write_text", "write_bytes"}
OPENERS = {("os", "open"), ("os", "fdopen"), ("io", "open")}


def reads_environment(source: Source) -> Iterator[Fault]:
    """No look at the process environment."""
    for node in ast.walk(source.tree):
        match node:
            case ast.Attribute(
                value=ast.Name(id="os"), attr="environ" | "environb" | "getenv" as name
            ):
                yield source.fault(node.lineno, f"os.{name}: hand the value in")
            case ast.ImportFrom(module="os", names=names):
                for alias in names:
                    if alias.name in {"environ", "environb", "getenv"}:
                        yield source.fault(node.lineno, f"os.{alias.name}: hand the value in")


def touches_files(source: Source) -> Iterator[Fault]:
    """No opening of files."""
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        match node.func:
            case ast.Name(id="open"):
                yield source.fault(node.lineno, "open(): hand the contents in")
            case ast.Attribute(value=ast.Name(id=module), attr=name) if (module, name) in OPENERS:
                yield source.fault(node.lineno, f"{module}.{name}(): hand the contents in")
            case ast.Attribute(attr=name) if name in FILE_METHODS:
                yield source.fault(node.lineno, f".{name}(): hand the contents in")


# --- words --------------------------------------------------------------------------------------
# Written so that no pattern matches its own source.
LEAKS = {
    "a path of somebody's machine": re.compile(
        r"(?<![\w.])/(?:work|farm|root)/|/tmp/(?:spike|house)|/opt/(?:pypi|wheels)"
    ),
    "a package index": re.compile(
        r"\bpypi\.org|\bpythonhosted\.org|\bregistry\.npmjs|\bdeb\.debian\.org|index[-]url"
    ),
    "how the work was organised": re.compile(
        r"\b(?:issue #?[0-9]+|the[ ]lead\b|the[ ]brief\b|the[ ]CEO|steering[ ]repo"
        r"|before[-]stop|work[-]place)|/\.librar[y]",
        re.IGNORECASE,
    ),
}


def leaks(path: str, text: str) -> Iterator[Fault]:
    """A file speaks of the project alone. Takes any text file, not only Python."""
    for number, line in enumerate(text.splitlines(), start=1):
        for what, pattern in LEAKS.items():
            if found := pattern.search(line):
                yield Fault(path, number, f"{what}: {found[0]!r}")
