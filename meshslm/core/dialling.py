"""When to dial whom: one link to every known peer, without hammering those that do not answer.

Events: an address becomes known, a dial ends, a peer connects or goes, a timer fires.
Effects: `Dial`, timers.

Rules:
- Waits double from `DIAL_BACKOFF_MS` to `DIAL_BACKOFF_MOST_MS`, with half of each drawn at random,
  so that two nodes that lost each other do not keep meeting in the middle.
- At most `DIALS` dials are under way.
- An address from the configuration is tried for ever; any other is given up after
  `PEER_FORGET_MS` without success. One from the configuration that does not answer is told of.
- Success is a hello that both sides take, not a link.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from meshslm import limits
from meshslm.chance import Chance
from meshslm.core.events import Dial
from meshslm.core.outbox import Outbox
from meshslm.ids import Instant, NodeId, ms_between

TIMER = "dial"
TELL_AT: Final = 3
"""A configured address that failed so often in a row is told of: once, and not while nodes that
start together miss each other by a moment."""


def peer_of(address: str) -> NodeId | None:
    """The peer id at the end of a multiaddress, if it names one."""
    _, found, peer = address.rpartition("/p2p/")
    return NodeId(peer) if found and peer else None


@dataclass(slots=True)
class Target:
    """Somebody to be linked to: a peer by id, or a configured address without one."""

    key: str
    addresses: list[str]
    configured: bool
    since: Instant
    """When it was last linked, or became known."""
    attempts: int = 0
    linked: bool = False
    peer: NodeId | None = None
    """Who answered there."""
    dialling: str = ""
    """Address being dialled or queued for it; empty if none."""


class Dialling:
    """State of all dials."""

    def __init__(self, node: NodeId, out: Outbox, chance: Chance) -> None:
        self._node = node
        self._out = out
        self._chance = chance
        self._targets: dict[str, Target] = {}
        self._under_way: dict[str, str] = {}
        """Address being dialled -> key of its target."""
        self._queue: deque[str] = deque()

    def want(self, address: str, now: Instant, *, configured: bool = False) -> None:
        """Keep a link to whoever listens at `address`."""
        peer = peer_of(address)
        if peer == self._node:
            return
        key = peer or address
        target = self._targets.get(key)
        if target is None:
            if len(self._targets) >= limits.PEERS and not configured:
                return
            target = Target(key, [address], configured, now)
            self._targets[key] = target
            self._dial(target)
            return
        target.configured = target.configured or configured
        if address not in target.addresses:
            target.addresses.append(address)
            if len(target.addresses) > limits.ADDRESSES_PER_PEER:
                del target.addresses[0]

    def linked(self, peer: NodeId, address: str, now: Instant) -> None:
        """A link to `peer` is up, by a dial of ours or of theirs."""
        reached = self._finished(address)
        for key in (reached, str(peer)):
            target = self._targets.get(key) if key is not None else None
            if target is None:
                continue
            if target.dialling:
                self._finished(target.dialling)
            target.peer = peer
            target.linked = True
            target.since = now
            self._out.stop_timer(TIMER, target.key)

    def accepted(self, peer: NodeId) -> None:
        """The peer belongs to this mesh: the waits for it begin anew.

        A link alone does not do that, or one that refuses us would be dialled without end.
        """
        for target in self._targets.values():
            if target.peer == peer:
                target.attempts = 0

    def lost(self, peer: NodeId, addresses: tuple[str, ...], now: Instant, *, again: bool) -> None:
        """The link to `peer` is gone; `again` unless it said that it leaves."""
        for target in [t for t in self._targets.values() if t.linked and t.peer == peer]:
            target.linked = False
            target.since = now
            if again or target.configured:
                self._wait(target)
            else:
                self._forget(target)
        if again and peer not in self._targets and addresses:
            target = Target(str(peer), list(addresses), configured=False, since=now)
            self._targets[target.key] = target
            self._wait(target)

    def failed(
        self, address: str, now: Instant, peer: NodeId | None = None, reason: str = "no answer"
    ) -> None:
        """A dial came to nothing; or `peer` answered, who is linked already by another dial."""
        key = self._finished(address)
        target = self._targets.get(key) if key is not None else None
        if target is None or target.linked:
            return
        if peer is not None:
            target.peer, target.linked, target.attempts, target.since = peer, True, 0, now
            return
        if not target.configured and ms_between(target.since, now) > limits.PEER_FORGET_MS:
            self._forget(target)
            return
        if address in target.addresses:
            target.addresses.remove(address)
            target.addresses.append(address)
        self._wait(target)
        if target.configured and target.attempts == TELL_AT:
            self._out.tell("dial.failed", f"{address}: {reason}; it will be tried on")

    def timer(self, key: str, now: Instant) -> None:
        """A target's wait is over, or its dial has taken too long."""
        target = self._targets.get(key)
        if target is None or target.linked:
            return
        if target.dialling in self._under_way:
            self.failed(target.dialling, now)
        else:
            self._dial(target)

    def stop(self) -> None:
        """Dial nobody any more."""
        for target in self._targets.values():
            self._out.stop_timer(TIMER, target.key)
        self._targets.clear()
        self._queue.clear()

    def _wait(self, target: Target) -> None:
        wait = min(
            limits.DIAL_BACKOFF_MS * 2.0 ** min(target.attempts, 16), limits.DIAL_BACKOFF_MOST_MS
        )
        target.attempts += 1
        self._out.start_timer(TIMER, target.key, wait * self._chance.between(0.5, 1.0))

    def _dial(self, target: Target) -> None:
        if target.dialling or not target.addresses:
            return
        target.dialling = target.addresses[0]
        self._queue.append(target.key)
        self._next()

    def _next(self) -> None:
        while self._queue and len(self._under_way) < limits.DIALS:
            target = self._targets.get(self._queue.popleft())
            if target is None or not target.dialling:
                continue
            if target.linked:
                target.dialling = ""
                continue
            if target.dialling in self._under_way:
                target.dialling = ""
                self._wait(target)
                continue
            self._under_way[target.dialling] = target.key
            self._out.put(Dial(target.dialling))
            self._out.start_timer(TIMER, target.key, limits.DIAL_MS)

    def _finished(self, address: str) -> str | None:
        key = self._under_way.pop(address, None)
        if key is not None:
            target = self._targets.get(key)
            if target is not None:
                target.dialling = ""
            self._next()
        return key

    def _forget(self, target: Target) -> None:
        self._out.stop_timer(TIMER, target.key)
        del self._targets[target.key]

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        assert len(self._under_way) <= limits.DIALS
        for target in self._targets.values():
            assert target.linked or target.dialling or self._out.timer_runs(TIMER, target.key), (
                f"nobody will ever dial {target.key} again"
            )
