"""What is decided, and the door to it in a node that has no majority, no group, or no right."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits, mesh_limits
from meshslm.chance import Chance
from meshslm.core.consensus.configuration import with_learner, with_voter, without
from meshslm.core.consensus.coordination import Coordination
from meshslm.core.consensus.decided import Decided
from meshslm.core.consensus.events import (
    DecisionMade,
    DecisionWanted,
    LogFailed,
    LogPersisted,
    LogRecovered,
    PersistLog,
    SeatOrdered,
)
from meshslm.core.consensus.log import Log
from meshslm.core.consensus.seats import Seats
from meshslm.core.events import Effect, Send
from meshslm.core.outbox import Outbox
from meshslm.errors import PeerFault
from meshslm.ids import Instant, NodeId, after
from meshslm.wire.codec import decode
from meshslm.wire.consensus import (
    Append,
    Asked,
    Ballot,
    Command,
    Configuration,
    Decision,
    Entry,
    Kept,
    Proposal,
    Seat,
    SnapshotPart,
)

A, B, C = NodeId("a"), NodeId("b"), NodeId("c")


def proposals() -> Iterator[str]:
    for number in count():
        yield f"{number:032x}"


class Book:
    """Decisions, and commands one after the other."""

    def __init__(self) -> None:
        self.decided = Decided()
        self.index = 0
        self._names = proposals()

    def do(self, act: str, subject: str = "x", **fields: object) -> str:
        command = Command(act, subject, **fields)  # type: ignore[arg-type]  # its fields
        return self.carry_out(Proposal(next(self._names), self.index, command))

    def carry_out(self, proposal: Proposal) -> str:
        self.index += 1
        return self.decided.carry_out(self.index, proposal).code

    def only(self) -> Decision:
        (decision,) = self.decided.find("", "")
        return decision


def test_one_rollout_is_active() -> None:
    book = Book()
    assert book.do("rollout.begin", value="one") == "decided"
    assert book.do("rollout.begin", value="two") == "conflict"
    assert book.do("rollout.begin", value="one") == "decided"
    assert book.do("rollout.end", value="two") == "conflict"
    assert book.do("rollout.end", value="one") == "decided"
    assert book.do("rollout.begin", value="two") == "decided"
    assert book.only().value == "two"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("quota.set", "quota.grant", "quota.release")),
            st.sampled_from(("p", "q", "r", "")),
            st.integers(0, 9),
        ),
        max_size=60,
    )
)
def test_never_more_is_granted_than_there_is(steps: list[tuple[str, str, int]]) -> None:
    book = Book()
    for act, holder, amount in steps:
        book.do(act, "gpu", holder=holder, amount=amount)
        for quota in book.decided.find("quota", "gpu"):
            assert sum(share.amount for share in quota.shares) <= quota.amount
            assert all(share.amount > 0 for share in quota.shares)


def test_a_generation_follows_the_one_that_was_known() -> None:
    book = Book()
    assert book.do("generation", expected=0, value="a") == "decided"
    assert book.do("generation", expected=0, value="b") == "conflict"
    assert book.do("generation", expected=1, value="b") == "decided"
    assert (book.only().amount, book.only().value) == (2, "b")


def test_what_is_revoked_stays_revoked() -> None:
    book = Book()
    assert [book.do("revoke", value="lost"), book.do("revoke", value="again")] == ["decided"] * 2
    assert book.only().value == "lost"


@pytest.mark.parametrize(("act", "subject"), [("no.such", "x"), ("revoke", "")])
def test_a_command_that_makes_no_sense(act: str, subject: str) -> None:
    assert Book().do(act, subject) == "bad_command"


def test_a_proposal_is_carried_out_once() -> None:
    book = Book()
    book.do("quota.set", "q", amount=10)
    grant = Proposal("f" * 32, 1, Command("quota.grant", "q", "p", amount=3))
    assert [book.carry_out(grant) for _ in range(3)] == ["decided"] * 3
    assert book.decided.find("quota", "q")[0].shares[0].amount == 3


def test_one_that_comes_too_late_is_refused() -> None:
    book = Book()
    grant = Proposal("f" * 32, 1, Command("revoke", "y"))
    book.carry_out(grant)
    book.index = mesh_limits.PROPOSALS_REMEMBERED + 2
    assert book.carry_out(grant) == "stale"


def test_it_is_bounded() -> None:
    book = Book()
    codes = [book.do("revoke", f"s{number}") for number in range(mesh_limits.DECISIONS + 1)]
    assert codes[-2:] == ["decided", "full"]
    big = Book()
    value = "v" * mesh_limits.DECISION_VALUE_BYTES
    codes = [big.do("revoke", f"s{number}", value=value) for number in range(mesh_limits.DECISIONS)]
    assert codes[-1] == "full"
    assert len(big.decided.saved()) < limits.MESSAGE_BYTES
    full = Book()
    full.do("quota.set", "q", amount=10_000)
    codes = [
        full.do("quota.grant", "q", holder=f"h{number}", amount=1)
        for number in range(mesh_limits.SHARES + 1)
    ]
    assert codes[-2:] == ["decided", "full"]


def test_a_snapshot_holds_all_of_it() -> None:
    book = Book()
    book.do("quota.set", "q", amount=5)
    again = Proposal("f" * 32, 1, Command("quota.grant", "q", "p", amount=3))
    book.carry_out(again)
    copy = Decided()
    copy.load(book.decided.saved())
    assert copy.saved() == book.decided.saved()
    assert copy.carry_out(9, again).index == 2
    with pytest.raises(PeerFault):
        copy.load(b"\x00")


def test_a_log_forgets_configurations_that_are_cut_off() -> None:
    log = Log()
    first, second = Configuration((Seat(A, 1),)), Configuration((Seat(A, 1), Seat(B, 2)))
    log.append((Entry(1, 1, None, first), Entry(2, 1), Entry(3, 1, None, second)))
    assert log.configuration == second
    log.cut(3)
    assert (log.configuration, log.last_index) == (first, 2)
    log.compact(2)
    assert (log.configuration, log.base_index, log.term_at(1)) == (first, 2, None)


def test_seats_differ_by_one() -> None:
    one = Configuration((Seat(A, 1),))
    taught = with_learner(one, B)
    assert taught == Configuration((Seat(A, 1),), (Seat(B),))
    assert with_voter(taught, Seat(B, 5)) == Configuration((Seat(A, 1), Seat(B, 5)))


# --- the door -----------------------------------------------------------------------------------
class Node:
    """A node's door to consensus, with a disk that writes at once."""

    def __init__(self, name: NodeId = A, *, members: tuple[NodeId, ...] = (), log: bool = True):
        self.now = Instant(1_000_000)
        self.out = Outbox()
        self.members = list(members)
        self.allowed = True
        self.door = Coordination(
            name,
            self.out,
            Chance.from_int(1),
            members=lambda: self.members,
            may=lambda node: node != C,
            may_propose=lambda _node, _command: self.allowed,
        )
        self.sent: list[Send] = []
        self.made: list[DecisionMade] = []
        if log:
            self.event(LogRecovered(5))

    def event(self, event: object) -> None:
        self.door.event_handlers()[type(event)](event, self.now)
        self.settle()

    def settle(self) -> None:
        effects: list[Effect] = self.out.take()
        for effect in effects:
            if isinstance(effect, PersistLog):
                self.event(LogPersisted(effect.number))
            elif isinstance(effect, Send):
                self.sent.append(effect)
            elif isinstance(effect, DecisionMade):
                self.made.append(effect)
        self.door.check()

    def wait(self, ms: float) -> None:
        """Let time pass, and what is due happen."""
        until = after(self.now, ms)
        while self.now < until:
            self.now = after(self.now, 50)
            for key, handler in self.door.timer_handlers().items():
                if self.out.timer_runs(key, ""):
                    handler("", self.now)
                    self.settle()

    def ask(self, command: Command | None, number: int = 1) -> None:
        self.event(DecisionWanted(number, command))

    def result(self) -> str:
        return self.made[-1].code


