"""The mesh of a node before it starts: a private one, one to be joined first, or an open one.

Rules:
- A node that is in no private mesh, and listens where other machines reach it, does not start
  unless its settings say that this is meant.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from meshslm.adapters.keyring import DirectoryLock, NodeKey, load_or_create
from meshslm.adapters.libp2p_link import Libp2pLink
from meshslm.adapters.mesh_folder import Member, MeshFolder
from meshslm.adapters.multiaddrs import parse
from meshslm.adapters.signing import verify
from meshslm.chance import Chance
from meshslm.core.certificates import Act, Credentials, may
from meshslm.daemon.joining import join
from meshslm.errors import OurFault
from meshslm.ports import Post
from meshslm.settings import Settings
from meshslm.wire.admission import JoinToken

if TYPE_CHECKING:
    from meshslm.daemon.service import NodeService


def join_mesh(settings: Settings, token: JoinToken, at: tuple[str, ...]) -> Member:
    """Join a private mesh, at these multiaddresses or those that the token names.

    Raises `OurFault` where this node is in one already, nobody answers, or the answer is no.
    """
    data = Path(settings.node.data_dir)
    with DirectoryLock(data):
        folder = MeshFolder(data)
        if not lapsed(folder):
            fault = OurFault(f"this node is in a private mesh already ({folder.path})")
            fault.add_note("'meshslm mesh leave' leaves it")
            raise fault
        enter(settings, load_or_create(data), folder, token, at)
        member = folder.member()
        assert member is not None, "it was just written"
        return member


def lapsed(folder: MeshFolder) -> bool:
    """Whether this node is in no private mesh, or was and its certificate has run out."""
    member = folder.member()
    return member is None or (time.time() >= member.certificate.not_after and folder.root() is None)


def enter(
    settings: Settings,
    key: NodeKey,
    folder: MeshFolder,
    token: JoinToken,
    at: tuple[str, ...] = (),
) -> None:
    """Redeem a token and write the certificate down. Raises `OurFault`."""
    addresses = at or token.addresses
    if not all("/p2p/" in address for address in addresses) or not addresses:
        raise OurFault("an address to join at must end in /p2p/ID: the token is shown to no other")
    redeem = partial(
        join,
        Libp2pLink(key, ("/ip4/127.0.0.1/tcp/0",)),
        token,
        addresses=addresses,
        name=settings.node.name,
        verify=verify,
        unix_s=time.time,
    )
    credential = trio.run(redeem, strict_exception_groups=True)
    folder.keep_member(credential, addresses)


def check_open(settings: Settings) -> None:
    """Refuse to let the whole network in by mistake."""
    beyond = [a for a in settings.link.listen if not parse(a).on_loopback]
    if beyond and not settings.link.open:
        fault = OurFault(
            f"this node is in no private mesh, and would listen at {beyond[0]}: whoever reaches "
            "that would be a member"
        )
        fault.add_note(
            "'meshslm mesh create' makes a private mesh, 'meshslm mesh join' joins one, "
            "'--open' lets everybody in"
        )
        raise fault


def credentials_of(member: Member | None) -> Credentials | None:
    """What the core needs to be a member; None in an open mesh."""
    if member is None:
        return None
    certificate = member.certificate
    admits = may(certificate, Act.ADMIT)
    return Credentials(certificate.mesh, member.credential, verify, admits)


def looking_in_dht(
    settings: Settings, member: Member | None, link: Libp2pLink, service: NodeService
) -> Callable[[Post], Awaitable[None]] | None:
    """What looks for members through a DHT, where the settings name servers of one.

    Raises `OurFault` where these are none, or the mesh is an open one.
    """
    if not settings.link.dht:
        return None
    # Here, so that a node without it does not load it.
    from meshslm.adapters.libp2p_kademlia import KademliaClient  # noqa: PLC0415 - as said
    from meshslm.daemon.dht_meeting import DhtMeeting, meeting_of  # noqa: PLC0415 - as said

    mesh = None if member is None else member.certificate.mesh
    meeting = meeting_of(link.node_id, mesh, settings.link.dht)
    chance = Chance(secrets.token_bytes(32))
    looking = DhtMeeting(meeting, KademliaClient(link), service.status, chance, time.time)
    service.dht = looking.view
    return looking.run
