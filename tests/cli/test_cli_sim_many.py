"""`meshslm sim swarm`, `compare` and `replay` of what failed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.conftest import documented_keys

if TYPE_CHECKING:
    from tests.cli.conftest import Run

SMALL = """\
name = "small"
nodes = 3
seconds = 14
quiet_s = 3

[workload]
tasks_per_second = 2
start_s = 3
"""


@pytest.fixture
def broken_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every drawn scenario has a saboteur between core and client."""
    from msgspec.structs import replace

    from meshslm.sim import swarm
    from meshslm.sim.scenario import Sabotage

    honest = swarm.drawn

    def drawn(seed: int, *, nodes: int | None = None) -> Any:
        return replace(honest(seed, nodes=nodes), sabotage=Sabotage(drop_chunks=0.5))

    monkeypatch.setattr(swarm, "drawn", drawn)


def test_a_swarm_passes_and_says_so(run: Run) -> None:
    words = ("sim", "swarm", "--runs", "2", "--nodes", "3", "--jobs", "1")
    told = run(*words, "--json")
    assert told.code == 0
    assert set(told.json) == documented_keys("sim swarm")
    assert (told.json["ok"], told.json["runs"], told.json["failed"]) == (True, 2, [])
    assert "PASS" in run(*words).out


@pytest.mark.usefixtures("broken_world")
def test_a_failing_seed_comes_with_its_command_and_can_be_kept(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "kept.toml"
    words = ("sim", "swarm", "--seed", "5", "--runs", "1", "--nodes", "3", "--jobs", "1")
    shown = run(*words, "--keep", str(file))
    assert shown.code == 1
    assert "meshslm sim swarm --seed 5 --runs 1 --nodes 3" in shown.out
    told = run(*words, "--json")
    assert told.code == 1
    assert told.json["failed"][0]["seed"] == 5
    assert told.json["failed"][0]["violations"]
    again = run("sim", "replay", str(file), "--json")
    assert again.code == 1
    assert again.json["cases"] == 1
    assert "seed 5" in run("sim", "replay", str(file)).out


def test_ctrl_c_shows_what_there_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from meshslm.sim import swarm

    verdict = swarm.judge_seed(1, 2)

    def interrupted(*_: object, **__: object) -> Any:
        yield verdict
        raise KeyboardInterrupt

    monkeypatch.setattr(swarm, "swarm", interrupted)
    shown = run("sim", "swarm", "--runs", "5", "--json")
    assert shown.code == 130
    assert shown.json["runs"] == 1


def test_two_scenarios_are_compared(run: Run, tmp_path: Path) -> None:
    a, b = tmp_path / "a.toml", tmp_path / "b.toml"
    a.write_text(SMALL)
    b.write_text(SMALL + "\n[network]\nlatency_ms = 80\n")
    words = ("sim", "compare", str(a), str(b), "--runs", "3")
    told = run(*words, "--json")
    assert told.code == 0
    assert set(told.json) == documented_keys("sim compare")
    first = told.json["figures"]["first token p50 ms"]
    assert first["median_b"] > first["median_a"] + 50
    shown = run(*words)
    assert "first token p50 ms" in shown.out
    assert "3 runs each" in shown.out


def other_version(folder: Path, body: str) -> str:
    """A program in the place of another version's `meshslm`."""
    program = folder / "meshslm"
    program.write_text(f"#!{sys.executable}\n{body}\n")
    program.chmod(0o755)
    return str(program)


def test_two_versions_are_compared(run: Run, tmp_path: Path) -> None:
    plan = tmp_path / "a.toml"
    plan.write_text(SMALL)
    other = other_version(
        tmp_path,
        "import json, runpy, sys, io, contextlib\n"
        "said = io.StringIO()\n"
        "with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):\n"
        "    runpy.run_module('meshslm', run_name='__main__')\n"
        "told = json.loads(said.getvalue())\n"
        "told['first_token_ms']['p50'] += 7\n"  # it is slower, and tells of no traffic
        "del told['traffic']\n"
        "print(json.dumps(told))",
    )
    words = ("sim", "compare", str(plan), "--with", other, "--runs", "2", "--nodes", "2")
    told = run(*words, "--json")
    assert told.code == 0, told.err
    figures = told.json["figures"]
    first, answered = figures["first token p50 ms"], figures["answered %"]
    assert first["median_b"] == pytest.approx(first["median_a"] + 7)
    assert answered["median_b"] == answered["median_a"]
    assert figures["bytes of a node /s"] is None


@pytest.mark.parametrize(
    "body", ["print('no report')", "import sys; sys.exit('no such command')", "print('[]')"]
)
def test_a_version_that_gives_no_report_is_told(run: Run, tmp_path: Path, body: str) -> None:
    plan = tmp_path / "a.toml"
    plan.write_text(SMALL)
    other = other_version(tmp_path, body)
    shown = run("sim", "compare", str(plan), "--with", other, "--runs", "2", "--nodes", "1")
    assert shown.code == 1
    assert "gave no report" in shown.err


@pytest.mark.parametrize(
    "words",
    [
        ("swarm", "--runs", "0"),
        ("swarm", "--nodes", "1"),
        ("swarm", "--jobs", "0"),
        ("compare", "/nowhere.toml", "/nowhere.toml"),
        ("compare", "README.md"),
        ("compare", "README.md", "--with", "/nowhere/meshslm"),
        ("replay",),
    ],
)
def test_wrong_usage(run: Run, words: tuple[str, ...]) -> None:
    assert run("sim", *words).code == 2


def test_a_scenario_that_makes_no_sense_is_wrong_usage(run: Run, tmp_path: Path) -> None:
    a = tmp_path / "a.toml"
    a.write_text(SMALL.replace("nodes = 3", "nodes = -3"))
    shown = run("sim", "compare", str(a), str(a))
    assert shown.code == 2
    assert "nodes" in shown.err


def test_files_that_cannot_be_used_are_told(run: Run, tmp_path: Path) -> None:
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff")
    shown = run("sim", "replay", str(binary))
    assert shown.code == 1
    assert "UTF-8" in shown.err


@pytest.mark.usefixtures("broken_world")
def test_a_folder_that_is_not_there_is_told(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "no" / "kept.toml"
    words = ("sim", "swarm", "--seed", "5", "--runs", "1", "--nodes", "3", "--jobs", "1")
    shown = run(*words, "--keep", str(file))
    assert shown.code == 1
    assert "cannot write" in shown.err


def test_a_run_is_drawn(run: Run, tmp_path: Path) -> None:
    scenario, page = tmp_path / "small.toml", tmp_path / "run.html"
    scenario.write_text(SMALL)
    words = ("sim", "plot", str(page), "--scenario", str(scenario))
    told = run(*words, "--json")
    assert told.code == 0
    assert set(told.json) == documented_keys("sim plot")
    assert page.read_text().startswith("<!doctype html>")
    assert "moments" in run(*words).out
    assert run("sim", "plot", str(tmp_path / "run.gif")).code == 2
    nowhere = run("sim", "plot", str(tmp_path / "no" / "run.html"), *words[3:])
    assert (nowhere.code, "cannot write" in nowhere.err) == (1, True)
