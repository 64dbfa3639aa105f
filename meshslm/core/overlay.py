"""Whose neighbour this node is in a large mesh, and how it knows that they live.

Each node chooses a few neighbours at random from all members and is chosen by about as many: a
random graph that stays in one piece when half of its nodes die, whose size no node notices. Members
are all known by their records, so no view has to be shuffled to stay random.

Events: the tick, beats and partings arrive, links come and go, dials fail.
Effects: `Send`, dials, and `accuse`, which tells others of who is lost.

Rules:
- Who is drawn is drawn by machine, not by identity: a thousand identities at one address are worth
  one, and nobody but this node fills the places that it chooses for.
- A beat asks for the neighbourhood as long as it goes on; who has no place answers with `Part`.
- A neighbour whose link broke is dialled once; if that fails, or it was silent, it is accused.
"""

from __future__ import annotations

from collections.abc import Callable

from meshslm import limits, mesh_limits
from meshslm.chance import Chance
from meshslm.core.detection import Detection
from meshslm.core.directory import Directory, Peer
from meshslm.core.events import Lane
from meshslm.core.members import Members
from meshslm.core.outbox import Outbox
from meshslm.core.records import source_of
from meshslm.core.spread import Neighbour, Spread
from meshslm.core.watch import BEAT_LATE_MS
from meshslm.ids import Instant, NodeId, after, ms_between
from meshslm.wire.codec import encode
from meshslm.wire.growth import Part

CONFIRM_MS = 5_000
"""A neighbour that never beats back by then is none, and a dial for one has failed."""
CHOOSERS_PER_SOURCE = 2
"""Neighbours that came from one machine, where members are on many."""
DIALS_PER_TICK = 2
DRAWS = 16

Reach = Callable[[NodeId, Instant], bool]
"""Dial a member once; false where its addresses are not known."""


