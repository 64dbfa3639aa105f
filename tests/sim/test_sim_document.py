"""The manual lists every key of a scenario with its default, and its example runs."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from meshslm.sim.fault_kinds import (
    Busy,
    Churn,
    ClockFault,
    Clog,
    Cut,
    EngineCrash,
    Flap,
    Hang,
    Kill,
    Leave,
    OneWay,
    Partition,
    Rough,
    SlowDisk,
)
from meshslm.sim.hostile import Hostile
from meshslm.sim.report import Report, _rows
from meshslm.sim.run import run
from meshslm.sim.scenario import (
    Checks,
    Network,
    NodeSettings,
    Profile,
    Sabotage,
    Scenario,
    Workload,
)
from meshslm.sim.topology import Group
from meshslm.toml_reference import key_rows

DOCUMENT = Path(__file__).parents[2] / "docs" / "simulation.md"
TABLES: dict[str, type[msgspec.Struct]] = {
    "### Top level": Scenario,
    "### `[network]`": Network,
    "### `[[groups]]`": Group,
    "### `[[profiles]]`": Profile,
    "### `[workload]`": Workload,
    "### `[settings]`": NodeSettings,
    "`kill`: ": Kill,
    "`hang`: ": Hang,
    "`leave`: ": Leave,
    "`churn`: ": Churn,
    "`partition`: ": Partition,
    "`one_way`: ": OneWay,
    "`cut`: ": Cut,
    "`clog`: ": Clog,
    "`rough`: ": Rough,
    "`flap`: ": Flap,
    "`busy`: ": Busy,
    "`clock`: ": ClockFault,
    "`slow_disk`: ": SlowDisk,
    "`engine_crash`: ": EngineCrash,
    "### `[[hostile]]`": Hostile,
    "### `[checks]`": Checks,
    "### `[sabotage]`": Sabotage,
}


@pytest.mark.parametrize("heading", TABLES)
def test_every_key_is_listed_with_its_default(heading: str) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    _, _, rest = text.partition(f"\n{heading}")
    table = re.split(r"\n\n", rest[rest.index("\n|") :], maxsplit=1)[0]
    listed = {}
    for row in re.findall(r"^\| (`.*?) \| *(.*?) *\|", table, re.MULTILINE):
        for key in re.findall(r"`(\w+)`", row[0]):
            listed[key] = row[1]
    keys = {row.name: row.default for row in key_rows(TABLES[heading])}
    assert sorted(listed) == sorted(keys)
    for key, default in keys.items():
        if key != "profiles" and default:
            assert listed[key] == f"`{default}`", key


def test_the_example_runs() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(example, str(DOCUMENT), "exec"), names)
    assert isinstance(names["report"], Report)


def test_every_row_of_the_table_is_explained() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    explained = re.findall(r"^\| (.*?) \|", text, re.MULTILINE)
    report = run(Scenario(name="x", nodes=2, seconds=1.0, grace_s=5.0), seed=1)
    rows = [name for name, _ in _rows(report)]
    assert [name for name in explained if name in rows] == rows
