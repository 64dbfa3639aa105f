"""Measured speeds, and what follows from them."""

from __future__ import annotations

import os
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from meshslm.engine import openmp
from meshslm.engine.prefix_cache import TILE
from meshslm.engine.schedule import Scheduler
from meshslm.engine.speeds import PAUSE_S, Speeds
from meshslm.engine.steps import Job, Piece, Shape, Step


@given(st.floats(min_value=1.0, max_value=1e6), st.integers(min_value=1, max_value=512))
def test_prompts_pause_streams_no_longer_than_promised(rate: float, rows: int) -> None:
    speeds = Speeds()
    assert speeds.beside_rows == TILE  # nothing is known yet
    step = Step((Piece(1, 0, 0, 0, rows, ()),), decode=False)
    speeds.step(step, 10.0, 10.0 + rows / rate, 0)
    assert speeds.beside_rows >= TILE
    if speeds.beside_rows > TILE:
        assert speeds.beside_rows / rate <= PAUSE_S * 1.001


def test_more_prompt_rows_come_beside_a_stream_where_the_machine_is_fast() -> None:
    scheduler = Scheduler(Shape(slots=8, context=400, batch=512))
    scheduler.beside_rows = 3 * TILE
    scheduler.add(Job(1, 5, 50))
    first = scheduler.schedule()
    assert first is not None
    scheduler.learn(first, ())
    for number in range(2, 8):
        scheduler.add(Job(number, TILE, 50))
    kinds = []
    for _ in range(8):
        step = scheduler.schedule()
        assert step is not None
        kinds.append("decode" if step.decode else "prompt")
        scheduler.learn(step, ())
    assert kinds == ["decode", *["prompt"] * 3, "decode", *["prompt"] * 3]


def test_what_the_user_says_of_threads_stays() -> None:
    assert openmp.settings({"GOMP_SPINCOUNT": "7"}) == {
        "OMP_WAIT_POLICY": "passive",
        "OPENBLAS_NUM_THREADS": "1",
    }


def test_a_worker_settles_its_threads_before_any_library_is_loaded() -> None:
    code = (
        "import os, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('llama_cpp', 'numpy'):\n"
        "            print(name, os.environ.get('GOMP_SPINCOUNT'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        "import meshslm.engine.worker\n"
    )
    environment = {k: v for k, v in os.environ.items() if k not in openmp.settings({})}
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    lines = told.stdout.splitlines()
    assert lines
    assert {line.split()[1] for line in lines} == {str(openmp.SPINS)}
