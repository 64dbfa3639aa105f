"""A private test mesh: cores with certificates, and a cheap signer in the place of Ed25519."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b

from meshslm import limits
from meshslm.chance import Chance
from meshslm.core.admission_events import (
    ClockRead,
    CredentialIssued,
    IssueCredential,
    KeepCredential,
    KeepNotice,
)
from meshslm.core.certificates import ANY, Act, Credentials
from meshslm.core.config import CoreConfig
from meshslm.core.events import Effect, EngineReady, Event, HostingChanged, Started, Tell
from meshslm.core.node import NodeCore
from meshslm.ids import NodeId
from meshslm.sim.sealing import signed_by
from meshslm.wire.admission import SIGNED_PREFIX, Certificate, Credential, Notice, Signed
from meshslm.wire.codec import encode
from meshslm.wire.messages import Hardware, Specialist
from tests.core.mesh import SLOTS, Box, Mesh, address_of

ROOT = b"the mesh's key".ljust(32)
NOW = 1_800_000_000
LIFE = 3600
RIGHTS = tuple(Act)


def signed_with(key: bytes, statement: Certificate | Notice) -> Signed:
    """What `verify` takes for a signature by `key`; whoever knows the key can make one."""
    payload = encode(statement)
    return Signed(payload, blake2b(SIGNED_PREFIX + payload, key=key, digest_size=64).digest())


def verify(key: bytes, data: bytes, signature: bytes) -> bool:
    """As the real one: false for anything odd."""
    return len(key) == 32 and blake2b(data, key=key, digest_size=64).digest() == signature


def certificate(node: str, **fields: object) -> Certificate:
    """One that holds, with what is to be otherwise."""
    plain = Certificate(
        ROOT,
        "home",
        blake2b(node.encode(), digest_size=16).digest(),
        NodeId(node),
        NOW - limits.CLOCK_SKEW_S,
        NOW + LIFE,
        RIGHTS,
        (ANY,),
        (ANY,),
    )
    return replace(plain, **fields)  # type: ignore[arg-type]  # the fields of a certificate


def credential(node: str, **fields: object) -> Credential:
    """That of the mesh's own key."""
    return Credential(signed_with(ROOT, certificate(node, **fields)))


def notice(about: str, subject: str, *, until: int = 0, key: bytes = ROOT) -> Signed:
    """Of the mesh's key."""
    return signed_with(key, Notice(ROOT, about, subject, NOW, until))


class PrivateMesh(Mesh):
    """Members with certificates; those who may admit renew for others."""

    key = ROOT
    """By which it is renewed."""
    succession: tuple[Signed, ...] = ()

    def enter(
        self,
        name: str,
        *specialists: Specialist,
        bootstrap: tuple[str, ...] = (),
        shown: Credential | None = None,
        admits: bool = False,
    ) -> NodeCore:
        """A node that starts now, with a certificate of its own or the one to be shown."""
        own = shown if shown is not None else credential(name)
        mine = Credentials(ROOT, own, verify, admits=admits)
        config = CoreConfig(
            NodeId(name),
            name,
            bootstrap=tuple(map(address_of, bootstrap)),
            credentials=mine,
            verify_node=signed_by if self.signs else None,
        )
        core = NodeCore(config, Chance.from_int(len(self.boxes)))
        self.boxes[NodeId(name)] = Box(core)
        self.give(name, self.clock())
        self.give(name, Started(1, (address_of(name),)))
        if specialists:
            self.give(name, HostingChanged(specialists, Hardware(cores=2)))
            for model in dict.fromkeys(s.model for s in specialists):
                self.give(name, EngineReady(model, SLOTS))
        return core

    def clock(self) -> ClockRead:
        """The wall clock, which goes with the virtual one."""
        return ClockRead(NOW + (self.now - 1_000_000) / 1e6)

    def said(self, name: str, topic: str) -> list[str]:
        """Details of what a node told of one topic."""
        return [tell.detail for tell in self.effects(name, Tell) if tell.topic == topic]

    def kept(self, name: str) -> list[Signed]:
        """Notices that a node wrote down."""
        return [effect.notice for effect in self.effects(name, KeepNotice)]

    def renewed(self, name: str) -> list[Credential]:
        """Certificates of its own that a node wrote down."""
        return [effect.credential for effect in self.effects(name, KeepCredential)]

    def _handle(self, node: NodeId, event: Event) -> None:
        if node in self.boxes:  # a stranger is whoever the test says it is
            super()._handle(node, event)

    def _perform(self, node: NodeId, box: Box, effect: Effect) -> None:
        super()._perform(node, box, effect)
        if isinstance(effect, IssueCredential):
            wall = int(self.clock().unix_s)
            renewed = certificate(effect.peer, not_before=wall - 300, not_after=wall + LIFE)
            fresh = Credential(signed_with(self.key, renewed), None, self.succession)
            self.queue.append((node, CredentialIssued(effect.peer, fresh)))
