"""A few members that mean ill do the others no harm; and rates of a day are what they say."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm.chance import Chance
from meshslm.core.config import CoreConfig
from meshslm.core.events import BytesReceived, Lane, Send, Started
from meshslm.errors import OurFault
from meshslm.ids import Instant, NodeId
from meshslm.sim.hostile import FLOOD, Deed, Hostile, HostileCore
from meshslm.sim.run import Simulation, run
from meshslm.sim.scenario import Scenario, Workload, check_scenario
from meshslm.sim.workload import factor
from meshslm.wire.admission import Signed
from meshslm.wire.codec import decode, encode
from meshslm.wire.detection import Ping
from meshslm.wire.growth import Record
from meshslm.wire.messages import EngineLoad, Hello, Presence
from meshslm.wire.whereabouts import Whereabouts
from tests.sim.small_cores import Recorder

PEER = NodeId("peer")
PRESENCE = encode(Presence(1, 1, (EngineLoad("m", ready=False, queued=9),), 1000, 1))


def sent(does: Deed, message: bytes = PRESENCE) -> list[bytes]:
    """What becomes of a message that a hostile node sends."""
    inner = Recorder(CoreConfig(node=NodeId("me"), name="n0"), Chance.from_int(1))
    core = HostileCore(inner, (Hostile(does=does, share=1.0, from_s=0.0),), Chance.from_int(2))
    core.handle(Started(1, ()), Instant(0))
    core.handle(BytesReceived(PEER, b"heard"), Instant(0))
    inner.next = [Send(PEER, Lane.CONTROL, message)]
    return [effect.message for effect in core.handle(BytesReceived(PEER, b"x"), Instant(0))]


def test_each_deed_does_what_it_says() -> None:
    assert sent("flood") == [PRESENCE] * FLOOD
    assert sent("replay")[0] == PRESENCE
    assert sent("replay")[1] in (b"heard", b"x")
    original, rubbish = sent("garbage")
    assert original == PRESENCE != rubbish
    (told,) = map(decode, sent("lie"))
    assert isinstance(told, Presence)
    assert (told.loads[0].ready, told.loads[0].queued) == (True, 0)
    true = Whereabouts((Signed(encode(Record("m", PEER, 1, 1, addresses=("/memory/p",))), b"s"),))
    (told,) = map(decode, sent("lie", encode(true)))
    assert isinstance(told, Whereabouts)
    assert told.records[0].signature == b"s"
    assert told != true
    assert sent("swallow") == [PRESENCE]


def test_who_lies_tells_of_deaths_of_those_it_met() -> None:
    inner = Recorder(CoreConfig(node=NodeId("me"), name="n0"), Chance.from_int(1))
    lies = (Hostile(does="lie", share=1.0, from_s=0.0),)
    core = HostileCore(inner, lies, Chance.from_int(2))
    core.handle(Started(1, ()), Instant(0))
    inner.next = [Send(PEER, Lane.CONTROL, encode(Ping(1)))]
    (unknown,) = core.handle(BytesReceived(PEER, b"x"), Instant(0))
    assert decode(unknown.message) == Ping(1)
    inner.next = [Send(PEER, Lane.CONTROL, encode(Ping(1)))]
    (told,) = core.handle(BytesReceived(PEER, encode(Hello(1, 1, "m", 7))), Instant(0))
    ping = decode(told.message)
    assert isinstance(ping, Ping)
    assert {(news.node, news.state, news.boot) for news in ping.news} == {(PEER, "dead", 7)}


@pytest.mark.parametrize("does", get_args(Deed))
def test_honest_nodes_stand_it(does: Deed) -> None:
    scenario = Scenario(
        name="ill",
        nodes=6,
        seconds=30.0,
        hostile=(Hostile(does=does, count=2, share=0.5),),
        workload=Workload(tasks_per_second=3.0, deadline_s=20.0),
    )
    report = run(scenario, seed=1)
    assert report.ok, report.violations
    assert report.tasks.answered > 0
    assert report.trace == run(scenario, seed=1).trace


def test_who_is_configured_is_hostile_last() -> None:
    scenario = Scenario(name="x", nodes=5, hostile=(Hostile(does="lie", count=2),))
    for seed in range(5):
        world = Simulation(scenario, seed, Recorder).world
        assert sum(node.hostile for node in world.nodes[3:]) == 2


@pytest.mark.parametrize(
    "plan", [Hostile(does="lie", nodes=(5,)), Hostile(does="lie", count=5)], ids=["nobody", "all"]
)
def test_a_plan_that_does_not_fit_is_refused(plan: Hostile) -> None:
    with pytest.raises(OurFault, match="hostile"):
        check_scenario(Scenario(name="x", nodes=5, hostile=(plan,)))


# --- the day ------------------------------------------------------------------------------------
def test_a_curve_is_joined_by_straight_lines() -> None:
    assert [factor((0.0, 1.0), days) for days in (0, 0.25, 0.5, 0.75, 1, 1.25)] == [
        0.0,
        0.5,
        1.0,
        0.5,
        0.0,
        0.5,
    ]


@given(curve=st.lists(st.floats(0, 10), min_size=1, max_size=24), days=st.floats(0, 100))
def test_a_curve_stays_within_its_points(curve: list[float], days: float) -> None:
    assert min(curve) - 1e-9 <= factor(curve, days) <= max(curve) + 1e-9


def test_quiet_hours_are_quiet() -> None:
    workload = Workload(tasks_per_second=20.0, start_s=0.0, curve=(0.0, 0.0, 1.0, 0.0), day_s=40.0)
    simulation = Simulation(
        Scenario(name="day", nodes=2, seconds=50.0, workload=workload), 1, Recorder
    )
    simulation.begin()
    simulation.world.run_until(40_000_000)
    arrived = [r.arrived / 1e6 for r in simulation.tasks.records.values()]
    assert len(arrived) > 100
    assert all(10 <= at <= 30 for at in arrived)
    assert sum(15 <= at <= 25 for at in arrived) > 0.6 * len(arrived)


def test_a_curve_of_nothing_is_refused() -> None:
    with pytest.raises(OurFault, match="curve"):
        check_scenario(Scenario(name="x", workload=Workload(curve=(0.0, 0.0))))
