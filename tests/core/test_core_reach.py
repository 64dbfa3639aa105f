"""Whether a node can be dialled, as members find out; relays; direct links in their place."""

from __future__ import annotations

import pytest

from meshslm import limits
from meshslm.core.dialling import in_turn
from meshslm.core.events import (
    AddressesChanged,
    BytesReceived,
    DialFailed,
    PeerConnected,
    PeerDisconnected,
    Send,
    ShutdownRequested,
)
from meshslm.core.reach_events import (
    DialTried,
    NotReserved,
    OfferRelay,
    PunchTo,
    Reserve,
    Reserved,
    TryDial,
)
from meshslm.core.views import ReachView
from meshslm.ids import NodeId, ms_between
from meshslm.wire.codec import decode, encode
from meshslm.wire.messages import CapabilityWanted, Hello, Message
from meshslm.wire.reach import DialBack, DialedBack, Punch, Seen
from tests.core.mesh import Mesh, address_of

OUTSIDE = "/ip4/203.0.113.7/tcp/61000"
INSIDE = "/ip4/192.168.1.7/tcp/7415/p2p/a"


def view(mesh: Mesh, name: str = "a") -> ReachView:
    return mesh.boxes[NodeId(name)].core.status(mesh.now).reach


def sent(mesh: Mesh, kind: type, to: str = "b", sender: str = "a") -> list[Message]:
    """Messages of a kind that a node has sent, with or without somebody at the other end."""
    return [
        message
        for effect in mesh.effects(sender, Send)
        if effect.peer == to
        for message in (decode(effect.message),)
        if isinstance(message, kind)
    ]


def say(mesh: Mesh, sender: str, message: Message, to: str = "a") -> None:
    mesh.give(to, BytesReceived(NodeId(sender), encode(message)))


def wait(mesh: Mesh, ms: float) -> None:
    """Time goes on, in which the peers that are no boxes show that they are there."""
    while ms > 0:
        mesh.pass_time(min(ms, 500))
        ms -= 500
        for peer in mesh.boxes[NodeId("a")].core.peers(mesh.now):
            if peer.state == "alive":
                say(mesh, peer.node, CapabilityWanted())


def link(mesh: Mesh, peer: str, address: str = "", came_from: str = "") -> None:
    """A peer that is no box of the test is linked, and greets."""
    mesh.give("a", PeerConnected(NodeId(peer), address, came_from))
    hello = Hello(1, 1, "default", 1, peer, "", (f"/ip4/198.51.100.2/tcp/1/p2p/{peer}",))
    say(mesh, peer, hello)


@pytest.fixture
def alone(mesh: Mesh) -> Mesh:
    """Node a, behind a NAT as it seems, and nobody else that is real."""
    mesh.reach = True
    mesh.add("a")
    mesh.give("a", AddressesChanged((INSIDE,)))
    return mesh


def dialled(mesh: Mesh, peer: str = "b", *, relays: bool = False) -> None:
    """A has dialled a peer, which sees it come from outside."""
    link(mesh, peer, f"/ip4/198.51.100.2/tcp/1/p2p/{peer}")
    say(mesh, peer, Seen(OUTSIDE, relays))


# --- switched off -------------------------------------------------------------------------------
def test_a_node_without_it_sends_nothing_and_dials_nobody_back(pair: Mesh) -> None:
    pair.pass_time(10 * limits.REACH_MS)
    assert not sent(pair, Seen)
    assert not sent(pair, Seen, "a", "b")
    say(pair, "b", DialBack(1, (address_of("b"),)))
    assert sent(pair, DialedBack) == [DialedBack(1, "refused", "", "this node dials nobody back")]
    assert not pair.effects("a", TryDial)
    assert view(pair).state == "unknown"


# --- the verdict --------------------------------------------------------------------------------
def test_who_was_dialled_by_a_member_is_public(mesh: Mesh) -> None:
    mesh.reach = True
    mesh.add("b")
    mesh.add("a", bootstrap=("b",))
    assert view(mesh, "b").state == "public"
    assert view(mesh, "a").state == "unknown"


