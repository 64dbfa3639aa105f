"""Who is still there: probes, probes through others, suspicion, refutation.

SWIM (Das, Gupta, Motivala 2002) finds the silent with a load that does not grow with the mesh;
Lifeguard (Dadgar, Phillips, Currey 2018) keeps a slow node from accusing healthy ones. Here every
peer in question has a link to this node, so one thing is stricter than there: what others say makes
this node look at once, but it gives nobody up whom it hears.

Events: a peer joins or parts, pings, probes and news arrive, the timer.
Effects: `Send`, timers, and `lost`, which ends a peer's link.

Rules:
- Each message of a peer shows that it lives; whoever is heard is no longer looked at.
- A peer is lost after enough silence and `PINGS_UNANSWERED` pings of this node. If others reach it
  meanwhile, only the link is broken, and it gets more time.
- News is about one life of a node, (boot, counter); only the node itself begins a new one.
- Time in which this node did not run is nobody's silence.
"""

from __future__ import annotations

from collections.abc import Callable

from meshslm import limits, mesh_limits
from meshslm.chance import Chance
from meshslm.core.directory import Peer
from meshslm.core.events import Lane
from meshslm.core.outbox import Outbox
from meshslm.core.rumours import Rumours
from meshslm.core.suspicion import Health, Suspicion
from meshslm.core.watch import BEAT_LATE_MS, VOUCHED_MS, Errand, Errands, Turns, Watch, spacing_ms
from meshslm.errors import PeerFault
from meshslm.ids import Instant, NodeId, after, ms_between
from meshslm.wire.detection import Gossip, News, Ping, Pong, Probe, Probed

TIMER = "probe"
ALIVE, SUSPECT, DEAD = "alive", "suspect", "dead"


