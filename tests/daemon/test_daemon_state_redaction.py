"""What is recorded of shared documents holds no key and no value, and replays all the same."""

from __future__ import annotations

from dataclasses import replace

from meshslm.chance import Chance
from meshslm.core.config import CoreConfig
from meshslm.core.events import BytesReceived, Event
from meshslm.core.node import NodeCore
from meshslm.core.state_config import StateConfig
from meshslm.daemon.recording import Step, event_json, event_of, kinds
from meshslm.daemon.redaction import without_texts
from meshslm.ids import Instant, NodeId
from meshslm.sim.replay import FUNCTIONS, as_compared
from meshslm.wire.codec import decode, encode
from meshslm.wire.histories import HistoryTold, PastTask
from meshslm.wire.state import StateSummary
from tests.core.state_mesh import StateMesh

SECRET = "attack at dawn"


def recorded() -> tuple[list[tuple[Event, Instant, str]], CoreConfig]:
    """Everything that happens to the second life of a node."""
    mesh = StateMesh()
    mesh.join("a")
    mesh.join("b", "a")
    mesh.pass_time(100)
    for number in range(100):
        mesh.put("a", f"{SECRET} {number % 7}", SECRET.encode() * 300)
    mesh.kill("a")
    steps: list[tuple[Event, Instant, str]] = []
    handle = NodeCore.handle

    def noting(core: NodeCore, event: Event, now: Instant) -> list[object]:
        effects = handle(core, event, now)
        if core._config.node == "a":
            steps.append((event, now, kinds(effects)))
        return list(effects)

    NodeCore.handle = noting  # type: ignore[method-assign,assignment]  # put back below
    try:
        mesh.join("a", "b")
        mesh.pass_time(100)
        mesh.put("a", f"{SECRET} 3", SECRET.encode())
        for number in range(20):
            mesh.put("b", f"{SECRET} b{number}", SECRET.encode() * 50)
        mesh.pass_time(60_000)
    finally:
        NodeCore.handle = handle  # type: ignore[method-assign]  # as it was
    return steps, mesh.boxes[NodeId("a")].core._config


def agreed(event: Event, did: str) -> bool:
    """A peer's sum over its documents was this node's own."""
    if not isinstance(event, BytesReceived) or did:
        return False
    return isinstance(decode(event.message), StateSummary)


def test_no_word_of_an_entry_is_recorded_and_a_replay_does_the_same() -> None:
    steps, config = recorded()
    state = StateConfig(FUNCTIONS["sign_as_node"], FUNCTIONS["signed_by"])
    core = NodeCore(replace(config, state=state), Chance.from_int(len("ab") * 100 - 98))
    assert sum(agreed(event, did) for event, _, did in steps) > 1
    for event, now, did in steps:
        kept = event_json(without_texts(event))
        assert b"attack" not in bytes(kept)
        step = Step(now=now, kind=type(event).__name__, event=kept, did=did)
        done = kinds(core.handle(as_compared(event_of(step), did, core), now))
        assert done == did, decode(event.message) if isinstance(event, BytesReceived) else event
    entries = core.documents.holdings.documents["memory/notes"]
    assert len(entries) == 27


def test_what_became_of_others_tasks_is_recorded_without_words() -> None:
    told = HistoryTold(7, (PastTask("t1", b'[{"reason":"attack at dawn is too long"}]'),))
    event = without_texts(BytesReceived(NodeId("b"), encode(told)))
    assert isinstance(event, BytesReceived)
    kept = decode(event.message)
    assert isinstance(kept, HistoryTold)
    assert (kept.number, kept.tasks[0].task, len(event.message)) == (7, "t1", len(encode(told)))
    assert b"attack" not in event.message