REVOKE = Command("revoke", "x")


def test_a_mesh_of_one_decides() -> None:
    node = Node()
    node.event(SeatOrdered(1, "found"))
    node.ask(REVOKE, 2)
    node.ask(None, 3)
    assert [made.code for made in node.made] == ["decided"] * 3
    assert node.made[-1].decisions[0].subject == "x"
    assert node.door.view().role == "leader"


def test_a_group_is_founded_once() -> None:
    node = Node()
    node.event(SeatOrdered(1, "found"))
    node.event(SeatOrdered(2, "found"))
    assert [made.code for made in node.made] == ["decided", "conflict"]


def test_without_a_log_nothing_is_founded() -> None:
    node = Node(log=False)
    node.event(SeatOrdered(1, "found"))
    assert node.result() == "no_group"


def test_without_a_group_it_says_so() -> None:
    node = Node()
    node.ask(REVOKE)
    node.wait(mesh_limits.ASK_MS + 1000)
    assert node.result() == "no_group"


def in_group_of_three(node: Node) -> None:
    seats = Configuration((Seat(A, 5), Seat(B, 6), Seat(NodeId("d"), 7)))
    node.event(LogRecovered(5, "g", 1, None, None, (Entry(1, 1, None, seats),)))


def test_without_a_majority_it_is_refused_at_once() -> None:
    node = Node(log=False)
    in_group_of_three(node)
    node.ask(REVOKE)
    assert node.result() == "no_majority"
    assert "1 of 3 coordinators can be reached, 2 are needed" in node.made[-1].detail
    assert node.door.view().trouble


