"""Marks of conversations: the same everywhere, and bounded where they are announced."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits
from meshslm.core.events import EngineMeasured, RunEnded, StartRun, TaskArrived
from meshslm.core.prefix import PROMPT_CHARACTERS, digest, marks, warm_turns
from meshslm.ids import RunId, TaskId
from meshslm.wire.codec import encode
from meshslm.wire.messages import ChatMessage, EngineLoad, Presence, TaskRequest, Timings, Usage
from tests.core.mesh import Mesh, specialist

turns = st.lists(st.builds(ChatMessage, st.sampled_from(["user", "system"]), st.text()), max_size=6)


def request(*messages: ChatMessage) -> TaskRequest:
    return TaskRequest("coder", messages)


@given(turns, turns)
def test_a_longer_conversation_has_the_marks_of_the_shorter(
    begin: list[ChatMessage], more: list[ChatMessage]
) -> None:
    short, long = marks(request(*begin)), marks(request(*begin, *more))
    assert long[: len(short)] == short
    assert len(long) == len(begin) + len(more)
    if begin:
        assert warm_turns(request(*begin, *more), digest([short])) >= len(begin)


def test_what_is_rendered_otherwise_has_other_marks() -> None:
    plain = request(ChatMessage("user", "hello"))
    assert marks(plain) != marks(replace(plain, adapter="polite"))
    assert warm_turns(request(ChatMessage("user", "other")), digest([marks(plain)])) == 0
    prompt = TaskRequest("coder", prompt="x" * (2 * PROMPT_CHARACTERS + 5))
    assert len(marks(prompt)) == 2


@given(st.lists(st.lists(st.binary(min_size=4, max_size=4)).map(tuple), max_size=40))
def test_a_digest_is_bounded(warm: list[tuple[bytes, ...]]) -> None:
    assert len(digest(warm)) <= limits.PREFIX_DIGEST_BYTES


def test_a_node_announces_what_is_warm_and_stays_small(mesh: Mesh) -> None:
    mesh.add("b", specialist("coder", "code"))
    mesh.add("a", bootstrap=("b",))
    mesh.pass_time(1500)
    asked = request(ChatMessage("system", "be brief"), ChatMessage("user", "hello"))
    mesh.give("b", TaskArrived(TaskId("t"), asked))
    (run,) = mesh.effects("b", StartRun)
    mesh.give("b", RunEnded(run.run, Usage(1, 1), Timings()))
    mesh.give("b", EngineMeasured("tiny", 100.0, 10.0, (run.run, RunId(99))))
    mesh.pass_time(3000)
    heard = [m for m in mesh.seen["b", "a"] if isinstance(m, Presence)]
    assert warm_turns(asked, heard[-1].loads[0].prefixes) == 2
    full = EngineLoad("m" * 24, True, 8, 64, 8, 1e3, 1e2, bytes(limits.PREFIX_DIGEST_BYTES))
    assert len(encode(replace(heard[-1], loads=(full, full, full)))) < 400