@pytest.mark.parametrize(("reached", "state"), [(True, "public"), (False, "private")])
def test_who_is_dialled_back_knows_what_it_is(alone: Mesh, state: str, *, reached: bool) -> None:
    dialled(alone)
    assert view(alone).state == "unknown"
    wait(alone, limits.REACH_MS)
    (ask,) = sent(alone, DialBack)
    assert isinstance(ask, DialBack)
    assert ask.addresses == ("/ip4/203.0.113.7/tcp/7415/p2p/a",)
    say(alone, "b", DialedBack(ask.number, "reached" if reached else "failed", ask.addresses[0]))
    assert view(alone).state == state
    (witness,) = view(alone).witnesses
    assert (witness.seen, witness.address) == (OUTSIDE, ask.addresses[0])


def test_one_liar_is_outvoted(alone: Mesh) -> None:
    for peer in ("b", "c", "d", "e"):
        dialled(alone, peer)
    wait(alone, 6 * limits.REACH_MS)
    asked = [p for p in "bcde" if sent(alone, DialBack, p)]
    assert len(asked) == limits.WITNESSES
    for place, peer in enumerate(asked):
        (ask,) = sent(alone, DialBack, peer)
        assert isinstance(ask, DialBack)
        say(alone, peer, DialedBack(ask.number, "reached" if place == 0 else "failed"))
    assert view(alone).state == "private"


def test_reached_on_the_local_network_and_not_from_outside_is_private(alone: Mesh) -> None:
    link(alone, "near", "", "/ip4/192.168.1.9/tcp/50000")
    assert view(alone).state == "public"
    dialled(alone)
    wait(alone, limits.REACH_MS)
    (ask,) = sent(alone, DialBack)
    assert isinstance(ask, DialBack)
    say(alone, "b", DialedBack(ask.number, "failed"))
    assert view(alone).state == "private"


def test_a_node_that_leaves_asks_nobody_and_hears_nothing_any_more(alone: Mesh) -> None:
    dialled(alone)
    dialled(alone, "c")
    wait(alone, limits.REACH_MS)
    (ask,) = sent(alone, DialBack)
    assert isinstance(ask, DialBack)
    alone.give("a", ShutdownRequested())
    core = alone.boxes[NodeId("a")].core
    core.check()
    say(alone, "b", DialedBack(ask.number, "failed", ask.addresses[0]))
    say(alone, "c", Seen(OUTSIDE, relay=True))
    alone.pass_time(2 * limits.REACH_MS)
    core.check()
    assert view(alone).state == "unknown"
    assert not sent(alone, DialBack, "c")
    assert not alone.effects("a", Reserve)


def test_a_refusal_and_an_answer_nobody_asked_for_say_nothing(alone: Mesh) -> None:
    dialled(alone)
    dialled(alone, "c")
    wait(alone, limits.REACH_MS)
    (ask,) = sent(alone, DialBack)
    assert isinstance(ask, DialBack)
    say(alone, "c", DialedBack(ask.number, "reached"))
    say(alone, "b", DialedBack(ask.number, "refused"))
    say(alone, "b", DialedBack(ask.number, "reached"))
    say(alone, "b", DialedBack(99, "reached"))
    assert view(alone).state == "unknown"


def test_a_new_address_makes_it_ask_again(alone: Mesh) -> None:
    dialled(alone)
    wait(alone, 2 * limits.REACH_MS)
    assert len(sent(alone, DialBack)) == 1
    alone.give("a", AddressesChanged(("/ip4/10.0.0.3/tcp/7415/p2p/a",)))
    wait(alone, limits.REACH_MS)
    assert len(sent(alone, DialBack)) == 2


# --- dialling back ------------------------------------------------------------------------------
THERE = "/ip4/203.0.113.9/tcp/7415/p2p/b"


def caller(mesh: Mesh) -> None:
    link(mesh, "b", "", "/ip4/203.0.113.9/tcp/52000")