def test_an_answer_that_never_came_is_not_called_a_no() -> None:
    node = Node(log=False, members=(B,))
    in_group_of_three(node)
    node.ask(REVOKE)
    node.wait(mesh_limits.ASK_MS + 1000)
    assert node.result() == "unknown"
    node.ask(None)
    node.wait(mesh_limits.ASK_MS + 1000)
    assert node.result() == "no_majority"


def test_without_the_right_nothing_is_proposed() -> None:
    node = Node()
    node.event(SeatOrdered(1, "found"))
    node.allowed = False
    node.ask(REVOKE, 2)
    assert node.result() == "forbidden"


def test_a_disk_that_fails_ends_only_this() -> None:
    node = Node()
    node.event(SeatOrdered(1, "found"))
    node.event(LogFailed("the disk is full"))
    assert node.door.view().trouble == "the disk is full"
    node.wait(1000)
    node.event(SeatOrdered(2, "found"))
    assert (node.result(), node.made[-1].detail) == ("no_group", "the disk is full")


def heard(node: Node, sender: NodeId, message: object) -> None:
    peer = type("Peer", (), {"node": sender})()
    try:
        node.door.message_handlers()[type(message)](peer, message, node.now)
    finally:
        node.settle()


def test_who_may_not_coordinate_is_not_heard() -> None:
    node = Node(members=(B,))
    with pytest.raises(PeerFault, match="may not"):
        heard(node, C, Append("g", 1, 0, 0))
    heard(node, B, Append("g", 1, 0, 0))
    assert node.door.view().group == "g"


def test_a_ballot_alone_invites_nobody() -> None:
    node = Node(members=(B,))
    heard(node, B, Ballot("g", 9, 5, 5))
    assert node.door.view().group == ""
    assert not node.sent


def test_two_groups_do_not_mix() -> None:
    node = Node(members=(B,))
    node.event(SeatOrdered(1, "found"))
    term = node.door.view().term
    heard(node, B, Append("other", 99, 0, 0))
    assert node.door.view().term == term


@pytest.mark.parametrize(
    "bad",
    [
        Append("g", 3, 0, 0, (Entry(2, 1),)),
        Append("g", 3, 0, 0, (Entry(1, 9),)),
        SnapshotPart("g", 3, 9, 1, Configuration(), 0, 3, b"abcd"),
        SnapshotPart("g", 3, 9, 1, Configuration(), 0, 1, b"a"),
    ],
)
def test_what_no_honest_leader_sends(bad: Append | SnapshotPart) -> None:
    node = Node(members=(B,))
    heard(node, B, Append("g", 2, 0, 0, (Entry(1, 1),), 1))
    with pytest.raises(PeerFault):
        heard(node, B, bad)
    heard(node, B, Append("g", 3, 1, 1, (Entry(2, 3),)))
    assert node.door.view().last == 2


def test_what_is_committed_is_not_taken_back() -> None:
    node = Node(members=(B,))
    heard(node, B, Append("g", 2, 0, 0, (Entry(1, 1),), 1))
    with pytest.raises(PeerFault, match="committed"):
        heard(node, B, Append("g", 3, 0, 0, (Entry(1, 3),)))


def test_what_is_kept_never_travels() -> None:
    with pytest.raises(PeerFault, match="never sent"):
        heard(Node(), B, Kept())


def test_who_has_no_group_sends_askers_elsewhere() -> None:
    node = Node(members=(B,))
    heard(node, B, Asked("1" * 32, None, "quota"))
    (answer,) = [decode(send.message) for send in node.sent]
    assert getattr(answer, "code", "") == "elsewhere"


def test_a_vote_is_told_only_once_it_is_written() -> None:
    node = Node(log=False, members=(B,))
    in_group_of_three(node)
    node.wait(mesh_limits.ELECTION_MS)
    node.sent.clear()
    ballot = Ballot("g", 50, 9, 9)
    peer = type("Peer", (), {"node": B})()
    node.door.message_handlers()[Ballot](peer, ballot, node.now)
    effects = node.out.take()
    writes = [effect for effect in effects if isinstance(effect, PersistLog)]
    assert (writes[-1].term, writes[-1].vote) == (50, B)
    assert not [effect for effect in effects if isinstance(effect, Send)]
    node.event(LogPersisted(writes[-1].number))
    assert len(node.sent) == 1


def test_a_voter_that_is_away_keeps_its_seat_and_a_barred_one_does_not() -> None:
    node = Node()
    node.event(SeatOrdered(1, "found"))
    raft = node.door.raft
    assert raft is not None
    assert raft.leading is not None
    has = Configuration((Seat(A, 5), Seat(B, 6), Seat(NodeId("d"), 7)))
    here = raft.leading
    assert Seats(A, 3, list, lambda _: False).plan(has, here, node.now) is None
    assert Seats(A, 3, list, lambda one: one == B).plan(has, here, node.now) == without(has, B)
