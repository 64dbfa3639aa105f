"""When to dial whom: one link to every known peer, without hammering those that do not answer.

A peer with several addresses is dialled in rounds: the address that worked last comes first, then
the two families of IP in turn, each a moment after the one before or as soon as that has failed;
whichever answers first is kept, as RFC 8305 has it for names.

Events: an address becomes known, a dial ends, a peer connects or goes, a timer fires.
Effects: `Dial`, timers.

Rules:
- Waits between rounds double from `DIAL_BACKOFF_MS` to `DIAL_BACKOFF_MOST_MS`, with half of each
  drawn at random, so that two nodes that lost each other do not keep meeting in the middle.
- A link that had lasted and is lost is worth a round at once: tasks wait, and a refusal shows that
  the peer has died. One that is lost again and again waits as one that failed.
- At most `DIALS` dials are under way.
- An address from the configuration is tried for ever; any other is given up after
  `PEER_FORGET_MS` without success. One from the configuration that does not answer is told of,
  and how each of them stands can be seen.
- What others tell of is hearsay: it adds addresses, but nobody may fill the table with it, or have
  a node knock where no single machine can be.
- Success is a hello that both sides take, not a link.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import zip_longest
from typing import Final

from meshslm import limits
from meshslm.chance import Chance
from meshslm.core.dial_targets import Outcome, Target, Thin
from meshslm.core.events import Dial
from meshslm.core.outbox import Outbox
from meshslm.core.views import DialView
from meshslm.core.ways import leads_somewhere, through_relay
from meshslm.ids import Instant, NodeId, after, ms_between

TIMER = "dial"
LOCAL: Final = NodeId("")
"""Stands for whatever tells of addresses and is no peer: the local network, the file of peers."""
TELL_AT: Final = 3
"""A configured address whose rounds failed so often in a row is told of: once, and not while nodes
that start together miss each other by a moment."""


def peer_of(address: str) -> NodeId | None:
    """The peer id at the end of a multiaddress, if it names one."""
    _, found, peer = address.rpartition("/p2p/")
    return NodeId(peer) if found and peer else None


def in_turn(addresses: Iterable[str]) -> list[str]:
    """The first address, then those of the other family of IP and of its own in turn.

    Those through relays come last.
    """
    first, *others = addresses
    family = first.startswith("/ip6/")
    direct = [a for a in others if not through_relay(a)]
    other = [a for a in direct if a.startswith("/ip6/") is not family]
    same = [a for a in direct if a.startswith("/ip6/") is family]
    turns = (a for pair in zip_longest(other, same) for a in pair if a is not None)
    return [first, *turns, *(a for a in others if through_relay(a))]


class Dialling:
    """State of all dials."""

    def __init__(self, node: NodeId, out: Outbox, chance: Chance) -> None:
        self._node = node
        self._out = out
        self._chance = chance
        self._targets: dict[str, Target] = {}
        self._under_way: dict[str, str] = {}
        """Address being dialled -> key of its target."""
        self._queue: deque[tuple[str, str]] = deque()
        """Key and address of dials that wait for others to end."""
        self._told: dict[NodeId, int] = {}
        """Targets that nobody has reached yet, by who told of them."""
        self._outcomes: dict[str, Outcome] = {}
        """Of configured addresses, the newest."""
        self._thin: Thin | None = None

    def want(
        self, address: str, now: Instant, *, configured: bool = False, teller: NodeId = LOCAL
    ) -> None:
        """Keep a link to whoever listens at `address`, of which `teller` has told."""
        peer = peer_of(address)
        if peer == self._node or (self._thin is not None and not configured):
            return
        if not (configured or leads_somewhere(address)):
            return
        key = peer or address
        target = self._targets.get(key)
        if target is None:
            told = self._told.get(teller, 0)
            if not configured and (len(self._targets) >= limits.PEERS or told >= limits.HEARSAY):
                return
            target = Target(key, [address], [address] if configured else [], now)
            self._targets[key] = target
            if not configured:
                target.teller = teller
                self._told[teller] = told + 1
            self._begin(target, now)
            return
        if configured and address not in target.configured:
            target.configured.append(address)
        if address not in target.addresses:
            target.addresses.append(address)
            if len(target.addresses) > limits.ADDRESSES_PER_PEER:
                target.addresses.remove(self._least(target))
            if target.trying and len(target.untried) < limits.ADDRESSES_PER_PEER:
                target.untried.append(address)
                self._out.start_timer(TIMER, target.key, limits.DIAL_STAGGER_MS)

    def moved(
        self, peer: NodeId, addresses: tuple[str, ...], now: Instant, teller: NodeId = LOCAL
    ) -> None:
        """The peer itself says that it listens at `addresses`, and nowhere else."""
        target, addresses = self._targets.get(peer), tuple(filter(leads_somewhere, addresses))
        if target is not None and addresses:
            worked = target.addresses[0] if target.linked else ""
            kept = [a for a in target.addresses if a in (worked, *addresses, *target.configured)]
            target.addresses = kept
            target.untried = [a for a in target.untried if a in kept]
        news = target is not None and not set(addresses) <= set(target.addresses)
        for address in addresses:
            self.want(address, now, teller=teller)
        if target is not None and news and target.next_at is not None and not target.linked:
            self._wait(target, now, soon=True)

    def linked(self, peer: NodeId, address: str, now: Instant) -> None:
        """A link to `peer` is up, by a dial of ours or of theirs."""
        reached = self._finished(address, now)
        for key in (reached, str(peer)):
            target = self._targets.get(key) if key is not None else None
            if target is None:
                continue
            for other in list(target.trying):
                self._finished(other, now)
            target.trying.clear()
            target.untried.clear()
            self._reached(target)
            target.peer = peer
            target.linked = True
            target.since = now
            target.next_at = None
            if address in target.addresses:
                target.addresses.remove(address)
                target.addresses.insert(0, address)
            self._out.stop_timer(TIMER, target.key)

    def accepted(self, peer: NodeId) -> None:
        """The peer belongs to this mesh: the waits for it begin anew.

        A link alone does not do that, or one that refuses us would be dialled without end.
        """
        for target in self._targets.values():
            if target.peer == peer:
                target.attempts = 0

    def lost(
        self,
        peer: NodeId,
        addresses: tuple[str, ...],
        now: Instant,
        *,
        again: bool,
        missed: bool = False,
    ) -> None:
        """The link to `peer` is gone; `again` unless it said that it leaves.

        `missed` where nobody meant it: then it is dialled at once.
        """
        for target in [t for t in self._targets.values() if t.linked and t.peer == peer]:
            rare = target.lost is None or ms_between(target.lost, now) >= limits.DIAL_LASTING_MS
            target.linked = False
            target.since = target.lost = now
            if self._thin is not None:
                self._let_go(target, peer, now, again=again)
            elif missed and rare:
                self._begin(target, now)
            elif again or target.configured:
                self._wait(target, now)
            else:
                self._forget(target)
        addresses = tuple(filter(leads_somewhere, addresses))
        if again and peer not in self._targets and addresses:
            if self._thin is None:
                target = Target(str(peer), list(addresses), [], since=now)
                self._targets[target.key] = target
                self._wait(target, now)
            elif self._thin.worth(peer):
                self.reach(peer, addresses, now)

    def failed(
        self, address: str, now: Instant, peer: NodeId | None = None, reason: str = "no answer"
    ) -> None:
        """A dial came to nothing; or `peer` answered, who is linked already by another dial."""
        key = self._finished(address, now)
        target = self._targets.get(key) if key is not None else None
        if address in self._outcomes:
            self._outcomes[address] = Outcome(now, "" if peer is not None else reason)
        if target is None or target.linked:
            return
        if peer is not None:
            target.peer, target.linked, target.attempts, target.since = peer, True, 0, now
            target.next_at = None
            target.untried.clear()
            self._reached(target)
            self._out.stop_timer(TIMER, target.key)
        elif target.untried:
            self._next_address(target, now)
        elif not target.trying:
            self._round_over(target, address, reason, now)

    def timer(self, key: str, now: Instant) -> None:
        """A target's wait is over, or an address of it has not answered for long enough."""
        target = self._targets.get(key)
        if target is None or target.linked:
            return
        if target.untried:
            self._next_address(target, now)
        elif target.trying:
            for address in list(target.trying):
                self.failed(address, now)
        else:
            self._begin(target, now)

    def stop(self) -> None:
        """Dial nobody any more."""
        for target in self._targets.values():
            self._out.stop_timer(TIMER, target.key)
        self._targets.clear()
        self._told.clear()
        self._queue.clear()

    def configured(self, now: Instant) -> tuple[DialView, ...]:
        """How every address from the configuration stands."""
        return tuple(
            self._view(target, address, now)
            for target in self._targets.values()
            for address in target.configured
        )

    def _view(self, target: Target, address: str, now: Instant) -> DialView:
        outcome = self._outcomes.get(address)
        state = "linked" if target.linked else "dialling" if target.trying else "waiting"
        waiting = target.next_at is not None and not target.linked
        return DialView(
            address=address,
            state=state,
            peer=target.peer or peer_of(address) or NodeId(""),
            attempts=target.attempts,
            last_ms=ms_between(outcome.at, now) if outcome is not None else None,
            reason=outcome.reason if outcome is not None and not target.linked else "",
            next_ms=max(0.0, ms_between(now, target.next_at or now)) if waiting else None,
        )

    # --- a large mesh ---------------------------------------------------------------------------
    def thin_out(
        self, worth: Callable[[NodeId], bool], gave_up: Callable[[NodeId, Instant], None]
    ) -> None:
        """Keep links to none but those that are asked for, until `fill_up`."""
        self._thin = Thin(worth, gave_up)
        for target in [t for t in self._targets.values() if not (t.linked or t.configured)]:
            self._forget(target)

    def fill_up(self, now: Instant) -> None:
        """Keep a link to everybody again."""
        self._thin = None
        self.wake(now)

    def reach(self, node: NodeId, addresses: tuple[str, ...], now: Instant) -> None:
        """Dial a member of a large mesh once."""
        target = self._targets.get(node)
        if target is None:
            target = self._targets[node] = Target(str(node), list(addresses), [], now)
        if not (target.linked or target.trying):
            self._begin(target, now)

    def wake(self, now: Instant) -> None:
        """Dial the addresses from the configuration again that were let go."""
        for target in list(self._targets.values()):
            if not (target.linked or target.trying or self._out.timer_runs(TIMER, target.key)):
                self._begin(target, now)

    def _let_go(self, target: Target, peer: NodeId, now: Instant, *, again: bool) -> None:
        assert self._thin is not None, "in a small mesh nobody is let go"
        if again and self._thin.worth(peer):
            self._begin(target, now)
        elif not target.configured:
            self._forget(target)

    # --- rounds ---------------------------------------------------------------------------------
    def _begin(self, target: Target, now: Instant) -> None:
        """Dial the addresses of a target, one after the other until one answers."""
        if target.trying or not target.addresses:
            return
        target.next_at = None
        target.untried = in_turn(target.addresses)
        self._next_address(target, now)

    def _next_address(self, target: Target, now: Instant) -> None:
        while target.untried:
            address = target.untried.pop(0)
            if address not in target.trying and address not in self._under_way:
                target.trying.append(address)
                self._queue.append((target.key, address))
                self._next(now)
                return
        if target.trying:
            self._out.start_timer(TIMER, target.key, limits.DIAL_MS)
        else:
            self._wait(target, now)

    def _next(self, now: Instant) -> None:
        while self._queue and len(self._under_way) < limits.DIALS:
            key, address = self._queue.popleft()
            target = self._targets.get(key)
            if target is None or address not in target.trying:
                continue
            self._under_way[address] = key
            if address in target.configured:
                self._outcomes[address] = Outcome(now)
            self._out.put(Dial(address))
            patience = limits.DIAL_STAGGER_MS if target.untried else limits.DIAL_MS
            self._out.start_timer(TIMER, target.key, patience)

    def _finished(self, address: str, now: Instant) -> str | None:
        key = self._under_way.pop(address, None)
        if key is not None:
            target = self._targets.get(key)
            if target is not None and address in target.trying:
                target.trying.remove(address)
            self._next(now)
        return key

    def _round_over(self, target: Target, address: str, reason: str, now: Instant) -> None:
        thin = self._thin
        old = thin is not None or ms_between(target.since, now) > limits.PEER_FORGET_MS
        if not target.configured and old:
            self._forget(target)
        else:
            # A process that is dying may take a dial and drop it: the next one tells whether it is.
            lost = target.lost is not None and ms_between(target.lost, now) < limits.DIAL_SOON_MS
            self._wait(target, now, soon=lost)
        if thin is not None:
            thin.gave_up(target.peer or peer_of(address) or NodeId(target.key), now)
        if target.configured and target.attempts == TELL_AT:
            self._out.tell("dial.failed", f"{address}: {reason}; it will be tried on")

    def _wait(self, target: Target, now: Instant, *, soon: bool = False) -> None:
        doubled = limits.DIAL_BACKOFF_MS * 2.0 ** min(target.attempts, 16)
        most = limits.DIAL_SOON_MS if soon else min(doubled, limits.DIAL_BACKOFF_MOST_MS)
        target.attempts += 0 if soon else 1
        wait = most * self._chance.between(0.5, 1.0)
        target.next_at = after(now, wait)
        self._out.start_timer(TIMER, target.key, wait)

    def _least(self, target: Target) -> str:
        """The oldest address that neither worked last nor is from the configuration."""
        spare = [a for a in target.addresses[1:] if a not in target.configured]
        return (spare or target.addresses[1:])[0]

    def _reached(self, target: Target) -> None:
        """Its teller has told the truth, or it is forgotten: it no longer counts."""
        if target.teller is not None:
            self._told[target.teller] -= 1
            if not self._told[target.teller]:
                del self._told[target.teller]
            target.teller = None

    def _forget(self, target: Target) -> None:
        self._reached(target)
        self._out.stop_timer(TIMER, target.key)
        for address in target.trying:
            self._under_way.pop(address, None)
        del self._targets[target.key]

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        assert len(self._under_way) <= limits.DIALS
        assert all(0 < count <= limits.HEARSAY for count in self._told.values())
        assert sum(self._told.values()) == sum(t.teller is not None for t in self._targets.values())
        for target in self._targets.values():
            assert target.addresses, f"{target.key} has no address"
            let_go = self._thin is not None and target.configured
            due = target.trying or self._out.timer_runs(TIMER, target.key)
            assert target.linked or due or let_go, f"nobody will ever dial {target.key} again"
