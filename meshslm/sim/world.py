"""Many cores on one virtual clock: one heap of what happens next, to whom.

Why not trio on a mock clock: the same core as tasks differed between runs and was twenty times
slower. Here a run is a loop over a heap, and a seed decides all of it.

Rules:
- Everything that happens is an entry (time, number, guard, node, event); the number breaks ties,
  so that order never depends on anything else.
- An entry whose guard has closed (a dead node, a stopped timer, a broken link) did not happen.
- The world performs effects as production's executor does: in order, outcomes come as events.
- Every event and everything a client sees goes into the trace hash.
"""

from __future__ import annotations

import struct
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from heapq import heappop, heappush
from typing import Any, Protocol

from meshslm import mesh_limits
from meshslm.chance import Chance
from meshslm.core.config import CoreConfig
from meshslm.core.events import (
    BytesReceived,
    Dial,
    Disconnect,
    EmitChunk,
    Event,
    FailTask,
    FinishTask,
    LoadModel,
    PeerConnected,
    PeerDisconnected,
    RouteChosen,
    Send,
    Started,
    StartRun,
    StartTimer,
    StopRun,
    StopTimer,
    Tell,
    TimerFired,
    UnloadModel,
)
from meshslm.core.growth_events import SealStatement
from meshslm.ids import MICROSECONDS_PER_MS, Instant, NodeId
from meshslm.sim.network import Network
from meshslm.sim.node import End, Guard, MakeCore, SimNode, identity
from meshslm.sim.scenario import Network as NetworkSettings
from meshslm.sim.sealing import sealed, signed_by
from meshslm.sim.topology import Group, Topology
from meshslm.wire.codec import decode

_HEAD = struct.Struct("<qiB")

ClientEffect = RouteChosen | EmitChunk | FinishTask | FailTask


class Surroundings(Protocol):
    """Who lives around the cores: their clients, their engines, and those who watch."""

    def booted(self, node: SimNode) -> None:
        """The core of `node` was started; it may be told what it hosts."""
        ...

    def died(self, node: SimNode) -> None:
        """The process of `node` is gone."""
        ...

    def load_model(self, node: SimNode, effect: LoadModel) -> None:
        """Start one of the node's engines."""
        ...

    def unload_model(self, node: SimNode, effect: UnloadModel) -> None:
        """End it."""
        ...

    def start_run(self, node: SimNode, effect: StartRun) -> None:
        """Begin a run on the node's engine."""
        ...

    def stop_run(self, node: SimNode, effect: StopRun) -> None:
        """Stop a run."""
        ...

    def client_effect(self, node: SimNode, effect: ClientEffect) -> None:
        """The core hands something to a client."""
        ...

    def stray_send(self, node: SimNode, peer: NodeId) -> None:
        """The core sent to a peer to which no link was reported."""
        ...

    def broken(self, node: SimNode, what: str) -> None:
        """The core raised, or an invariant does not hold; the world has stopped."""
        ...


_ALWAYS = Guard()
MESSAGES_KEPT = 1_024
"""Read last, of all nodes: those of a tenth of a second among a thousand idle ones."""


@dataclass(frozen=True, slots=True)
class WorldSettings:
    """What a world is made of, beside its cores."""

    nodes: int
    bootstrap_nodes: int
    network: NetworkSettings
    check_every: int
    """Events of a node between two calls of its `check()`."""
    groups: tuple[Group, ...] = ()
    clock_spread_us: int = 0
    """Clocks begin within so much time."""
    full_mesh: int = mesh_limits.FULL_MESH
    """Other nodes up to which every two keep a link."""


