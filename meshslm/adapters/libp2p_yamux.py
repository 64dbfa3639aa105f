"""Yamux, the multiplexer of libp2p, as a machine without I/O: bytes in, events and bytes out.

Why not the library's: it lets a peer fill memory beyond its window, polls a closed window every ten
milliseconds, kills a stream after five seconds without credit, cannot close while a write blocks,
and sends an update for every read. Those are its structure, not switches. The protocol itself is a
12-byte header and four types of frame.

Source: the Yamux specification, version 0, and libp2p's note on it.

Rules:
- Everything a peer can make us keep is bounded; what breaks a bound or the protocol is `PeerFault`.
- The caller sends what `take` gives, in that order, and says what it has consumed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from meshslm import limits
from meshslm.errors import PeerFault

_HEADER = struct.Struct("!BBHII")
_DATA, _WINDOW, _PING, _GO_AWAY = range(4)
_SYN, _ACK, _FIN, _RST = 1, 2, 4, 8
_LONGEST_ID = 2**32 - 1

INITIAL_WINDOW = 256 * limits.KIB
"""Fixed by the specification."""

RECEIVE_WINDOW = limits.MIB
"""Bytes that a peer may send ahead of what was read: 100 MB/s at a round trip of 10 ms."""

UNSENT_CONTROL = 64 * limits.KIB
"""Answers (to pings, to new streams) waiting because the peer does not read: 5,000 of them."""


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The peer opened a stream."""

    stream: int


