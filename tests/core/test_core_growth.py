"""Parts of a large mesh at one node: who becomes a neighbour, and what it says of itself."""

from __future__ import annotations

from itertools import pairwise

from meshslm import mesh_limits
from meshslm.chance import Chance
from meshslm.core.config import CoreConfig
from meshslm.core.detection import Detection
from meshslm.core.directory import Directory, Peer, PeerState
from meshslm.core.events import BytesReceived, Lane, Send
from meshslm.core.growth_events import SealStatement
from meshslm.core.members import Members
from meshslm.core.on_demand import OnDemand
from meshslm.core.outbox import Outbox
from meshslm.core.overlay import Overlay
from meshslm.core.own_record import OwnRecord, Self
from meshslm.core.records import Fact, checked
from meshslm.core.spread import Spread
from meshslm.ids import Instant, NodeId, TaskId, after
from meshslm.sim.sealing import sealed, signed_by
from meshslm.wire.codec import decode, encode
from meshslm.wire.detection import Ping, Pong
from meshslm.wire.growth import Accusation, Beat, Part, Record
from meshslm.wire.messages import Capability, TaskCancel
from tests.core.mesh import Mesh

NOW = Instant(1_000_000)
ME = NodeId("me")


def fact_of(record: Record) -> Fact:
    statement = checked(sealed(record.node, SealStatement(encode(record))).signed, signed_by)
    assert isinstance(statement, Fact)
    return statement


class Node:
    """The machines of a large mesh, without the rest of the node."""

    def __init__(self) -> None:
        self.out = Outbox()
        self.directory = Directory()
        self.members = Members(lambda _: None, lambda _: None)
        self.accused: list[NodeId] = []
        self.dialled: list[NodeId] = []
        self.lost: list[NodeId] = []
        self.detection = Detection(ME, self.out, Chance.from_int(1), self._lose)
        self.detection.thin_out()
        self.overlay = Overlay(
            ME,
            self.directory,
            self.members,
            self.detection,
            self.out,
            Chance.from_int(2),
            reach=self._reach,
            accuse=lambda node, _: self.accused.append(node),
        )
        self.spread = Spread(self.members, self.overlay.neighbours, self.out)

    def _lose(self, peer: Peer, _reason: str, _now: Instant) -> None:
        self.lost.append(peer.node)
        self.detection.part(peer.node)

    def _reach(self, node: NodeId, _now: Instant) -> bool:
        self.dialled.append(node)
        return True

    def linked(self, name: str, came_from: str = "") -> Peer:
        node = NodeId(name)
        peer = Peer(node, PeerState.ALIVE, connected=True, came_from=came_from)
        self.directory.peers[node] = peer
        return peer

    def tick(self, seconds: float) -> None:
        self.overlay.tick(self.spread, after(NOW, 1000 * seconds))

    def beat(self, peer: Peer, seconds: float) -> None:
        peer.heard = after(NOW, 1000 * seconds)
        self.overlay.on_beat(peer, self.spread, peer.heard)
        self.overlay.listen(peer.heard)

    def probe(self, first: float, last: float) -> None:
        """Let the timer of the failure detector fire as it asks to, ten times a second."""
        for step in range(round(10 * first), round(10 * last) + 1):
            self.detection.timer(after(NOW, 100 * step))

    def sent(self, kind: type) -> list[NodeId]:
        effects = [e for e in self.out.take() if isinstance(e, Send)]
        return [e.peer for e in effects if isinstance(decode(e.message), kind)]


def test_strangers_from_one_machine_take_two_places_and_never_those_that_we_choose() -> None:
    node = Node()
    for number in range(20):
        address = (f"/ip4/192.0.2.{number}/tcp/1",)
        node.members.take(fact_of(Record("m", NodeId(f"h{number}"), 1, 1, addresses=address)), NOW)
    for number in range(40):
        peer = node.linked(f"s{number}", "/ip4/203.0.113.9/tcp/7")
        node.overlay.on_beat(peer, node.spread, NOW)
    assert len(node.overlay.neighbours) == 2
    assert len(node.sent(Part)) == 38
    node.overlay.tick(node.spread, NOW)
    assert len(node.dialled) == 2
    assert all(name.startswith("h") for name in node.dialled)