def test_a_caller_is_dialled_back_where_it_comes_from(alone: Mesh) -> None:
    caller(alone)
    say(alone, "b", DialBack(7, ("/ip4/192.168.0.2/tcp/7415/p2p/b", THERE)))
    (tried,) = alone.effects("a", TryDial)
    assert tried.address == THERE
    alone.give("a", DialTried(tried.number, reached=False, reason="no answer"))
    assert sent(alone, DialedBack) == [DialedBack(7, "failed", THERE, "no answer")]


@pytest.mark.parametrize(
    "address",
    [
        "/ip4/198.51.100.99/tcp/7415/p2p/b",
        "/ip4/203.0.113.9/tcp/7415/p2p/victim",
        "/ip4/203.0.113.9/tcp/7415",
        f"{THERE}/p2p-circuit/p2p/b",
        "/dns4/victim.example/tcp/7415/p2p/b",
        "",
    ],
)
def test_nobody_can_be_made_to_knock_at_a_third_ones_door(alone: Mesh, address: str) -> None:
    caller(alone)
    say(alone, "b", DialBack(1, (address,)))
    assert not alone.effects("a", TryDial)
    (answer,) = sent(alone, DialedBack)
    assert isinstance(answer, DialedBack)
    assert answer.outcome == "refused"


def test_one_that_was_dialled_or_is_relayed_is_not_dialled_back(alone: Mesh) -> None:
    link(alone, "b", THERE)
    say(alone, "b", DialBack(1, (THERE,)))
    link(alone, "c", "", "/p2p/r/p2p-circuit")
    say(alone, "c", DialBack(1, ("/p2p/r/p2p-circuit/p2p/c",)))
    assert not alone.effects("a", TryDial)


def test_dials_for_others_are_few_and_bounded(alone: Mesh) -> None:
    caller(alone)
    for number in range(50):
        say(alone, "b", DialBack(number, (THERE,)))
    assert len(alone.effects("a", TryDial)) == limits.DIAL_BACKS_PER_PEER
    for other in range(50):
        link(alone, f"p{other}", "", f"/ip4/10.1.0.{other}/tcp/52000")
        say(alone, f"p{other}", DialBack(1, (f"/ip4/10.1.0.{other}/tcp/1/p2p/p{other}",)))
    assert len(alone.effects("a", TryDial)) == limits.DIAL_BACKS
    for tried in alone.effects("a", TryDial):
        alone.give("a", DialTried(tried.number, reached=True))
    wait(alone, limits.DIAL_BACKS_MS)
    say(alone, "b", DialBack(99, (THERE,)))
    assert len(alone.effects("a", TryDial)) == limits.DIAL_BACKS + 1


def test_an_asker_that_left_meanwhile_is_told_nothing(alone: Mesh) -> None:
    caller(alone)
    say(alone, "b", DialBack(7, (THERE,)))
    alone.give("a", PeerDisconnected(NodeId("b"), "gone"))
    alone.give("a", DialTried(alone.effects("a", TryDial)[0].number, reached=True))
    assert not sent(alone, DialedBack)


# --- relays -------------------------------------------------------------------------------------
def private(mesh: Mesh, *relays: str) -> None:
    """Node a is private, and these relay for it."""
    for peer in relays:
        dialled(mesh, peer, relays=True)
    for _ in range(limits.WITNESSES + 1):
        wait(mesh, limits.REACH_MS)
        for peer in relays:
            for ask in sent(mesh, DialBack, peer):
                assert isinstance(ask, DialBack)
                say(mesh, peer, DialedBack(ask.number, "failed"))


def test_a_private_node_keeps_relays_and_announces_itself_there(alone: Mesh) -> None:
    private(alone, "b", "c", "d")
    (first,) = alone.effects("a", Reserve)
    alone.give("a", Reserved(first.relay, 3600))
    circuit = f"/ip4/198.51.100.2/tcp/1/p2p/{first.relay}/p2p-circuit/p2p/a"
    assert alone.boxes[NodeId("a")].core.status(alone.now).addresses == (INSIDE, circuit)
    hello = sent(alone, Hello, first.relay)[-1]
    assert isinstance(hello, Hello)
    assert hello.addresses == (INSIDE, circuit)
    wait(alone, limits.REACH_MS)
    second = alone.effects("a", Reserve)[1]
    assert second.relay != first.relay
    alone.give("a", Reserved(second.relay, 3600))
    wait(alone, 20 * limits.REACH_MS)
    assert len(alone.effects("a", Reserve)) == limits.RELAYS
    wait(alone, limits.RENEW_MS)
    assert len(alone.effects("a", Reserve)) > limits.RELAYS


