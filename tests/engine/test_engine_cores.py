"""How many threads are worth having."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshslm.engine.cores import Reading, ThreadChoice, cores, read, runnable, worthwhile


@pytest.mark.parametrize(
    ("busy", "own", "count", "expected"),
    [
        (0.0, 0.0, 4, 4),
        (4.0, 4.0, 4, 4),  # all of it our own
        (1.0, 0.0, 2, 1),  # one busy neighbour
        (2.0, 0.0, 2, 1),
        (2.0, 1.0, 2, 1),
        (0.4, 0.0, 2, 2),
        (9.0, 0.0, 4, 1),
        (2.2, 0.2, 8, 6),
    ],
)
def test_as_many_as_nobody_else_uses(busy: float, own: float, count: int, expected: int) -> None:
    earlier, later = Reading(10.0, 50.0, 5.0), Reading(11.0, 50.0 + busy, 5.0 + own)
    assert worthwhile(earlier, later, count) == expected


def test_a_reading_counts_only_our_cores(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    core = min(cores())
    foreign = max(cores()) + 1
    stat.write_text(
        f"cpu  9 9 9 9 9 9 9 9 0 0\ncpu{core} 100 0 50 1000 7 0 0 50 0 0\n"
        f"cpu{foreign} 900 0 0 0 0 0 0 0 0 0\nintr 5\n"
    )
    reading = read(stat)
    assert reading is not None
    assert reading.busy == pytest.approx(2.0)


def test_without_the_system_s_word_all_cores_count(tmp_path: Path) -> None:
    assert read(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.1 0.2 0.3 3/120 4711\n", 3), ("0.1 0.2\n", None), ("a b c d/e f", None)],
)
def test_what_runs_now(tmp_path: Path, text: str, expected: int | None) -> None:
    loadavg = tmp_path / "loadavg"
    loadavg.write_text(text)
    assert runnable(loadavg) == expected
    assert runnable(tmp_path / "none") is None


def test_a_fixed_number_is_kept() -> None:
    choice = ThreadChoice(3)
    choice.begin()
    for seconds in (0.01, 9.0, 9.0, 9.0):
        assert choice.threads == choice.choose(1) == 3
        choice.learn(1, 3, seconds)


def test_a_free_number_stays_within_the_cores() -> None:
    choice = ThreadChoice(None)
    for turn in range(200):
        if turn % 50 == 0:
            choice.begin()
        threads = choice.choose(1)
        assert 1 <= threads <= len(cores())
        choice.learn(1, threads, 0.01 * (1 + turn % 3))
