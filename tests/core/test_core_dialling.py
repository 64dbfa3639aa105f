"""Several addresses of one peer: which is dialled when, which is kept, what can be seen of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits
from meshslm.chance import Chance
from meshslm.core.dialling import TIMER, Dialling, in_turn
from meshslm.core.events import AddressesChanged, Dial, DialFailed, PeerDisconnected, StartTimer
from meshslm.core.outbox import Outbox
from meshslm.core.ways import leads_somewhere
from meshslm.ids import Instant, NodeId, after
from tests.core.mesh import Mesh, address_of

PEER = NodeId("p")
FOUR, SIX, OTHER = (f"{at}/p2p/p" for at in ("/ip4/a/tcp/1", "/ip6/b/tcp/1", "/ip4/c/tcp/1"))


class Box:
    """A `Dialling` with its effects and a clock."""

    def __init__(self) -> None:
        self.out = Outbox()
        self.dialling = Dialling(NodeId("me"), self.out, Chance.from_int(1))
        self.now = Instant(0)
        self.timer_ms: float | None = None

    def know(self, *addresses: str) -> None:
        """A peer that listens at all of `addresses`, lost again a moment ago."""
        for address in addresses:
            self.dialling.want(address, self.now)
        for _ in range(2):
            self.dialling.linked(PEER, addresses[0], self.now)
            self.dialling.lost(PEER, (), self.now, again=True)
        self.dials()

    def dials(self) -> list[str]:
        """Addresses dialled since the last call."""
        effects = self.out.take()
        for effect in effects:
            if isinstance(effect, StartTimer) and effect.key.kind == TIMER:
                self.timer_ms = effect.after_ms
        self.dialling.check()
        return [effect.address for effect in effects if isinstance(effect, Dial)]

    def fire(self) -> list[str]:
        """The timer that was started last fires."""
        assert self.timer_ms is not None
        self.now = after(self.now, self.timer_ms)
        self.dialling.timer(PEER, self.now)
        return self.dials()


def test_addresses_are_dialled_one_after_the_other_while_none_answers() -> None:
    box = Box()
    box.know(FOUR, OTHER, SIX)
    assert box.fire() == [FOUR]
    assert box.timer_ms == limits.DIAL_STAGGER_MS
    assert box.fire() == [SIX]
    assert box.fire() == [OTHER]
    assert box.timer_ms == limits.DIAL_MS


def test_one_that_fails_lets_the_next_go_at_once() -> None:
    box = Box()
    box.know(FOUR, SIX)
    assert box.fire() == [FOUR]
    box.dialling.failed(FOUR, box.now)
    assert box.dials() == [SIX]
    box.dialling.failed(SIX, box.now)
    assert box.dials() == []
    assert box.timer_ms is not None
    assert box.timer_ms >= limits.DIAL_BACKOFF_MS / 2
    assert box.fire() == [FOUR]


def test_what_worked_is_kept_and_comes_first_the_next_time() -> None:
    box = Box()
    box.know(FOUR, SIX)
    box.fire()
    assert box.fire() == [SIX]
    box.dialling.linked(PEER, SIX, box.now)
    box.dialling.failed(FOUR, box.now, PEER, "already connected")
    assert box.dials() == []
    box.dialling.lost(PEER, (), box.now, again=True)
    box.dials()
    assert box.fire() == [SIX]


def test_a_link_that_had_lasted_is_made_again_at_once_another_waits() -> None:
    box = Box()
    box.know(FOUR)
    assert box.timer_ms is not None
    assert box.timer_ms >= limits.DIAL_BACKOFF_MS / 2
    box.fire()
    box.dialling.linked(PEER, FOUR, box.now)
    box.now = after(box.now, limits.DIAL_LASTING_MS)
    box.dialling.lost(PEER, (), box.now, again=True, missed=True)
    assert box.dials() == [FOUR]


def test_a_peer_that_may_be_dying_is_dialled_again_soon_and_then_less_often() -> None:
    """Its listener may still take a dial and drop it, which does not show that it has died."""
    box = Box()
    box.know(FOUR)
    box.fire()
    box.dialling.linked(PEER, FOUR, box.now)
    box.now = after(box.now, limits.DIAL_LASTING_MS)
    box.dialling.lost(PEER, (), box.now, again=True, missed=True)
    assert box.dials() == [FOUR]
    waited = 0.0
    while waited < limits.DIAL_SOON_MS:
        box.dialling.failed(FOUR, after(box.now, 1), reason="connection reset")
        box.dials()
        assert box.timer_ms is not None
        assert box.timer_ms <= limits.DIAL_SOON_MS
        waited += box.timer_ms
        assert box.fire() == [FOUR]
    box.dialling.failed(FOUR, after(box.now, 1), reason="connection reset")
    box.dials()
    assert box.timer_ms is not None
    assert box.timer_ms >= limits.DIAL_BACKOFF_MS / 2


def test_a_peer_that_moved_is_looked_for_only_where_it_is_now() -> None:
    box = Box()
    box.know(FOUR, OTHER)
    box.dialling.moved(PEER, (SIX,), box.now)
    box.dials()
    assert box.timer_ms is not None
    assert box.timer_ms <= limits.DIAL_SOON_MS
    assert box.fire() == [SIX]
    assert box.timer_ms == limits.DIAL_MS


def test_the_address_in_use_outlives_what_the_peer_says() -> None:
    box = Box()
    box.know(FOUR, OTHER)
    box.fire()
    box.dialling.linked(PEER, FOUR, box.now)
    box.dialling.moved(PEER, (SIX,), box.now)
    box.dialling.lost(PEER, (), box.now, again=True)
    box.dials()
    assert box.fire() == [FOUR]
    assert box.fire() == [SIX]


def test_a_configured_address_is_never_pushed_out() -> None:
    box = Box()
    box.dialling.want(OTHER, box.now, configured=True)
    for number in range(3 * limits.ADDRESSES_PER_PEER):
        box.dialling.want(f"/ip4/x{number}/tcp/1/p2p/p", box.now)
    box.dialling.moved(PEER, (FOUR,), box.now)
    assert [view.address for view in box.dialling.configured(box.now)] == [OTHER]
    box.dials()
    tried: list[str] = []
    while FOUR not in tried:
        assert len(tried) <= 2 * limits.ADDRESSES_PER_PEER
        tried += box.fire()


@given(st.lists(st.sampled_from(["/ip4/", "/ip6/", "/dns/"]), min_size=1, max_size=8))
def test_the_order_of_a_round_keeps_the_best_first_and_leaves_nothing_out(kinds: list[str]) -> None:
    addresses = [f"{kind}{number}" for number, kind in enumerate(kinds)]
    order = in_turn(addresses)
    assert sorted(order) == sorted(addresses)
    assert order[0] == addresses[0]
    if len({a.startswith("/ip6/") for a in addresses}) == 2:
        assert order[0].startswith("/ip6/") is not order[1].startswith("/ip6/")


# --- hearsay ------------------------------------------------------------------------------------
NOWHERE = (
    *("/ip4/224.0.0.251/tcp/5353", "/ip4/255.255.255.255/tcp/9", "/ip4/0.0.0.0/tcp/4001"),
    *("/ip4/169.254.169.254/tcp/80", "/ip6/ff02::1/tcp/1", "/ip6/::/tcp/1", "/ip6/fe80::1/tcp/1"),
    *("/ip6/::ffff:169.254.169.254/tcp/80", "/ip4/192.0.2.1/tcp/0"),
)


@pytest.mark.parametrize("address", NOWHERE)
def test_nobody_can_have_a_node_knock_where_no_member_can_be(address: str) -> None:
    box, told = Box(), f"{address}/p2p/p"
    box.dialling.want(told, box.now, teller=NodeId("liar"))
    box.dialling.moved(PEER, (told,), box.now)
    assert not box.dials()
    box.know(FOUR)
    box.dialling.moved(PEER, (told, FOUR), box.now)
    box.dialling.lost(PEER, (told,), box.now, again=True)
    assert set(box.fire() + box.fire()) == {FOUR}
    other = NodeId("q")
    box.dialling.lost(other, (f"{address}/p2p/q",), box.now, again=True)
    box.dialling.timer(other, after(box.now, limits.DIAL_BACKOFF_MOST_MS))
    assert not box.dials()


@pytest.mark.parametrize("address", [*NOWHERE, "/ip4/192.168.1.7/tcp/7415"])
def test_what_the_operator_names_is_dialled_whatever_it_is(address: str) -> None:
    box = Box()
    box.dialling.want(address, box.now, configured=True)
    assert box.dials() == [address]


@pytest.mark.parametrize(
    "address",
    [
        *("/ip4/192.168.1.7/tcp/7415", "/ip4/10.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/7415"),
        *("/ip6/::1/tcp/1", "/ip6/2001:db8::1/tcp/1", "/dns4/host.example/tcp/1", "/memory/x"),
        *(
            "/p2p/r/p2p-circuit",
            "/ip4/198.51.100.7/tcp/1/p2p/r/p2p-circuit",
            "/ip4/x/tcp/1",
            "",
            "/",
        ),
    ],
)
def test_where_a_member_may_be_it_is_looked_for(address: str) -> None:
    assert leads_somewhere(address)


def test_one_that_tells_of_nobody_who_is_there_leaves_room_for_the_truth() -> None:
    box, liar, honest = Box(), NodeId("liar"), NodeId("honest")
    for number in range(2 * limits.PEERS):
        box.dialling.want(f"/ip4/x/tcp/1/p2p/fake{number}", box.now, teller=liar)
        box.dialling.check()
    box.dialling.want(FOUR, box.now, teller=honest)
    box.dialling.moved(PEER, (FOUR, SIX), box.now)
    box.dialling.linked(PEER, SIX, box.now)
    box.dialling.check()
    box.dialling.lost(PEER, (), box.now, again=True)
    box.dials()
    assert box.timer_ms is not None


def test_who_was_reached_counts_no_longer_as_hearsay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEARSAY", 1)
    box, teller = Box(), NodeId("t")
    for name in ("p", "q", "r"):
        box.dialling.want(address_of(name), box.now, teller=teller)
        assert box.dials() == [address_of(name)]
        box.dialling.want(address_of("nobody"), box.now, teller=teller)
        assert box.dials() == []
        box.dialling.linked(NodeId(name), address_of(name), box.now)
        box.dialling.check()


# --- what can be seen ---------------------------------------------------------------------------
def test_how_a_bootstrap_address_stands_can_be_seen(mesh: Mesh) -> None:
    mesh.add("a", bootstrap=("b",))
    core = mesh.boxes[NodeId("a")].core
    mesh.pass_time(2_000)
    (view,) = core.status(mesh.now).bootstrap
    assert (view.address, view.state, view.peer) == (address_of("b"), "waiting", "b")
    assert view.reason == "nobody there"
    assert view.attempts >= 2
    assert view.last_ms is not None
    assert view.last_ms <= 2_000
    assert view.next_ms is not None
    assert view.next_ms <= limits.DIAL_BACKOFF_MOST_MS
    mesh.add("b")
    mesh.pass_time(limits.DIAL_BACKOFF_MOST_MS)
    (view,) = core.status(mesh.now).bootstrap
    assert (view.state, view.reason, view.attempts, view.next_ms) == ("linked", "", 0, None)


def test_a_dial_under_way_is_seen_as_such(mesh: Mesh) -> None:
    mesh.add("b")
    core = mesh.add("a", bootstrap=("/memory/far",))
    mesh.give("a", DialFailed("/memory/far", "no route"))
    (view,) = core.status(mesh.now).bootstrap
    assert view.reason
    assert view.peer == ""


def test_a_node_that_moves_tells_everybody_where_it_is_now(mesh: Mesh) -> None:
    mesh.add("b")
    mesh.add("a", bootstrap=("b",))
    mesh.pass_time(limits.HELLO_RESEND_MS)
    new = "/memory/new/p2p/b"
    mesh.aliases[new] = NodeId("b")
    mesh.give("b", AddressesChanged((new,)))
    core = mesh.boxes[NodeId("a")].core
    assert core.peers(mesh.now)[1].addresses == (new,)
    mesh.pass_time(limits.DIAL_LASTING_MS)
    mesh.aliases[address_of("b")] = NodeId("nobody")
    mesh.links.discard(frozenset("ab"))
    before = len(mesh.effects("a", Dial))
    mesh.give("a", PeerDisconnected(NodeId("b"), "cable"))
    assert mesh.peer_state("a", "b") == "alive"
    assert new in [dial.address for dial in mesh.effects("a", Dial)[before:]]


# --- in a mesh ----------------------------------------------------------------------------------
@pytest.mark.parametrize("lasted", [True, False])
def test_a_lost_link_comes_back_by_the_other_address(mesh: Mesh, *, lasted: bool) -> None:
    mesh.add("b")
    mesh.aliases["/memory/old/p2p/b"] = NodeId("b")
    core = mesh.add("a", bootstrap=("/memory/old/p2p/b",))
    assert mesh.peer_state("a", "b") == "alive"
    if lasted:
        mesh.pass_time(limits.DIAL_LASTING_MS)
    else:
        mesh.break_link("a", "b")
        mesh.pass_time(limits.DIAL_BACKOFF_MS)
        assert mesh.peer_state("a", "b") == "alive"
    mesh.aliases["/memory/old/p2p/b"] = NodeId("nobody")
    mesh.links.discard(frozenset("ab"))
    mesh.give("a", PeerDisconnected(NodeId("b"), "cable"))
    if not lasted:
        assert mesh.peer_state("a", "b") == "unreachable"
        mesh.pass_time(limits.DIAL_BACKOFF_MS)
    assert mesh.peer_state("a", "b") == "alive"
    assert core.peers(mesh.now)[1].address == address_of("b")