@dataclass(frozen=True, slots=True)
class StreamData:
    """Bytes of a stream, in order."""

    stream: int
    data: bytes


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The peer sends no more on a stream; after a `reset` it takes nothing any more either."""

    stream: int
    reset: bool


@dataclass(frozen=True, slots=True)
class WindowOpened:
    """More may be sent on a stream."""

    stream: int


@dataclass(frozen=True, slots=True)
class PongReceived:
    """The answer to a ping."""

    nonce: int


@dataclass(frozen=True, slots=True)
class GoneAway:
    """The peer is about to close the connection."""

    code: int


YamuxEvent = StreamOpened | StreamData | StreamEnded | WindowOpened | PongReceived | GoneAway


@dataclass(slots=True)
class _Stream:
    send_window: int = INITIAL_WINDOW
    receive_window: int = INITIAL_WINDOW
    """What the peer may still send."""
    consumed: int = 0
    """Read here, and not yet given back to the peer as window."""
    ended_here: bool = False
    ended_there: bool = False


class YamuxSession:
    """One connection's streams. The dialling side's have odd numbers."""

    def __init__(self, *, dialled: bool, most_streams: int) -> None:
        self._next_id = 1 if dialled else 2
        self._peer_parity = 0 if dialled else 1
        self._newest_peer_id = 0
        self._most_streams = most_streams
        self._streams: dict[int, _Stream] = {}
        self._out = bytearray()
        self._control_bytes = 0
        self._header = bytearray()
        self._body_stream = 0
        self._body_left = 0
        self._body_flags = 0

    # --- sending ---------------------------------------------------------------------------------
    def open(self) -> int:
        """Begin a stream; returns its number."""
        stream_id = self._next_id
        self._next_id += 2
        self._streams[stream_id] = _Stream(receive_window=RECEIVE_WINDOW)
        self._put(_WINDOW, _SYN, stream_id, RECEIVE_WINDOW - INITIAL_WINDOW)
        return stream_id

    def window(self, stream_id: int) -> int:
        """Bytes that may be sent on a stream now; 0 once it ended here."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None or stream.ended_here else stream.send_window

    def send(self, stream_id: int, data: bytes) -> None:
        """Send `data`, at most `window` bytes of it."""
        stream = self._streams[stream_id]
        if len(data) > stream.send_window or stream.ended_here:
            raise ValueError("more than the window allows")
        stream.send_window -= len(data)
        self._out += _HEADER.pack(0, _DATA, 0, stream_id, len(data))
        self._out += data

    def consume(self, stream_id: int, count: int) -> bool:
        """Say that `count` received bytes were read. True where the peer gets new window."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.ended_there:
            return False
        stream.consumed += count
        if stream.consumed < RECEIVE_WINDOW // 2:
            return False
        self._put(_WINDOW, 0, stream_id, stream.consumed)
        stream.receive_window += stream.consumed
        stream.consumed = 0
        return True

    def end(self, stream_id: int) -> None:
        """Send nothing more on a stream."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.ended_here:
            stream.ended_here = True
            self._put(_WINDOW, _FIN, stream_id, 0)
            if stream.ended_there:
                del self._streams[stream_id]

    def reset(self, stream_id: int) -> None:
        """Drop a stream in both directions."""
        if self._streams.pop(stream_id, None) is not None:
            self._put(_WINDOW, _RST, stream_id, 0)

    def ping(self, nonce: int) -> None:
        """Ask for a `PongReceived` with the same number."""
        self._put(_PING, _SYN, 0, nonce)

    def go_away(self) -> None:
        """Announce that the connection closes, for no bad reason."""
        self._put(_GO_AWAY, 0, 0, 0)

    @property
    def unsent(self) -> bool:
        """Whether `take` has something to give."""
        return bool(self._out)

    def take(self) -> bytes:
        """The bytes to send next; empty where there are none."""
        data = bytes(self._out)
        self._out.clear()
        self._control_bytes = 0
        return data

    def _put(self, kind: int, flags: int, stream_id: int, length: int) -> None:
        self._out += _HEADER.pack(0, kind, flags, stream_id, length)
        self._control_bytes += _HEADER.size
        if self._control_bytes > UNSENT_CONTROL:
            raise PeerFault("it asks for more answers than it reads")

    # --- receiving -------------------------------------------------------------------------------
    def receive(self, data: bytes) -> list[YamuxEvent]:
        """What `data` brings. Raises `PeerFault` for what breaks the protocol."""
        events: list[YamuxEvent] = []
        at, end = 0, len(data)
        while at < end:
            if self._body_left:
                piece = data[at : at + self._body_left]
                at += len(piece)
                self._body_left -= len(piece)
                if self._body_stream in self._streams:
                    events.append(StreamData(self._body_stream, piece))
                if not self._body_left:
                    self._closing_flags(self._body_stream, self._body_flags, events)
            elif self._header or end - at < _HEADER.size:
                missing = _HEADER.size - len(self._header)
                self._header += data[at : at + missing]
                at += missing
                if len(self._header) == _HEADER.size:
                    header = bytes(self._header)
                    self._header.clear()
                    self._frame(_HEADER.unpack(header), events)
            else:
                fields = _HEADER.unpack_from(data, at)
                at += _HEADER.size
                self._frame(fields, events)
        return events

    def _frame(self, fields: tuple[int, ...], events: list[YamuxEvent]) -> None:
        version, kind, flags, stream_id, length = fields
        if version != 0 or kind > _GO_AWAY:
            raise PeerFault(f"a multiplexer frame of version {version} and type {kind}")
        if kind == _PING:
            if flags & _SYN:
                self._put(_PING, _ACK, 0, length)
            elif flags & _ACK:
                events.append(PongReceived(length))
        elif kind == _GO_AWAY:
            events.append(GoneAway(length))
        else:
            if flags & _SYN:
                self._opened(stream_id, events)
            self._check_known(stream_id)
            if kind == _DATA:
                self._body(stream_id, flags, length, events)
            else:
                self._widen(stream_id, length, events)
                self._closing_flags(stream_id, flags, events)

    def _opened(self, stream_id: int, events: list[YamuxEvent]) -> None:
        if stream_id % 2 != self._peer_parity or stream_id <= self._newest_peer_id:
            raise PeerFault(f"it opened a stream with the number {stream_id}, which is not its own")
        if len(self._streams) >= self._most_streams:
            raise PeerFault(f"it opened more than {self._most_streams} streams at a time")
        self._newest_peer_id = stream_id
        self._streams[stream_id] = _Stream(receive_window=RECEIVE_WINDOW)
        self._put(_WINDOW, _ACK, stream_id, RECEIVE_WINDOW - INITIAL_WINDOW)
        events.append(StreamOpened(stream_id))

    def _check_known(self, stream_id: int) -> None:
        """A frame for a stream that is over is late; for one that never was, it is a fault."""
        newest = self._newest_peer_id if stream_id % 2 == self._peer_parity else self._next_id - 2
        if not 0 < stream_id <= newest:
            raise PeerFault(f"a frame for stream {stream_id}, which was never opened")

    def _body(self, stream_id: int, flags: int, length: int, events: list[YamuxEvent]) -> None:
        stream = self._streams.get(stream_id)
        allowed = RECEIVE_WINDOW if stream is None else stream.receive_window
        if length > allowed or (length and stream is not None and stream.ended_there):
            raise PeerFault(f"it sent {length} bytes where {allowed} were allowed")
        if stream is not None:
            stream.receive_window -= length
        self._body_stream, self._body_left, self._body_flags = stream_id, length, flags
        if not length:
            self._closing_flags(stream_id, flags, events)

    def _widen(self, stream_id: int, length: int, events: list[YamuxEvent]) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None and length:
            stream.send_window = min(stream.send_window + length, _LONGEST_ID)
            events.append(WindowOpened(stream_id))

    def _closing_flags(self, stream_id: int, flags: int, events: list[YamuxEvent]) -> None:
        stream = self._streams.get(stream_id)
        if stream is None or not flags & (_FIN | _RST):
            return
        if flags & _RST:
            del self._streams[stream_id]
            events.append(StreamEnded(stream_id, reset=True))
        elif not stream.ended_there:
            stream.ended_there = True
            events.append(StreamEnded(stream_id, reset=False))
            if stream.ended_here:
                del self._streams[stream_id]
