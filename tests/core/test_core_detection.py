"""Probes, suspicion and refutation: who is given up, when, and who is not."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits, mesh_limits
from meshslm.core.events import BytesReceived, PeerConnected, Tell
from meshslm.core.rumours import PER_MESSAGE, Rumours, repeats
from meshslm.core.suspicion import Health, Suspicion, silence_ms
from meshslm.ids import NodeId
from meshslm.wire.codec import encode
from meshslm.wire.detection import Gossip, News, Ping, Pong, Probe, Probed
from meshslm.wire.messages import Message
from tests.core.mesh import Mesh, address_of

YOUNG_MS = limits.HELLO_MS
"""Silence of a link that has just come does not count for half of that."""


def meshed(*names: str) -> Mesh:
    """Nodes that have known each other for a while."""
    mesh = Mesh()
    for name in names:
        mesh.add(name, bootstrap=tuple(names[: names.index(name)]))
    mesh.pass_time(YOUNG_MS)
    for name in names:
        assert mesh.boxes[NodeId(name)].core.status(mesh.now).peers_alive == len(names) - 1
    mesh.seen.clear()
    return mesh


def cut_off(mesh: Mesh, name: str) -> None:
    """Nothing gets to a node, and nothing from it."""
    mesh.cut |= {frozenset((name, other)) for other in mesh.boxes if other != name}


def sent(mesh: Mesh, sender: str, kind: type[Message]) -> list[Message]:
    return [
        message
        for (source, _), messages in mesh.seen.items()
        for message in messages
        if source == sender and isinstance(message, kind)
    ]


def reasons(mesh: Mesh, name: str) -> list[str]:
    return [t.detail for t in mesh.effects(name, Tell) if t.topic == "peer.gone"]


# --- who is given up ----------------------------------------------------------------------------
def test_whoever_is_silent_is_given_up_by_all_within_three_seconds() -> None:
    mesh = meshed(*"abcde")
    cut_off(mesh, "e")
    mesh.boxes[NodeId("e")].timers.clear()  # it hangs, and judges nobody itself
    mesh.pass_time(mesh_limits.SUSPICION_MS + 2 * mesh_limits.PROBE_AGAIN_MS)
    assert [mesh.peer_state(name, "e") for name in "abcd"] == ["unreachable"] * 4
    assert all("silent for 2." in reasons(mesh, name)[0] for name in "abcd")
    assert [mesh.peer_state("a", name) for name in "bcd"] == ["alive"] * 3


def test_a_peer_that_answers_late_is_kept() -> None:
    mesh = meshed(*"abc")
    held: list[Message] = []

    def slow(sender: NodeId, _to: NodeId, message: Message) -> Iterable[Message] | None:
        if sender != "c":
            return None
        held.append(message)
        return []

    for _ in range(20):
        mesh.filter = slow
        mesh.pass_time(1_500)
        mesh.filter = lambda _from, _to, _message: None
        for name in "ab":
            mesh.give(name, BytesReceived(NodeId("c"), encode(Pong(0))))
    assert held
    assert mesh.peer_state("a", "c") == mesh.peer_state("b", "c") == "alive"


def test_a_link_that_is_broken_for_two_alone_ends_without_a_word_of_death() -> None:
    mesh = meshed(*"abcd")
    mesh.cut.add(frozenset("ab"))
    mesh.pass_time(mesh_limits.SUSPICION_MOST_MS)
    assert mesh.peer_state("a", "b") == "alive"
    mesh.pass_time(mesh_limits.LINK_SILENCE_MS)
    assert any("though others reach it" in why for why in reasons(mesh, "a") + reasons(mesh, "b"))
    assert mesh.peer_state("c", "a") == mesh.peer_state("c", "b") == "alive"
    assert not [m for m in sent(mesh, "a", Gossip) if isinstance(m, Gossip) and m.news]


def test_a_one_way_link_is_found_by_who_does_not_hear() -> None:
    mesh = meshed(*"abcd")
    mesh.filter = lambda source, to, _: [] if (source, to) == ("a", "b") else None
    mesh.pass_time(2 * mesh_limits.LINK_SILENCE_MS)
    assert "though others reach it" in reasons(mesh, "b")[0]
    assert mesh.peer_state("c", "a") == mesh.peer_state("c", "b") == "alive"


def test_a_node_that_did_not_run_accuses_nobody() -> None:
    mesh = meshed(*"abc")
    box = mesh.boxes[NodeId("a")]
    timers, box.timers = box.timers, {}
    mesh.filter = lambda _source, to, _message: [] if to == "a" else None
    mesh.pass_time(2_000)
    mesh.filter = lambda _from, _to, _message: None
    box.timers = timers
    mesh.pass_time(2_000)
    assert reasons(mesh, "a") == []
    assert mesh.peer_state("a", "b") == mesh.peer_state("a", "c") == "alive"


# --- probes for others --------------------------------------------------------------------------
def test_a_probe_for_another_is_answered_by_what_was_found() -> None:
    mesh = meshed(*"abc")
    mesh.give("b", BytesReceived(NodeId("a"), encode(Probe(NodeId("c"), 7))))
    assert mesh.seen["b", "a"][-1] == Probed(NodeId("c"), 7, reached=True)
    mesh.cut.add(frozenset("bc"))
    mesh.give("b", BytesReceived(NodeId("a"), encode(Probe(NodeId("c"), 8))))
    mesh.pass_time(mesh_limits.PROBE_WAIT_MS + mesh_limits.PROBE_AGAIN_MS)
    assert Probed(NodeId("c"), 8) in mesh.seen["b", "a"]


def test_a_probe_of_a_stranger_and_one_too_many_are_answered_with_no() -> None:
    mesh = meshed(*"abc")
    mesh.give("b", BytesReceived(NodeId("a"), encode(Probe(NodeId("nobody"), 1))))
    assert mesh.seen["b", "a"][-1] == Probed(NodeId("nobody"), 1)
    mesh.cut.add(frozenset("bc"))
    for nonce in range(mesh_limits.PROBES_FOR_OTHERS + 1):
        mesh.give("b", BytesReceived(NodeId("a"), encode(Probe(NodeId("c"), nonce))))
    refused = [m for m in mesh.seen["b", "a"] if isinstance(m, Probed) and m.peer == "c"]
    assert [m.nonce for m in refused] == [mesh_limits.PROBES_FOR_OTHERS]


def test_an_unasked_answer_is_ignored() -> None:
    mesh = meshed(*"ab")
    mesh.give("a", BytesReceived(NodeId("b"), encode(Probed(NodeId("b"), 1, reached=True))))
    mesh.give("a", BytesReceived(NodeId("b"), encode(Pong(12345))))
    assert mesh.peer_state("a", "b") == "alive"


# --- lies ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("state", ["suspect", "dead"])
def test_a_liar_cannot_kill_another(state: str) -> None:
    mesh = meshed(*"abcd")
    for _ in range(100):
        for by in ("d", "x", "y", "z", "w"):
            lie = News(NodeId("b"), state, 1, 0, NodeId(by))
            mesh.give("a", BytesReceived(NodeId("d"), encode(Gossip((lie,)))))
        mesh.pass_time(100)
    assert mesh.peer_state("a", "b") == mesh.peer_state("c", "b") == "alive"
    assert reasons(mesh, "a") == []


@pytest.mark.parametrize("state", ["suspect", "dead"])
def test_who_hears_of_its_own_death_refutes_it(state: str) -> None:
    mesh = meshed(*"abc")
    lie = News(NodeId("a"), state, 1, 0, NodeId("b"))
    mesh.give("a", BytesReceived(NodeId("b"), encode(Gossip((lie,)))))
    answer = News(NodeId("a"), "alive", 1, 1)
    assert Gossip((answer,)) in mesh.seen["a", "b"]
    assert [t.detail for t in mesh.effects("a", Tell) if t.topic == "peer.refuted"]
    mesh.seen.clear()
    for boot, counter in ((1, 0), (1, 2**53), (2, 0), (0, 0)):
        lie = News(NodeId("a"), state, boot, counter, NodeId("b"))
        mesh.give("a", BytesReceived(NodeId("b"), encode(Gossip((lie,)))))
    assert sent(mesh, "a", Gossip) == []


def test_news_of_strangers_of_other_lives_and_of_later_kinds_is_ignored() -> None:
    mesh = meshed(*"abc")
    odd = (
        News(NodeId("stranger"), "dead", 1),
        News(NodeId("c"), "dead", 9),
        News(NodeId("c"), "dead", 1, 5),
        News(NodeId("c"), "resting", 1),
        News(NodeId("b"), "alive", 1, 2**53),
    )
    mesh.cut.add(frozenset("ac"))
    mesh.pass_time(mesh_limits.PROBE_WAIT_MS / 2)
    before = len(mesh.seen["a", "c"])
    mesh.give("a", BytesReceived(NodeId("b"), encode(Gossip(odd))))
    assert len(mesh.seen["a", "c"]) == before
    assert mesh.peer_state("a", "b") == "alive"


def test_news_of_nobody_is_a_fault() -> None:
    mesh = meshed(*"ab")
    mesh.give("a", BytesReceived(NodeId("b"), encode(Gossip((News(NodeId(""), "dead", 1),)))))
    assert mesh.peer_state("a", "b") == "unreachable"


def test_probes_and_news_before_hello_are_not_heard() -> None:
    mesh = meshed(*"ab")
    mesh.give("a", PeerConnected(NodeId("x"), ""))
    before = len(mesh.seen["a", "x"])
    for message in (Ping(1), Probe(NodeId("b"), 1), Gossip((News(NodeId("b"), "dead", 1),))):
        mesh.give("a", BytesReceived(NodeId("x"), encode(message)))
    assert len(mesh.seen["a", "x"]) == before
    assert address_of("b") in [p.address for p in mesh.boxes[NodeId("a")].core.peers(mesh.now)] or (
        mesh.peer_state("a", "b") == "alive"
    )


# --- laws ---------------------------------------------------------------------------------------
@given(st.integers(0, 20), st.integers(0, 20))
def test_a_wait_is_within_its_bounds_and_no_longer_by_a_confirmation(c: int, wanted: int) -> None:
    wait = silence_ms(c, wanted)
    assert mesh_limits.SUSPICION_MS <= wait <= mesh_limits.SUSPICION_MOST_MS
    assert silence_ms(c + 1, wanted) <= wait
    if c >= wanted:
        assert wait == mesh_limits.SUSPICION_MS


@given(st.lists(st.sampled_from("abcdefgh")), st.integers(2, 100))
def test_a_suspicion_counts_everybody_once(names: list[str], members: int) -> None:
    suspicion = Suspicion()
    counted = [name for name in names if suspicion.confirm(NodeId(name))]
    assert len(counted) == len(dict.fromkeys(counted)) <= mesh_limits.CONFIRMATIONS + 1
    assert (
        mesh_limits.SUSPICION_MS <= suspicion.wait_ms(members, 1) <= mesh_limits.SUSPICION_MOST_MS
    )
    assert suspicion.wait_ms(members, 2) == 2 * suspicion.wait_ms(members, 1)


@given(st.lists(st.booleans()))
def test_health_stays_within_its_bounds(signs: list[bool]) -> None:
    health = Health()
    for good in signs:
        if good:
            health.better()
        else:
            health.worse()
        assert 1 <= health.stretch <= 1 + mesh_limits.HEALTH_MOST


@given(
    st.lists(st.one_of(st.sampled_from("abcdefghijklmnop"), st.none()), max_size=200),
    st.integers(1, 50),
)
def test_news_is_handed_on_so_often_and_no_oftener(steps: list[str | None], members: int) -> None:
    rumours, told = Rumours(), dict.fromkeys("abcdefghijklmnop", 0)
    added: dict[str, int] = {}
    for step in steps:
        if step is not None:
            rumours.add(News(NodeId(step), "suspect", 1, len(added)))
            added[step], told[step] = len(added), 0
            continue
        taken = rumours.take(members)
        assert len(taken) <= PER_MESSAGE
        assert len(dict.fromkeys(piece.node for piece in taken)) == len(taken)
        for piece in taken:
            told[piece.node] += 1
            assert told[piece.node] <= repeats(members)
    while rumours.take(members):
        pass
    assert len(rumours) == 0


def test_the_most_told_makes_room() -> None:
    rumours = Rumours()
    rumours.add(News(NodeId("old"), "suspect", 1))
    rumours.take(1000)
    for number in range(mesh_limits.NEWS_KEPT):
        rumours.add(News(NodeId(f"n{number}"), "suspect", 1))
    assert len(rumours) == mesh_limits.NEWS_KEPT
    left = [piece.node for _ in range(mesh_limits.NEWS_KEPT) for piece in rumours.take(1)]
    assert "old" not in left


news = st.builds(
    News,
    node=st.sampled_from([NodeId(n) for n in "abcd"]),
    state=st.sampled_from(["alive", "suspect", "dead", "?"]),
    boot=st.integers(0, 2),
    counter=st.one_of(st.integers(0, 3), st.just(2**53)),
    by=st.sampled_from([NodeId(n) for n in ("", "a", "c", "z")]),
)


@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.builds(Gossip, news=st.lists(news, max_size=4).map(tuple)),
                st.builds(
                    Ping, nonce=st.integers(0, 9), news=st.lists(news, max_size=2).map(tuple)
                ),
                st.builds(Pong, nonce=st.integers(0, 9)),
                st.builds(
                    Probe, peer=st.sampled_from([NodeId(n) for n in "abcz"]), nonce=st.just(1)
                ),
                st.builds(
                    Probed,
                    peer=st.sampled_from([NodeId(n) for n in "abcz"]),
                    nonce=st.just(1),
                    reached=st.booleans(),
                ),
            ),
            st.sampled_from([0, 50, 700]),
        ),
        max_size=12,
    )
)
def test_whatever_a_member_says_the_others_keep_each_other(
    steps: list[tuple[Message, int]],
) -> None:
    mesh = meshed(*"abc")
    for message, wait in steps:
        mesh.give("a", BytesReceived(NodeId("c"), encode(message)))
        mesh.pass_time(wait)
    mesh.pass_time(2 * mesh_limits.SUSPICION_MOST_MS)
    assert mesh.peer_state("a", "b") == mesh.peer_state("b", "a") == "alive"
