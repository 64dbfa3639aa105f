"""Shared documents in a simulated mesh: nodes that write, disks that forget, and an outside judge.

Rules:
- The cores are production's; only the journal is another, with the same promises (`sim.disk`).
- The judge sees what programs see: the answers to their writes, and what they read.
- A seed decides all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from meshslm.chance import Chance
from meshslm.core.config import CoreConfig
from meshslm.core.node import NodeCore
from meshslm.core.state_events import (
    Change,
    Persist,
    ReadDeltas,
    ReloadPart,
    StateChanged,
    StateOpened,
    StateWrite,
    StateWritten,
)
from meshslm.ids import MICROSECONDS_PER_MS, NodeId
from meshslm.sim.checkers_state import StateChecker
from meshslm.sim.disk import Disk
from meshslm.sim.node import SECOND, Core, SimNode
from meshslm.sim.scenario import Network
from meshslm.sim.signatures import simulated
from meshslm.sim.world import ClientEffect, World, WorldSettings

FLUSH_MS = 2.0
"""Time of one flush to a simulated disk: an SSD without a capacitor takes as long."""


class _StateWorld(World):
    """A world whose nodes have a disk for documents."""

    def __init__(self, settings: WorldSettings, chance: Chance, run: StateRun) -> None:
        super().__init__(settings, _with_documents, chance, run)
        self._disks: dict[NodeId, Disk] = {}
        effects: dict[type, Callable[[SimNode, Any], None]] = {
            Persist: self._persist,
            ReadDeltas: lambda node, e: self.tell(node, self.disk(node).read(e)),
            ReloadPart: lambda node, e: self.tell(node, self.disk(node).reload(e)),
            StateWritten: run.written,
            StateChanged: run.changed,
        }
        self._perform.update(effects)

    def also(self, effect: type, do: Callable[[SimNode, Any], None]) -> None:
        """Perform one more kind of effect."""
        self._perform[effect] = do

    def disk(self, node: SimNode) -> Disk:
        """The disk of a node; a node with a new identity has a new one."""
        return self._disks.setdefault(node.id, Disk())

    def _persist(self, node: SimNode, effect: Persist) -> None:
        disk = self.disk(node)
        disk.write(effect)
        self.flushed(node, lambda: self.tell(node, disk.sync(effect.number)))

    def flushed(self, node: SimNode, do: Callable[[], None]) -> None:
        """Do it when a flush that a node's process begins now is through."""
        wait = int(FLUSH_MS * node.disk_times * MICROSECONDS_PER_MS)
        self.call(self.now + wait, do, node.life)


def _with_documents(config: CoreConfig, chance: Chance) -> Core:
    return NodeCore(replace(config, state=simulated(config.node)), chance)


class StateRun:
    """One simulated mesh, its writers, and its judge."""

    def __init__(
        self,
        nodes: int,
        seed: int,
        network: Network | None = None,
        check_every: int = 16,
        bootstrap: int = 3,
    ) -> None:
        self.chance = Chance.from_int(seed)
        settings = WorldSettings(nodes, bootstrap, network or Network(), check_every)
        self.world = _StateWorld(settings, self.chance.fork("world"), self)
        self.checker = StateChecker()
        self.visible: dict[int, list[int]] = {}
        """By write, how long each node took to hear of it, in microseconds."""
        self._crashes = self.chance.fork("crashes")
        self._pending: dict[int, tuple[SimNode, str, str, bytes, int]] = {}
        self._acknowledged: dict[tuple[str, str, bytes], tuple[int, int]] = {}
        self._number = 0

    @property
    def nodes(self) -> tuple[SimNode, ...]:
        """All machines."""
        return self.world.nodes

    def start(self, settle_s: float = 5.0) -> None:
        """Boot everybody, and let them meet."""
        for node in self.nodes:
            self.world.boot(node)
        self.run(settle_s)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.world.run_until(self.world.now + int(seconds * SECOND))

    def write(
        self,
        node: SimNode,
        document: str,
        key: str,
        value: bytes | None = None,
        unix_ms: int = 0,
    ) -> int:
        """A program on a node writes something that was never written before; its number."""
        self._number += 1
        number = self._number
        text = value if value is not None else b"%d" % number
        self._pending[number] = (node, document, key, text, self.world.now)
        self.world.tell(node, StateWrite(number, document, (Change(key, text),), unix_ms))
        return number

    def kill(self, node: SimNode, *, silent: bool = True) -> None:
        """A machine loses its power."""
        self.world.kill(node, silent=silent)

    # --- what happens around the cores ------------------------------------------------------------
    def booted(self, node: SimNode) -> None:
        """A process begins with what its disk has."""
        disk = self.world.disk(node)
        self.world.tell(node, StateOpened(disk.parts(), forgotten=disk.forgotten()))

    def died(self, node: SimNode) -> None:
        """A process is gone, and what was not synced with it."""
        self.world.disk(node).crash(self._crashes)

    def written(self, node: SimNode, effect: StateWritten) -> None:
        """A node answers a write."""
        writer, document, key, value, began = self._pending.pop(effect.request)
        assert writer is node, "answers come from who was asked"
        if effect.code is None:
            (revision,) = effect.revisions
            self.checker.acknowledged(document, key, revision, value)
            self._acknowledged[document, key, value] = (effect.request, began)

    def changed(self, _node: SimNode, effect: StateChanged) -> None:
        """A node tells its programs of a change."""
        for key, entry in zip(effect.keys, effect.entries, strict=True):
            if entry is None:
                continue
            known = self._acknowledged.get((effect.document, key, entry.value))
            if known is not None:
                number, began = known
                self.visible.setdefault(number, []).append(self.world.now - began)

    def judge(self, nodes: Iterable[SimNode] | None = None) -> list[str]:
        """What is wrong with the replicas of these nodes, or of all that live."""
        living = [node for node in (nodes or self.nodes) if node.up and not node.hung]
        return self.checker.judge([(node.name, core_of(node).documents) for node in living])

    def agreed(self) -> bool:
        """Whether all living nodes hold the same, of everything."""
        return self.checker.agree([core_of(node).documents for node in self.nodes if node.up])

    def until_agreed(self, most_s: float, step_s: float = 0.1) -> float | None:
        """Seconds until all hold the same; None where that takes longer than `most_s`."""
        began = self.world.now
        while not self.agreed():
            if self.world.now - began > most_s * SECOND or self.world.stopped:
                return None
            self.run(step_s)
        return (self.world.now - began) / SECOND

    def broken(self, node: SimNode, what: str) -> None:
        """A core raised."""
        self.checker.broken.append(f"{node.name}: {what}")

    def load_model(self, node: SimNode, effect: Any) -> None:
        """Nothing is hosted here."""
        raise AssertionError(f"{node.name} hosts nothing: {effect}")

    unload_model = start_run = stop_run = load_model

    def client_effect(self, node: SimNode, effect: ClientEffect) -> None:
        """Nobody asks for answers here."""

    def stray_send(self, node: SimNode, peer: NodeId) -> None:
        """A core sent to a peer to which no link was reported."""
        self.checker.broken.append(f"{node.name} sent to {peer}, to whom it has no link")


def core_of(node: SimNode) -> NodeCore:
    """The core of a node that runs."""
    assert isinstance(node.core, NodeCore), "production's core"
    return node.core
