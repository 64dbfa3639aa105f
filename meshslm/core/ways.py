"""What the text of an address says about the way that it leads."""

from __future__ import annotations

from typing import Final

from meshslm.core.directory import Peer

CIRCUIT: Final = "/p2p-circuit"


def host_of(address: str) -> str:
    """The machine in a multiaddress, without port and peer: `/ip4/192.0.2.7`."""
    return "/".join(address.split("/", 3)[:3])


def port_of(address: str) -> str:
    """`/tcp/4101` of a multiaddress; empty where there is none."""
    parts = address.split("/")
    return f"/{parts[3]}/{parts[4]}" if len(parts) > 4 and parts[3] == "tcp" else ""


def on_loopback(host: str) -> bool:
    """Whether only this machine is meant."""
    return host.startswith(("/ip4/127.", "/ip6/::1"))


def through_relay(address: str) -> bool:
    """Whether an address leads through a relay."""
    return CIRCUIT in address


def relayed(peer: Peer) -> bool:
    """Whether the link to a peer goes through a third one."""
    return through_relay(peer.came_from if peer.incoming else peer.address)
