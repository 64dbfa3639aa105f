"""What a daemon records replays in a fresh core, without a word of what people wrote."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits
from meshslm.adapters.memory_link import MemoryNetwork
from meshslm.adapters.signing import verify
from meshslm.chance import Chance
from meshslm.core.certificates import Credentials
from meshslm.core.config import CoreConfig
from meshslm.core.events import (
    BytesReceived,
    Dial,
    Event,
    RunFailed,
    RunProduced,
    Started,
    TaskArrived,
    Tell,
)
from meshslm.core.reading_events import RequestShown
from meshslm.daemon.pump import Pump
from meshslm.daemon.recorder import Recorder
from meshslm.daemon.recording import event_json, event_of, kinds, read_recording
from meshslm.daemon.redaction import without_texts
from meshslm.errors import FaultCode, OurFault, PeerFault
from meshslm.ids import Instant, NodeId, RunId, TaskId
from meshslm.sim.replay import replay
from meshslm.wire.admission import Credential, Signed
from meshslm.wire.codec import UnknownKind, decode, encode
from meshslm.wire.messages import (
    ChatMessage,
    Chunk,
    Goodbye,
    TaskChunk,
    TaskFailed,
    TaskRequest,
    TaskSubmit,
)
from tests.daemon.test_daemon_mesh import Node, TalkingEngine, until

SECRET = "Où est mon 🔑, bitte? 秘密"
CONFIG = CoreConfig(NodeId("a"), "a")


def recorder(most_bytes: int = limits.MIB, *, texts: bool = False) -> Recorder:
    return Recorder(CONFIG, b"seed", most_bytes=most_bytes, texts=texts)


class RecordedNode(Node):
    """A node of the mesh in one process, with a recorder between its events and its core."""

    def record(self, *, texts: bool = False) -> None:
        seed = self.core._config.name.encode()
        self.recorder = Recorder(self.core._config, seed, most_bytes=8 * limits.MIB, texts=texts)
        self.pump._recorder = self.recorder


@asynccontextmanager
async def recorded_pair(*, texts: bool) -> AsyncIterator[tuple[RecordedNode, RecordedNode]]:
    network = MemoryNetwork()
    b = RecordedNode(network, "b", engine=TalkingEngine())
    a = RecordedNode(network, "a", "b", engine=None)
    for node in (a, b):
        node.record(texts=texts)
    async with b.up(), a.up():
        await until(lambda: any(p.specialists for p in a.service.peers()))
        yield a, b


async def talk(a: RecordedNode) -> None:
    """Some tasks: one by name, one left to the mesh, and one that its client gives up."""
    for selector in ("coder", "auto", "auto"):
        request = TaskRequest(selector, (ChatMessage("user", SECRET),))
        async with a.service.submit(request) as stream:
            _ = [item async for item in stream]
    async with a.service.submit(TaskRequest("coder", (ChatMessage("user", SECRET),))):
        pass


@pytest.mark.parametrize("texts", [False, True])
async def test_a_real_node_is_replayed_with_the_same_effects(texts: bool) -> None:
    async with recorded_pair(texts=texts) as (a, b):
        await talk(a)
        for node in (a, b):
            data = node.recorder.dump("a test")
            result = replay(data)
            assert result.ok, result.parting
            assert result.events > 60
            assert result.effects > 60
            assert (result.missing, result.after_gap, result.crash) == (0, 0, "")
            plain = gzip.decompress(data).decode()
            assert (SECRET in plain) == (texts and node is a)
            if not texts:
                assert "word7" not in plain
                for message in received(data):
                    assert SECRET.encode() not in message
                    assert b"word7" not in message


def received(data: bytes) -> list[bytes]:
    _, steps = read_recording(data)
    events = [event_of(step) for step in steps]
    return [event.message for event in events if isinstance(event, BytesReceived)]


async def test_another_core_is_told_where_it_parts() -> None:
    class Deaf:
        def __init__(self, config: CoreConfig, chance: Chance) -> None:
            pass

        def handle(self, event: Event, now: Instant) -> list[Any]:
            return []

        def check(self) -> None: ...

        def peers(self, now: Instant) -> tuple[()]:
            return ()

        def status(self, now: Instant) -> Any: ...

    async with recorded_pair(texts=False) as (a, _):
        data = a.recorder.dump("a test")
    result = replay(data, make_core=Deaf)
    assert result.parting is not None
    assert (result.parting.number, result.parting.replayed) == (1, "")
    assert "Dial" in result.parting.recorded


def test_other_contents_are_noticed_where_texts_are_kept() -> None:
    record = recorder(texts=True)
    record.note(Started(1, ()), Instant(5), [Tell("one")])

    class Teller(Babbler):
        said = "other"

    assert replay(record.dump(""), make_core=Teller).parting is not None
    Teller.said = "one"
    assert replay(record.dump(""), make_core=Teller).ok


class Babbler:
    """Says one thing about everything, and raises when told to end."""

    said = "one"

    def __init__(self, config: CoreConfig, chance: Chance) -> None:
        self.config = config

    def handle(self, event: Event, now: Instant) -> list[Any]:
        if isinstance(event, RunFailed):
            raise ValueError("told to end")
        return [Tell(self.said)]

    def check(self) -> None: ...

    def peers(self, now: Instant) -> tuple[()]:
        return ()

    def status(self, now: Instant) -> Any: ...


def test_a_crash_is_recorded_and_happens_again() -> None:
    record = recorder()
    core: Any = Babbler(CONFIG, Chance(b"seed"))

    class Clock:
        def now(self) -> Instant:
            return Instant(7)

    pump = Pump(core, Clock(), record)
    pump.attach(lambda _: None)
    pump.handle(Started(1, ()))
    with pytest.raises(ValueError, match="told to end"):
        pump.handle(RunFailed(RunId(1), FaultCode.NOT_READY, SECRET))
    data = record.dump("crash")
    result = replay(data, make_core=Babbler)
    assert result.ok
    assert (result.events, result.crash) == (2, "ValueError: told to end")
    assert not replay(data).ok  # production's core does not raise there


def test_what_waits_to_be_written_down_is_little() -> None:
    record = recorder(limits.MIB)
    large = BytesReceived(NodeId("peer"), bytes(limits.MESSAGE_BYTES))
    small = BytesReceived(NodeId("peer"), b"small")
    for number in range(200):
        record.note(large if number % 50 == 7 else small, Instant(number), [])
        assert len(record._noted) <= 64
        assert record._noted_bytes <= limits.RECORDING_SEGMENT_BYTES
    record.note(Started(1, ()), Instant(200), [])
    assert not record._noted, "what may be large is written down at once"
    times = [step.now for step in read_recording(record.dump("test"))[1]]
    assert times == sorted(times)
    assert times[-1] == 200


def test_the_room_is_bounded_and_the_start_is_kept() -> None:
    room = 64 * 1024
    record = recorder(room)
    total = 40_000
    chance = Chance.from_int(1)
    for number in range(total):
        noise = bytes(chance.below(256) for _ in range(20))
        record.note(
            BytesReceived(NodeId("b"), encode(Goodbye(str(number))) + noise), Instant(number), []
        )
    data = record.dump("full")
    assert len(data) < 4 * room
    start, read = read_recording(data)
    steps = list(read)
    assert start.missing > 0
    assert start.missing + len(steps) == total
    assert [step.now for step in steps[: start.whole]] == list(range(start.whole))
    assert steps[-1].now == total - 1
    assert steps[start.whole].now == start.whole + start.missing

    class Mute(Babbler):
        def handle(self, event: Event, now: Instant) -> list[Any]:
            return []

    result = replay(data, make_core=Mute)
    assert result.ok
    assert (result.events, result.missing) == (start.whole, start.missing)
    assert result.after_gap == len(steps) - start.whole


# --- files --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not gzip",
        gzip.compress(b""),
        gzip.compress(b"[]\n"),
        gzip.compress(b"{}\n"),
        gzip.compress(b"\xff\xfe\n"),
        gzip.compress(b'{"x":' + b"[" * 100_000 + b"\n"),
        gzip.compress(b'{"format":1}\n')[:-9],
    ],
)
def test_what_is_no_recording_is_told(data: bytes) -> None:
    with pytest.raises(OurFault, match=r"it\.gz"):
        replay(data, "it.gz")


def test_a_later_format_and_an_unknown_event_are_told() -> None:
    data = recorder().dump("")
    later = gzip.decompress(data).replace(b'"format":1', b'"format":9')
    with pytest.raises(OurFault, match="format 9"):
        replay(gzip.compress(later))
    stranger = gzip.decompress(data).replace(b'"whole":0', b'"whole":1')
    stranger += b'{"now":1,"kind":"Eclipse","event":{},"did":""}\n'
    with pytest.raises(OurFault, match="Eclipse"):
        replay(gzip.compress(stranger))
    damaged = stranger.replace(b"Eclipse", b"BytesReceived")
    with pytest.raises(OurFault, match="damaged"):
        replay(gzip.compress(damaged))


def test_a_line_without_end_is_refused() -> None:
    data = gzip.compress(b"x" * (limits.RECORDING_LINE_BYTES + 1))
    with pytest.raises(OurFault, match="a line of more"):
        replay(data)


def test_a_member_of_a_private_mesh_is_made_again() -> None:
    signed = Signed(b"certificate", b"signature")
    credentials = Credentials(b"mesh", Credential(signed), verify)
    config = CoreConfig(NodeId("a"), "a", credentials=credentials)
    data = Recorder(config, b"seed", most_bytes=limits.MIB, texts=False).dump("")
    made: list[CoreConfig] = []

    class Member(Babbler):
        def __init__(self, config: CoreConfig, chance: Chance) -> None:
            made.append(config)

    assert replay(data, make_core=Member).ok
    assert made == [config]
    stranger = gzip.decompress(data).replace(b'"verify":"verify"', b'"verify":"open"')
    with pytest.raises(OurFault, match="open"):
        replay(gzip.compress(stranger))


def test_kinds_are_told_in_short() -> None:
    assert kinds([]) == ""
    assert kinds([Dial("x"), Dial("y"), Tell("z"), Dial("x")]) == "Dial*2 Tell Dial"


# --- without texts ------------------------------------------------------------------------------
CHUNK = Chunk(0, (5, 300, 70_000), SECRET, finish="stop", reasoning=SECRET)
REQUEST = TaskRequest(
    "auto",
    (ChatMessage("user", SECRET, reasoning=SECRET),),
    prompt=SECRET,
    stop=(SECRET,),
    given=(7, 9),
    delivered=b"\1\2\3\4",
    tenant=SECRET,
)


@pytest.mark.parametrize(
    "event",
    [
        TaskArrived(TaskId("t"), REQUEST),
        RequestShown(1, REQUEST),
        RunProduced(RunId(1), CHUNK),
        RunFailed(RunId(1), FaultCode.NOT_READY, SECRET),
        BytesReceived(NodeId("b"), encode(TaskSubmit(TaskId("t"), 1, "p", REQUEST, 9))),
        BytesReceived(NodeId("b"), encode(TaskChunk(TaskId("t"), 1, 0, CHUNK))),
        BytesReceived(NodeId("b"), encode(TaskFailed(TaskId("t"), 1, 0, "busy", SECRET))),
        BytesReceived(NodeId("b"), SECRET.encode()),
        BytesReceived(NodeId("b"), b"\x92\x7f\x81\x01" + SECRET.encode()),
    ],
    ids=lambda event: type(event).__name__,
)
def test_no_text_is_left_and_lengths_stay(event: Event) -> None:
    bare = without_texts(event)
    told = repr(bare).encode() + getattr(bare, "message", b"")
    for word in ("Où", "mon", "🔑", "bitte", "秘密"):
        assert word.encode() not in told
    assert "70000" not in repr(bare)
    if isinstance(event, BytesReceived) and isinstance(bare, BytesReceived):
        assert len(bare.message) == len(event.message)
    again = msgspec.json.decode(event_json(bare), type=type(bare))
    assert again == bare


def test_what_is_needed_stays() -> None:
    bare = without_texts(TaskArrived(TaskId("t"), REQUEST))
    assert isinstance(bare, TaskArrived)
    assert (bare.request.selector, bare.request.messages[0].role) == ("auto", "user")
    assert len(bare.request.prompt) == len(SECRET)
    assert len(bare.request.prompt.encode()) == len(SECRET.encode())
    bye = BytesReceived(NodeId("b"), encode(Goodbye("leaving")))
    assert without_texts(bye) == bye


@given(st.binary(max_size=200))
def test_what_cannot_be_read_cannot_be_read_afterwards_either(message: bytes) -> None:
    event = without_texts(BytesReceived(NodeId("b"), message))
    assert isinstance(event, BytesReceived)
    assert type(outcome(event.message)) is type(outcome(message))


def outcome(message: bytes) -> object:
    try:
        return decode(message)
    except UnknownKind as unknown:
        return unknown
    except PeerFault as fault:
        return fault
