"""The flight recorder of real daemons: what they did is done again by a fresh core."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from meshslm.sim.replay import replay
from tests.e2e.conftest import Start, until
from tests.e2e.test_e2e_daemon import Lone


def status(node: Lone) -> Any:
    return httpx.get(f"{node.url}/mesh/status").json()


def test_real_daemons_are_replayed_with_the_same_effects(start: Start, tmp_path: Path) -> None:
    first = Lone(start, tmp_path / "a").wait()
    second = Lone(start, tmp_path / "b", "--bootstrap", status(first)["addresses"][0]).wait()
    until(lambda: status(second)["peers_alive"] == 1, what="the link")
    for place, node in enumerate((first, second)):
        file = tmp_path / f"{place}.jsonl.gz"
        command = [sys.executable, "-m", "meshslm", "record", "dump", "--url", node.url]
        subprocess.run([*command, "--out", str(file)], check=True, capture_output=True)
        result = replay(file.read_bytes())
        assert result.ok, result.parting
        assert result.events > 5
        assert result.effects > 5
        assert (result.missing, result.texts) == (0, False)