class Detection:
    """The failure detector of one node."""

    def __init__(
        self,
        node: NodeId,
        out: Outbox,
        chance: Chance,
        lost: Callable[[Peer, str, Instant], None],
    ) -> None:
        self._node = node
        self._out = out
        self._chance = chance
        self._lost = lost
        self._boot = 0
        self._counter = 0
        """This node's own life, as others speak of it."""
        self._refuted: Instant | None = None
        self._health = Health()
        self._rumours = Rumours()
        self._watches: dict[NodeId, Watch] = {}
        self._doubted: dict[NodeId, Watch] = {}
        """Those that are being looked at."""
        self._errands = Errands()
        self._turns = Turns(chance)
        self._nonce = 0
        self._due: Instant | None = None
        self._next = Instant(0)
        self._interval_ms = limits.PRESENCE_MS
        """Between two presences of a peer."""
        self._sparse = False
        """In a large mesh only some are watched, whose beats tell; others know too little of them
        to be asked."""

    # --- who is watched -------------------------------------------------------------------------
    def start(self, boot: int, now: Instant) -> None:
        """Begin to probe."""
        self._boot, self._counter = boot, 0
        self._wake(self._chance.between(0, mesh_limits.PROBE_MS), now)

    def stop(self) -> None:
        """Probe nobody any more."""
        self._out.stop_timer(TIMER, "")
        self._doubted.clear()

    def join(self, peer: Peer, now: Instant) -> None:
        """A peer was accepted: watch it from now on, and measure how far away it is.

        It may not have our hello yet, and does not answer before; so it gets some time until then.
        """
        self._watches[peer.node] = Watch(peer, after(now, limits.HELLO_MS / 2))
        self._doubted.pop(peer.node, None)
        self._ping(peer, now)

    def thin_out(self) -> None:
        """Watch nobody but those who join from now on, and probe them only in doubt."""
        self._sparse = True
        for node in list(self._watches):
            self.part(node)

    def fill_up(self, now: Instant) -> None:
        """Probe everybody again, one after the other."""
        self._sparse = False
        self._wake(self._chance.between(0, mesh_limits.PROBE_MS), now)

    def look(self, peer: Peer, now: Instant) -> None:
        """Others have lost a peer that is linked here: see whether it answers.

        If nobody listened to it here, or not yet, their silence counts, and its unanswered pings
        are enough.
        """
        pinged_ms = mesh_limits.PINGS_UNANSWERED * mesh_limits.PROBE_AGAIN_MS
        excused = after(now, pinged_ms - mesh_limits.SUSPICION_MS)
        watch = self._watches.setdefault(peer.node, Watch(peer, excused))
        if watch.excused > now:
            watch.excused = excused
        self._look_at(watch, now)

    def part(self, node: NodeId) -> None:
        """A peer's link is gone, or it left."""
        self._watches.pop(node, None)
        self._doubted.pop(node, None)
        for errand in self._errands.end(node):
            self._report(errand, node)

    def release(self, node: NodeId) -> None:
        """A peer is no neighbour any more: its link stays, and a doubt about it is pursued."""
        if node not in self._doubted:
            self.part(node)

    def expect(self, interval_ms: int) -> None:
        """From now on each peer's presence comes so often at least."""
        self._interval_ms = interval_ms

    def listen(self, peer: Peer, now: Instant) -> float:
        """In a large mesh a neighbour's beat is late: look at it, unless it was heard just now.

        Returns in how many milliseconds to listen again if no beat comes.
        """
        watch = self._watches[peer.node]
        silence = watch.silence_ms(now)
        if silence < mesh_limits.PROBE_WAIT_MS:
            return mesh_limits.PROBE_WAIT_MS - silence
        self._look_at(watch, now)
        return BEAT_LATE_MS

    # --- messages -------------------------------------------------------------------------------
    def on_ping(self, peer: Peer, ping: Ping, now: Instant) -> None:
        """The peer asks whether we are there."""
        self._out.send(peer.node, Lane.CONTROL, Pong(ping.nonce, self._ride()))
        self._hear_all(peer, ping.news, now)

    def on_pong(self, peer: Peer, pong: Pong, now: Instant) -> None:
        """The peer is there: to us, and to whoever asked us to try."""
        for errand in self._errands.end(peer.node):
            self._report(errand, peer.node, reached=True)
        self._health.better()
        watch = self._watches.get(peer.node)
        if watch is not None:
            watch.excused = min(watch.excused, now)
            if peer.node in self._doubted:
                self._trust(watch)
        peer.answered(pong.nonce, now)
        self._hear_all(peer, pong.news, now)

    def on_probe(self, peer: Peer, probe: Probe, now: Instant) -> None:
        """The peer does not hear somebody: try."""
        watch = self._watches.get(probe.peer)
        if watch is None or len(self._errands) >= mesh_limits.PROBES_FOR_OTHERS:
            self._out.send(peer.node, Lane.CONTROL, Probed(probe.peer, probe.nonce))
            return
        self._errands.begin(probe.peer, Errand(peer.node, probe.nonce, now))
        self._ping(watch.peer, now)
        self._hurry(now)

    def on_probed(self, probed: Probed, now: Instant) -> None:
        """Somebody whom we asked has tried."""
        watch = self._doubted.get(probed.peer)
        if watch is None or watch.asked is None:
            return
        watch.replies += 1
        if probed.reached:
            watch.vouched = now

    def on_gossip(self, peer: Peer, gossip: Gossip, now: Instant) -> None:
        """News in a hurry."""
        self._hear_all(peer, gossip.news, now)

    # --- news -----------------------------------------------------------------------------------
    def _hear_all(self, peer: Peer, news: tuple[News, ...], now: Instant) -> None:
        for piece in news:
            if piece.state not in (ALIVE, SUSPECT, DEAD):
                continue
            if not piece.node:
                raise PeerFault("news of nobody")
            if piece.node == self._node:
                self._hear_of_us(peer, piece, now)
            else:
                self._hear(piece, now)

    def _hear_of_us(self, peer: Peer, piece: News, now: Instant) -> None:
        """Whoever says that this life is over is told of the next."""
        if piece.state == ALIVE or (piece.boot, piece.counter) != (self._boot, self._counter):
            return
        if self._refuted is not None and ms_between(self._refuted, now) < mesh_limits.PROBE_MS:
            return
        self._counter += 1
        self._refuted = now
        self._health.worse()
        self._out.tell("peer.refuted", f"said to be {piece.state}", peer=peer.node)
        self._spread(News(self._node, ALIVE, self._boot, self._counter), peer.node)

    def _hear(self, piece: News, now: Instant) -> None:
        watch = self._watches.get(piece.node)
        if watch is None or piece.boot != watch.peer.boot:
            return
        if piece.state == ALIVE:
            if piece.counter > watch.counter:
                watch.counter = piece.counter
                watch.suspicion = None
                watch.vouched = now
                self._rumours.add(piece)
            return
        heard_lately = ms_between(watch.peer.heard, now) < mesh_limits.PROBE_WAIT_MS
        if piece.counter != watch.counter or heard_lately:
            return
        if watch.suspicion is None:
            watch.suspicion = Suspicion()
            watch.suspicion.confirm(piece.by)
            self._look_at(watch, now)
            self._spread(piece)
        elif watch.suspicion.confirm(piece.by):
            self._rumours.add(piece)

    def _spread(self, piece: News, *first: NodeId) -> None:
        """Tell a few at once, and others by and by."""
        self._rumours.add(piece)
        others = [w.peer.node for w in self._watches.values() if w.since is None]
        if len(others) > mesh_limits.FANOUT:
            others = self._chance.some(others, mesh_limits.FANOUT)
        for node in dict.fromkeys((*first, *others)):
            if node != piece.node:
                self._out.send(node, Lane.CONTROL, Gossip((piece,)))

    def _ride(self) -> tuple[News, ...]:
        return self._rumours.take(len(self._watches) + 1)

    # --- time -----------------------------------------------------------------------------------
    def timer(self, now: Instant) -> None:
        """Probe the next one, and go on with those that are being looked at."""
        if self._due is not None and ms_between(self._due, now) > mesh_limits.LATE_MS:
            self.slept(now)
        for watch in list(self._doubted.values()):
            self._pursue(watch, now)
        for node, errand in self._errands.overdue(now):
            self._report(errand, node)
        if self._sparse:
            self._due = None
            if self._doubted or self._errands:
                self._wake(mesh_limits.PROBE_AGAIN_MS, now)
            return
        late: list[Watch] = []
        if ms_between(self._next, now) >= 0:
            late = [w for w in self._watches.values() if w.is_late(self._interval_ms, now)]
            for watch in late:
                self._look_at(watch, now)
            self._probe_in_turn(now)
            self._next = after(now, mesh_limits.PROBE_MS * self._health.stretch)
        wait = max(1.0, ms_between(now, self._next))  # timers count whole milliseconds
        busy = late or self._errands or any(w.unanswered > 1 for w in self._doubted.values())
        self._wake(min(wait, mesh_limits.PROBE_AGAIN_MS) if busy else wait, now)

    def _wake(self, wait_ms: float, now: Instant) -> None:
        self._due = after(now, wait_ms)
        self._out.start_timer(TIMER, "", wait_ms)

    def _hurry(self, now: Instant) -> None:
        """Be awake soon enough for who is being looked at."""
        if self._due is None or ms_between(now, self._due) > mesh_limits.PROBE_AGAIN_MS:
            self._wake(mesh_limits.PROBE_AGAIN_MS, now)

    def slept(self, now: Instant) -> None:
        """This process did not run: what came meanwhile waits still to be read."""
        self._health.worse()
        for watch in self._watches.values():
            watch.excused = now
            watch.unanswered = 0
            watch.asked = watch.asked and now

    def _probe_in_turn(self, now: Instant) -> None:
        """Ping somebody who is not looked at: seldom, where presences tell as much."""
        spare = self._interval_ms <= limits.PRESENCE_MS and not self._rumours
        watch = self._turns.next(self._watches, spare=spare)
        if watch is not None:
            self._look_at(watch, now)

    def _report(self, errand: Errand, about: NodeId, *, reached: bool = False) -> None:
        """Tell who asked, unless its own link has gone meanwhile."""
        if errand.asker in self._watches:
            self._out.send(errand.asker, Lane.CONTROL, Probed(about, errand.nonce, reached=reached))

    # --- one peer -------------------------------------------------------------------------------
    def _look_at(self, watch: Watch, now: Instant) -> None:
        """Ping a peer until it is heard or given up."""
        if watch.since is not None:
            return
        watch.since, watch.asked, watch.vouched, watch.unanswered = now, None, None, 0
        self._doubted[watch.peer.node] = watch
        self._ping_again(watch, now)
        if self._sparse:
            self._hurry(now)

    def _pursue(self, watch: Watch, now: Instant) -> None:
        """Another step with a peer that is being looked at."""
        peer = watch.peer
        assert watch.since is not None, "only who is looked at is pursued"
        if peer.heard >= watch.since:
            self._trust(watch)
            return
        patience = self._patience(peer)
        if ms_between(watch.since, now) >= patience and not self._sparse:
            self._through_others(watch, patience, now)
        if not self._given_up(watch, now) and ms_between(watch.pinged, now) >= spacing_ms(
            len(self._doubted)
        ):
            self._ping_again(watch, now)

    def _trust(self, watch: Watch) -> None:
        """The peer was heard."""
        if watch.suspicion is not None:
            self._rumours.drop(watch.peer.node)
        watch.since, watch.suspicion = None, None
        del self._doubted[watch.peer.node]

    def _through_others(self, watch: Watch, patience: float, now: Instant) -> None:
        """Ask others to try; suspect the peer when none of them has reached it."""
        waited = None if watch.asked is None else ms_between(watch.asked, now)
        if waited is None or (watch.vouched is not None and waited >= VOUCHED_MS / 2):
            self._ask(watch, now)
        elif waited >= 1.5 * patience and not watch.vouched_for(now):
            if watch.replies == 0 and watch.helpers > 1 and waited < 2 * patience:
                self._health.worse()
            self._suspect(watch)

    def _ask(self, watch: Watch, now: Instant) -> None:
        others = [w.peer.node for w in self._watches.values() if w.since is None]
        if len(others) > mesh_limits.HELPERS:
            others = self._chance.some(others, mesh_limits.HELPERS)
        watch.asked, watch.helpers, watch.replies = now, len(others), 0
        for node in others:
            self._out.send(node, Lane.CONTROL, Probe(watch.peer.node, watch.peer.ping_nonce))

    def _suspect(self, watch: Watch) -> None:
        suspicion = watch.suspicion = watch.suspicion or Suspicion()
        if self._node not in suspicion.by and suspicion.confirm(self._node):
            peer = watch.peer
            self._spread(News(peer.node, SUSPECT, peer.boot, watch.counter, self._node))

    def _given_up(self, watch: Watch, now: Instant) -> bool:
        """Whether the peer is lost now; if so its link ends."""
        if watch.unanswered < mesh_limits.PINGS_UNANSWERED:
            return False
        silence, peer = watch.silence_ms(now), watch.peer
        if self._sparse and silence >= mesh_limits.SUSPICION_MS * self._health.stretch:
            self._lost(peer, f"silent for {silence / 1000:.1f} s", now)
            return True
        if watch.suspicion is not None and not watch.vouched_for(now):
            members = len(self._watches) + 1
            if silence < watch.suspicion.wait_ms(members, self._health.stretch):
                return False
            self._lost(peer, f"silent for {silence / 1000:.1f} s", now)
            return True
        if silence < mesh_limits.LINK_SILENCE_MS * self._health.stretch:
            return False
        self._lost(peer, f"silent for {silence / 1000:.1f} s, though others reach it", now)
        return True

    def _ping_again(self, watch: Watch, now: Instant) -> None:
        watch.pinged = now
        watch.unanswered += 1
        if watch.unanswered == 1:
            self._ping(watch.peer, now)
        else:  # which of several pings a pong answers would say nothing of the round trip
            self._nonce += 1
            self._out.send(watch.peer.node, Lane.CONTROL, Ping(self._nonce, self._ride()))

    def _ping(self, peer: Peer, now: Instant) -> None:
        self._nonce += 1
        peer.ping_nonce, peer.ping_sent = self._nonce, now
        self._out.send(peer.node, Lane.CONTROL, Ping(self._nonce, self._ride()))

    def _patience(self, peer: Peer) -> float:
        """How long an answer of this peer may take before others are asked."""
        far = 0.0 if peer.rtt_ms is None else 3.0 * peer.rtt_ms
        return max(mesh_limits.PROBE_WAIT_MS, far) * self._health.stretch

    def check(self) -> None:
        """Raise `AssertionError` where an invariant is broken."""
        for node, watch in self._doubted.items():
            assert self._watches.get(node) is watch, f"{node} is looked at, but not watched"
            assert watch.since is not None, f"{node} is looked at since never"
        for node in self._errands:
            assert node in self._watches, f"a probe of {node}, who is not watched"
        assert len(self._rumours) <= mesh_limits.NEWS_KEPT
