"""`meshslm sim`: a seed decides the run, and a failed check is a failed command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import documented_keys

if TYPE_CHECKING:
    from tests.cli.conftest import Run

SMALL = """\
name = "small"
nodes = 4
seconds = 30

[workload]
tasks_per_second = 2
"""


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    file = tmp_path / "small.toml"
    file.write_text(SMALL)
    return str(file)


def test_the_same_seed_gives_the_same_run(run: Run, scenario: str) -> None:
    first = run("sim", "run", "--scenario", scenario, "--seed", "7", "--json")
    again = run("sim", "run", "--scenario", scenario, "--seed", "7", "--json")
    other = run("sim", "run", "--scenario", scenario, "--seed", "8", "--json")
    assert first.code == again.code == other.code == 0
    assert first.json["trace"] == again.json["trace"] != other.json["trace"]
    assert set(first.json) == documented_keys("sim run")
    assert first.json["ok"] is True
    assert first.json["tasks"]["sent"] > 0
    assert first.json["tasks"]["lost"] == 0


def test_nodes_and_seconds_may_be_given(run: Run, scenario: str) -> None:
    told = run(
        "sim", "run", "--scenario", scenario, "--nodes", "6", "--seconds", "20", "--json"
    ).json
    assert told["nodes"] == 6
    assert 20 <= told["virtual_s"] < 30


def test_a_table_for_people(run: Run, scenario: str) -> None:
    shown = run("sim", "run", "--scenario", scenario)
    assert shown.code == 0
    for part in ("small: 4 nodes", "tasks sent", "convergence", "trace", "PASS"):
        assert part in shown.out
    assert "ok  simulating" in shown.err


def test_a_failed_check_is_a_failed_command(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "canary.toml"
    file.write_text(SMALL + "\n[sabotage]\ndrop_chunks = 0.5\n")
    shown = run("sim", "run", "--scenario", str(file), "--json")
    assert shown.code == 1
    assert shown.json["ok"] is False
    assert "FAIL" in run("sim", "run", "--scenario", str(file)).out


@pytest.mark.parametrize(
    "words",
    [
        ("--nodes", "0"),
        ("--seconds", "0"),
        ("--seed", "x"),
        ("--seconds", "inf"),
        ("--seconds", "nan"),
        ("--scenario", "/nowhere.toml"),
    ],
)
def test_wrong_usage(run: Run, words: tuple[str, ...]) -> None:
    assert run("sim", "run", *words).code == 2


def test_a_bad_scenario_names_the_key(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(SMALL.replace("tasks_per_second", "tasks_per_minute"))
    shown = run("sim", "run", "--scenario", str(file))
    assert shown.code == 2
    assert "tasks_per_minute" in shown.err
    assert "bad.toml" in shown.err


def test_a_scenario_longer_than_the_given_time_is_refused(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "late.toml"
    file.write_text(SMALL + '\n[[faults]]\nkind = "hang"\nat_s = 15\nfor_s = 10\n')
    shown = run("sim", "run", "--scenario", str(file), "--seconds", "20")
    assert shown.code == 2
    assert "faults[0]" in shown.err


def test_without_a_scenario_any_time_will_do(run: Run) -> None:
    told = run("sim", "run", "--nodes", "3", "--seconds", "5", "--json")
    assert told.code == 0
    assert told.json["scenario"] == "default"