def test_links_to_relays_are_in_use_for_what_they_carry(alone: Mesh) -> None:
    private(alone, "b", "c", "d")
    place = alone.effects("a", Reserve)[0].relay
    alone.give("a", Reserved(place, 3600))
    by, spare = (NodeId(name) for name in "bcd" if name != place)
    link(alone, "far", f"/ip4/198.51.100.2/tcp/1/p2p/{by}/p2p-circuit/p2p/far")
    wait(alone, 10 * limits.REACH_MS)
    peers = alone.boxes[NodeId("a")].core._directory.peers
    for relay in (place, by):
        assert ms_between(peers[relay].used, alone.now) <= limits.REACH_MS
    assert ms_between(peers[spare].used, alone.now) > 5 * limits.REACH_MS
    alone.give("a", PeerDisconnected(NodeId("far"), "gone"))
    wait(alone, 10 * limits.REACH_MS)
    assert ms_between(peers[by].used, alone.now) > 5 * limits.REACH_MS
    assert ms_between(peers[place].used, alone.now) <= limits.REACH_MS


def test_a_lost_relay_is_no_address_any_more_and_another_is_asked(alone: Mesh) -> None:
    private(alone, "b", "c", "d")
    alone.give("a", Reserved(alone.effects("a", Reserve)[-1].relay, 3600))
    wait(alone, limits.REACH_MS)
    alone.give("a", Reserved(alone.effects("a", Reserve)[-1].relay, 3600))
    first, second = (reserve.relay for reserve in alone.effects("a", Reserve))
    alone.give("a", PeerDisconnected(first, "gone"))
    addresses = alone.boxes[NodeId("a")].core.status(alone.now).addresses
    assert [a for a in addresses if "p2p-circuit" in a] == [
        f"/ip4/198.51.100.2/tcp/1/p2p/{second}/p2p-circuit/p2p/a"
    ]
    wait(alone, limits.REACH_MS)
    assert alone.effects("a", Reserve)[2].relay not in (first, second)


def test_a_relay_that_refuses_is_left_alone_for_a_while(alone: Mesh) -> None:
    private(alone, "b")
    alone.give("a", NotReserved(NodeId("b"), "no room"))
    assert [(r.node, r.used, r.reason) for r in view(alone).relays] == [("b", False, "no room")]
    wait(alone, limits.RELAY_AGAIN_MS / 2)
    assert len(alone.effects("a", Reserve)) == 1
    wait(alone, limits.RELAY_AGAIN_MS)
    assert len(alone.effects("a", Reserve)) >= 2


def test_a_reservation_that_nobody_asked_for_is_ignored(alone: Mesh) -> None:
    dialled(alone)
    alone.give("a", Reserved(NodeId("b"), 3600))
    assert view(alone).relays == ()


def test_who_relays_says_so_and_does_it_for_members_alone(mesh: Mesh) -> None:
    mesh.reach, mesh.relays = True, {"b"}
    core = mesh.add("b")
    assert mesh.effects("b", OfferRelay) == [OfferRelay(on=True)]
    assert not core.may_relay(NodeId("a"))
    mesh.add("a", bootstrap=("b",))
    assert core.may_relay(NodeId("a"))
    assert not core.may_relay(NodeId("stranger"))
    assert Seen("/memory/a", relay=True) in mesh.seen["b", "a"]
    mesh.give("b", PeerConnected(NodeId("quiet"), "", "/memory/quiet"))
    assert not core.may_relay(NodeId("quiet"))


# --- direct links -------------------------------------------------------------------------------
VIA = "/ip4/198.51.100.2/tcp/1/p2p/r/p2p-circuit/p2p/b"
DIRECT = "/ip4/198.51.100.9/tcp/7415/p2p/b"


