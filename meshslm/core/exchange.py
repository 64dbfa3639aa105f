"""How members of a small mesh learn where the others listen.

Each signs where it listens, and others hand that on as it is: so nobody can send a node to a forged
address of somebody else, or keep it from one by burying the true address. A node asks whom another
knows, and names whom it knows itself, so that a mesh in which all know each other says little.

Peers of version 1 hand on what they have heard, unsigned, and are told so too.

Events: the tick, messages; this node's own record is signed.
Effects: `Send`, and what dialling decides.

Rules:
- A record is checked before anything is made of it. Who hands on one that its member has not signed
  breaks the protocol; what is older than what is known here costs its sender.
- Where a member's own word is known, hearsay about it is not heard.
- What others tell of fills no more than dialling gives to hearsay, signed or not: in an open mesh
  identities are free.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from meshslm import limits
from meshslm.chance import Chance
from meshslm.core.admission import Admission
from meshslm.core.conduct import Conduct
from meshslm.core.config import CoreConfig
from meshslm.core.dialling import Dialling, peer_of
from meshslm.core.directory import Directory, Peer
from meshslm.core.events import Lane
from meshslm.core.hearing import belongs
from meshslm.core.outbox import Outbox
from meshslm.core.own_record import OwnRecord
from meshslm.core.records import Fact, checked, mark_of
from meshslm.errors import PeerFault
from meshslm.ids import Instant, NodeId
from meshslm.wire.messages import PeerAddress, Peers
from meshslm.wire.versions import SIGNED_ADDRESSES
from meshslm.wire.whereabouts import Introduce, Whereabouts

_T = TypeVar("_T")


class Exchange:
    """What one node knows of where others listen, and tells."""

    def __init__(
        self,
        config: CoreConfig,
        directory: Directory,
        dialling: Dialling,
        admission: Admission,
        conduct: Conduct,
        own: OwnRecord,
        out: Outbox,
        chance: Chance,
    ) -> None:
        self._config = config
        self._directory = directory
        self._dialling = dialling
        self._admission = admission
        self._conduct = conduct
        self._own = own
        own.signed = self._own_signed
        self._out = out
        self._chance = chance
        self._facts: dict[NodeId, Fact] = {}
        """Others' newest records, those heard last at the end."""
        self._ticks = 0
        self._news = 0
        """Ticks at each of which somebody is asked, since somebody has come."""

    def message_handlers(self) -> dict[type, Callable[[Peer, Any, Instant], None]]:
        """For messages of members."""
        return {
            Peers: self._on_peers,
            Whereabouts: self._on_whereabouts,
            Introduce: self._on_introduce,
        }

    # --- telling --------------------------------------------------------------------------------
    def came(self) -> None:
        """Somebody is new: there may be more."""
        self._news = limits.EXCHANGES_OF_NEWS

    def tick(self, alive: list[Peer]) -> None:
        """Once a presence interval: ask somebody, if it is time."""
        self._ticks += 1
        if alive and (self._news > 0 or self._ticks % limits.EXCHANGE_EVERY == 0):
            peer = self._chance.pick(alive)
            if _signs(peer):
                self._ask(peer)
            else:
                self._tell_unsigned(peer)
        self._news -= 1

    def welcome(self, peer: Peer) -> None:
        """A peer is new here: it hears where we listen, and who looks for others asks."""
        if not _signs(peer):
            self._facts.pop(peer.node, None)  # of a newer program, which is gone
            if peer.incoming:
                self._tell_unsigned(peer)
            return
        if self._own.fact is not None:
            self._out.send(peer.node, Lane.CONTROL, Whereabouts((self._own.fact.signed,)))
        if not peer.incoming and len(self._directory.alive()) <= limits.PEERS_PER_INTRODUCTION:
            self._ask(peer)  # who knows more than that asks once a second

    def _own_signed(self, fact: Fact, before: Fact | None) -> None:
        """This node says something new of itself: all hear it, if it is about where it listens."""
        new, old = fact.record, before.record if before is not None else None
        if old is None or (new.addresses, new.credential) != (old.addresses, old.credential):
            for peer in self._directory.alive():
                if _signs(peer):
                    self._out.send(peer.node, Lane.CONTROL, Whereabouts((fact.signed,)))

    def _ask(self, peer: Peer) -> None:
        known = b"".join(sorted(_short(p.node) for p in self._directory.alive()))
        self._out.send(peer.node, Lane.CONTROL, Introduce(known))

    def _on_introduce(self, peer: Peer, asked: Introduce, _now: Instant) -> None:
        known = {asked.known[at : at + 4] for at in range(0, len(asked.known), 4)}
        others = [p.node for p in self._others(peer)]
        lacking = [n for n in others if n in self._facts and _short(n) not in known]
        if lacking:
            records = tuple(self._facts[n].signed for n in self._share(lacking))
            self._out.send(peer.node, Lane.CONTROL, Whereabouts(records))

    def _tell_unsigned(self, to: Peer) -> None:
        others = self._share([p for p in self._others(to) if p.addresses])
        if others:
            entries = tuple(PeerAddress(p.node, p.addresses) for p in others)
            self._out.send(to.node, Lane.CONTROL, Peers(entries))

    def _others(self, to: Peer) -> list[Peer]:
        return [p for p in self._directory.alive() if p.node != to.node]

    def _share(self, others: list[_T]) -> list[_T]:
        """As many as are told of in one go."""
        few = len(self._directory.alive()) > limits.PRESENCE_PER_SECOND
        most = limits.PEERS_PER_INTRODUCTION if few else limits.PEERS_PER_EXCHANGE
        return others if len(others) <= most else self._chance.some(others, most)

    # --- hearing --------------------------------------------------------------------------------
    def _on_whereabouts(self, teller: Peer, told: Whereabouts, now: Instant) -> None:
        """A peer hands on where others listen. Raises `Forged`."""
        if self._config.verify_node is None:
            return
        for signed in told.records:
            fact = checked(signed, self._config.verify_node)
            if not isinstance(fact, Fact):
                raise PeerFault("an accusation does not say where anybody listens")
            self._take(teller, fact, now)

    def _take(self, teller: Peer, fact: Fact, now: Instant) -> None:
        node = fact.record.node
        if node == self._config.node:
            self._own.heard(fact, now)
            return
        if not belongs(fact.record, self._config, self._admission, now):
            return
        held = self._facts.get(node)
        if held is not None and fact.version < held.version:
            self._conduct.spend(teller.node, now)
            return
        self._keep(fact)
        known = self._directory.peers.get(node)
        if node == teller.node or (known is not None and known.connected):
            return
        if held is not None and fact.version > held.version:
            self._dialling.moved(node, fact.view.addresses, now, teller.node)
        for address in fact.view.addresses:
            self._dialling.want(address, now, teller=teller.node)

    def _keep(self, fact: Fact) -> None:
        facts = self._facts
        facts.pop(fact.record.node, None)
        if len(facts) >= limits.PEERS:
            linked = self._directory.get_alive
            del facts[next((n for n in facts if linked(n) is None), next(iter(facts)))]
        facts[fact.record.node] = fact

    def _on_peers(self, teller: Peer, peers: Peers, now: Instant) -> None:
        """A peer of version 1 knows others."""
        if _signs(teller):
            raise PeerFault(f"it tells of addresses unsigned, and speaks version {teller.version}")
        for entry in peers.peers:
            if entry.peer == self._config.node or entry.peer in self._facts:
                continue
            known = self._directory.peers.get(entry.peer)
            if known is not None and known.connected:
                continue
            for address in entry.addresses:
                if peer_of(address) != entry.peer:
                    raise PeerFault(f"peer list: address {address!r} is not of {entry.peer}")
                self._dialling.want(address, now, teller=teller.node)

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        assert len(self._facts) <= limits.PEERS
        for node, fact in self._facts.items():
            assert fact.record.node == node, f"the word of {fact.record.node} stands for {node}"


def _signs(peer: Peer) -> bool:
    """Whether a peer hands on signed records, and takes them."""
    return peer.version >= SIGNED_ADDRESSES


def _short(node: NodeId) -> bytes:
    return (mark_of(node) >> 32).to_bytes(4, "big")
