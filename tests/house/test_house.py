"""The tree keeps the rules of the house."""

from __future__ import annotations

import ast
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.house.rules import (
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

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "meshslm"
CODE = (PROGRAM, "tests", "scripts", "bench", "examples")

NOT_OURS = {"__pycache__", "build", "dist", "node_modules", "htmlcov"}
"""Folders that are made, not written; so are those that begin with a dot, `.ci` excepted."""

PURE = ("meshslm/core/", "meshslm/state/", "meshslm/wire/")
"""Floors whose behaviour must be the same in every run."""

MAY_READ_ENVIRONMENT: dict[str, str] = {
    "meshslm/cli/": "the command line is where the user's environment enters",
    "meshslm/engine/worker.py": "sets what OpenMP reads from it when llama.cpp is loaded",
}

MAY_TOUCH_FILES: dict[str, str] = {
    "meshslm/cli/": "reads and writes what the user names",
    "meshslm/data/": "packaged files, which are part of the code",
    "meshslm/engine/cores.py": "reads the kernel's load figures, at a path that can be handed in",
    "meshslm/engine/gguf.py": "checks a model file before it is mapped, at a path handed in",
    "meshslm/engine/landlock.py": "opens the paths that a worker may read, which are handed in",
    "meshslm/engine/spare.py": "reads how much memory the system and this process have left",
    "meshslm/engine/states.py": "keeps the states of sequences in a folder that is handed in",
    "meshslm/engine/sandbox.py": "tells the kernel whom to end first when memory runs out",
    "meshslm/engine/template_sandbox.py": "reads how much memory this process has mapped",
    "meshslm/sim/scenario.py": "reads the scenario that a person named",
    "meshslm/adapters/": "each wraps one outside thing, at a path that is handed in",
    "meshslm/models/": "keeps model files, in a folder that is handed in",
}


def files(folders: Iterable[str], suffix: str) -> Iterator[Path]:
    for folder in folders:
        for parent, below, names in os.walk(ROOT / folder):
            below[:] = sorted(
                name
                for name in below
                if name not in NOT_OURS and (not name.startswith(".") or name == ".ci")
            )
            yield from (Path(parent, name) for name in sorted(names) if name.endswith(suffix))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    found = [
        Source(relative(path), path.read_text(encoding="utf-8")) for path in files(CODE, ".py")
    ]
    assert len(found) > 20  # the walk finds the code at all
    return found


def expect_none(faults: Iterable[Fault]) -> None:
    found = [str(fault) for fault in faults]
    if found:
        pytest.fail("\n".join(found), pytrace=False)


@pytest.mark.parametrize(
    "rule",
    [long_functions, long_file, vague_name, missing_docstring, bare_excuses],
    ids=lambda rule: rule.__name__,
)
def test_all_code(rule: Callable[[Source], Iterator[Fault]], sources: list[Source]) -> None:
    expect_none(fault for source in sources for fault in rule(source))


def test_no_decision_depends_on_the_order_of_a_set(sources: list[Source]) -> None:
    pure = [source for source in sources if source.path.startswith(PURE)]
    assert pure
    expect_none(fault for source in pure for fault in set_order(source))


@pytest.mark.parametrize(
    ("rule", "allowed"),
    [(reads_environment, MAY_READ_ENVIRONMENT), (touches_files, MAY_TOUCH_FILES)],
    ids=["environment", "files"],
)
def test_the_outside_is_handed_in(
    rule: Callable[[Source], Iterator[Fault]], allowed: dict[str, str], sources: list[Source]
) -> None:
    below = [
        source
        for source in sources
        if source.path.startswith(PROGRAM) and not source.path.startswith(tuple(allowed))
    ]
    expect_none(fault for source in below for fault in rule(source))


@pytest.mark.parametrize("allowed", [MAY_READ_ENVIRONMENT, MAY_TOUCH_FILES])
def test_every_exception_is_still_needed(allowed: dict[str, str], sources: list[Source]) -> None:
    rule = reads_environment if allowed is MAY_READ_ENVIRONMENT else touches_files
    for prefix in allowed:
        inside = [source for source in sources if source.path.startswith(prefix)]
        assert any(list(rule(source)) for source in inside), f"{prefix} is excused for nothing"


def test_files_speak_of_the_project_alone() -> None:
    faults: list[Fault] = []
    for path in files([""], ""):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # not text
        faults.extend(leaks(relative(path), text))
    expect_none(faults)


def test_test_folders_are_not_packages_and_names_are_unique() -> None:
    names = [path.name for path in files(["tests"], ".py") if path.name != "conftest.py"]
    assert "__init__.py" not in names
    assert sorted(set(names)) == sorted(names)


def test_lock_files_pin_everything_by_hash_and_name_no_index() -> None:
    for name in ("requirements.lock", "requirements-pip.lock"):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        entries = [index for index, line in enumerate(lines) if line[:1].isalnum()]
        assert entries
        for index in entries:
            assert "==" in lines[index], lines[index]
            assert "--hash=sha256:" in lines[index + 1], lines[index]
        assert not [line for line in lines if "://" in line or line.startswith("-")]


def declared(extra: str | None) -> set[str]:
    """Names of the distributions that the base, or an extra, asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return {re.split(r"[^A-Za-z0-9-]", requirement)[0] for requirement in wanted}


def test_client_dependencies_are_light() -> None:
    assert declared(None) == {"httpx", "msgspec"}


def test_what_is_imported_is_declared(sources: list[Source]) -> None:
    known = declared(None) | declared("node") | declared("engine") | declared("plot")
    owners = packages_distributions()
    undeclared = {
        f"{source.path}: {name}"
        for source in sources
        if source.path.startswith(PROGRAM)
        for name in imported_roots(source.tree)
        if name not in {PROGRAM, *sys.stdlib_module_names}
        and not known & {owner.lower().replace("_", "-") for owner in owners.get(name, [name])}
    }
    assert not undeclared


def imported_roots(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name.partition(".")[0] for alias in names)
            case ast.ImportFrom(module=str(module)):
                yield module.partition(".")[0]
