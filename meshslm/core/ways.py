"""What the text of an address says about the way that it leads."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from meshslm.core.directory import Peer
from meshslm.ids import NodeId

CIRCUIT: Final = "/p2p-circuit"
EVERYBODY: Final = IPv4Address("255.255.255.255")


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


@lru_cache(maxsize=4096)
def leads_somewhere(address: str) -> bool:
    """Whether an address that others tell of can be one machine's: it is not dialled otherwise.

    Groups, everybody, nobody, and networks of one cable, where clouds have their own services.
    """
    _, kind, host, *rest = (*address.split("/", 5), "", "", "", "")[:5]
    if kind not in ("ip4", "ip6"):
        return True
    try:
        at = ip_address(host)
    except ValueError:
        return True  # whoever dials reads it more strictly than this
    mapped = at.ipv4_mapped if isinstance(at, IPv6Address) else None
    return rest != ["tcp", "0"] and not any(
        one.is_multicast or one.is_unspecified or one.is_link_local or one == EVERYBODY
        for one in (at, mapped)
        if one is not None
    )


def through_relay(address: str) -> bool:
    """Whether an address leads through a relay."""
    return CIRCUIT in address


def relay_of(peer: Peer) -> NodeId | None:
    """Through whom the link to a peer goes; None where it is direct."""
    head, found, _ = (peer.came_from if peer.incoming else peer.address).partition(CIRCUIT)
    return NodeId(head.rpartition("/p2p/")[2]) if found else None


def relayed(peer: Peer) -> bool:
    """Whether the link to a peer goes through a third one."""
    return through_relay(peer.came_from if peer.incoming else peer.address)
