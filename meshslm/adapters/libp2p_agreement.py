"""The library's view of a stream that a peer has opened and that no protocol is agreed for yet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from meshslm.adapters import libp2p_library as library
from meshslm.adapters.libp2p_stream import MuxedStream
from meshslm.wire.versions import PROTOCOL_ID


class Agreement:
    """Negotiates, and asks before it agrees to our protocol."""

    def __init__(
        self,
        stream: MuxedStream,
        agree: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]],
    ) -> None:
        self._communicator = library.MultiselectCommunicator(stream)
        self._agree = agree

    async def read(self) -> str:
        """What the peer proposes."""
        text: str = await self._communicator.read()
        return text

    async def write(self, text: str) -> None:
        """Answer; where that takes our own protocol into use, it is asked for first."""
        if text == PROTOCOL_ID:
            await self._agree(lambda: self._communicator.write(text))
        else:
            await self._communicator.write(text)
