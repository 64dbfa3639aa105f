"""Cores of a few lines, to test the world around production's core with known behaviour."""

from __future__ import annotations

from typing import Any

from meshslm.chance import Chance
from meshslm.core.config import CoreConfig
from meshslm.core.events import (
    BytesReceived,
    Dial,
    DialFailed,
    Disconnect,
    Event,
    Lane,
    LoadModel,
    PeerConnected,
    PeerDisconnected,
    Send,
    Started,
    StartRun,
    StartTimer,
    StopRun,
    TimerFired,
    TimerKey,
    UnloadModel,
)
from meshslm.core.views import PeerView, StatusView
from meshslm.ids import Instant, NodeId
from meshslm.sim.node import MakeCore, SimNode
from meshslm.sim.scenario import Network
from meshslm.sim.topology import Group
from meshslm.sim.world import ClientEffect, World, WorldSettings


class Recorder:
    """Remembers what happens to it, and does what it was told beforehand."""

    def __init__(self, config: CoreConfig, chance: Chance) -> None:
        self.config = config
        self.chance = chance
        self.seen: list[tuple[int, Event]] = []
        self.next: list[Any] = []
        """Effects that the next event brings about."""
        self.relays = True

    def handle(self, event: Event, now: Instant) -> list[Any]:
        self.seen.append((now, event))
        effects, self.next = self.next, []
        return effects

    def check(self) -> None:
        pass

    def peers(self, now: Instant) -> tuple[PeerView, ...]:
        return ()

    def status(self, now: Instant) -> StatusView:
        raise NotImplementedError

    def may_relay(self, node: NodeId) -> bool:
        return self.relays

    def of(self, kind: type) -> list[Any]:
        """Events of one kind, in order."""
        return [event for _, event in self.seen if type(event) is kind]

    def messages(self) -> list[bytes]:
        return [event.message for event in self.of(BytesReceived)]


class Gossip(Recorder):
    """Dials its bootstrap nodes and chatters at random: enough to make every run different."""

    def handle(self, event: Event, now: Instant) -> list[Any]:
        super().handle(event, now)
        if isinstance(event, Started):
            dials: list[Any] = [Dial(address) for address in self.config.bootstrap]
            return [*dials, StartTimer(TimerKey("chat"), 1, 10)]
        if isinstance(event, TimerFired):
            sends = [
                Send(peer, Lane.CONTROL, b"%d" % self.chance.below(1000)) for peer in self.linked()
            ]
            wait = 10 + self.chance.below(20)
            return [*sends, StartTimer(TimerKey("chat"), event.generation + 1, wait)]
        return []

    def linked(self) -> list[NodeId]:
        peers: dict[NodeId, bool] = {}
        for _, event in self.seen:
            if isinstance(event, PeerConnected):
                peers[event.peer] = True
            elif isinstance(event, PeerDisconnected):
                peers.pop(event.peer, None)
        return list(peers)


class Onlooker:
    """Surroundings that only remember."""

    def __init__(self) -> None:
        self.stray: list[tuple[str, NodeId]] = []
        self.broke: list[str] = []
        self.effects: list[ClientEffect] = []
        self.runs: list[StartRun] = []

    def booted(self, node: SimNode) -> None:
        pass

    def died(self, node: SimNode) -> None:
        pass

    def load_model(self, node: SimNode, effect: LoadModel) -> None:
        pass

    def unload_model(self, node: SimNode, effect: UnloadModel) -> None:
        pass

    def start_run(self, node: SimNode, effect: StartRun) -> None:
        self.runs.append(effect)

    def stop_run(self, node: SimNode, effect: StopRun) -> None:
        pass

    def client_effect(self, node: SimNode, effect: ClientEffect) -> None:
        self.effects.append(effect)

    def stray_send(self, node: SimNode, peer: NodeId) -> None:
        self.stray.append((node.name, peer))

    def broken(self, node: SimNode, what: str) -> None:
        self.broke.append(what)


QUIET = Network(latency_ms=1.0, latency_spread=0.0, jitter_ms=0.0)
"""Every message takes one millisecond and a little for its length."""


def make_world(
    nodes: int = 2,
    network: Network = QUIET,
    *,
    seed: int = 1,
    core: MakeCore = Recorder,
    onlooker: Onlooker | None = None,
    groups: tuple[Group, ...] = (),
) -> World:
    """A world whose nodes are booted."""
    settings = WorldSettings(
        nodes, bootstrap_nodes=1, network=network, check_every=1, groups=groups
    )
    world = World(settings, core, Chance.from_int(seed), onlooker or Onlooker())
    for node in world.nodes:
        world.boot(node)
    return world


def recorder(node: SimNode) -> Recorder:
    """The small core on a node."""
    assert isinstance(node.core, Recorder)
    return node.core


def perform(world: World, node: SimNode, *effects: Any) -> None:
    """Let a node's core bring about effects now."""
    recorder(node).next = list(effects)
    world.happen(node, DialFailed("", "to be told something"))


def link(world: World, source: SimNode, target: SimNode) -> None:
    """Link two nodes and wait until both were told."""
    perform(world, source, Dial(target.address))
    world.run_until(world.now + 100_000)
    assert target.id in source.ends
    assert source.id in target.ends


def unlink(world: World, node: SimNode, peer: SimNode) -> None:
    perform(world, node, Disconnect(peer.id, "enough"))
