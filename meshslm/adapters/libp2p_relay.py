"""A relay for members: reservations, and circuits between a caller and who has reserved.

Source: libp2p's specification of the circuit relay, version 2. No vouchers: they are for relays
that ask other relays, and nobody here does.

Rules:
- Who may use it is not decided here (`may_use`); strangers and those behind relays may not.
- Reservations, circuits, their bytes and their time are bounded. A circuit that reaches a bound is
  reset, and its ends make a new one if they still need it.
- A slow reader slows its sender down and holds up nobody else; what waits is its stream's window.
- Nothing that goes through is kept, or could be read.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import trio

from meshslm import limits
from meshslm.adapters import libp2p_library as library
from meshslm.adapters.circuit_messages import (
    STOP,
    Hop,
    HopMessage,
    Limit,
    Status,
    Stop,
    StopMessage,
    decode_hop,
    decode_stop,
    encode_hop,
    encode_stop,
)
from meshslm.adapters.libp2p_circuit import id_bytes, id_of, read_message
from meshslm.adapters.libp2p_connection import Connection
from meshslm.adapters.libp2p_stream import MuxedStream
from meshslm.errors import PeerFault
from meshslm.ids import NodeId

CIRCUIT_LIMIT = Limit(limits.RELAY_S, limits.RELAY_BYTES)


@dataclass(frozen=True, slots=True)
class RelayCounts:
    """What a relay has to do."""

    reservations: int = 0
    circuits: int = 0
    carried: int = 0
    """Bytes, since the start."""
    refused: int = 0
    """Requests."""


class _Refused(Exception):
    """An answer, and not an error."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.name)
        self.status = status


class _Budget:
    """Bytes that one circuit may still carry."""

    def __init__(self) -> None:
        self.left = limits.RELAY_BYTES


class Relay:
    """Serves the requests of members."""

    def __init__(
        self,
        connection_of: Callable[[NodeId], Connection | None],
        *,
        seconds: float,
        unix: Callable[[], float] = time.time,
    ) -> None:
        self.may_use: Callable[[NodeId], bool] = lambda _peer: False
        self._connection_of = connection_of
        self._seconds = seconds
        """For one exchange of messages."""
        self._unix = unix
        self._places: dict[NodeId, tuple[Connection, float]] = {}
        """Who has reserved, on which connection and until when."""
        self._circuits: list[tuple[NodeId, NodeId]] = []
        self._carried = 0
        self._refused = 0

    @property
    def counts(self) -> RelayCounts:
        """What it has to do now."""
        self._sweep()
        carried, refused = self._carried, self._refused
        return RelayCounts(len(self._places), len(self._circuits), carried, refused)

    async def serve(self, connection: Connection, stream: MuxedStream) -> None:
        """Answer one request; a call is carried until its end."""
        try:
            with trio.fail_after(self._seconds):
                message = decode_hop(await read_message(stream))
            self._check(connection, message)
            if message.kind == Hop.CONNECT:
                await self._connect(connection, stream, id_of(message.peer))
                return
            answer = self._reserve(connection)
        except _Refused as refusal:
            self._refused += 1
            answer = HopMessage(Hop.STATUS, status=refusal.status)
        except PeerFault:
            self._refused += 1
            answer = HopMessage(Hop.STATUS, status=Status.MALFORMED_MESSAGE)
        await stream.write(encode_hop(answer))
        await stream.close()

    def _check(self, connection: Connection, message: HopMessage) -> None:
        if message.kind not in (Hop.RESERVE, Hop.CONNECT):
            raise _Refused(Status.UNEXPECTED_MESSAGE)
        if connection.relayed or not self.may_use(connection.peer):
            raise _Refused(Status.PERMISSION_DENIED)
        if self._connection_of(connection.peer) is not connection:
            raise _Refused(Status.PERMISSION_DENIED)  # a second one, which is no link

    # --- places ---------------------------------------------------------------------------------
    def _reserve(self, connection: Connection) -> HopMessage:
        self._sweep()
        if connection.peer not in self._places and len(self._places) >= limits.RELAY_RESERVATIONS:
            raise _Refused(Status.RESERVATION_REFUSED)
        until = self._unix() + limits.RELAY_S
        self._places[connection.peer] = (connection, trio.current_time() + limits.RELAY_S)
        return HopMessage(Hop.STATUS, expires=int(until), limit=CIRCUIT_LIMIT, status=Status.OK)

    def _sweep(self) -> None:
        now = trio.current_time()
        self._places = {
            peer: (connection, until)
            for peer, (connection, until) in self._places.items()
            if until > now and not connection.ended.is_set() and self.may_use(peer)
        }

    # --- circuits -------------------------------------------------------------------------------
    async def _connect(self, connection: Connection, stream: MuxedStream, callee: NodeId) -> None:
        self._sweep()
        caller = connection.peer
        place = self._places.get(callee)
        if place is None or callee == caller:
            raise _Refused(Status.NO_RESERVATION)
        shares = [sum(peer in ends for ends in self._circuits) for peer in (caller, callee)]
        full = len(self._circuits) >= limits.RELAY_CIRCUITS
        if full or max(shares) >= limits.RELAY_CIRCUITS_PER_PEER:
            raise _Refused(Status.RESOURCE_LIMIT_EXCEEDED)
        ends = (caller, callee)
        self._circuits.append(ends)
        try:
            other = await self._announce(place[0], caller)
            try:
                answer = HopMessage(Hop.STATUS, limit=CIRCUIT_LIMIT, status=Status.OK)
                await stream.write(encode_hop(answer))
                await self._carry(stream, other)
            finally:
                other.reset()
                stream.reset()
        finally:
            self._circuits.remove(ends)

    async def _announce(self, connection: Connection, caller: NodeId) -> MuxedStream:
        """A stream on which who is called has taken the call."""
        stream = connection.open_stream()
        taken = False
        try:
            with trio.fail_after(self._seconds):
                await library.MultiselectClient().select_one_of(
                    (library.TProtocol(STOP),),
                    library.MultiselectCommunicator(stream),
                    self._seconds,
                )
                message = StopMessage(Stop.CONNECT, id_bytes(caller), CIRCUIT_LIMIT)
                await stream.write(encode_stop(message))
                answer = decode_stop(await read_message(stream))
            taken = answer.kind == Stop.STATUS and answer.status == Status.OK
        except Exception as error:  # the library raises anything on hostile bytes
            raise _Refused(Status.CONNECTION_FAILED) from error
        finally:
            if not taken:
                stream.reset()
        if not taken:
            raise _Refused(Status.CONNECTION_FAILED)
        return stream

    async def _carry(self, one: MuxedStream, other: MuxedStream) -> None:
        """Until both have ended, one is broken, or a bound is reached."""
        for stream in (one, other):
            stream.negotiated()
        budget = _Budget()
        with trio.move_on_after(limits.RELAY_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, one, other, budget, nursery.cancel_scope)
                nursery.start_soon(self._pump, other, one, budget, nursery.cancel_scope)

    async def _pump(
        self, source: MuxedStream, target: MuxedStream, budget: _Budget, scope: trio.CancelScope
    ) -> None:
        try:
            while data := await source.read(limits.RELAY_PIECE):
                budget.left -= len(data)
                if budget.left < 0:
                    break
                await target.write_all(data)
                self._carried += len(data)
            else:
                if not source.broken:
                    await target.close()
                    return
        except trio.BrokenResourceError:
            pass  # one end is gone, and so is the circuit
        scope.cancel()