def test_no_more_choose_us_than_there_are_places() -> None:
    node = Node()
    for number in range(40):
        peer = node.linked(f"p{number}", f"/ip4/198.51.100.{number}/tcp/7")
        node.overlay.on_beat(peer, node.spread, NOW)
    assert len(node.overlay.neighbours) == mesh_limits.CHOOSERS
    node.overlay.check()


def test_a_neighbour_whose_link_broke_is_accused_once_it_cannot_be_dialled() -> None:
    node = Node()
    node.overlay.on_beat(node.linked("p"), node.spread, NOW)
    node.overlay.ended(NodeId("p"), NOW, broken=True)
    assert node.overlay.worth_a_dial(NodeId("p"))
    assert node.accused == []
    node.overlay.unreachable(NodeId("p"), NOW)
    assert node.accused == ["p"]


def test_a_neighbour_that_says_goodbye_is_not_accused() -> None:
    node = Node()
    node.overlay.on_beat(node.linked("p"), node.spread, NOW)
    node.overlay.ended(NodeId("p"), NOW, broken=False)
    node.overlay.unreachable(NodeId("p"), NOW)
    assert node.accused == []


def test_half_of_the_neighbours_hear_a_beat_at_each_tick() -> None:
    node = Node()
    peers = [node.linked(f"p{number}") for number in range(7)]
    for peer in peers:
        node.overlay.on_beat(peer, node.spread, NOW)
    assert sorted(node.sent(Beat)) == [peer.node for peer in peers]
    told = []
    for second in range(1, 7):
        node.tick(second)
        told.append(node.sent(Beat))
    assert {len(names) for names in told} == {3, 4}
    for one, other in pairwise(told):
        assert sorted(one + other) == [peer.node for peer in peers]


def test_a_late_beat_is_noticed_at_the_next_sign_of_others() -> None:
    node = Node()
    late, other = node.linked("late"), node.linked("other")
    for peer in (late, other):
        node.beat(peer, 0.0)
        node.detection.on_pong(peer, Pong(0), NOW)
    node.sent(Ping)
    for seconds in (1.0, 2.0):
        node.tick(seconds)
    node.beat(other, 2.1)
    assert node.sent(Ping) == []
    node.beat(other, 2.3)
    assert node.sent(Ping) == ["late"]
    node.beat(other, 2.4)
    assert node.sent(Ping) == [], "it is looked at already"


def test_who_was_heard_just_now_is_looked_at_a_moment_later_if_its_beat_is_late() -> None:
    node = Node()
    peer = node.linked("p")
    node.beat(peer, 0.0)
    node.detection.on_pong(peer, Pong(0), NOW)
    node.sent(Ping)
    peer.heard = after(NOW, 2_150)
    for at_ms, pinged in ((2_300, []), (2_440, []), (2_460, ["p"])):
        node.overlay.listen(after(NOW, at_ms))
        assert node.sent(Ping) == pinged


def test_a_node_that_did_not_run_looks_at_nobody_for_it() -> None:
    node = Node()
    peer = node.linked("p")
    node.beat(peer, 0.0)
    node.detection.on_pong(peer, Pong(0), NOW)
    node.tick(0.0)
    node.sent(Ping)
    node.overlay.listen(after(NOW, 60_000))
    node.tick(60.0)
    assert node.sent(Ping) == []


def test_who_answered_once_is_missed_soon_though_it_is_new() -> None:
    node = Node()
    silent, mute = node.linked("answered"), node.linked("never heard our hello")
    node.beat(silent, 0.0)
    node.beat(mute, 0.0)
    node.detection.on_pong(silent, Pong(0), NOW)
    node.detection.look(silent, after(NOW, 2_300))
    node.probe(2.4, 3.5)
    assert node.lost == ["answered"]


