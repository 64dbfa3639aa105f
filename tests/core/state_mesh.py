"""Cores with shared documents on a test mesh, each with a simulated disk."""

from __future__ import annotations

from dataclasses import replace

from meshslm.chance import Chance
from meshslm.core.admission_events import ClockRead
from meshslm.core.certificates import Credentials
from meshslm.core.config import CoreConfig
from meshslm.core.documents import Documents
from meshslm.core.events import Effect, Started
from meshslm.core.node import NodeCore
from meshslm.core.state_config import StateConfig
from meshslm.core.state_events import (
    Change,
    Persist,
    ReadDeltas,
    ReloadPart,
    StateOpened,
    StateWrite,
    StateWritten,
)
from meshslm.ids import NodeId
from meshslm.sim.disk import Disk
from meshslm.sim.signatures import simulated
from tests.core.mesh import Box, Mesh, address_of
from tests.core.private_mesh import NOW

DOC = "memory/notes"


class StateMesh(Mesh):
    """A mesh whose nodes have documents."""

    def __init__(self) -> None:
        super().__init__()
        self.disks: dict[NodeId, Disk] = {}
        self.slow: dict[NodeId, list[Persist]] = {}
        """What waits on disks that were made slow."""
        self.requests = 0
        self.boots: dict[NodeId, int] = {}

    def state_config(self, node: NodeId) -> StateConfig:
        """Settings of a node's documents."""
        return simulated(node)

    def join(
        self,
        name: str,
        *bootstrap: str,
        clean: bool = False,
        credentials: Credentials | None = None,
    ) -> Documents:
        """A node starts, with what its disk has."""
        node = NodeId(name)
        boot = self.boots[node] = self.boots.get(node, 0) + 1
        addresses = tuple(address_of(b) for b in bootstrap)
        config = CoreConfig(node, name, bootstrap=addresses)
        config = replace(config, state=self.state_config(node), credentials=credentials)
        core = NodeCore(config, Chance.from_int(len(self.boxes) * 100 + boot))
        self.boxes[node] = Box(core, boot)
        disk = self.disks.setdefault(node, Disk())
        if credentials is not None:
            self.give(name, ClockRead(NOW))
        self.give(name, Started(boot, (address_of(name),)))
        self.give(name, StateOpened(disk.parts(), clean, disk.forgotten()))
        return core.documents

    def kill(self, name: str, seed: int = 1) -> None:
        """A node dies with what it had not synced."""
        node = NodeId(name)
        del self.boxes[node]
        self.slow.pop(node, None)
        self.disks[node].crash(Chance.from_int(seed))
        for pair in [pair for pair in self.links if node in pair]:
            (other,) = pair - {node}
            self.cut_half(pair, NodeId(other), node)

    def cut_half(self, pair: frozenset[str], other: NodeId, gone: NodeId) -> None:
        """The living side hears that its link is gone."""
        from meshslm.core.events import PeerDisconnected

        self.links.discard(pair)
        self.give(other, PeerDisconnected(gone, "killed"))

    def docs(self, name: str) -> Documents:
        """A node's documents."""
        return self.boxes[NodeId(name)].core.documents

    def put(self, name: str, key: str, value: bytes | None, document: str = DOC) -> StateWritten:
        """A program writes; the answer."""
        self.requests += 1
        number = self.requests
        self.give(name, StateWrite(number, document, (Change(key, value),), 1_700_000_000_000))
        return next(w for w in self.effects(name, StateWritten) if w.request == number)

    def value(self, name: str, key: str, document: str = DOC) -> bytes | None:
        """What a node reads."""
        entry = self.docs(name).read(document, key)
        return entry.value if entry is not None else None

    def make_slow(self, name: str) -> None:
        """Nothing becomes durable until `finish`."""
        self.slow[NodeId(name)] = []

    def finish(self, name: str) -> None:
        """All that waits becomes durable."""
        node = NodeId(name)
        for effect in self.slow.pop(node, []):
            self.give(name, self.disks[node].sync(effect.number))

    def agree(self, *names: str) -> bool:
        """Whether nodes hold the same of every document that any of them has."""
        held = [
            {n: d.digest() for n, d in self.docs(name).holdings.documents.items()} for name in names
        ]
        return all(other == held[0] for other in held)

    def _perform(self, node: NodeId, box: Box, effect: Effect) -> None:
        disk = self.disks.get(node)
        if isinstance(effect, Persist):
            assert disk is not None
            disk.write(effect)
            if node in self.slow:
                self.slow[node].append(effect)
            else:
                self.queue.append((node, disk.sync(effect.number)))
        elif isinstance(effect, ReadDeltas):
            assert disk is not None
            self.queue.append((node, disk.read(effect)))
        elif isinstance(effect, ReloadPart):
            assert disk is not None
            self.queue.append((node, disk.reload(effect)))
        else:
            super()._perform(node, box, effect)
