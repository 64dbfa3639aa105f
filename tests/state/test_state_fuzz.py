"""Damaged updates never bring the process down, nor leave a document that cannot be saved."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHILD_S = 240


def child(seed: int, cases: int) -> str:
    command = [sys.executable, "-m", "tests.state.fuzz_child", str(seed), str(cases)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=CHILD_S, check=False
    )
    assert done.returncode == 0, f"seed {seed}: {done.returncode}\n{done.stderr[-2000:]}"
    assert done.stdout.endswith("sound\n")
    return done.stdout


def test_a_thousand_damaged_updates_do_no_harm() -> None:
    child(1, 1_000)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 110))
def test_fifty_thousand_damaged_updates_do_no_harm(seed: int) -> None:
    child(seed, 5_000)
