"""How news of members reaches all of a large mesh, and how what got lost is found again.

News goes along a tree of neighbours: each sends it on to those who did not have it from elsewhere
sooner (Plumtree: Leitão, Pereira, Rodrigues 2007). Neighbours tell each other the sum of what they
know with every beat; where the sums differ they compare, part by part, and hand over what is
missing, which heals losses, cuts and the tree itself.

Events: facts, beats, digests, marks and wishes arrive, the timer.
Effects: `Send`, a timer.

Rules:
- News that comes in quick succession is handed on together.
- A comparison is begun where nothing has changed on either side for a while, or seldom: in the
  middle of a change tables differ because news is on its way.
- Whoever asks for much waits for the next time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from meshslm import mesh_limits
from meshslm.core.directory import Peer
from meshslm.core.events import Lane
from meshslm.core.members import Members, Outcome
from meshslm.core.outbox import Outbox
from meshslm.core.records import bucket_of
from meshslm.ids import Instant, NodeId, after, ms_between
from meshslm.wire.admission import Signed
from meshslm.wire.codec import encode
from meshslm.wire.growth import Beat, Digest, Facts, Marks, Prune, Wanted

TIMER = "spread"
QUIET_MS = 700
"""A table that did not change for so long: news crosses a mesh in less."""
AGAIN_MS = 400
"""Between two comparisons while all is quiet, and between two that one peer asks for."""
MUCH = 8
"""Statements that a comparison brings to who lags behind: it compares on."""
STATEMENT_MS = 4
"""Wait for each statement that a peer was handed before it is handed more: 250 a second."""


@dataclass(slots=True)
class Neighbour:
    """A peer with which this node shares news and signs of life."""

    peer: Peer
    chosen: bool
    """By this node; else by the peer."""
    since: Instant
    beaten: Instant
    """When it was last given a sign of life."""
    confirmed: bool = False
    """It takes us for its neighbour too."""
    late_at: Instant = Instant(0)
    """If none of its beats comes before, the next one is late."""
    eager: bool = True
    """News is sent to it; else it has it sooner from others."""


class Spread:
    """What this node hands on."""

    def __init__(
        self,
        members: Members,
        neighbours: dict[NodeId, Neighbour],
        out: Outbox,
    ) -> None:
        self._members = members
        self._neighbours = neighbours
        self._out = out
        self._news: dict[Signed, NodeId] = {}
        """What is to be handed on, and from whom it came."""
        self._told: Instant | None = None
        self._compared: Instant | None = None
        self._gained = 0
        """Statements that the last comparison has brought."""
        self._asked: dict[NodeId, Instant] = {}
        """When a peer last asked for a comparison."""
        self._filled: dict[NodeId, Instant] = {}
        """When a peer may be handed more."""

    # --- news -----------------------------------------------------------------------------------
    def add(self, signed: Signed, source: NodeId, now: Instant) -> None:
        """Hand a statement on, at once unless something was handed on just now."""
        waits = bool(self._news)
        self._news[signed] = source
        if waits:
            return
        since = mesh_limits.SPREAD_MS if self._told is None else ms_between(self._told, now)
        self._out.start_timer(TIMER, "", max(0.0, mesh_limits.SPREAD_MS - since))

    def flush(self, now: Instant) -> None:
        """Hand on what has gathered."""
        news, self._news, self._told = self._news, {}, now
        sources = dict.fromkeys(news.values())
        everything = [encode(facts) for facts in _packed(list(news), asked=False)]
        for neighbour in self._neighbours.values():
            node = neighbour.peer.node
            if neighbour.eager and node in sources:
                self._send(node, [s for s, source in news.items() if source != node])
            elif neighbour.eager:
                for message in everything:
                    self._out.send_encoded(node, Lane.CONTROL, message)

    def _send(self, node: NodeId, statements: list[Signed], *, asked: bool = False) -> None:
        lane = Lane.BACKGROUND if asked else Lane.CONTROL
        for facts in _packed(statements, asked=asked):
            self._out.send(node, lane, facts)

    def heard(self, peer: Peer, facts: Facts, worth: list[Outcome]) -> None:
        """A peer handed statements on, and this is what each was worth."""
        if facts.asked:
            self._gained += worth.count(Outcome.NEWS)
            return
        neighbour = self._neighbours.get(peer.node)
        if neighbour is None or not worth:
            return
        if Outcome.NEWS in worth:
            neighbour.eager = True
        elif all(outcome is Outcome.KNOWN for outcome in worth):
            neighbour.eager = False
            self._out.send(peer.node, Lane.CONTROL, Prune())

    def mend(self) -> None:
        """A neighbour is gone, and perhaps a branch of the tree: try all paths again."""
        for neighbour in self._neighbours.values():
            neighbour.eager = True

    def on_prune(self, peer: Peer) -> None:
        """The peer has our news from others."""
        neighbour = self._neighbours.get(peer.node)
        if neighbour is not None:
            neighbour.eager = False

    # --- comparing ------------------------------------------------------------------------------
    def beat(self, now: Instant, *, neighbour: bool = True) -> Beat:
        """A sign of life with the sum of all that is known here."""
        return Beat(self._members.root, neighbour, self._quiet(now))

    def _quiet(self, now: Instant) -> bool:
        return ms_between(self._members.changed_at, now) >= QUIET_MS

    def on_beat(self, peer: Peer, beat: Beat, now: Instant) -> None:
        """The peer tells its sum: compare where it is another than ours."""
        if beat.root == self._members.root:
            return
        calm = beat.quiet and self._quiet(now)
        behind = self._gained >= MUCH or len(self._members) <= 1
        wait = AGAIN_MS if calm or behind else mesh_limits.COMPARE_MS
        if self._compared is None or ms_between(self._compared, now) >= wait:
            self._compared, self._gained = now, 0
            self._out.send(peer.node, Lane.CONTROL, Digest(self._members.digest()))

    def on_digest(self, peer: Peer, digest: Digest, now: Instant) -> None:
        """The peer wants to know what differs."""
        if not self._may(self._asked, peer.node, AGAIN_MS, now):
            return
        unlike, empty = self._members.differing(digest.buckets)
        mine = self._members.digest()
        ours_empty = [n for n in unlike if not any(mine[8 * n : 8 * n + 8])]
        both = [n for n in unlike if n not in empty and n not in ours_empty]
        compared = (*both[: mesh_limits.BUCKETS_AT_ONCE], *ours_empty)
        if compared:
            marks = b"".join(m.to_bytes(8, "big") for m, _ in self._members.marked(compared))
            self._out.send(peer.node, Lane.CONTROL, Marks(bytes(compared), marks))
        if empty:
            held = [fact.record.node for _, fact in self._members.marked(empty)]
            self._hand_over(peer, held, now)

    def on_marks(self, peer: Peer, message: Marks, now: Instant) -> None:
        """The peer tells all that it knows of some parts: ask for what it lacks here, and give."""
        if not self._may(self._asked, peer.node, AGAIN_MS / 2, now):
            return
        theirs = dict.fromkeys(_numbers(message.marks))
        mine = dict(self._members.marked(message.buckets))
        lacking = [mark for mark in theirs if mark not in mine]
        given = [fact.record.node for mark, fact in mine.items() if mark not in theirs]
        parts = dict.fromkeys(mark >> 32 for mark in lacking)
        given += [n for n, lost in self._members.lost.items() if lost.fact.mark >> 32 in parts]
        if lacking:
            marks = b"".join(mark.to_bytes(8, "big") for mark in lacking)
            self._out.send(peer.node, Lane.CONTROL, Wanted(marks))
        self._hand_over(peer, given, now)
        neighbour = self._neighbours.get(peer.node)
        if neighbour is not None and (lacking or given):
            neighbour.eager = True  # the tree has a hole here

    def on_wanted(self, peer: Peer, wanted: Wanted, now: Instant) -> None:
        """The peer lacks these."""
        marks = dict.fromkeys(_numbers(wanted.marks))
        buckets = dict.fromkeys(map(bucket_of, marks))
        found = [f.record.node for m, f in self._members.marked(buckets) if m in marks]
        self._hand_over(peer, found, now)
        neighbour = self._neighbours.get(peer.node)
        if neighbour is not None and found:
            neighbour.eager = True

    def contradict(self, peer: Peer, node: NodeId) -> None:
        """The peer takes a member for alive: tell it who has lost that one."""
        self._send(peer.node, list(self._members.statements(node)), asked=True)

    def _hand_over(self, peer: Peer, nodes: Iterable[NodeId], now: Instant) -> None:
        if self._filled.get(peer.node, now) > now:
            return
        statements = [signed for node in nodes for signed in self._members.statements(node)]
        self._filled[peer.node] = after(now, STATEMENT_MS * len(statements))
        self._send(peer.node, statements, asked=True)

    @staticmethod
    def _may(times: dict[NodeId, Instant], node: NodeId, least_ms: float, now: Instant) -> bool:
        last = times.get(node)
        if last is not None and ms_between(last, now) < least_ms:
            return False
        times[node] = now
        return True

    def forget(self, node: NodeId) -> None:
        """The link to a peer is gone."""
        self._asked.pop(node, None)
        self._filled.pop(node, None)


def _packed(statements: list[Signed], *, asked: bool) -> Iterable[Facts]:
    """As many messages as they take."""
    for start in range(0, len(statements), mesh_limits.FACTS):
        yield Facts(tuple(statements[start : start + mesh_limits.FACTS]), asked)


def _numbers(marks: bytes) -> Iterable[int]:
    return (int.from_bytes(marks[at : at + 8], "big") for at in range(0, len(marks), 8))
