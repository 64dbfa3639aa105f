"""Bounds of shared documents: refused with numbers, sent small, slowly, and behind tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from meshslm import limits, state_limits
from meshslm.core.events import BytesReceived, Lane, Send
from meshslm.core.state_config import StateConfig
from meshslm.core.state_events import Change, StateWrite, StateWritten
from meshslm.errors import FaultCode
from meshslm.ids import NodeId
from meshslm.sim.signatures import simulated
from meshslm.wire.codec import decode, encode
from meshslm.wire.messages import Message
from meshslm.wire.state import PartClock, StateDeltas, StateHave, StateMessage, StateVector
from tests.core.state_mesh import DOC, StateMesh
from tests.core.test_core_state_hostile import banned, honest, mesh_with_evil, send, signed


class SmallMesh(StateMesh):
    """Nodes that keep ten thousand bytes of a document."""

    def state_config(self, node: NodeId) -> StateConfig:
        return replace(simulated(node), document_bytes=10_000)


def test_a_namespace_that_is_full_refuses_with_numbers_and_others_do_not() -> None:
    mesh = SmallMesh()
    mesh.join("a")
    for number in range(9):
        assert mesh.put("a", f"k{number}", bytes(1_000)).code is None
    refused = mesh.put("a", "more", bytes(2_000))
    assert refused.code is FaultCode.OVERLOADED
    assert "10 entries" in refused.detail
    assert "10000" in refused.detail
    assert mesh.value("a", "more") is None
    assert mesh.put("a", "small", b"x").code is None
    assert mesh.put("a", "more", bytes(2_000), "memory/other").code is None
    assert mesh.put("a", "k0", b"").code is None, "less is always possible"
    assert mesh.put("a", "after", bytes(900)).code is None


def test_so_many_entries_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_limits, "DOCUMENT_KEYS", 5)
    mesh = StateMesh()
    mesh.join("a")
    for number in range(5):
        assert mesh.put("a", f"k{number}", b"v").code is None
    refused = mesh.put("a", "k5", b"v")
    assert refused.code is FaultCode.OVERLOADED
    assert "at most 5 " in refused.detail


def test_so_many_namespaces_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_limits, "DOCUMENTS_PER_AUTHOR", 3)
    mesh = StateMesh()
    mesh.join("a")
    for number in range(3):
        assert mesh.put("a", "k", b"v", f"memory/n{number}").code is None
    refused = mesh.put("a", "k", b"v", "memory/n3")
    assert refused.code is FaultCode.OVERLOADED
    assert "3 documents already" in refused.detail


def sent(mesh: StateMesh, name: str) -> Iterator[tuple[Lane, Message, int]]:
    for effect in mesh.effects(name, Send):
        message = decode(effect.message)
        if isinstance(message, StateMessage):
            yield effect.lane, message, len(effect.message)


def burst(mesh: StateMesh, name: str, writes: int, size: int) -> None:
    for number in range(writes):
        mesh.requests += 1
        change = Change(f"k{number}", b"%d" % number * (size // len(b"%d" % number)))
        mesh.give(name, StateWrite(mesh.requests, DOC, (change,), 0))
    assert all(answer.code is None for answer in mesh.effects(name, StateWritten))


def test_all_of_it_goes_behind_tokens_and_small() -> None:
    mesh = StateMesh()
    mesh.join("a")
    burst(mesh, "a", 40, 2_000)
    mesh.join("b", "a")
    mesh.pass_time(2_000)
    assert mesh.agree("a", "b")
    told = [*sent(mesh, "a"), *sent(mesh, "b")]
    assert {lane for lane, _, _ in told} == {Lane.BACKGROUND}
    answers = [(m, size) for _, m, size in told if isinstance(m, StateDeltas) and m.document]
    assert any(message.packed for message, _ in answers)
    assert sum(size for _, size in answers) < 40 * 2_000 / 4, "compressed"


def test_one_change_is_not_compressed() -> None:
    mesh = StateMesh()
    mesh.join("a")
    mesh.join("b", "a")
    mesh.pass_time(200)
    mesh.put("a", "k", b"v")
    mesh.pass_time(200)
    pushed = [m for _, m, _ in sent(mesh, "a") if isinstance(m, StateDeltas) and m.deltas]
    assert len(pushed) == 1
    assert mesh.value("b", "k") == b"v"


def test_who_would_be_pushed_too_much_is_told_and_asks_at_its_own_pace() -> None:
    mesh = StateMesh()
    mesh.join("a")
    mesh.join("b", "a")
    mesh.pass_time(200)
    most = state_limits.STATE_PUSH_BURST
    burst(mesh, "a", 40, state_limits.STATE_VALUE_BYTES)
    mesh.pass_time(300)
    core = mesh.boxes[NodeId("a")].core
    assert core.state._sync.pushes.pushed_bytes <= most + limits.MIB
    assert any(isinstance(m, StateHave) for _, m, _ in sent(mesh, "a"))
    mesh.pass_time(20_000)
    assert mesh.agree("a", "b")
    largest = max(size for _, _, size in sent(mesh, "a"))
    assert largest <= state_limits.STATE_SYNC_BYTES + state_limits.UPDATE_BYTES


def test_replays_are_counted_and_a_flood_of_them_is_held_against_their_sender() -> None:
    mesh = mesh_with_evil()
    replay = StateDeltas((signed(honest()),))
    send(mesh, replay)
    send(mesh, replay)
    view = mesh.boxes[NodeId("a")].core.status(mesh.now).state
    assert view is not None
    assert (view.taken, view.known) == (1, 1)
    assert not banned(mesh), "a message may come twice"
    for _ in range(int(limits.HOUSEKEEPING_BURST)):
        send(mesh, replay)
    assert "messages of housekeeping" in banned(mesh)
    assert mesh.value("a", "k") == b"v"


def test_a_flood_of_huge_vectors_is_held_against_its_sender(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "HOUSEKEEPING_BURST", 60)
    mesh = mesh_with_evil()
    parts = tuple(PartClock(NodeId(f"n{n}"), 1, 2**53) for n in range(state_limits.PARTS))
    message = encode(StateVector(DOC, parts, want=True))
    for _ in range(int(limits.HOUSEKEEPING_BURST) + 1):
        mesh.give("a", BytesReceived(NodeId("evil"), message))
    assert "messages of housekeeping" in banned(mesh)
    assert mesh.put("a", "still", b"works").code is None


def test_a_vector_of_more_parts_than_there_may_be_is_a_fault() -> None:
    mesh = mesh_with_evil()
    parts = tuple(PartClock(NodeId(f"n{n}"), 1, 1) for n in range(state_limits.PARTS))
    message = bytearray(encode(StateVector(DOC, parts)))
    place = message.index(state_limits.PARTS.to_bytes(2, "big"))
    message[place : place + 2] = (state_limits.PARTS + 1).to_bytes(2, "big")
    one = encode(StateVector(DOC, parts[:2]))
    assert len(one) < len(message)
    mesh.give("a", BytesReceived(NodeId("evil"), bytes(message)))
    assert banned(mesh)
