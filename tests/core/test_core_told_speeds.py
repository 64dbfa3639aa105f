"""Speeds that no engine has, told by a peer: a choice comes to an end, and to a time."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite

from hypothesis import given
from hypothesis import strategies as st

from meshslm.chance import Chance
from meshslm.core.candidates import Candidate, Verdict
from meshslm.core.classify import Classifier
from meshslm.core.offers import soonest_first
from meshslm.core.route import Known, decide
from meshslm.core.strategies import STRATEGIES
from meshslm.core.track_record import TrackRecord
from meshslm.ids import Instant, NodeId
from meshslm.wire.codec import decode, encode
from meshslm.wire.messages import Capability, ChatMessage, EngineLoad, Presence, TaskRequest
from meshslm.wire.routing import Routing
from tests.core.mesh import specialist

REQUEST = TaskRequest("coder", (ChatMessage("user", "x" * 400),), max_tokens=64)

speeds = st.one_of(
    st.sampled_from((0.0, 5e-324, 1e-310, 1e-300, 1e-9, 40.0, 1e9)), st.floats(0.0, 1e9)
)
loads = st.builds(
    EngineLoad,
    st.just("tiny"),
    st.booleans(),
    queued=st.integers(0, 50),
    free_slots=st.integers(0, 3),
    prefill_tps=speeds,
    decode_tps=speeds,
    run_ms=speeds,
    load_ms=speeds,
    wait_ms=speeds,
)


def as_told(load: EngineLoad) -> EngineLoad:
    """The same, as it comes from a peer."""
    said = decode(encode(Presence(1, 1, (load,))))
    assert isinstance(said, Presence)
    return said.loads[0]


@given(st.lists(loads, min_size=1, max_size=5), st.sampled_from(sorted(STRATEGIES)))
def test_whatever_speeds_are_told_somebody_is_chosen(told: list[EngineLoad], strategy: str) -> None:
    candidates = [
        Candidate(NodeId(f"n{i}"), f"n{i}", specialist("coder"), as_told(load), 2.0)
        for i, load in enumerate(told)
    ]
    known = Known(measured=TrackRecord().at(Instant(0)))
    request = replace(REQUEST, routing=Routing(strategy=strategy))
    found = decide(request, candidates, [], Classifier(()), Chance.from_int(1), known)
    assert isinstance(found.outcome, Verdict)
    for one in found.assessments:
        assert one.terms is None or isfinite(one.terms.total)


@given(st.lists(loads, min_size=1, max_size=5))
def test_a_coordinator_can_order_them_too(told: list[EngineLoad]) -> None:
    known = [
        (NodeId(f"n{i}"), Capability(0, 0), Presence(1, 1, (as_told(load),)), Instant(0))
        for i, load in enumerate(told)
    ]
    assert len(soonest_first(known, 64, Instant(0))) == len(known)
