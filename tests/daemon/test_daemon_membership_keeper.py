"""What carries an operator's changes on disk to a running node, and queues who wants to join."""

from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock

from meshslm import limits
from meshslm.core.admission_events import (
    CredentialIssued,
    CredentialReplaced,
    IssueCredential,
    NoticeFound,
)
from meshslm.core.certificates import Code, NotAdmitted
from meshslm.core.events import Event
from meshslm.daemon.membership_keeper import LOOK_S, MembershipKeeper
from meshslm.errors import OurFault
from meshslm.ids import NodeId
from meshslm.wire.admission import Credential, JoinRequest, Signed
from tests.core.private_mesh import NOW, credential, notice

REQUEST = JoinRequest(1, 2, b"a token", "guest")


class Folder:
    """A disk that an operator writes to, and that may fail."""

    def __init__(self) -> None:
        self.own: Credential | None = credential("a")
        self.board: dict[str, Signed] = {}
        self.fault = ""

    def credential(self) -> Credential | None:
        if self.fault:
            raise OurFault(self.fault)
        return self.own

    def keep_member(self, credential: Credential, addresses: tuple[str, ...] | None = None) -> None:
        self.own = credential

    def notices(self, known: set[str] | None = None) -> list[Signed]:
        fresh = [name for name in self.board if known is None or name not in known]
        if known is not None:
            known.update(fresh)
        return [self.board[name] for name in fresh]

    def keep_notice(self, notice: Signed) -> None:
        self.board[str(len(self.board))] = notice


class Desk:
    """Gives everybody the same, or raises."""

    error: Exception | None = None

    def redeem(self, peer: NodeId, request: JoinRequest) -> Credential:
        if self.error is not None:
            raise self.error
        return credential(peer)

    def renew(self, peer: NodeId, credential: Credential) -> Credential:
        return credential


class Place:
    def __init__(self) -> None:
        self.folder, self.desk = Folder(), Desk()
        self.events: list[Event] = []
        self.keeper = MembershipKeeper(self.folder, self.desk, self.events.append, lambda: NOW)

    def told(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def issued(self) -> list[CredentialIssued]:
        return [event for event in self.events if isinstance(event, CredentialIssued)]


@pytest.fixture
def place() -> Place:
    return Place()


async def test_what_the_operator_writes_is_taken_up(
    place: Place, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    place.folder.keep_notice(notice("node", "x"))
    place.keeper.begin()
    assert place.told(NoticeFound) == [NoticeFound(notice("node", "x"))]
    nursery.start_soon(place.keeper.run)
    await trio.sleep(3 * LOOK_S)
    assert len(place.told(NoticeFound)) == 1
    assert not place.told(CredentialReplaced)
    place.folder.keep_notice(notice("node", "y"))
    place.folder.own = credential("a", not_after=NOW + 9)
    await trio.sleep(2 * LOOK_S)
    assert place.told(NoticeFound)[1:] == [NoticeFound(notice("node", "y"))]
    assert place.told(CredentialReplaced) == [
        CredentialReplaced(credential("a", not_after=NOW + 9))
    ]
    nursery.cancel_scope.cancel()


async def test_a_disk_that_fails_is_told_of_once_and_looked_at_on(
    place: Place,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    place.keeper.begin()
    nursery.start_soon(place.keeper.run)
    with caplog.at_level(logging.WARNING, "meshslm.mesh"):
        for fault, times in (("damaged", 1), ("", 1), ("damaged", 2), ("gone", 3)):
            place.folder.fault = fault
            await trio.sleep(20 * LOOK_S)
            assert len(caplog.records) == times
    place.folder.fault, place.folder.own = "", credential("a", not_after=NOW + 9)
    await trio.sleep(2 * LOOK_S)
    assert place.told(CredentialReplaced)
    nursery.cancel_scope.cancel()


async def test_who_wants_to_join_waits_and_no_more_than_so_many(
    place: Place, nursery: trio.Nursery
) -> None:
    for number in range(limits.JOINS + 5):
        place.keeper.issue(IssueCredential(NodeId(f"n{number}"), REQUEST, None))
    assert [event.code for event in place.issued()] == [Code.BUSY] * 5
    nursery.start_soon(place.keeper.run)
    with trio.fail_after(10):
        while len(place.issued()) < limits.JOINS + 5:  # noqa: ASYNC110 - a thread answers
            await trio.sleep(0.01)
    assert [e.peer for e in place.issued()[5:]] == [f"n{n}" for n in range(limits.JOINS)]
    assert all(event.credential == credential(event.peer) for event in place.issued()[5:])
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotAdmitted(Code.INVITATION_USED, "it was used"), Code.INVITATION_USED),
        (OurFault("the disk is full"), Code.BUSY),
    ],
)
async def test_a_refusal_and_a_full_disk_end_one_join_and_no_more(
    place: Place, nursery: trio.Nursery, error: Exception, code: Code
) -> None:
    place.desk.error = error
    nursery.start_soon(place.keeper.run)
    place.keeper.issue(IssueCredential(NodeId("guest"), REQUEST, None))
    place.keeper.issue(IssueCredential(NodeId("b"), None, credential("b")))
    with trio.fail_after(10):
        while len(place.issued()) < 2:  # noqa: ASYNC110 - a thread answers
            await trio.sleep(0.01)
    refused, renewed = place.issued()
    assert (refused.credential, refused.code) == (None, code)
    assert "disk" not in refused.detail, "what is wrong here is no business of strangers"
    assert renewed.credential == credential("b")
    nursery.cancel_scope.cancel()
