"""Joining a private mesh: a link, a token, and a certificate that comes back.

It runs once, before the node does; what it brings is written down by whoever calls it.

Rules:
- A token is shown only to a peer whose id the token names, proven in the handshake: whoever else
  answers at the address does not see it.
- A node that lets nobody in, or is busy, does not end it while another has not answered.
- The answer is believed only where it holds: signed by the mesh that the token names, for us.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from meshslm.core.certificates import Code, NotAdmitted, Verify, certified
from meshslm.core.events import (
    BytesReceived,
    DialFailed,
    Event,
    Lane,
    PeerConnected,
    PeerDisconnected,
)
from meshslm.errors import OurFault, PeerFault
from meshslm.ids import NodeId
from meshslm.ports import Link
from meshslm.wire.admission import Admittance, Credential, JoinRequest, JoinToken
from meshslm.wire.codec import decode, encode
from meshslm.wire.versions import PROTOCOL_HIGH, PROTOCOL_LOW

ANSWER_S: Final = 30.0
"""For dialling and an answer: a busy machine checks a token in a second."""


ELSEWHERE: Final = (Code.NOT_ADMITTING, Code.BUSY)
"""Refusals of one node alone: another of the addresses may let us in."""


class _Joiner:
    """Events of the link, until there is an answer or nobody is left to ask."""

    def __init__(self, link: Link, token: JoinToken, addresses: tuple[str, ...], name: str) -> None:
        self._link = link
        self._request = JoinRequest(
            PROTOCOL_LOW,
            PROTOCOL_HIGH,
            token.biscuit,
            name,
            token.rights,
            token.domains,
            token.namespaces,
        )
        self._peers = {NodeId(a.rpartition("/p2p/")[2]) for a in addresses}
        self._left = len(addresses)
        self.why: list[str] = []
        self.answer: Admittance | None = None
        self.ended = trio.Event()

    async def post(self, *events: Event) -> None:
        """What the link hears."""
        for event in events:
            match event:
                case PeerConnected(peer=peer) if peer in self._peers:
                    self._link.send(peer, Lane.CONTROL, encode(self._request))
                case PeerConnected(peer=peer):
                    self._link.disconnect(peer, "not asked")
                case BytesReceived(peer=peer, message=message) if peer in self._peers:
                    self._heard(peer, message)
                case DialFailed(address=address, reason=reason):
                    self._failed(f"{address}: {reason}")
                case PeerDisconnected(peer=peer, reason=reason) if peer in self._peers:
                    self._failed(f"{peer}: {reason}")
                case _:
                    pass
            await trio.lowlevel.checkpoint()

    def _heard(self, peer: NodeId, message: bytes) -> None:
        try:
            heard = decode(message)
        except PeerFault as fault:
            self._link.disconnect(peer, str(fault))
            return
        if not isinstance(heard, Admittance) or self.ended.is_set():
            return
        self.answer = heard
        if heard.credential is not None or heard.code not in ELSEWHERE:
            self.ended.set()

    def _failed(self, why: str) -> None:
        self.why.append(why)
        self._left -= 1
        if self._left <= 0:
            self.ended.set()


async def join(
    link: Link,
    token: JoinToken,
    *,
    addresses: tuple[str, ...],
    name: str,
    verify: Verify,
    unix_s: Callable[[], float],
) -> Credential:
    """Redeem `token` at one of `addresses`, each ending in /p2p/ID; this node's new credential.

    Raises `OurFault` where nobody answers, and `NotAdmitted` where the answer is no.
    """
    joiner = _Joiner(link, token, addresses, name)
    async with trio.open_nursery() as nursery:
        listening = trio.Event()
        nursery.start_soon(lambda: link.run(joiner.post, started=listening.set))
        await listening.wait()
        for address in addresses:
            link.dial(address)
        with trio.move_on_after(ANSWER_S):
            await joiner.ended.wait()
        nursery.cancel_scope.cancel()
    answer = joiner.answer
    if answer is None:
        fault = OurFault(f"no member let us in: {'; '.join(joiner.why) or 'no answer'}")
        fault.add_note("is the inviting node running? '--at MULTIADDR' says where it is now")
        raise fault
    if answer.credential is None:
        raise OurFault(f"the mesh refuses this node: {answer.detail} ({answer.code})")
    try:
        keys = (token.mesh, token.signer)
        certified(answer.credential, link.node_id, token.mesh, keys, verify, unix_s())
    except NotAdmitted as refusal:
        raise OurFault(f"what the mesh gave does not hold: {refusal}") from refusal
    return answer.credential