class World:
    """The heap, the nodes on it, and the executor of their effects."""

    def __init__(
        self, settings: WorldSettings, make_core: MakeCore, chance: Chance, around: Surroundings
    ) -> None:
        self.now = Instant(0)
        self.events = 0
        self.stopped = False
        self._heap: list[tuple[int, int, Any, SimNode | None, Any]] = []
        self._number = 0
        self._make_core = make_core
        self._check_every = settings.check_every
        self._full_mesh = settings.full_mesh
        self._decode = lru_cache(MESSAGES_KEPT)(decode)
        """What is told to many is read once: a tenth less processor time in a large mesh."""
        self._trace = blake2b(digest_size=16)
        self._names = chance.fork("identities")
        topology = Topology(settings.groups, settings.nodes)
        self.network = Network(self, settings.network, chance.fork("network"), topology)
        reach = self.network.reach
        self._relays = reach.relays if reach is not None else None
        origins = chance.fork("clocks")
        self.nodes = tuple(
            SimNode(
                index,
                identity(self._names),
                chance.fork(f"node/{index}"),
                self.network.line(index),
                int(origins.unit() * settings.clock_spread_us),
                self.network.place(index),
            )
            for index in range(settings.nodes)
        )
        self._by_id = {node.id: node for node in self.nodes}
        self._by_address = {node.address: node for node in self.nodes}
        self._bootstrap = tuple(n.address for n in self.nodes[: settings.bootstrap_nodes])
        self._around = around
        self._perform: dict[type, Callable[[SimNode, Any], None]] = {
            Send: self._send,
            StartTimer: self._start_timer,
            StopTimer: self._stop_timer,
            Dial: lambda node, effect: self.network.dial(node, effect.address),
            Disconnect: self._disconnect,
            LoadModel: around.load_model,
            UnloadModel: around.unload_model,
            StartRun: around.start_run,
            StopRun: around.stop_run,
            RouteChosen: self._to_client,
            EmitChunk: self._to_client,
            FinishTask: self._to_client,
            FailTask: self._to_client,
            Tell: lambda _node, _effect: None,
            SealStatement: lambda node, effect: self.tell(node, sealed(node.id, effect)),
            **self.network.performers(),
        }

    # --- who is there ---------------------------------------------------------------------------
    def node(self, node: NodeId) -> SimNode:
        """The node with an identity, or that had it before its disk was lost."""
        return self._by_id[node]

    @property
    def identities(self) -> Iterable[NodeId]:
        """Every identity that a node has or had."""
        return self._by_id

    def at_address(self, address: str) -> SimNode | None:
        """The node that listens at an address, if there is one."""
        return self._by_address.get(address)

    @property
    def trace_hash(self) -> str:
        """Digest of all that happened so far; equal in every run of the same seed."""
        return self._trace.hexdigest()

    # --- what happens next ----------------------------------------------------------------------
    def push(self, when: int, guard: Guard | End, node: SimNode, event: Event) -> None:
        """Let `event` happen to `node`, unless `guard` has closed by then."""
        self._number += 1
        heappush(self._heap, (when, self._number, guard, node, event))

    def call(self, when: int, action: Callable[[], None], guard: Guard = _ALWAYS) -> None:
        """Do something to the world at an instant, unless `guard` has closed by then."""
        self._number += 1
        heappush(self._heap, (when, self._number, guard, None, action))

    def tell(self, node: SimNode, event: Event) -> None:
        """Let `event` happen to the living process of `node` now, after what happens already."""
        self.push(self.now, node.life, node, event)

    def happen(self, node: SimNode, event: Event) -> None:
        """Let `event` happen to a living process at once, before anything else does."""
        assert node.living, "nothing happens to who is not there"
        self._happen(node.life, node, event)

    def run_until(self, end: int) -> None:
        """Let everything happen up to and at an instant, or until a core breaks."""
        heap = self._heap
        while heap and heap[0][0] <= end and not self.stopped:
            when, _, guard, node, event = heappop(heap)
            if not guard.open:
                continue
            self.now = Instant(when)
            if node is None:
                event()
            elif node.hung:
                node.held.append((guard, event))
            else:
                self._happen(guard, node, event)
        if not self.stopped:
            self.now = Instant(end)

    def _happen(self, guard: Any, node: SimNode, event: Event) -> None:
        if type(event) is BytesReceived:
            self._trace.update(_HEAD.pack(self.now, node.index, 0))
            self._trace.update(event.message)
        else:
            if type(event) is TimerFired:
                key = event.key
                del node.timers[key]
                fired = f"{key.kind}\0{key.subject}\0{event.generation}"
                self._trace.update(_HEAD.pack(self.now, node.index, 2))
                self._trace.update(fired.encode())
                self._handle(node, event)
                return
            if type(event) is PeerConnected:
                self._attach(guard, node, event)
            elif type(event) is PeerDisconnected:
                self._detach(guard, node, event)
            self.note(node, event)
        self._handle(node, event)

    def note(self, node: SimNode, what: object) -> None:
        """Make something part of the trace."""
        self._trace.update(_HEAD.pack(self.now, node.index, 1))
        self._trace.update(repr(what).encode())

    def _handle(self, node: SimNode, event: Event) -> None:
        core = node.core
        assert core is not None, "events reach only nodes that were booted"
        self.events += 1
        node.events += 1
        perform = self._perform
        try:
            effects = core.handle(event, node.clock.read(self.now))
            if node.events % self._check_every == 0:
                core.check()
        except Exception as error:  # noqa: BLE001 - whatever a core raises is a finding
            self._broken(node, event, error)
            return
        for effect in effects:
            perform[type(effect)](node, effect)

    def _broken(self, node: SimNode, event: Event, error: Exception) -> None:
        self.stopped = True
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{last.filename.rpartition('/')[2]}:{last.lineno}"
        what = f"{type(error).__name__} at {place}: {error} (on {type(event).__name__})"
        self._around.broken(node, what)

    # --- processes ------------------------------------------------------------------------------
    def boot(self, node: SimNode) -> None:
        """Start a process with the node's identity and nothing of its former state."""
        assert not node.up, "one process per node"
        node.boot += 1
        node.up, node.host_up, node.hung, node.leaving = True, True, False, False
        node.life = Guard()
        node.up_since = self.now
        others = tuple(address for address in self._bootstrap if address != node.address)
        config = CoreConfig(
            node=node.id,
            name=node.name,
            agent="sim",
            bootstrap=others,
            full_mesh=self._full_mesh,
            verify_node=signed_by,
            decode=self._decode,
            relay=self.network.relay_setting(node),
        )
        node.core = self._make_core(config, node.chance.fork(f"boot/{node.boot}"))
        self.tell(node, Started(node.boot, (node.address,)))
        self._around.booted(node)

    def kill(self, node: SimNode, *, silent: bool = False) -> None:
        """End the process at once; `silent` takes the machine with it, so that nobody is told."""
        node.life.open = False
        for timer in node.timers.values():
            timer.open = False
        ends = [*node.ends.values(), *node.joining]
        node.up_us += self.now - node.up_since
        node.up, node.host_up, node.hung = False, not silent, False
        node.timers, node.ends, node.joining, node.held = {}, {}, [], []
        for end in ends:
            end.open = False
        if not silent:
            for end in ends:
                self.network.tell_closed(end, "connection closed")
        if self._relays is not None:
            self._relays.died(node)
        self._around.died(node)

    def lose_disk(self, node: SimNode) -> None:
        """A dead node gets a new disk; its old identity is nobody's from now on."""
        assert not node.up, "a disk is changed while nothing runs"
        node.renamed(identity(self._names))
        self._by_id[node.id] = self._by_address[node.address] = node

    def hang(self, node: SimNode) -> None:
        """Stop the process; what happens to it waits."""
        node.hung = True

    def resume(self, node: SimNode) -> None:
        """Let a stopped process go on: it sees at once all that waited."""
        node.hung = False
        held, node.held = node.held, []
        for guard, event in held:
            if guard.open and not self.stopped:
                self._happen(guard, node, event)
        if self._relays is not None:
            self._relays.resumed(node)

    # --- links ----------------------------------------------------------------------------------
    def _attach(self, end: End, node: SimNode, event: PeerConnected) -> None:
        node.joining.remove(end)
        old = node.ends.get(event.peer)
        if old is not None:
            old.open = False
            gone = PeerDisconnected(event.peer, "replaced by a new connection")
            self._detach(old, node, gone)
            self.note(node, gone)
            self._handle(node, gone)
        node.ends[event.peer] = end

    def _detach(self, end: End, node: SimNode, event: PeerDisconnected) -> None:
        end.open = False
        if node.ends.get(event.peer) is end:
            del node.ends[event.peer]
        if self._relays is not None:
            self._relays.detached(end)

    # --- effects --------------------------------------------------------------------------------
    def _send(self, node: SimNode, effect: Send) -> None:
        end = node.ends.get(effect.peer)
        if end is None:
            self._around.stray_send(node, effect.peer)
        else:
            self.network.send(end, effect.lane, effect.message)

    def _disconnect(self, node: SimNode, effect: Disconnect) -> None:
        end = node.ends.get(effect.peer)
        if end is not None:
            self.network.close(end, effect.reason)

    def _start_timer(self, node: SimNode, effect: StartTimer) -> None:
        key = effect.key
        old = node.timers.get(key)
        if old is not None:
            old.open = False
        timer = node.timers[key] = Guard()
        when = self.now + node.clock.wait(effect.after_ms * MICROSECONDS_PER_MS)
        self.push(when, timer, node, TimerFired(key, effect.generation))

    def _stop_timer(self, node: SimNode, effect: StopTimer) -> None:
        timer = node.timers.pop(effect.key, None)
        if timer is not None:
            timer.open = False

    def _to_client(self, node: SimNode, effect: ClientEffect) -> None:
        self.note(node, effect)
        self._around.client_effect(node, effect)
