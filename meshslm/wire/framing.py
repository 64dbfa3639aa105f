"""Cuts messages into frames for one stream of bytes, so that urgent ones overtake long ones.

A frame is a header of four bytes and a payload. The header is one big-endian number:

    bits 31-27  zero, for later versions
    bit  26     set in the last frame of its message
    bits 25-24  lane
    bits 23-0   bytes of payload, from 1

The frames of a message follow each other within its lane; frames of other lanes may come between.
A frame that is not the last of its message carries at least `FRAGMENT_LEAST` bytes, so that nobody
can make a reader keep millions of crumbs.

Rules:
- Pure: no stream, no clock. Whoever owns the stream writes what `pop` gives, feeds what it reads.
- Lower lanes first, frame by frame. The last lane is still given one byte in `BACKGROUND_SHARE`,
  counted in bytes, because a count of frames would give large frames nearly everything.
- A reader keeps at most one unfinished message in each lane and one unfinished frame.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from struct import Struct
from typing import Final

from meshslm import limits
from meshslm.errors import PeerFault

LANES: Final = 3
BACKGROUND: Final = LANES - 1
BACKGROUND_SHARE: Final = 16

HEADER_BYTES: Final = 4
PAYLOAD_MOST: Final = limits.FRAME_BYTES - HEADER_BYTES
FRAGMENT_LEAST: Final = 1024
_LAST: Final = 1 << 26
_LANE_SHIFT: Final = 24
_LENGTH_MASK: Final = (1 << _LANE_SHIFT) - 1
_HEADER: Final = Struct(">I")
_WHOLE: Final = frozenset(_LAST >> _LANE_SHIFT | lane for lane in range(BACKGROUND))
"""Upper byte of the header of an urgent message that is one frame."""


class LaneOverflow(Exception):
    """A peer reads too slowly: more waits in one lane than it may hold. The link should be cut."""

    def __init__(self, lane: int, queued: int) -> None:
        super().__init__(f"{queued} bytes wait in lane {lane}, at most {limits.LANE_QUEUE_BYTES}")
        self.lane = lane
        self.queued = queued


class _Lane:
    """Messages that wait, and how much of the first has gone."""

    __slots__ = ("messages", "queued", "sent_of_first")

    def __init__(self) -> None:
        self.messages: deque[bytes] = deque()
        self.sent_of_first = 0
        self.queued = 0

    def next_payload(self) -> int:
        """Bytes of payload of the next frame; 0 where nothing waits."""
        if not self.messages:
            return 0
        return min(len(self.messages[0]) - self.sent_of_first, PAYLOAD_MOST)


class FrameWriter:
    """Queues messages by lane and gives the frames to write next."""

    __slots__ = ("_credit", "_lanes")

    def __init__(self) -> None:
        self._lanes = tuple(_Lane() for _ in range(LANES))
        self._credit = 0
        """Bytes the background lane may send ahead of the others, times `BACKGROUND_SHARE - 1`."""

    def push(self, lane: int, message: bytes) -> None:
        """Queue a whole message. `LaneOverflow`, and nothing queued, where the lane is full."""
        if not 1 <= len(message) <= limits.MESSAGE_BYTES:
            raise ValueError(f"a message of {len(message)} bytes cannot be framed")
        queue = self._lanes[lane]
        queued = queue.queued + len(message)
        if queued > limits.LANE_QUEUE_BYTES:
            raise LaneOverflow(lane, queued)
        queue.messages.append(message)
        queue.queued = queued

    def queued_bytes(self, lane: int) -> int:
        """Bytes of messages in `lane` that `pop` has not given out."""
        return self._lanes[lane].queued

    def withdraw(self, lane: int) -> list[bytes]:
        """Take back the messages of a lane of which nothing has been given out."""
        queue = self._lanes[lane]
        begun = [queue.messages.popleft()] if queue.sent_of_first else []
        messages = list(queue.messages)
        queue.messages = deque(begun)
        queue.queued -= sum(map(len, messages))
        return messages

    def restore(self, lane: int, messages: Iterable[bytes]) -> None:
        """Queue what a bound held once already: it is kept, however much waits."""
        queue = self._lanes[lane]
        for message in messages:
            queue.messages.append(message)
            queue.queued += len(message)

    def pop(self, budget: int) -> bytes:
        """The next frames, joined: together at most `budget` bytes, or one frame if it is larger.

        Empty where nothing waits. The order is decided now, so a small budget keeps what is
        pushed later close to the front.
        """
        parts: list[bytes | memoryview] = []
        room = budget
        while True:
            lane, payload = self._choose()
            if not payload or (parts and payload + HEADER_BYTES > room):
                return b"".join(parts)
            self._take(lane, payload, parts)
            room -= payload + HEADER_BYTES

    def _choose(self) -> tuple[int, int]:
        """Lane of the next frame and its payload; a payload of 0 where nothing waits."""
        waiting = self._lanes[BACKGROUND].next_payload()
        if waiting and self._credit >= waiting * (BACKGROUND_SHARE - 1):
            return BACKGROUND, waiting
        for lane in range(BACKGROUND):
            payload = self._lanes[lane].next_payload()
            if payload:
                return lane, payload
        return BACKGROUND, waiting

    def _take(self, lane: int, payload: int, parts: list[bytes | memoryview]) -> None:
        queue = self._lanes[lane]
        message, start = queue.messages[0], queue.sent_of_first
        end = start + payload
        last = end == len(message)
        parts.append(_HEADER.pack(payload | lane << _LANE_SHIFT | (_LAST if last else 0)))
        parts.append(message if payload == len(message) else memoryview(message)[start:end])
        queue.queued -= payload
        queue.sent_of_first = 0 if last else end
        if last:
            queue.messages.popleft()
        if lane == BACKGROUND:
            self._credit = max(0, self._credit - payload * (BACKGROUND_SHARE - 1))
        elif self._lanes[BACKGROUND].messages:
            self._credit += payload


class FrameReader:
    """Takes a stream apart again, however it was cut on its way."""

    __slots__ = ("_buffer", "_lanes", "_sizes")

    def __init__(self) -> None:
        self._buffer = bytearray()
        """The beginning of one frame whose rest has not come; else empty."""
        self._lanes: tuple[list[bytes], ...] = tuple([] for _ in range(LANES))
        self._sizes = [0] * LANES

    @property
    def partial_bytes(self) -> int:
        """Bytes of unfinished frames and messages. A peer that leaves some for long has stalled."""
        return len(self._buffer) + sum(self._sizes)

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """(lane, message) for each message that `data` completes, in the order of their ends.

        `PeerFault` for a frame that no writer makes; the stream is then of no more use.
        """
        if not self._buffer:
            with memoryview(data) as view:
                messages, used = self._split(view)
                self._buffer += view[used:]
            return messages
        self._buffer += data
        with memoryview(self._buffer) as view:
            messages, used = self._split(view)
        del self._buffer[:used]
        return messages

    def feed_whole(self, data: bytes, most: int) -> list[bytes] | None:
        """As `feed` of `data` that is nothing but urgent messages: whole, of one frame, few.

        None, and nothing is taken in, where it is anything else, or more than `most`.
        """
        if self.partial_bytes:
            return None
        messages = []
        at, end = 0, len(data)
        while end - at > HEADER_BYTES:
            (header,) = _HEADER.unpack_from(data, at)
            start = at + HEADER_BYTES
            at = start + (header & _LENGTH_MASK)
            fits = start < at <= min(end, start + PAYLOAD_MOST)
            if header >> _LANE_SHIFT not in _WHOLE or not fits:
                return None
            messages.append(data[start:at])
        return messages if at == end and len(messages) <= most else None

    def _split(self, view: memoryview) -> tuple[list[tuple[int, bytes]], int]:
        """The messages completed by the whole frames in `view`, and the bytes those take."""
        messages: list[tuple[int, bytes]] = []
        at, end = 0, len(view)
        while end - at >= HEADER_BYTES:
            (header,) = _HEADER.unpack_from(view, at)
            length = header & _LENGTH_MASK
            lane = header >> _LANE_SHIFT & 3
            self._check(header, lane, length)
            stop = at + HEADER_BYTES + length
            if stop > end:
                break
            payload = bytes(view[at + HEADER_BYTES : stop])
            at = stop
            earlier = self._lanes[lane]
            if not header & _LAST:
                earlier.append(payload)
                self._sizes[lane] += length
            elif earlier:
                earlier.append(payload)
                messages.append((lane, b"".join(earlier)))
                earlier.clear()
                self._sizes[lane] = 0
            else:
                messages.append((lane, payload))
        return messages, at

    def _check(self, header: int, lane: int, length: int) -> None:
        """Refuse a frame by its header, before its payload is waited for."""
        if header >> _LANE_SHIFT + 3:
            raise PeerFault(f"frame header {header:#010x} is of no version known here")
        if lane >= LANES:
            raise PeerFault(f"frame in lane {lane}, the highest is {LANES - 1}")
        least = 1 if header & _LAST else FRAGMENT_LEAST
        if not least <= length <= PAYLOAD_MOST:
            raise PeerFault(f"frame of {length} bytes, must be from {least} to {PAYLOAD_MOST}")
        size = self._sizes[lane] + length
        if size > limits.MESSAGE_BYTES:
            raise PeerFault(f"message of over {limits.MESSAGE_BYTES} bytes in lane {lane}")
