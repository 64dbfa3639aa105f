"""Shared documents between cores: written, sent, compared, rebuilt, refused."""

from __future__ import annotations

from meshslm.core.events import Tell
from meshslm.core.state_events import Change, StateNotPersisted, StateWrite, StateWritten
from meshslm.errors import FaultCode
from meshslm.ids import Instant, NodeId
from meshslm.wire.codec import encode
from meshslm.wire.state import StateDeltas, StateDigests
from tests.core.state_mesh import DOC, StateMesh


def two() -> StateMesh:
    mesh = StateMesh()
    mesh.join("a")
    mesh.join("b", "a")
    mesh.pass_time(100)
    return mesh


def test_what_one_node_writes_another_reads() -> None:
    mesh = two()
    assert mesh.put("a", "greeting", b"hello").revisions == (1,)
    mesh.pass_time(50)
    assert mesh.value("b", "greeting") == b"hello"
    assert mesh.put("b", "greeting", b"hi").revisions == (2,)
    mesh.pass_time(50)
    assert mesh.value("a", "greeting") == b"hi"
    assert mesh.docs("a").author(DOC, "greeting") == "b"
    assert mesh.put("a", "greeting", None).revisions == (3,)
    mesh.pass_time(50)
    assert mesh.value("b", "greeting") is None
    assert mesh.agree("a", "b")


def test_nothing_is_told_or_sent_before_it_is_durable() -> None:
    mesh = two()
    mesh.make_slow("a")
    mesh.give("a", StateWrite(1, DOC, (Change("k", b"v"),), 0))
    mesh.pass_time(200)
    assert mesh.value("a", "k") == b"v"
    assert mesh.value("b", "k") is None
    assert not mesh.effects("a", StateWritten)
    mesh.finish("a")
    mesh.pass_time(50)
    assert mesh.value("b", "k") == b"v"
    assert mesh.effects("a", StateWritten)[0].revisions == (1,)


def test_writes_that_come_together_are_signed_and_sent_together() -> None:
    mesh = two()
    mesh.make_slow("a")
    for number in range(50):
        mesh.give("a", StateWrite(number, DOC, (Change(f"k{number}", b"v"),), 0))
    while mesh.slow.get(NodeId("a")):
        mesh.finish("a")
    mesh.pass_time(50)
    assert mesh.value("b", "k49") == b"v"
    deltas = [m for m in mesh.seen["a", "b"] if isinstance(m, StateDeltas)]
    assert sum(len(m.deltas) for m in deltas) <= 2


def test_a_newcomer_gets_everything() -> None:
    mesh = two()
    for number in range(500):
        mesh.put("a", f"k{number}", b"v%d" % number)
    mesh.put("b", "mine", b"b")
    mesh.join("c", "a")
    mesh.pass_time(2_000)
    assert mesh.value("c", "k499") == b"v499"
    assert mesh.value("c", "mine") == b"b"
    assert mesh.agree("a", "b", "c")


def test_what_was_lost_on_the_way_is_found_by_comparing() -> None:
    mesh = two()
    mesh.filter = lambda _from, _to, m: () if isinstance(m, StateDeltas) else None
    mesh.put("a", "k", b"v")
    mesh.pass_time(100)
    assert mesh.value("b", "k") is None
    mesh.filter = lambda _from, _to, _m: None
    mesh.pass_time(31_000)
    assert mesh.value("b", "k") == b"v"


def test_a_gap_is_asked_for_at_once() -> None:
    mesh = two()
    mesh.filter = lambda _from, _to, m: () if isinstance(m, StateDeltas) else None
    mesh.put("a", "k1", b"v")
    mesh.pass_time(100)
    mesh.filter = lambda _from, _to, _m: None
    mesh.put("a", "k2", b"v")
    mesh.pass_time(100)
    assert mesh.value("b", "k1") == b"v"
    assert mesh.value("b", "k2") == b"v"


def test_a_conditional_write_is_refused_where_the_revision_is_another() -> None:
    mesh = two()
    mesh.put("a", "k", b"v")
    mesh.give("a", StateWrite(90, DOC, (Change("k", b"w", revision=0),), 0))
    mesh.give("a", StateWrite(91, DOC, (Change("k", b"w", revision=1),), 0))
    refused, taken = mesh.effects("a", StateWritten)[-2:]
    assert refused.code is FaultCode.CONFLICT
    assert taken.revisions == (2,)


