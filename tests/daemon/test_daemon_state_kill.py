"""kill -9 at any moment loses no write that was acknowledged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

ROOT = Path(__file__).parents[2]


def life(folder: Path, boot: int, writes: int, acknowledged: dict[str, int]) -> None:
    """One life of a node: what it finds is judged, and after so many writes it is killed."""
    command = [sys.executable, "-m", "tests.daemon.state_child", str(folder), str(boot), "0"]
    found: dict[str, int] = {}
    seen = 0
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            kind, *rest = line.split()
            if kind == "have":
                found[rest[0]] = int(rest[1])
            elif kind == "go":
                lost = {k: r for k, r in acknowledged.items() if found.get(k, 0) < r}
                assert not lost, f"life {boot} lost {lost}"
            else:
                key, revision = rest
                acknowledged[key] = max(acknowledged.get(key, 0), int(revision))
                seen += 1
                if seen == writes:
                    child.kill()
        # What it had said before it died counts too.
    assert seen >= writes, "the node ended by itself"


def kill_again_and_again(folder: Path, rounds: int, seed: int) -> int:
    draw = Random(seed)
    acknowledged: dict[str, int] = {}
    for boot in range(1, rounds + 1):
        life(folder, boot, draw.randint(1, 600), acknowledged)
    return sum(acknowledged.values())


def test_three_kills_lose_nothing(tmp_path: Path) -> None:
    assert kill_again_and_again(tmp_path, 3, seed=1) > 3


@pytest.mark.long
def test_a_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    assert kill_again_and_again(tmp_path, 101, seed=2) > 10_000