def test_the_side_that_was_called_begins_and_both_dial_at_the_same_time(alone: Mesh) -> None:
    dialled(alone, "r")
    link(alone, "b", "", "/p2p/r/p2p-circuit")
    wait(alone, limits.REACH_MS)
    (offer,) = sent(alone, Punch)
    assert isinstance(offer, Punch)
    assert offer.step == "offer"
    assert offer.addresses == ("/ip4/203.0.113.7/tcp/7415/p2p/a", INSIDE)
    wait(alone, 100)
    say(alone, "b", Punch("answer", offer.number, (DIRECT, VIA, "/ip4/6.6.6.6/tcp/1/p2p/x")))
    assert sent(alone, Punch)[-1] == Punch("now", offer.number)
    assert not alone.effects("a", PunchTo)
    wait(alone, 50)
    assert alone.effects("a", PunchTo) == [PunchTo(DIRECT)]


def test_the_side_that_called_answers_and_dials_when_it_is_told(alone: Mesh) -> None:
    link(alone, "b", VIA)
    wait(alone, 5 * limits.REACH_MS)
    assert not sent(alone, Punch)
    say(alone, "b", Punch("offer", 5, (DIRECT,)))
    (answer,) = sent(alone, Punch)
    assert isinstance(answer, Punch)
    assert (answer.step, answer.number) == ("answer", 5)
    say(alone, "b", Punch("now", 6))
    assert not alone.effects("a", PunchTo)
    say(alone, "b", Punch("now", 5))
    say(alone, "b", Punch("now", 5))
    assert alone.effects("a", PunchTo) == [PunchTo(DIRECT)]


@pytest.mark.parametrize(
    "host", ["/ip4/169.254.169.254/tcp/80", "/ip4/224.0.0.1/tcp/80", "/ip4/0.0.0.0/tcp/80"]
)
def test_nobody_is_made_to_dial_where_no_single_machine_can_be(alone: Mesh, host: str) -> None:
    link(alone, "b", VIA)
    say(alone, "b", Punch("offer", 5, (f"{host}/p2p/b", DIRECT)))
    say(alone, "b", Punch("now", 5))
    assert alone.effects("a", PunchTo) == [PunchTo(DIRECT)]


def test_offers_in_quick_succession_are_ignored(alone: Mesh) -> None:
    link(alone, "b", VIA)
    for number in range(1, 20):
        say(alone, "b", Punch("offer", number, (DIRECT,)))
        say(alone, "b", Punch("now", number))
    assert len(alone.effects("a", PunchTo)) == 1


def test_upgrades_are_tried_with_growing_waits(alone: Mesh) -> None:
    link(alone, "b", "", "/p2p/r/p2p-circuit")
    wait(alone, 60_000)
    assert len(sent(alone, Punch)) == len(limits.UPGRADE_WAITS_MS)
    wait(alone, limits.UPGRADE_WAITS_MS[-1])
    assert len(sent(alone, Punch)) == len(limits.UPGRADE_WAITS_MS) + 1


def test_a_direct_link_ends_the_tries(alone: Mesh) -> None:
    link(alone, "b", "", "/p2p/r/p2p-circuit")
    assert view(alone).relayed == ("b",)
    alone.give("a", PeerDisconnected(NodeId("b"), "a direct link takes its place"))
    link(alone, "b", "", "/ip4/203.0.113.9/tcp/7415")
    assert view(alone).relayed == ()
    before = len(sent(alone, Punch))
    wait(alone, 60_000)
    assert len(sent(alone, Punch)) == before
    say(alone, "b", Punch("offer", 1, (DIRECT,)))
    assert not alone.effects("a", PunchTo)


def test_an_address_through_a_relay_is_dialled_last(alone: Mesh) -> None:
    assert in_turn([DIRECT, VIA, "/ip6/::2/tcp/1/p2p/b"]) == [DIRECT, "/ip6/::2/tcp/1/p2p/b", VIA]
    alone.give("a", DialFailed("/memory/x", "?"))
