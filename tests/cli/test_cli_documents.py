"""What `docs/operations.md` and the service file tell people to do can be done."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from meshslm.cli.root import root
from meshslm.core.state_views import StateView
from meshslm.core.views import StatusView, TaskCounts
from meshslm.ids import NodeId
from meshslm.observe.meters import Meters
from meshslm.wire.messages import EngineLoad

if TYPE_CHECKING:
    from tests.cli.conftest import Run

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
SERVICE = (ROOT / "examples" / "meshslm.service").read_text(encoding="utf-8")


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", OPERATIONS, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    inline = re.findall(r"`(meshslm [a-z][^`]*)`", OPERATIONS)
    started = re.findall(r"^ExecStart=\S*/(meshslm .*)$", SERVICE, re.MULTILINE)
    found = [line for line in lines + inline + started if line.startswith("meshslm ")]
    return sorted({line.replace("...", "status") for line in found})


@pytest.mark.parametrize("line", commands())
def test_commands_exist(line: str) -> None:
    words = [word for word in shlex.split(line)[1:] if word != "--debug"]
    command: click.Command = root
    while isinstance(command, click.Group) and words:
        child = command.get_command(click.Context(command), words.pop(0))
        assert child is not None, line
        command = child
    # A command may be mentioned without its arguments, or with a file that is not here.
    with suppress(click.BadParameter):
        parent = click.Context(root, help_option_names=["-h", "--help"])
        command.make_context("x", words, parent=parent)


def test_settings_can_be_read(run: Run, tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", OPERATIONS, re.DOTALL)
    assert blocks
    for index, block in enumerate(blocks):
        file = tmp_path / f"{index}.toml"
        file.write_text(block)
        shown = run("config", "--config", str(file))
        assert shown.code == 0, shown.err


def test_metrics_are_those_that_there_are() -> None:
    load = EngineLoad("m", ready=True)
    status = StatusView(
        node=NodeId("n"),
        name="n",
        mesh="m",
        version="1",
        boot=1,
        uptime_ms=1.0,
        addresses=(),
        peers_alive=0,
        leaving=False,
        tasks=TaskCounts(0, 0, 0, 0, 0, 0, 0, 0, 0),
        loads=(load,),
        state=StateView(True, "", (), 0, 0, 0, 0, 0, 0, 0),
    )
    text = Meters(version="1", status=lambda: status, peers=tuple).text().decode()
    there = set(re.findall(r"^# TYPE (meshslm_\w+)", text, re.MULTILINE))
    told = set(re.findall(r"^\| `(meshslm_\w+)` \|", OPERATIONS, re.MULTILINE))
    assert told == {name for name in there if not name.endswith("_created")}