class Overlay:
    """The neighbours of one node."""

    def __init__(
        self,
        node: NodeId,
        directory: Directory,
        members: Members,
        detection: Detection,
        out: Outbox,
        chance: Chance,
        *,
        reach: Reach,
        accuse: Callable[[NodeId, Instant], None],
    ) -> None:
        self._node = node
        self._directory = directory
        self._members = members
        self._detection = detection
        self._out = out
        self._chance = chance
        self._reach = reach
        self._accuse = accuse
        self.neighbours: dict[NodeId, Neighbour] = {}
        self._awaited: dict[NodeId, Instant] = {}
        """Members being dialled to become neighbours."""
        self._broken: dict[NodeId, Instant] = {}
        """Neighbours whose links broke, until they are reached or accused."""
        self._refused: dict[NodeId, Instant] = {}
        """Members that had no place for us, or did not answer."""
        self._ticked: Instant | None = None
        self._listen_at = Instant(0)
        """No neighbour's beat is late before."""

    # --- time -----------------------------------------------------------------------------------
    def tick(self, spread: Spread, now: Instant) -> None:
        """Once a second: give signs of life, listen for them, fill empty places."""
        if self._overslept(now):
            self._detection.slept(now)
        self._ticked = now
        due: list[Neighbour] = []
        others: list[Neighbour] = []
        for neighbour in list(self.neighbours.values()):
            if not neighbour.confirmed and ms_between(neighbour.since, now) >= CONFIRM_MS:
                self._end(neighbour.peer.node)
                self._refused[neighbour.peer.node] = now
                continue
            waited = ms_between(neighbour.beaten, now)
            late = waited >= mesh_limits.BEAT_MS - limits.PRESENCE_MS / 2
            (due if late else others).append(neighbour)
        # Half of them at each tick, so that some miss this node a second sooner than the rest.
        due += others[: max(0, len(others) - len(due)) // 2]
        beat = encode(spread.beat(now)) if due else b""
        for neighbour in due:
            self._beat(neighbour, beat, now)
        self.listen(now)
        for waiting in (self._awaited, self._refused):
            for node, since_when in list(waiting.items()):
                if ms_between(since_when, now) >= CONFIRM_MS:
                    del waiting[node]
        self._accuse_unreached(now)
        self._seek(spread, now)

    def listen(self, now: Instant) -> None:
        """Look at neighbours whose beats are late, if there can be any.

        Called at the tick and at each beat: others' beats wake this node a few times a second, so
        who is late is noticed within moments, and no timer is kept for it.
        """
        if now < self._listen_at or self._overslept(now):
            return
        next_at = after(now, BEAT_LATE_MS)
        for neighbour in self.neighbours.values():
            if neighbour.confirmed:
                if neighbour.late_at <= now:
                    wait_ms = self._detection.listen(neighbour.peer, now)
                    neighbour.late_at = after(now, wait_ms)
                next_at = min(next_at, neighbour.late_at)
        self._listen_at = next_at

    def _overslept(self, now: Instant) -> bool:
        """Whether this node did not run when it should have: what it missed is nobody's silence."""
        late_ms = limits.PRESENCE_MS + mesh_limits.LATE_MS
        return self._ticked is not None and ms_between(self._ticked, now) > late_ms

    def _accuse_unreached(self, now: Instant) -> None:
        for node, since in list(self._broken.items()):
            if ms_between(since, now) >= CONFIRM_MS:
                self.unreachable(node, now)

    def _seek(self, spread: Spread, now: Instant) -> None:
        """Choose neighbours until there are enough."""
        chosen = sum(neighbour.chosen for neighbour in self.neighbours.values())
        lacking = mesh_limits.CHOSEN - chosen - len(self._awaited)
        most = mesh_limits.CHOSEN if not self.neighbours else DIALS_PER_TICK
        for _ in range(min(lacking, most)):
            node = self._draw()
            if node is None:
                return
            peer = self._directory.get_alive(node)
            if peer is not None:
                self._begin(peer, spread, now, chosen=True)
            elif self._reach(node, now):
                self._awaited[node] = now

    def _draw(self) -> NodeId | None:
        for _ in range(DRAWS if len(self._members) else 0):
            node = self._members.draw(self._chance).record.node
            known = node in self.neighbours or node in self._awaited or node in self._refused
            if node != self._node and not known and not self._members.is_accused(node):
                return node
        return None

    # --- neighbours -----------------------------------------------------------------------------
    def linked(self, peer: Peer, spread: Spread, now: Instant) -> None:
        """A peer is there: perhaps it was dialled to be a neighbour."""
        self._broken.pop(peer.node, None)
        if self._awaited.pop(peer.node, None) is not None:
            self._begin(peer, spread, now, chosen=True)

    def _begin(self, peer: Peer, spread: Spread, now: Instant, *, chosen: bool) -> None:
        known = self.neighbours.get(peer.node)
        if known is not None:
            known.chosen = known.chosen or chosen
            return
        neighbour = self.neighbours[peer.node] = Neighbour(peer, chosen, now, now)
        self._detection.join(peer, now)
        self._beat(neighbour, encode(spread.beat(now)), now)

    def _beat(self, neighbour: Neighbour, beat: bytes, now: Instant) -> None:
        neighbour.beaten = now
        self._out.send_encoded(neighbour.peer.node, Lane.CONTROL, beat)

    def on_beat(self, peer: Peer, spread: Spread, now: Instant) -> None:
        """The peer takes us for its neighbour, or wants to."""
        neighbour = self.neighbours.get(peer.node)
        if neighbour is None:
            if not self._has_place(peer):
                self.refuse(peer)
                return
            self._begin(peer, spread, now, chosen=False)
            neighbour = self.neighbours[peer.node]
        neighbour.confirmed = True
        neighbour.late_at = after(now, BEAT_LATE_MS)

    def _has_place(self, peer: Peer) -> bool:
        choosers = [n for n in self.neighbours.values() if not n.chosen]
        if len(choosers) >= mesh_limits.CHOOSERS:
            return False
        if self._members.sources() <= mesh_limits.CHOOSERS or not peer.came_from:
            return True
        source = source_of(peer.came_from)
        same = sum(source_of(n.peer.came_from) == source for n in choosers if n.peer.came_from)
        return same < CHOOSERS_PER_SOURCE

    def refuse(self, peer: Peer) -> None:
        """There is no place for the peer."""
        self._out.send(peer.node, Lane.CONTROL, Part())

    def on_part(self, peer: Peer, now: Instant) -> None:
        """The peer has no place for us."""
        if peer.node in self.neighbours:
            self._end(peer.node)
            self._refused[peer.node] = now

    def _end(self, node: NodeId) -> None:
        if self.neighbours.pop(node, None) is not None:
            self._detection.release(node)

    def part_all(self) -> None:
        """This mesh is small again: nobody is a neighbour more than others."""
        for neighbour in self.neighbours.values():
            self._out.send(neighbour.peer.node, Lane.CONTROL, Part())
        self.neighbours.clear()
        self._awaited.clear()
        self._broken.clear()
        self._ticked = None

    # --- losses ---------------------------------------------------------------------------------
    def silent(self, peer: Peer, now: Instant) -> bool:
        """A peer was silent for too long; true if it was a neighbour."""
        was = self.neighbours.pop(peer.node, None) is not None
        if was:
            self._accuse(peer.node, now)
        return was

    def ended(self, node: NodeId, now: Instant, *, broken: bool) -> bool:
        """A link is over, `broken` where nobody meant it to be; true if it was a neighbour's."""
        was = self.neighbours.pop(node, None) is not None
        if was and broken:
            self._broken[node] = now
        return was

    def worth_a_dial(self, node: NodeId) -> bool:
        """Whether a peer whose link broke is to be dialled, once."""
        return node in self._broken

    def unreachable(self, node: NodeId, now: Instant) -> None:
        """A dial to a member has failed."""
        self._awaited.pop(node, None)
        if self._broken.pop(node, None) is not None:
            self._accuse(node, now)

    def heard_accusation(self, node: NodeId, now: Instant) -> None:
        """Others have lost a member: who has a link to it looks, who lost it too says so."""
        peer = self._directory.get_alive(node)
        if peer is not None:
            self._detection.look(peer, now)
        elif node in self._broken:
            self.unreachable(node, now)

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        for node, neighbour in self.neighbours.items():
            peer = self._directory.get_alive(node)
            assert peer is neighbour.peer, f"{node} is a neighbour without a link"
        choosers = sum(not n.chosen for n in self.neighbours.values())
        assert choosers <= mesh_limits.CHOOSERS
