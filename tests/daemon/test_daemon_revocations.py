"""Revocations that are recorded by coordinators reach whoever missed the notices."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm.core.admission_events import NoticeFound
from meshslm.core.consensus.events import DecisionMade
from meshslm.core.consensus.view import ConsensusView
from meshslm.core.events import Event
from meshslm.daemon.revocations import Revocations, notice_in, subject_of, written
from meshslm.mesh_limits import DECISION_VALUE_BYTES
from meshslm.wire.admission import Notices, Signed
from meshslm.wire.codec import encode
from meshslm.wire.consensus import Command, Decision
from tests.core.private_mesh import PrivateMesh, notice

OTHER = b"somebody's key".ljust(32)
NODE = notice("node", "bad")


class Group:
    """Coordinators that decide at once, or cannot."""

    def __init__(self) -> None:
        self.decided: dict[str, Decision] = {}
        self.able = True
        self.has_log = True
        self.proposed: list[str] = []

    async def decide(
        self, command: Command | None, kind: str = "", subject: str = ""
    ) -> DecisionMade:
        """As a node's service."""
        if not self.able:
            return DecisionMade(1, "no_majority", "1 of 3 voters is here")
        if command is not None:
            self.proposed.append(command.subject)
            made = Decision("revoked", command.subject, command.value)
            self.decided.setdefault(command.subject, made)
            return DecisionMade(1, "decided")
        return DecisionMade(1, "decided", decisions=tuple(self.decided.values()))

    def consensus(self) -> ConsensusView:
        """As a node's service."""
        return ConsensusView(group="g" if self.has_log else "")


def member(mesh: PrivateMesh, name: str, group: Group) -> Revocations:
    def handle(event: Event) -> None:
        mesh.give(name, event)

    return Revocations(lambda: mesh.kept(name) or [NODE], group, handle)


@pytest.fixture
def mesh() -> PrivateMesh:
    made = PrivateMesh()
    made.enter("a")
    made.enter("b", bootstrap=("a",))
    made.enter("bad", bootstrap=("b",))
    made.pass_time(2_000)
    assert made.peer_state("b", "bad") == "alive"
    return made


async def test_who_missed_a_notice_learns_of_it_from_what_is_decided(mesh: PrivateMesh) -> None:
    group = Group()
    await member(mesh, "a", group).look()
    assert list(group.decided) == ["node/bad"]
    assert mesh.peer_state("b", "bad") == "alive"
    group.has_log = False
    await member(mesh, "b", group).look()
    assert mesh.kept("b") == [NODE]
    assert mesh.peer_state("b", "bad") != "alive"
    await member(mesh, "b", group).look()
    assert mesh.kept("b") == [NODE], "once"


async def test_what_is_decided_is_not_proposed_again_nor_by_who_has_no_log() -> None:
    group = Group()
    events: list[Event] = []
    revocations = Revocations(lambda: [NODE, notice("root", "00")], group, events.append)
    group.has_log = False
    await revocations.look()
    assert group.proposed == []
    group.has_log = True
    await revocations.look()
    await revocations.look()
    assert group.proposed == ["node/bad"]
    assert events == [NoticeFound(NODE, kept=False)]


async def test_without_a_majority_nothing_happens() -> None:
    group = Group()
    events: list[Event] = []
    group.able = False
    await Revocations(lambda: [NODE], group, events.append).look()
    assert (group.proposed, events) == ([], [])


@pytest.mark.parametrize(
    "value",
    [
        "",
        "lost its laptop",
        "!!!!",
        written(notice("root", "00" * 32)),
        b64encode(encode(Notices(b"", (NODE, NODE)))).decode(),
        b64encode(NODE.payload).decode(),
        written(Signed(b"\xff", b"")),
    ],
)
async def test_a_decision_without_a_notice_puts_nobody_out(value: str) -> None:
    group = Group()
    events: list[Event] = []
    group.decided["node/bad"] = Decision("revoked", "node/bad", value)
    await Revocations(list, group, events.append).look()
    assert events == []


async def test_only_the_key_of_the_mesh_puts_somebody_out(mesh: PrivateMesh) -> None:
    group = Group()
    forged = written(notice("node", "bad", key=OTHER))
    group.decided["node/bad"] = Decision("revoked", "node/bad", forged)
    await member(mesh, "b", group).look()
    assert mesh.peer_state("b", "bad") == "alive"
    assert mesh.kept("b") == []
    assert mesh.said("b", "mesh.notice-refused")


@given(st.sampled_from(["certificate", "node", "token"]), st.text(min_size=1, max_size=16))
def test_a_notice_comes_back_as_it_was_written(about: str, subject: str) -> None:
    signed = notice(about, subject)
    assert notice_in(written(signed)) == signed
    assert subject_of(signed) == f"{about}/{subject}"
    assert len(written(signed)) <= DECISION_VALUE_BYTES
