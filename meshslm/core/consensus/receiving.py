"""A snapshot on its way here, part by part."""

from __future__ import annotations

from meshslm.errors import PeerFault
from meshslm.wire.consensus import SnapshotPart


class Receiving:
    """What has come of one snapshot; one of another entry or term begins anew."""

    def __init__(self) -> None:
        self._of = (0, 0)
        self.data = bytearray()

    def take(self, part: SnapshotPart) -> int:
        """Keep a part if it is the next one; how many bytes are here. Raises `PeerFault`."""
        if self._of != (part.index, part.last_term):
            self._of, self.data = (part.index, part.last_term), bytearray()
        if part.offset == len(self.data):
            if not part.data or len(self.data) + len(part.data) > part.total:
                raise PeerFault("a part of a snapshot that does not fit")
            self.data += part.data
        return len(self.data)