def test_replicas_that_were_apart_come_to_the_same() -> None:
    mesh = two()
    mesh.put("a", "k", b"0")
    mesh.pass_time(50)
    mesh.cut.add(frozenset(("a", "b")))
    mesh.put("a", "k", b"a1")
    mesh.put("b", "k", b"b1")
    mesh.put("b", "other", b"b")
    mesh.pass_time(100)
    mesh.cut.clear()
    mesh.pass_time(60_000)
    assert mesh.agree("a", "b")
    assert mesh.value("a", "k") == mesh.value("b", "k") == b"b1"
    assert mesh.value("a", "other") == b"b"


def test_a_restart_keeps_what_was_told_as_durable_and_goes_on() -> None:
    mesh = two()
    for number in range(20):
        assert mesh.put("a", f"k{number}", b"v").code is None
    mesh.kill("a")
    mesh.join("a", "b")
    assert mesh.value("a", "k19") == b"v"
    assert mesh.put("a", "k0", b"w").revisions == (2,)
    mesh.pass_time(3_000)
    assert mesh.value("b", "k0") == b"w"
    assert len(mesh.docs("a").holdings.documents[DOC].parts) == 2
    assert mesh.agree("a", "b")


def test_a_clean_restart_goes_on_in_the_same_part() -> None:
    mesh = two()
    mesh.put("a", "k", b"v")
    mesh.kill("a")
    mesh.join("a", "b", clean=True)
    mesh.put("a", "k", b"w")
    assert len(mesh.docs("a").holdings.documents[DOC].parts) == 1


def test_a_node_that_lost_its_store_gets_its_own_back_and_clashes_with_nothing() -> None:
    mesh = two()
    mesh.put("a", "k", b"old")
    mesh.pass_time(50)
    mesh.kill("a")
    mesh.disks[NodeId("a")].wipe()
    mesh.join("a", "b")
    mesh.put("a", "new", b"1")
    mesh.pass_time(3_000)
    assert mesh.value("a", "k") == b"old"
    assert mesh.agree("a", "b")


def test_a_store_from_a_backup_is_noticed_and_its_part_left() -> None:
    mesh = two()
    mesh.put("a", "k", b"1")
    old = mesh.disks[NodeId("a")].parts()
    mesh.put("a", "k", b"2")
    mesh.pass_time(50)
    mesh.kill("a")
    mesh.disks[NodeId("a")].restore(old)
    mesh.join("a", "b", clean=True)
    mesh.pass_time(3_000)
    mesh.put("a", "k", b"3")
    mesh.pass_time(3_000)
    assert mesh.value("b", "k") == mesh.value("a", "k") == b"3"
    assert mesh.agree("a", "b")


def test_a_part_that_is_mostly_overwritten_is_rebuilt_everywhere() -> None:
    mesh = two()
    value = bytes(4_000)
    for number in range(150):
        mesh.put("a", f"k{number % 3}", value + b"%d" % number)
    mesh.put("a", "gone", b"x")
    mesh.put("a", "gone", None)
    mesh.pass_time(60_000)
    view = mesh.boxes[NodeId("a")].core.status(mesh.now).state
    assert view is not None
    assert view.rebuilt == 1
    for name in "ab":
        document = mesh.docs(name).holdings.documents[DOC]
        assert len(document.parts) == 1
        assert document.statistics().full_bytes < 20_000
        assert mesh.value(name, "k2") == value + b"149"
    assert mesh.agree("a", "b")
    assert mesh.disks[NodeId("b")].clocks() == mesh.disks[NodeId("a")].clocks()


def test_writes_during_a_rebuild_are_kept() -> None:
    mesh = two()
    value = bytes(4_000)
    for number in range(150):
        mesh.put("a", f"k{number % 3}", value)
    mesh.pass_time(1)
    for number in range(3):
        mesh.put("a", f"k{number}", b"late")
    mesh.pass_time(60_000)
    assert [mesh.value("b", f"k{n}") for n in range(3)] == [b"late"] * 3
    assert mesh.agree("a", "b")