def test_a_doubt_outlives_the_neighbourhood() -> None:
    node = Node()
    node.members.take(fact_of(Record("m", NodeId("p"), 1, 1)), NOW)
    peer = node.linked("p")
    peer.heard = NOW
    for seconds in range(5):  # chooses it, and it never takes us for its neighbour
        node.tick(seconds)
        assert NodeId("p") in node.overlay.neighbours
    node.detection.look(peer, after(NOW, 4_500))
    node.probe(4.6, 4.9)
    node.tick(5.0)
    assert NodeId("p") not in node.overlay.neighbours
    node.probe(5.1, 5.6)
    assert node.lost == ["p"], "its link would stay for as long as nobody writes to it"


def own_record(node: Node) -> OwnRecord:
    config = CoreConfig(ME, "me", verify_node=signed_by)
    own = OwnRecord(config, node.members, node.spread, node.out, Chance.from_int(3))
    own.start(1)
    own.publish_changes(Self((), Capability(1, 0), None), NOW)
    return own


def published(node: Node) -> Record:
    payloads = [e.payload for e in node.out.take() if isinstance(e, SealStatement)]
    record = decode(payloads[-1])
    assert isinstance(record, Record)
    return record


def test_a_node_that_forgot_its_boots_goes_on_from_what_others_remember() -> None:
    node = Node()
    own = own_record(node)
    assert published(node).boot == 1
    own.heard(fact_of(Record("default", ME, 9, 4, 2)), NOW)
    again = published(node)
    assert (again.boot, again.life) == (9, 3)
    assert again.counter > 4


def test_who_is_said_to_be_gone_begins_another_life_once() -> None:
    node = Node()
    own = own_record(node)
    first = published(node)
    said = Accusation(ME, first.boot, first.life, NodeId("liar"))
    own.refute(said, NOW)
    own.refute(said, NOW)
    seals = [effect for effect in node.out.take() if isinstance(effect, SealStatement)]
    assert len(seals) == 1
    record = decode(seals[0].payload)
    assert isinstance(record, Record)
    assert record.life == 1


def test_what_is_for_who_is_not_linked_waits_for_a_dial_and_fails_with_it() -> None:
    out, directory = Outbox(), Directory()
    dialled: list[NodeId] = []
    failed: list[NodeId] = []

    def dial(node: NodeId) -> bool:
        dialled.append(node)
        return True

    waiting = OnDemand(directory, out, dial, lambda node, _why, _now: failed.append(node))
    out.divert = waiting.divert
    for attempt in (1, 1, 2):
        out.send(NodeId("p"), Lane.INTERACTIVE, TaskCancel(TaskId("t"), attempt))
    out.send(NodeId("p"), Lane.CONTROL, Part())
    assert out.take() == []
    assert dialled == ["p"]
    directory.peers[NodeId("p")] = Peer(NodeId("p"), PeerState.ALIVE, connected=True)
    waiting.linked(NodeId("p"))
    assert len(out.take()) == 2
    out.send(NodeId("q"), Lane.INTERACTIVE, TaskCancel(TaskId("t"), 1))
    waiting.unreachable(NodeId("q"), NOW)
    assert failed == ["q"]


def test_a_record_by_itself_is_a_fault_and_the_next_good_message_is_heard() -> None:
    mesh = Mesh()
    mesh.add("a")
    mesh.add("b", bootstrap=("a",))
    assert mesh.peer_state("a", "b") == "alive"
    mesh.give("a", BytesReceived(NodeId("b"), encode(Record("m", NodeId("b"), 1, 1))))
    assert mesh.peer_state("a", "b") != "alive"
    mesh.pass_time(60_000)
    assert mesh.peer_state("a", "b") == "alive"
