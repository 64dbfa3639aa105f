"""Whether others can dial this node, by what members say who see it from outside.

Members that this node has dialled tell it where it seems to come from; it asks some of them to dial
it back there. One that has dialled this node itself has shown that it can.

Source: libp2p's specifications of AutoNAT, versions 1 and 2.

Rules:
- What others say is a vote: of up to `WITNESSES` members that see this node in one place the
  majority counts.
- A node that can be dialled from everywhere it is seen is `public`; one that cannot from somewhere
  is `private`; before anybody has tried it is `unknown`. Loopback says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshslm import limits
from meshslm.core.dial_backs import FAILED, REACHED
from meshslm.core.directory import Peer
from meshslm.core.events import Lane
from meshslm.core.outbox import Outbox
from meshslm.core.views import WitnessView
from meshslm.core.ways import host_of, on_loopback, port_of, relayed
from meshslm.ids import Instant, NodeId, ms_between
from meshslm.wire.reach import DialBack, DialedBack, Seen

PUBLIC, PRIVATE, UNKNOWN = "public", "private", "unknown"


@dataclass(slots=True)
class Witness:
    """What one member knows of how this node is reached."""

    seen: str = ""
    """Where it sees this node come from; empty where it dialled this node."""
    reached: bool | None = None
    """Whether it got through; None while it has not tried."""
    address: str = ""
    detail: str = ""
    asked: Instant | None = None
    relays: bool = False

    def is_due(self, now: Instant) -> bool:
        """Whether it was not asked of late."""
        return self.asked is None or ms_between(self.asked, now) >= limits.REACH_AGAIN_MS

    @property
    def outcome(self) -> str:
        """In a word."""
        if self.reached is None:
            return "not asked" if self.asked is None else "asked"
        return REACHED if self.reached else FAILED


class Witnesses:
    """Every linked member, as somebody who sees this node from outside."""

    def __init__(self, node: NodeId, out: Outbox) -> None:
        self._node = node
        self._out = out
        self.own: tuple[str, ...] = ()
        """Where this node listens."""
        self._by_node: dict[NodeId, Witness] = {}
        self._asked: dict[int, NodeId] = {}
        self._number = 0

    def joined(self, peer: Peer) -> None:
        """A peer is linked. One that dialled us directly has shown that it can."""
        direct = peer.incoming and not relayed(peer)
        self._by_node[peer.node] = Witness(reached=True if direct else None)

    def parted(self, node: NodeId) -> None:
        """A peer's link is gone."""
        self._by_node.pop(node, None)

    def stop(self) -> None:
        """Nobody is asked any more, and what is still said is not heard."""
        self._by_node.clear()
        self._asked.clear()

    def moved(self, addresses: tuple[str, ...]) -> None:
        """This node listens elsewhere: what was found out before no longer holds."""
        self.own = addresses
        for witness in self._by_node.values():
            witness.reached, witness.asked = None, None

    def relays(self) -> list[NodeId]:
        """Those that relay."""
        return [node for node, witness in self._by_node.items() if witness.relays]

    # --- what they say --------------------------------------------------------------------------
    def on_seen(self, peer: Peer, seen: Seen) -> None:
        """A member says where it sees us."""
        witness = self._by_node.get(peer.node)
        if witness is None:
            return
        witness.relays = seen.relay
        if not (peer.incoming or relayed(peer)):
            if host_of(seen.address) != host_of(witness.seen):
                witness.reached, witness.asked = None, None
            witness.seen = seen.address

    def on_answer(self, peer: Peer, answer: DialedBack) -> None:
        """A member has tried to dial us, or will not."""
        if self._asked.get(answer.number) != peer.node:
            return
        del self._asked[answer.number]
        witness = self._by_node.get(peer.node)
        if witness is not None:
            witness.address, witness.detail = answer.address, answer.detail
            if answer.outcome in (REACHED, FAILED):
                witness.reached = answer.outcome == REACHED

    def ask_one(self, now: Instant) -> None:
        """Ask the next one to dial us, unless enough were asked of late."""
        groups = self._groups()
        for node, witness in self._by_node.items():
            host = host_of(witness.seen)
            if not witness.seen or on_loopback(host) or not witness.is_due(now):
                continue
            enough = sum(not w.is_due(now) for w in groups[host]) >= limits.WITNESSES
            addresses = self.addresses_at(witness.seen)
            if enough or not addresses:
                continue
            self._number += 1
            if len(self._asked) >= limits.DIAL_BACKS:
                del self._asked[next(iter(self._asked))]
            self._asked[self._number] = node
            witness.asked = now
            self._out.send(node, Lane.CONTROL, DialBack(self._number, addresses))
            return

    # --- what follows ---------------------------------------------------------------------------
    def _groups(self) -> dict[str, list[Witness]]:
        """Witnesses by where they see this node."""
        groups: dict[str, list[Witness]] = {}
        for witness in self._by_node.values():
            groups.setdefault(host_of(witness.seen), []).append(witness)
        return groups

    def verdict(self) -> str:
        """`public`, `private` or `unknown`."""
        outcomes = []
        for host, group in self._groups().items():
            votes = [w.reached for w in group if w.reached is not None]
            if votes and not on_loopback(host):
                outcomes.append(2 * sum(votes) > len(votes))
        if not outcomes:
            return UNKNOWN
        return PUBLIC if all(outcomes) else PRIVATE

    def reason(self) -> str:
        """Why that is so, for people."""
        said = [w for w in self._by_node.values() if w.reached is not None]
        failed = [w for w in said if not w.reached]
        if not said:
            return "no member has dialled this node, or tried to"
        if not failed:
            return f"{len(said)} members have dialled this node"
        return f"{len(failed)} of {len(said)} members could not dial this node where they see it"

    def addresses_at(self, seen: str) -> tuple[str, ...]:
        """Where this node may be dialled by who sees it come from `seen`."""
        host = host_of(seen)
        there = [address for address in self.own if host_of(address) == host]
        if not there:
            # A NAT, which may forward the same port, or keep it when it is opened from inside.
            family = host[: host.rfind("/") + 1]
            ports = dict.fromkeys(port_of(a) for a in self.own if a.startswith(family))
            there = [f"{host}{port}/p2p/{self._node}" for port in ports if port]
        return tuple(there[: limits.ADDRESSES_PER_PEER])

    def direct_addresses(self) -> tuple[str, ...]:
        """Where this node may be reached without a relay, if its NATs are opened from inside."""
        seen = dict.fromkeys(w.seen for w in self._by_node.values() if w.seen)
        found = [address for place in seen for address in self.addresses_at(place)]
        found += [address for address in self.own if not on_loopback(host_of(address))]
        return tuple(dict.fromkeys(found))[: limits.ADDRESSES_PER_PEER]

    def views(self) -> tuple[WitnessView, ...]:
        """What can be seen of them."""
        return tuple(
            WitnessView(node, w.seen, w.outcome, w.address, w.detail, w.relays)
            for node, w in self._by_node.items()
        )

    def check(self, alive: list[NodeId]) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        assert len(self._asked) <= limits.DIAL_BACKS
        assert self._by_node.keys() == set(alive)