def test_while_the_disk_is_full_writes_are_refused_and_what_was_told_stays() -> None:
    mesh = two()
    mesh.put("a", "k", b"1")
    mesh.make_slow("a")
    mesh.give("a", StateWrite(50, DOC, (Change("k", b"2"),), 0))
    (waiting,) = mesh.slow[NodeId("a")]
    mesh.give("a", StateNotPersisted(waiting.number, "no space left on device"))
    told = mesh.effects("a", StateWritten)[-1]
    assert told.request == 50
    assert told.code is FaultCode.NOT_READY
    assert "no space" in told.detail
    mesh.give("a", StateWrite(51, DOC, (Change("k", b"3"),), 0))
    assert mesh.effects("a", StateWritten)[-1].code is FaultCode.NOT_READY
    mesh.finish("a")
    assert mesh.put("a", "k", b"4").revisions == (3,)
    mesh.pass_time(100)
    assert mesh.value("b", "k") == b"4"


def test_a_node_without_documents_ignores_them_and_sends_none() -> None:
    mesh = StateMesh()
    mesh.add("plain")
    mesh.join("b", "plain")
    mesh.pass_time(100)
    mesh.put("b", "k", b"v")
    mesh.pass_time(60_000)
    assert mesh.peer_state("b", "plain") == "alive"
    assert not [m for m in mesh.seen["plain", "b"] if type(m).__module__.endswith("wire.state")]


def test_only_what_a_node_wants_is_sent_to_it() -> None:
    mesh = two()
    mesh.put("a", "k", b"v", "journal/1")
    mesh.pass_time(60_000)
    assert mesh.value("b", "k", "journal/1") is None
    mesh.docs("b").want("journal/1")
    mesh.pass_time(60_000)
    assert mesh.value("b", "k", "journal/1") == b"v"


def test_what_is_sealed_takes_no_more() -> None:
    mesh = two()
    mesh.docs("a").write("ledger/2026-01-01", (Change("u", b"1"),), seal=True)
    mesh.give("a", StateWrite(7, "ledger/2026-01-01", (Change("u", b"2"),), 0))
    assert mesh.effects("a", StateWritten)[-1].code is FaultCode.BAD_REQUEST


def test_watchers_hear_of_changes_from_here_and_from_others() -> None:
    mesh = two()
    heard: list[tuple[str, str, tuple[str, ...]]] = []

    def follow(name: str) -> None:
        def hear(document: str, keys: tuple[str, ...], _now: Instant) -> None:
            heard.append((name, document, keys))

        mesh.docs(name).watch("memory/*", hear)

    follow("a")
    follow("b")
    mesh.put("a", "k", b"v")
    mesh.pass_time(50)
    assert heard == [("a", DOC, ("k",)), ("b", DOC, ("k",))]


def test_in_sync_a_comparison_is_one_small_message() -> None:
    mesh = two()
    mesh.put("a", "k", b"v")
    mesh.pass_time(1_000)
    before = len([m for m in mesh.seen["a", "b"] if isinstance(m, StateDigests)])
    mesh.pass_time(60_000)
    after = [m for m in mesh.seen["a", "b"] if isinstance(m, StateDigests)]
    assert len(after) == before
    view = mesh.boxes[NodeId("b")].core.status(mesh.now).state
    assert view is not None
    assert view.agreed >= 2


def test_memory_that_flipped_is_found_and_mended_from_the_journal() -> None:
    mesh = two()
    mesh.put("a", "k", b"v")
    mesh.pass_time(1_000)
    part = next(iter(mesh.docs("b").holdings.documents[DOC].parts.values()))
    part.content ^= 1
    mesh.pass_time(100_000)
    assert any(t.topic == "state.diverged" for t in mesh.effects("b", Tell))
    assert mesh.agree("a", "b")
    assert not mesh.docs("b").holdings.documents[DOC].quarantined


def test_a_delta_for_one_change_takes_at_most_400_bytes() -> None:
    mesh = StateMesh()
    long = "12D3KooW" + "x" * 44
    mesh.join(long)
    mesh.join("b", long)
    mesh.pass_time(100)
    mesh.put(long, "project/notes/1", bytes(64))
    (message,) = [m for m in mesh.seen[long, "b"] if isinstance(m, StateDeltas)]
    assert len(encode(message)) <= 400
