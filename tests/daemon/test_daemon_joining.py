"""Joining with a token: who is believed, who is asked, and what a joining node is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from meshslm.adapters.memory_link import MemoryLink, MemoryNetwork
from meshslm.core.certificates import Code
from meshslm.core.events import BytesReceived, Event, Lane, PeerConnected
from meshslm.daemon.joining import join
from meshslm.errors import OurFault
from meshslm.ids import NodeId
from meshslm.wire.admission import Admittance, Credential, JoinRequest, JoinToken, Notices
from meshslm.wire.codec import decode, encode
from meshslm.wire.messages import Message
from tests.core.private_mesh import NOW, ROOT, certificate, credential, signed_with, verify

GUEST = NodeId("guest")
OTHER = b"another mesh's key".ljust(32)
WELCOME = Admittance(credential(GUEST))


class Host:
    """A node that answers whoever shows a token, or says nothing."""

    def __init__(self, network: MemoryNetwork, name: str, *answers: Message | bytes) -> None:
        self.link = MemoryLink(network, NodeId(name))
        self.answers = answers
        self.shown: list[JoinRequest] = []
        self.met: list[NodeId] = []

    async def post(self, *events: Event) -> None:
        for event in events:
            if isinstance(event, PeerConnected):
                self.met.append(event.peer)
            if isinstance(event, BytesReceived):
                request = decode(event.message)
                assert isinstance(request, JoinRequest)
                self.shown.append(request)
                for answer in self.answers:
                    message = answer if isinstance(answer, bytes) else encode(answer)
                    self.link.send(event.peer, Lane.CONTROL, message)
                self.link.disconnect(event.peer, "it is answered")
        await trio.lowlevel.checkpoint()


class Street:
    """Hosts at their addresses, and a guest."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.network = MemoryNetwork()
        self.nursery = nursery

    async def host(self, name: str, *answers: Message | bytes) -> Host:
        host, listens = Host(self.network, name, *answers), trio.Event()
        self.nursery.start_soon(lambda: host.link.run(host.post, started=listens.set))
        await listens.wait()
        return host

    async def join(self, *addresses: str) -> Credential:
        token = JoinToken(ROOT, ROOT, b"a token", addresses, ("serve",))
        link = MemoryLink(self.network, GUEST)
        return await join(
            link, token, addresses=addresses, name="guest", verify=verify, unix_s=lambda: NOW
        )


@pytest.fixture
def street(nursery: trio.Nursery) -> Street:
    return Street(nursery)


def at(name: str) -> str:
    return f"/memory/{name}/p2p/{name}"


@contextmanager
def refused(*words: str) -> Iterator[None]:
    with trio.fail_after(5), pytest.raises(OurFault) as caught:
        yield
    for word in words:
        assert word in str(caught.value)


async def test_a_token_is_shown_and_brings_a_certificate(street: Street) -> None:
    host = await street.host("a", WELCOME)
    assert await street.join(at("a")) == WELCOME.credential
    (request,) = host.shown
    assert (request.token, request.name, request.rights) == (b"a token", "guest", ("serve",))


@pytest.mark.parametrize(
    "given",
    [
        Credential(signed_with(OTHER, certificate(GUEST))),
        Credential(signed_with(ROOT, certificate(GUEST, mesh=OTHER))),
        credential("somebody"),
        credential(GUEST, not_after=NOW),
        credential(GUEST, not_before=NOW + 60),
        Credential(signed_with(OTHER, certificate(GUEST)), signed_with(ROOT, certificate("a"))),
    ],
    ids=["forged", "other mesh", "not ours", "expired", "not yet valid", "no admitter"],
)
async def test_a_certificate_that_does_not_hold_is_not_taken(
    street: Street, given: Credential
) -> None:
    await street.host("a", Admittance(given))
    with refused("does not hold"):
        await street.join(at("a"))


async def test_a_refusal_is_told_with_its_code(street: Street) -> None:
    await street.host("a", Admittance(None, Code.INVITATION_USED, "the token has been used up"))
    with refused("used up", "invitation_used"):
        await street.join(at("a"))


@pytest.mark.parametrize("code", [Code.NOT_ADMITTING, Code.BUSY])
async def test_one_that_cannot_let_us_in_leaves_it_to_another(street: Street, code: Code) -> None:
    await street.host("a", Admittance(None, code, "not here"))
    with refused("not here", code):
        await street.join(at("a"), at("nobody"))
    await street.host("b", WELCOME)
    with trio.fail_after(5):
        assert await street.join(at("a"), at("b")) == WELCOME.credential


async def test_a_token_is_shown_to_nobody_else(street: Street) -> None:
    host = await street.host("a", WELCOME)
    with refused("no member let us in", "another node answers"):
        await street.join("/memory/a/p2p/b")
    assert not host.shown


async def test_nobody_there_is_told(street: Street) -> None:
    with refused("no member let us in", "connection refused"):
        await street.join(at("a"), at("b"))


@pytest.mark.parametrize("said", [b"\x00", b"\xc1", b"\x92\x34\x90", encode(Notices(b"x" * 8))])
async def test_whatever_else_is_said_does_not_bring_anybody_in(street: Street, said: bytes) -> None:
    await street.host("a", *[said] * 50)
    with refused("no member let us in"):
        await street.join(at("a"))
    await street.host("b", WELCOME)
    with trio.fail_after(5):
        assert await street.join(at("a"), at("b")) == WELCOME.credential


async def test_silence_ends(street: Street, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshslm.daemon.joining.ANSWER_S", 0.2)

    class Silent(Host):
        async def post(self, *events: Event) -> None:
            await trio.lowlevel.checkpoint()

    silent, listens = Silent(street.network, "a"), trio.Event()
    street.nursery.start_soon(lambda: silent.link.run(silent.post, started=listens.set))
    await listens.wait()
    with refused("no member let us in", "no answer"):
        await street.join(at("a"))
