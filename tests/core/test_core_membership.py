"""Hello, presence, expiry, leave, and who is dialled when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits, mesh_limits
from meshslm.chance import Chance
from meshslm.core.dialling import Dialling
from meshslm.core.events import (
    AddressFound,
    BytesReceived,
    Dial,
    DialFailed,
    Disconnect,
    HostingChanged,
    PeerConnected,
    PeerDisconnected,
    ShutdownRequested,
    Tell,
)
from meshslm.core.outbox import Outbox
from meshslm.ids import Instant, NodeId
from meshslm.wire.codec import encode
from meshslm.wire.detection import Ping
from meshslm.wire.messages import (
    Capability,
    CapabilityWanted,
    Goodbye,
    Hardware,
    Hello,
    Message,
    PeerAddress,
    Peers,
    Presence,
)
from tests.core.mesh import Mesh, address_of, specialist


def dials(mesh: Mesh, name: str) -> list[str]:
    return [dial.address for dial in mesh.effects(name, Dial)]


def test_two_nodes_meet_and_learn_what_the_other_can_do(mesh: Mesh) -> None:
    mesh.add("b", specialist("coder", "code"))
    mesh.add("a", bootstrap=("b",))
    for here, there in (("a", "b"), ("b", "a")):
        assert mesh.peer_state(here, there) == "alive"
    seen = mesh.boxes[NodeId("a")].core.peers(mesh.now)[1]
    assert [s.profile for s in seen.specialists] == ["coder"]
    mesh.pass_time(2000)
    seen = mesh.boxes[NodeId("a")].core.peers(mesh.now)[1]
    assert seen.loads[0].ready
    assert seen.rtt_ms == 0.0


def test_a_newcomer_is_told_of_the_others_and_links_to_all(mesh: Mesh) -> None:
    mesh.add("b")
    mesh.add("a", bootstrap=("b",))
    mesh.add("c", bootstrap=("b",))
    mesh.pass_time(2000)
    for here in "abc":
        assert mesh.boxes[NodeId(here)].core.status(mesh.now).peers_alive == 2


def test_nothing_is_heard_before_hello(mesh: Mesh) -> None:
    mesh.add("a")
    mesh.give("a", PeerConnected(NodeId("x"), ""))
    before = len(mesh.seen["a", "x"])
    for message in (Presence(1, 1), Ping(5), Capability(1, 1)):
        mesh.give("a", BytesReceived(NodeId("x"), encode(message)))
    assert len(mesh.seen["a", "x"]) == before
    assert mesh.peer_state("a", "x") == "connecting"


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (Hello(200, 201, "default", 1), "protocol"),
        (Hello(1, 1, "elsewhere", 1), "another mesh"),
    ],
)
def test_a_peer_of_another_kind_is_told_so_and_dropped(
    mesh: Mesh, hello: Hello, reason: str
) -> None:
    mesh.add("a")
    mesh.give("a", PeerConnected(NodeId("x"), ""))
    mesh.links.add(frozenset(("a", "x")))
    effects = mesh.boxes[NodeId("a")].core.handle(
        BytesReceived(NodeId("x"), encode(hello)), mesh.now
    )
    assert any(isinstance(e, Disconnect) and reason in e.reason for e in effects)
    assert mesh.peer_state("a", "x") != "alive"


def test_a_peer_that_never_says_hello_is_dropped(mesh: Mesh) -> None:
    mesh.add("a")
    mesh.give("a", PeerConnected(NodeId("x"), ""))
    mesh.pass_time(limits.HELLO_MS + limits.HELLO_RESEND_MS)
    assert [d.reason for d in mesh.effects("a", Disconnect)] == ["no hello"]
    hellos = [m for m in mesh.seen["a", "x"] if isinstance(m, Hello)]
    assert len(hellos) == limits.HELLO_MS // limits.HELLO_RESEND_MS


def test_a_lost_hello_is_said_again(mesh: Mesh) -> None:
    lost: list[Message] = []

    def lose_first(_from: NodeId, _to: NodeId, message: Message) -> list[Message] | None:
        if isinstance(message, Hello) and len(lost) < 2:
            lost.append(message)
            return []
        return None

    mesh.filter = lose_first
    mesh.add("b")
    mesh.add("a", bootstrap=("b",))
    assert len(lost) == 2
    mesh.pass_time(limits.HELLO_RESEND_MS * 2)
    assert mesh.peer_state("a", "b") == mesh.peer_state("b", "a") == "alive"


def test_one_lost_hello_is_repaired_by_the_one_that_misses_it(mesh: Mesh) -> None:
    lost: list[Message] = []

    def lose_one(sender: NodeId, _to: NodeId, message: Message) -> list[Message] | None:
        if isinstance(message, Hello) and sender == "a" and not lost:
            lost.append(message)
            return []
        return None

    mesh.filter = lose_one
    mesh.add("b")
    mesh.add("a", bootstrap=("b",))
    assert mesh.peer_state("a", "b") == "alive"
    assert mesh.peer_state("b", "a") == "connecting"
    mesh.pass_time(limits.HELLO_RESEND_MS * 2)
    assert mesh.peer_state("b", "a") == "alive"


def test_silence_is_noticed_and_the_peer_dialled_again(mesh: Mesh) -> None:
    mesh.add("b")
    mesh.add("a", bootstrap=("b",))
    pair = frozenset(("a", "b"))
    mesh.cut.add(pair)
    mesh.pass_time(limits.HELLO_MS / 2 + mesh_limits.SUSPICION_MOST_MS)
    assert mesh.peer_state("a", "b") == "unreachable"
    assert any("silent" in t.detail for t in mesh.effects("a", Tell) if t.topic == "peer.gone")
    mesh.cut.clear()
    mesh.pass_time(limits.DIAL_BACKOFF_MOST_MS)
    assert mesh.peer_state("a", "b") == mesh.peer_state("b", "a") == "alive"


def test_who_leaves_is_not_dialled_unless_configured(mesh: Mesh) -> None:
    mesh.add("b")
    mesh.add("a", bootstrap=("b",))
    mesh.give("a", ShutdownRequested())
    assert mesh.peer_state("b", "a") == "left"
    before = len(dials(mesh, "b"))
    mesh.pass_time(60_000)
    assert len(dials(mesh, "b")) == before


def test_a_restarted_peer_counts_as_new(mesh: Mesh) -> None:
    mesh.add("b", specialist("coder", "code"))
    core = mesh.add("a", bootstrap=("b",))
    mesh.pass_time(3000)
    mesh.give("a", BytesReceived(NodeId("b"), encode(Hello(1, 1, "default", 2, "b"))))
    assert mesh.peer_state("a", "b") == "alive"
    assert core.peers(mesh.now)[1].specialists == ()
    mesh.give("a", BytesReceived(NodeId("b"), encode(Presence(1, 10**6, capability=9))))
    assert CapabilityWanted() not in mesh.seen["a", "b"]
    mesh.give("a", BytesReceived(NodeId("b"), encode(Presence(2, 1, capability=1))))
    assert CapabilityWanted() in mesh.seen["a", "b"]


def test_a_lost_capability_is_asked_for_again(mesh: Mesh) -> None:
    mesh.add("b")
    core = mesh.add("a", bootstrap=("b",))
    mesh.filter = lambda _f, _t, m: [] if isinstance(m, Capability) else None
    mesh.give("b", HostingChanged((specialist("coder", "code"),), Hardware()))
    assert core.peers(mesh.now)[1].specialists == ()
    mesh.filter = lambda _f, _t, _m: None
    mesh.pass_time(2 * limits.PRESENCE_MS)
    assert core.peers(mesh.now)[1].specialists[0].profile == "coder"


def test_a_fault_of_a_peer_ends_its_link_and_nothing_else(mesh: Mesh) -> None:
    mesh.add("b")
    mesh.add("a", bootstrap=("b",))
    mesh.add("c", bootstrap=("a",))
    forged = Peers((PeerAddress(NodeId("z"), (address_of("y"),)),))
    mesh.give("a", BytesReceived(NodeId("b"), encode(forged)))
    assert any("fault" in d.reason for d in mesh.effects("a", Disconnect))
    assert mesh.peer_state("a", "c") == "alive"


def test_a_message_of_a_later_kind_is_ignored(mesh: Mesh) -> None:
    mesh.add("b")
    mesh.add("a", bootstrap=("b",))
    mesh.give("a", BytesReceived(NodeId("b"), bytes.fromhex("92ccc880")))
    assert mesh.peer_state("a", "b") == "alive"


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_garbage_of_a_member_raises_nothing(garbage: list[bytes]) -> None:
    mesh = Mesh()
    mesh.add("b")
    mesh.add("a", bootstrap=("b",))
    for data in garbage:
        mesh.give("a", BytesReceived(NodeId("b"), data))


def test_presence_is_spread_over_more_seconds_in_a_large_mesh(mesh: Mesh) -> None:
    mesh.add("a")
    count = limits.PRESENCE_PER_SECOND * 2 + 1
    for number in range(count):
        node = NodeId(f"p{number}")
        mesh.give("a", PeerConnected(node, ""))
        mesh.give("a", BytesReceived(node, encode(Hello(1, 1, "default", 1))))
    mesh.seen.clear()
    mesh.pass_time(limits.PRESENCE_MS)
    sent = [m for messages in mesh.seen.values() for m in messages if isinstance(m, Presence)]
    assert 0 < len(sent) <= limits.PRESENCE_PER_SECOND
    assert {m.next_ms for m in sent} == {3 * limits.PRESENCE_MS}


def test_a_full_peer_table_refuses_and_forgets_the_longest_gone(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PEERS", 2)
    mesh.add("a")
    for name in "xy":
        mesh.give("a", PeerConnected(NodeId(name), ""))
    mesh.give("a", PeerConnected(NodeId("z"), ""))
    assert [d.peer for d in mesh.effects("a", Disconnect)] == ["z"]
    mesh.give("a", PeerDisconnected(NodeId("x"), "gone"))
    mesh.give("a", PeerConnected(NodeId("z"), ""))
    assert mesh.peer_state("a", "x") == "unknown"
    assert mesh.peer_state("a", "z") == "connecting"


# --- dialling -----------------------------------------------------------------------------------
def make_dialling() -> tuple[Dialling, Outbox]:
    out = Outbox()
    return Dialling(NodeId("me"), out, Chance.from_int(1)), out


def test_no_more_dials_than_allowed_are_under_way() -> None:
    dialling, out = make_dialling()
    for number in range(limits.DIALS * 3):
        dialling.want(address_of(f"p{number}"), Instant(0))
    first = [e.address for e in out.take() if isinstance(e, Dial)]
    assert len(first) == limits.DIALS
    for address in first:
        dialling.failed(address, Instant(0))
        dialling.check()
    assert len([e for e in out.take() if isinstance(e, Dial)]) == limits.DIALS


def test_waits_double_up_to_the_bound(mesh: Mesh) -> None:
    mesh.add("a", bootstrap=("nobody",))
    for _ in range(14):
        mesh.pass_time(limits.DIAL_BACKOFF_MOST_MS)
    count = len(dials(mesh, "a"))
    assert 14 <= count <= 14 * 2 + 8


def test_a_found_address_is_given_up_a_configured_one_never(mesh: Mesh) -> None:
    mesh.add("a", bootstrap=("nobody",))
    mesh.give("a", AddressFound(address_of("ghost")))
    mesh.pass_time(limits.PEER_FORGET_MS + 2 * limits.DIAL_BACKOFF_MOST_MS)
    before = dials(mesh, "a")
    mesh.pass_time(10 * limits.DIAL_BACKOFF_MOST_MS)
    after = dials(mesh, "a")[len(before) :]
    assert address_of("nobody") in after
    assert address_of("ghost") not in after


def test_a_configured_address_that_nobody_answers_at_is_told_of_once_and_again_after_a_link(
    mesh: Mesh,
) -> None:
    def told() -> list[str]:
        return [t.detail for t in mesh.effects("a", Tell) if t.topic == "dial.failed"]

    mesh.add("a", bootstrap=("b",))
    mesh.give("a", AddressFound(address_of("ghost")))
    mesh.pass_time(10 * limits.DIAL_BACKOFF_MOST_MS)
    assert len(told()) == 1
    assert told()[0].startswith(f"{address_of('b')}: nobody there")
    mesh.add("b")
    mesh.pass_time(limits.DIAL_BACKOFF_MOST_MS)
    assert mesh.peer_state("a", "b") == "alive"
    mesh.cut.add(frozenset("ab"))
    mesh.break_link("a", "b")
    mesh.pass_time(10 * limits.DIAL_BACKOFF_MOST_MS)
    assert len(told()) == 2


@pytest.mark.parametrize("address", [address_of("b"), "/memory/somewhere"])
def test_a_node_that_refuses_us_is_dialled_ever_more_rarely(mesh: Mesh, address: str) -> None:
    def other_mesh(_from: NodeId, _to: NodeId, message: Message) -> list[Message] | None:
        return [Hello(1, 1, "elsewhere", 1)] if isinstance(message, Hello) else None

    mesh.filter = other_mesh
    mesh.aliases["/memory/somewhere"] = NodeId("b")
    mesh.add("b")
    mesh.add("a", bootstrap=(address,))
    mesh.pass_time(10 * limits.DIAL_BACKOFF_MOST_MS)
    refused = len(dials(mesh, "a"))
    assert 10 <= refused <= 30
    mesh.filter = lambda _from, _to, _message: None
    mesh.pass_time(limits.DIAL_BACKOFF_MOST_MS)
    assert mesh.peer_state("a", "b") == "alive"
    mesh.break_link("a", "b")
    mesh.pass_time(limits.DIAL_BACKOFF_MS)
    assert mesh.peer_state("a", "b") == "alive"


def test_nobody_dials_itself(mesh: Mesh) -> None:
    mesh.add("a", bootstrap=("a",))
    assert dials(mesh, "a") == []


def test_a_dial_without_an_outcome_is_made_again() -> None:
    dialling, out = make_dialling()
    dialling.want(address_of("p"), Instant(0))
    out.take()
    dialling.timer("p", Instant(0))
    dialling.check()
    dialling.timer("p", Instant(0))
    assert Dial(address_of("p")) in out.take()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["want", "linked", "lost", "left", "failed", "timer"]),
            st.sampled_from(["p", "q", "r"]),
        ),
        max_size=60,
    )
)
def test_whatever_happens_every_target_is_looked_after(steps: list[tuple[str, str]]) -> None:
    dialling, _ = make_dialling()
    dialling.want("/ip4/127.0.0.1/tcp/1", Instant(0), configured=True)
    for now, (step, name) in enumerate(steps):
        at, address, peer = Instant(now), address_of(name), NodeId(name)
        match step:
            case "want":
                dialling.want(address, at)
            case "linked":
                dialling.linked(peer, address, at)
            case "lost" | "left":
                dialling.lost(peer, (address,), at, again=step == "lost")
            case "failed":
                dialling.failed(address, at)
            case "timer":
                dialling.timer(name, at)
        dialling.check()


def test_an_address_of_somebody_linked_already_is_not_dialled_again_until_it_goes(
    mesh: Mesh,
) -> None:
    mesh.add("b")
    mesh.add("a", bootstrap=("b",))
    mesh.aliases["/ip4/127.0.0.1/tcp/9"] = NodeId("b")
    mesh.give("a", AddressFound("/ip4/127.0.0.1/tcp/9"))
    before = len(dials(mesh, "a"))
    mesh.pass_time(limits.DIAL_BACKOFF_MOST_MS)
    assert len(dials(mesh, "a")) == before
    mesh.break_link("a", "b")
    mesh.pass_time(limits.DIAL_BACKOFF_MOST_MS)
    assert "/ip4/127.0.0.1/tcp/9" in dials(mesh, "a")[before:]


def test_a_failed_dial_of_nobody_is_ignored(mesh: Mesh) -> None:
    mesh.add("a")
    assert mesh.give("a", DialFailed("/memory/x", "?")) == []


def test_goodbye_of_one_that_will_not_have_us_is_no_leave(mesh: Mesh) -> None:
    mesh.add("b")
    mesh.add("a", bootstrap=("b",))
    mesh.dead.add(frozenset("ab"))
    mesh.give("a", BytesReceived(NodeId("b"), encode(Goodbye("busy"))))
    mesh.dead.clear()
    assert mesh.peer_state("a", "b") == "unreachable"
