"""Parts of authors that are gone: given up by decision, dropped by all, and never taken again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm.core.consensus.events import (
    DecisionMade,
    DecisionWanted,
    LogPersisted,
    LogRecovered,
    PersistLog,
)
from meshslm.core.events import BytesReceived, Effect, Tell
from meshslm.ids import NodeId
from meshslm.sim.consensus_machine import Disk as LogDisk
from meshslm.state.forgotten import Forgotten, as_text, gives_back, listed
from meshslm.state.part import PartKey
from meshslm.wire.codec import encode
from meshslm.wire.consensus import Asked, Command
from meshslm.wire.messages import Message
from meshslm.wire.state import Holding, PartClock, StateDeltas, StateHave, StateVector
from tests.core.mesh import Box
from tests.core.state_mesh import DOC, StateMesh

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")


class DecidingMesh(StateMesh):
    """A mesh whose node `a` keeps the log of decisions."""

    def __init__(self) -> None:
        super().__init__()
        self.log = LogDisk(1)
        self.asked = 0

    def found(self) -> None:
        """Node a begins a group of one."""
        self.give("a", LogRecovered(1, founding=True))
        self.pass_time(2_000)

    def decide(self, name: str, **fields: Any) -> DecisionMade:
        """Somebody at a node has something decided."""
        self.asked += 1
        command = Command("generation", DOC, **fields)
        self.give(name, DecisionWanted(self.asked, command))
        self.pass_time(1_000)
        return next(m for m in self.effects(name, DecisionMade) if m.number == self.asked)

    def give_up(self, author: NodeId, expected: int = 0, by: str = "a") -> DecisionMade:
        """Have the newest generation that a node knows of an author given up."""
        found = self.docs(by).authors(DOC)
        known = dict(self.docs(by).forgotten.of(DOC))
        text = as_text({**known, author: found[author]})
        return self.decide(by, value=text, expected=expected)

    def _perform(self, node: NodeId, box: Box, effect: Effect) -> None:
        if isinstance(effect, PersistLog):
            self.log.write(effect)
            self.queue.append((node, LogPersisted(effect.number)))
        else:
            super()._perform(node, box, effect)


def authors(mesh: StateMesh, name: str) -> list[str]:
    return list(mesh.docs(name).authors(DOC))


@pytest.fixture
def mesh() -> DecidingMesh:
    """Nodes a, b and c have all written, and c is gone."""
    made = DecidingMesh()
    made.join("a")
    made.found()
    made.join("b", "a")
    made.join("c", "a", "b")
    made.pass_time(300)
    for name in "abc":
        assert made.put(name, f"of-{name}", b"v").code is None
    made.put("c", "of-a", b"written over by c")
    made.pass_time(1_000)
    made.kill("c")
    assert authors(made, "a") == authors(made, "b") == ["a", "b", "c"]
    return made


def test_who_keeps_the_log_gives_up_at_once_and_others_when_they_look(mesh: DecidingMesh) -> None:
    mesh.pass_time(20_000)
    assert mesh.give_up(C).code == "decided"
    assert authors(mesh, "a") == ["a", "b"]
    assert mesh.value("a", "of-c") is None
    assert mesh.value("a", "of-a") == b"v", "what c had written over shows again"
    assert authors(mesh, "b") == ["a", "b", "c"], "its next look is minutes away"
    mesh.pass_time(60_000)
    assert authors(mesh, "b") == ["a", "b"], "a comparison has made it look sooner"
    assert mesh.agree("a", "b")
    assert not mesh.disks[A].kept(PartKey(DOC, C, 1 << 16))
    assert not mesh.disks[B].kept(PartKey(DOC, C, 1 << 16))


def test_it_is_known_after_a_restart_without_anybody_to_ask(mesh: DecidingMesh) -> None:
    mesh.give_up(C)
    mesh.pass_time(30_000)
    mesh.kill("b")
    mesh.join("b")
    assert mesh.docs("b").forgotten.covers(DOC, C, 1 << 16)
    assert authors(mesh, "b") == ["a", "b"]


def carried(mesh: DecidingMesh, sender: str, to: str) -> int:
    """Messages with deltas that one has sent to another."""
    sent = [m for m in mesh.seen[NodeId(sender), NodeId(to)] if isinstance(m, StateDeltas)]
    return sum(bool(m.deltas or m.packed) for m in sent)


def test_who_does_not_know_sends_nothing_that_was_given_up(mesh: DecidingMesh) -> None:
    mesh.kill("b")
    mesh.give_up(C)
    before = carried(mesh, "b", "a")
    mesh.join("b", "a")
    mesh.pass_time(3_000)
    assert any(isinstance(m, StateVector) and m.forgotten for m in mesh.seen[A, B])
    assert carried(mesh, "b", "a") == before
    assert authors(mesh, "a") == ["a", "b"]
    mesh.pass_time(60_000)
    assert authors(mesh, "b") == ["a", "b"]
    assert mesh.agree("a", "b")


def hear(mesh: DecidingMesh, message: Message) -> list[Message]:
    """What a answers to a message of b."""
    before = len(mesh.seen[A, B])
    mesh.give("a", BytesReceived(B, encode(message)))
    return mesh.seen[A, B][before:]


def test_what_was_given_up_is_not_taken_again_and_that_is_no_fault(mesh: DecidingMesh) -> None:
    kept = mesh.disks[A].kept(PartKey(DOC, C, 1 << 16))
    deltas = StateDeltas(tuple(d.signed for _, d in sorted(kept.items())))
    assert deltas.deltas
    mesh.give_up(C)
    hear(mesh, deltas)
    assert authors(mesh, "a") == ["a", "b"]
    assert not mesh.boxes[A].core.status(mesh.now).banned


def test_what_was_given_up_is_not_asked_for(mesh: DecidingMesh) -> None:
    mesh.give_up(C)
    mesh.pass_time(2_000)
    parts = (*mesh.docs("a").holdings.documents[DOC].clocks(), PartClock(C, 1 << 16, 2))
    assert not hear(mesh, StateVector(DOC, parts))
    assert not hear(mesh, StateHave((Holding(DOC, PartClock(C, 1 << 16, 2)),)))
    newer = (*parts, PartClock(C, (1 << 16) + 1, 2))
    assert hear(mesh, StateVector(DOC, newer)), "what it wrote since is"


def test_a_vector_says_what_it_goes_by(mesh: DecidingMesh) -> None:
    mesh.give_up(C)
    mesh.seen[A, B].clear()
    mesh.boxes[A].core.state._sync.ask(B, DOC, mesh.now)
    mesh.give("a", DecisionWanted(99, None, "generation"))
    told = [m for m in mesh.seen[A, B] if isinstance(m, StateVector)]
    assert [(c.author, c.generation) for c in told[0].forgotten] == [(C, 1 << 16)]


def test_an_author_that_comes_back_writes_in_a_higher_generation(mesh: DecidingMesh) -> None:
    mesh.give_up(C)
    mesh.pass_time(1_000)
    mesh.boots[C] = 0  # its old disk: the same boot again, as if it had never been
    mesh.join("c", "a", "b", clean=True)
    mesh.pass_time(60_000)
    assert mesh.value("c", "of-c") is None
    assert mesh.put("c", "again", b"here").code is None
    mesh.pass_time(30_000)
    assert mesh.value("a", "again") == mesh.value("b", "again") == b"here"
    assert mesh.docs("a").authors(DOC)[C] > 1 << 16
    assert mesh.agree("a", "b", "c")


def test_what_an_author_writes_before_it_knows_goes_with_the_rest(mesh: DecidingMesh) -> None:
    mesh.give_up(C)
    mesh.boots[C] = 0
    mesh.join("c", clean=True)
    assert mesh.put("c", "late", b"lost").code is None
    mesh.kill("c")
    mesh.boots[C] = 0
    mesh.join("c", "a", "b", clean=True)
    mesh.pass_time(60_000)
    assert mesh.value("c", "late") is None
    assert any(t.topic == "state.forgotten" for t in mesh.effects("c", Tell))


def test_nobody_is_taken_back_in_and_nothing_is_decided_twice(mesh: DecidingMesh) -> None:
    assert mesh.give_up(C).code == "decided"
    assert mesh.decide("a", value="", expected=1).code == "conflict"
    assert mesh.decide("a", value="c:65536 b:1", expected=0).code == "conflict"
    refused = mesh.decide("a", value="b:65536", expected=1)
    assert refused.code == "conflict"
    assert "c was given up" in refused.detail
    assert mesh.decide("a", value="b:65536 c:65536", expected=1).code == "decided"
    assert authors(mesh, "a") == ["a"]


def test_who_claims_to_know_more_makes_nobody_ask_and_ask(mesh: DecidingMesh) -> None:
    mesh.pass_time(20_000)
    asked = len([m for m in mesh.seen[B, A] if isinstance(m, Asked)])
    lie = StateVector(DOC, (), forgotten=(PartClock(NodeId("x"), 2**60),))
    for _ in range(20):
        mesh.give("b", BytesReceived(A, encode(lie)))
    mesh.pass_time(1_000)
    assert len([m for m in mesh.seen[B, A] if isinstance(m, Asked)]) <= asked + 1
    assert mesh.docs("b").forgotten.of(DOC) == ()


@given(
    st.dictionaries(
        st.text("abcXYZ123", min_size=1, max_size=20).map(NodeId), st.integers(0, 2**63 - 1)
    )
)
def test_a_list_comes_back_as_it_was(known: dict[NodeId, int]) -> None:
    assert listed(as_text(known)) == known
    assert not gives_back(as_text(known), as_text(known))


@given(st.text(max_size=80))
def test_any_text_is_a_list_or_gives_nothing_up(text: str) -> None:
    for author, generation in listed(text).items():
        assert author
        assert 0 <= generation < 2**63


def test_knowledge_only_grows() -> None:
    known = Forgotten()
    assert known.add(PartKey(DOC, C, 5))
    assert not known.add(PartKey(DOC, C, 4))
    assert known.covers(DOC, C, 5)
    assert not known.covers(DOC, C, 6)
    assert not known.covers("memory/other", C, 1)
    for bad in ("c", "c:", ":5", "c:-1", "c:1 c:2", "c:9223372036854775808", "c:٣"):
        assert listed(bad) == {}
