"""Films change nothing, and their pictures show what happened."""

from __future__ import annotations

import json
import re
import sys

import pytest

from meshslm.errors import OurFault
from meshslm.sim.fault_kinds import Hang, Kill
from meshslm.sim.film import FRAMES, Film
from meshslm.sim.hostile import Hostile
from meshslm.sim.plot import html, png
from meshslm.sim.report import Report
from meshslm.sim.run import production, run
from meshslm.sim.scenario import Scenario, Workload

PLAN = Scenario(
    name="</script><b>",
    nodes=5,
    seconds=24.0,
    quiet_s=4.0,
    workload=Workload(tasks_per_second=3.0, start_s=4.0),
    faults=(Kill(at_s=8, back_after_s=6, nodes=(3,)), Hang(at_s=9, for_s=4, nodes=(2,))),
    hostile=(Hostile(does="replay", nodes=(4,)),),
)


@pytest.fixture(scope="module")
def filmed() -> tuple[Film, Report]:
    simulation = production(PLAN, 3)
    film = Film(simulation)
    report = simulation.run(lambda _: film.look())
    return film, report


def test_a_filmed_run_is_the_same_run(filmed: tuple[Film, Report]) -> None:
    film, report = filmed
    assert report.trace == run(PLAN, seed=3).trace
    assert [frame.at_s for frame in film.frames[:24]] == [float(second) for second in range(1, 25)]


def test_frames_show_what_happened(filmed: tuple[Film, Report]) -> None:
    film, report = filmed
    states = {frame.at_s: frame.states for frame in film.frames}
    assert states[7] == "aaaaa"
    assert states[11] == "aahda"
    assert states[20] == "aaaaa"
    assert film.hostile == (False, False, False, False, True)
    assert film.frames[6].views == 1.0
    assert len(film.frames[6].links) == 10
    assert sum(frame.answered for frame in film.frames) == report.tasks.answered
    assert any(frame.first_token_ms for frame in film.frames)
    assert all(frame.kilobytes > 0 for frame in film.frames[2:])


def test_the_page_needs_nothing_and_lets_nothing_in(filmed: tuple[Film, Report]) -> None:
    page = html(*filmed)
    assert not re.search(r"(src|href)\s*=", page)
    assert "</script><b>" not in page
    (found,) = re.findall(r"const data = (\{.*?\}), frames = ", page)
    data = json.loads(found)
    assert data["title"].startswith("</script><b>, seed 3")
    assert len(data["frames"]) == len(filmed[0].frames)


def test_a_png_is_drawn(filmed: tuple[Film, Report]) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    assert png(*filmed).startswith(b"\x89PNG")


def test_without_matplotlib_the_way_out_is_told(
    filmed: tuple[Film, Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(OurFault, match="matplotlib") as caught:
        png(*filmed)
    assert "meshslm[plot]" in caught.value.__notes__[0]


def test_a_long_run_has_few_frames() -> None:
    simulation = production(Scenario(name="long", nodes=1, seconds=FRAMES * 3.0), 1)
    film = Film(simulation)
    for _ in range(FRAMES * 3):
        film.look()
    assert len(film.frames) == FRAMES
