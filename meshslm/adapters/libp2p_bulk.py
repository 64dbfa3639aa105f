"""Connections for bulk: when one is opened, by whom, and who may have one.

The side that dialled the kept connection dials again where it dialled before: that way is known to
work. The other side asks it to. Who has nothing in the background for a peer, as for a stranger
that is not admitted, neither opens a connection for it nor takes one.

    kept connection, from the side that dialled it   a ticket; then counts, both ways
    kept connection, from the side that was dialled  nothing: the stream itself asks for a dial
    further connection                               the ticket, then frames, both ways

Rules:
- A connection for bulk is known by a ticket, good for one, that came over the kept connection of
  the same peer. So it cannot be taken for that of an earlier link, nor be had twice.
- Where anything fails, background messages go in the lane as before.
"""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING

import trio

from meshslm.adapters import libp2p_library as library
from meshslm.adapters.libp2p_background import BackgroundLane
from meshslm.adapters.libp2p_connection import Connection, LinkTimings
from meshslm.adapters.libp2p_noise import WrongPeer
from meshslm.adapters.libp2p_stream import MuxedStream
from meshslm.adapters.multiaddrs import AddressError, parse
from meshslm.errors import MeshslmError, PeerFault
from meshslm.wire.bulk import BULK_ID, COUNT_BYTES, TICKET_BYTES, decode_count

if TYPE_CHECKING:
    from meshslm.adapters.libp2p_link import Libp2pLink

log = logging.getLogger("meshslm.link")

LOOK_S = 0.05
"""Until what waits is looked at again: what is out by then needs no connection."""
AGAIN_S = 5.0
"""Between two tries for one link."""


class _Offer:
    """A ticket that was taken, and the connection that comes with it."""

    def __init__(self, lane: BackgroundLane) -> None:
        self.lane = lane
        self.came = trio.Event()
        self.over: Connection | None = None
        self.stream: MuxedStream | None = None


class Bulk:
    """Sees to connections for bulk, for all links of a node."""

    def __init__(self, link: Libp2pLink, timings: LinkTimings) -> None:
        self._link = link
        self._timings = timings
        self._offers: dict[bytes, _Offer] = {}

    def much_waits(self, lane: BackgroundLane, *, asked: bool = False) -> None:
        """See to a connection for a lane in which much waits, or for which the peer asks."""
        if not lane.looked_at and not lane.kept.relayed:
            lane.looked_at = True
            self._link.start(self._look, lane, 0.0 if asked else LOOK_S)

    async def _look(self, lane: BackgroundLane, pause: float) -> None:
        """Try until nothing waits; at most once in a while, and never again where it is refused."""
        kept = lane.kept
        try:
            while True:
                await trio.sleep(pause)
                if kept.ended.is_set() or (pause and not lane.waits):
                    break
                control = None if lane.carried else await self._agree(kept)
                if control is None and not lane.carried:
                    return  # it is known to be refused, and stays looked at
                if control is not None and kept.address:
                    await self._open(lane, control)
                elif control is not None:
                    control.reset()  # it has been asked
                pause = AGAIN_S
            lane.looked_at = False
        except Exception:
            log.exception("peer=%s has no bulk connection: a bug in opening it", kept.peer)

    async def _agree(self, connection: Connection) -> MuxedStream | None:
        """A stream for bulk; None where the peer knows none."""
        stream = connection.open_stream()
        try:
            await library.MultiselectClient().select_one_of(
                (BULK_ID,), library.MultiselectCommunicator(stream), self._timings.stream
            )
        except Exception as error:  # noqa: BLE001 - the library raises anything on hostile bytes
            log.debug("peer=%s takes no bulk connection: %s", connection.peer, error)
            stream.reset()
            return None
        return stream

    # --- the side that dials ---------------------------------------------------------------------
    async def _open(self, lane: BackgroundLane, control: MuxedStream) -> None:
        ticket = secrets.token_bytes(TICKET_BYTES)
        try:
            with self._link.counted():
                await control.write(ticket)
                await self._dial(lane, control, ticket)
        except (MeshslmError, AddressError, trio.TooSlowError) as error:
            log.debug("peer=%s has no bulk connection: %s", lane.kept.peer, error)
        finally:
            control.reset()

    async def _dial(self, lane: BackgroundLane, control: MuxedStream, ticket: bytes) -> None:
        kept = lane.kept
        with trio.fail_after(self._timings.dial):
            wire, channel = await self._link.reach.open(parse(kept.address))
        over = self._link.connection(wire, channel, address=kept.address)
        if over.peer != kept.peer:
            wire.close()
            raise WrongPeer(f"another node answers there, not {kept.peer}")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(over.run)
            try:
                stream = await self._agree(over)
                if stream is not None:
                    await stream.write(ticket)
                    start = await self._start_of(control)
                    if start is not None:
                        await lane.carry(control, over, stream, start)
            finally:
                over.abort("it is not needed")

    async def _start_of(self, control: MuxedStream) -> int | None:
        """How many messages the peer has sent by the lane, once it took the connection."""
        with trio.move_on_after(self._timings.stream):
            try:
                return decode_count(await control.read_exactly(COUNT_BYTES))
            except PeerFault as fault:
                log.debug("a bulk connection was refused: %s", fault)
        return None

    # --- the side that answers -------------------------------------------------------------------
    async def serve(self, connection: Connection, stream: MuxedStream) -> None:
        """A peer opened a stream for bulk."""
        link = self._link.link_of(connection.peer)
        if link is None or link.connection is not connection:
            await self._take(connection, stream)
        elif not link.background.talks or connection.relayed:
            stream.reset()
        elif connection.address:
            stream.reset()
            self.much_waits(link.background, asked=True)
        else:
            await self._await(link.background, stream)

    async def _await(self, lane: BackgroundLane, control: MuxedStream) -> None:
        """Take a ticket, and the connection that comes with it."""
        try:
            with trio.fail_after(self._timings.stream):
                ticket = await control.read_exactly(TICKET_BYTES)
            if lane.carried:
                lane.kept.accuse("it wants a second connection for bulk")
                return
            for earlier in [offer for offer in self._offers.values() if offer.lane is lane]:
                earlier.came.set()  # with nothing: the peer has begun anew
            offer = self._offers[ticket] = _Offer(lane)
            try:
                with trio.move_on_after(self._timings.dial + self._timings.stream):
                    await offer.came.wait()
            finally:
                if self._offers.get(ticket) is offer:
                    del self._offers[ticket]
            if offer.over is not None and offer.stream is not None:
                await lane.carry(control, offer.over, offer.stream)
        finally:
            control.reset()

    async def _take(self, connection: Connection, stream: MuxedStream) -> None:
        """Take a connection that was agreed on; any other is dropped."""
        with trio.move_on_after(self._timings.stream):
            ticket = await stream.read_exactly(TICKET_BYTES)
            offer = self._offers.get(ticket)
            fitting = offer is not None and offer.lane.kept.peer == connection.peer
            if offer is not None and fitting and not connection.relayed and not connection.kept:
                del self._offers[ticket]
                offer.over, offer.stream = connection, stream
                offer.came.set()
                return
        log.warning("peer=%s opened a bulk connection that was not agreed on", connection.peer)
        connection.accuse("a bulk connection that was not agreed on")
