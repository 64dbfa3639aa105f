"""Who of the members decides: the leader's plan, one change at a time.

Rules:
- The number of voters is odd but for the moment between two changes: two voters lose as much with
  one as one alone does. So two learners are taught before the first of them gets a vote.
- Who is to be a voter learns first, and is passed over for a while if it does not catch up.
- A voter that was not heard for `SEAT_LOST_MS` is replaced if somebody can take its place;
  never only put out, for that would leave fewer to lose.
- Who may not coordinate any more loses its seat at once.
- Members are taken in the order of their ids, so that every leader would choose the same.
"""

from __future__ import annotations

from collections.abc import Callable

from meshslm import limits, mesh_limits
from meshslm.core.consensus.configuration import with_learner, with_voter, without
from meshslm.core.consensus.leading import Leading
from meshslm.ids import Instant, NodeId, after, ms_between
from meshslm.wire.consensus import Configuration


class Seats:
    """Plans who decides."""

    def __init__(
        self,
        node: NodeId,
        wanted: int,
        members: Callable[[], list[NodeId]],
        barred: Callable[[NodeId], bool],
    ) -> None:
        self._node = node
        self._wanted = wanted
        self._members = members
        self._barred = barred
        self._passed: dict[NodeId, Instant] = {}
        """Members that did not learn, and until when they are passed over."""

    def plan(self, has: Configuration, leading: Leading, now: Instant) -> Configuration | None:
        """The next change, if one is due."""
        if not self._wanted or leading.obstacle():
            return None
        return (
            self._dismiss(has)
            or self._give_up(has, leading, now)
            or self._replace(has, leading, now)
            or self._grow(has, leading, now)
            or self._shrink(has, leading, now)
        )

    def _dismiss(self, has: Configuration) -> Configuration | None:
        """Take the seat of whoever may not have it."""
        for seat in (*has.learners, *has.voters):
            if seat.node != self._node and self._barred(seat.node):
                return without(has, seat.node)
        return None

    def _give_up(self, has: Configuration, leading: Leading, now: Instant) -> Configuration | None:
        """Let a learner go that does not learn."""
        for seat in has.learners:
            since = leading.learns_since(seat.node)
            if since is None or ms_between(since, now) < mesh_limits.SEAT_LEARN_MS:
                continue
            if not leading.caught_up(seat.node, now):
                if len(self._passed) >= limits.PEERS:
                    self._passed.clear()
                self._passed[seat.node] = after(now, 10 * mesh_limits.SEAT_LEARN_MS)
                return without(has, seat.node)
        return None

    def _able(self, has: Configuration, leading: Leading, now: Instant) -> list[NodeId]:
        return sorted(s.node for s in has.learners if leading.caught_up(s.node, now))

    def _lost(self, has: Configuration, leading: Leading, now: Instant) -> list[NodeId]:
        """Voters that were not heard for long."""
        return [
            seat.node
            for seat in has.voters
            if seat.node != self._node
            and leading.silent_ms(seat.node, now) >= mesh_limits.SEAT_LOST_MS
        ]

    def _replace(self, has: Configuration, leading: Leading, now: Instant) -> Configuration | None:
        lost = self._lost(has, leading, now)
        if not lost:
            return None
        if len(has.voters) > self._wanted:
            return without(has, lost[0])
        able = self._able(has, leading, now)
        if able and len(has.voters) == self._wanted:
            return with_voter(has, leading.seated(able[0]))
        if len(has.voters) > 1 and not has.learners:
            return self._teach(has, now, again=lost[0])
        return None

    def _teach(
        self, has: Configuration, now: Instant, again: NodeId | None = None
    ) -> Configuration | None:
        """Take a member in; a voter with a new disk learns again, where nobody else could."""
        if len(has.learners) >= mesh_limits.SEATS:
            return None
        seated = {seat.node for seat in (*has.voters, *has.learners)}
        for node in sorted(self._members()):
            if node not in seated and self._passed.get(node, now) <= now:
                return with_learner(has, node)
        if again is not None and again in self._members() and len(has.voters) > 1:
            return with_learner(has, again)
        return None

    def _grow(self, has: Configuration, leading: Leading, now: Instant) -> Configuration | None:
        missing = self._wanted - len(has.voters)
        if missing <= 0:
            return None
        needed = min(missing, 1 if len(has.voters) % 2 == 0 else 2)
        able = self._able(has, leading, now)
        if len(able) >= needed:
            return with_voter(has, leading.seated(able[0]))
        return self._teach(has, now) if len(has.learners) < needed else None

    def _shrink(self, has: Configuration, leading: Leading, now: Instant) -> Configuration | None:
        if len(has.voters) > self._wanted:
            others = [s.node for s in has.voters if s.node != self._node]
            return without(has, max(others, key=lambda n: (leading.silent_ms(n, now), n)))
        if len(has.voters) == self._wanted and has.learners and not self._lost(has, leading, now):
            return without(has, has.learners[0].node)
        return None
