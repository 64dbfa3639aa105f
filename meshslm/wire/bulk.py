"""The account of background messages while they go over a connection of their own.

Such a connection may break while the link itself stands, and then nothing may be lost, doubled or
out of order. So both sides count the background messages of a link, each direction by itself, from
its beginning. The receiver tells how many it has, and the sender keeps those that it does not know
to be there: whichever way the next message takes, both know which one it is.

Rules:
- Pure: no stream, no clock.
- What is kept is bounded: where much is under way and not known to be there, the rest waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Final

from meshslm import limits
from meshslm.errors import PeerFault
from meshslm.wire.framing import BACKGROUND, LaneOverflow

BULK_ID: Final = "/meshslm/bulk/1.0.0"
"""Of the streams by which two peers agree on such a connection, and of the one on it."""

TICKET_BYTES: Final = 16
"""Of the secret that says which link a further connection belongs to."""

_COUNT: Final = Struct(">Q")
COUNT_BYTES: Final = _COUNT.size


def encode_count(count: int) -> bytes:
    """A number of messages."""
    return _COUNT.pack(count)


def decode_count(data: bytes) -> int:
    """A number of messages; `PeerFault` for anything else."""
    if len(data) != COUNT_BYTES:
        raise PeerFault(f"a count of {len(data)} bytes, must have {COUNT_BYTES}")
    (count,) = _COUNT.unpack(data)
    return int(count)


class Outgoing:
    """Background messages of one direction, numbered from the beginning of the link."""

    def __init__(self, first: int, waiting: Iterable[bytes]) -> None:
        self.first = first
        """Number of the first message that is kept here; all before are with the peer, or will
        be by another way."""
        self._sent: deque[bytes] = deque()
        self._sent_bytes = 0
        self._waiting = deque(waiting)
        self._waiting_bytes = sum(map(len, self._waiting))

    def __len__(self) -> int:
        """Messages that are kept."""
        return len(self._sent) + len(self._waiting)

    def push(self, message: bytes) -> None:
        """Keep a message until its turn. `LaneOverflow`, and nothing kept, where too much waits."""
        waiting = self._waiting_bytes + len(message)
        if waiting > limits.LANE_QUEUE_BYTES:
            raise LaneOverflow(BACKGROUND, waiting)
        self._waiting.append(message)
        self._waiting_bytes = waiting

    def due(self) -> Iterator[bytes]:
        """Messages to send now; until more is known to be there, those are all."""
        while self._waiting and self._sent_bytes < limits.BULK_UNKNOWN_BYTES:
            message = self._waiting.popleft()
            self._waiting_bytes -= len(message)
            self._sent.append(message)
            self._sent_bytes += len(message)
            yield message

    def told(self, count: int) -> None:
        """The peer has all messages before this number. `PeerFault` where they were not sent."""
        if count > self.first + len(self._sent):
            raise PeerFault(f"it has {count} messages, of {self.first + len(self._sent)} sent")
        while self.first < count:
            self._sent_bytes -= len(self._sent.popleft())
            self.first += 1

    def rest(self) -> list[bytes]:
        """All that the peer is not known to have, from `first` on."""
        return [*self._sent, *self._waiting]
