"""Finding nodes on the same network by multicast DNS, beside the event loop and never on it.

A node announces a service as libp2p's mDNS specification has it: type `_p2p._udp.local`, a random
instance name, and in its TXT record one `dnsaddr=MULTIADDRESS` for each address. Ours carries
`mesh=NAME` besides, and only announcements of the same mesh are taken up.

Rules:
- python-zeroconf runs in its own threads; what it finds is handed over through a bounded channel,
  and dropped when that is full: announcements repeat.
- Names are free to make up on a network: what is asked about them is bounded, and so is what they
  keep waiting.
- Whatever is heard is a hint from a stranger. It becomes `AddressFound`, and who is there is proven
  when it is dialled.
- A network without multicast is no reason not to run: one warning, and nothing is found.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import psutil
import trio

from meshslm import limits
from meshslm.adapters.multiaddrs import Address, AddressError, parse
from meshslm.core.events import AddressFound
from meshslm.ids import NodeId
from meshslm.ports import Post

if TYPE_CHECKING:
    from zeroconf import IPVersion, ServiceInfo, Zeroconf

log = logging.getLogger("meshslm.mdns")

SERVICE = "_p2p._udp.local."
ADDRESS_FIELD = b"dnsaddr="
MESH_FIELD = b"mesh="
TXT_STRING_BYTES = 255
"""Longest string in a TXT record, by the format."""

FOUND_AHEAD = 64
"""Addresses that wait for the core; more are dropped until the next announcement."""

ASK_MS = 3000
"""How long to ask for a service's records, where they did not come with its name."""

ASKS = 4
ASKS_S = 30.0
"""So often in so many seconds: names without records cost nothing to make up, and while one is
asked for the others wait."""

LOOK_AGAIN_S = 5.0
"""Between two looks at this node's addresses."""

STOP_S = 2.0
"""For saying goodbye; the announcement runs out by itself in any case."""


class MdnsDiscovery:
    """Announces one node and listens for others of its mesh.

    `addresses` is asked when it runs, and every `LOOK_AGAIN_S`: what the link can be dialled at;
    where it has changed, the node is announced anew. `interfaces` are
    addresses of the interfaces to use, IPv4 or IPv6; all of them in both where it is empty.
    """

    def __init__(
        self,
        node_id: NodeId,
        mesh: str,
        addresses: Callable[[], Sequence[str]],
        *,
        interfaces: tuple[str, ...] = (),
    ) -> None:
        self._node_id = node_id
        self._mesh = mesh
        self._addresses = addresses
        self._interfaces = interfaces
        self._zeroconf: Zeroconf | None = None
        self._announced: ServiceInfo | None = None
        self._announced_at: tuple[str, ...] = ()
        self._asked: deque[float] = deque(maxlen=ASKS)
        """When records were asked for."""

    async def run(self, post: Post) -> None:
        """Announce and listen until cancelled; returns early where multicast is impossible."""
        found, receive = trio.open_memory_channel[str](FOUND_AHEAD)
        token = trio.lowlevel.current_trio_token()

        def hand_over(address: str) -> None:
            try:
                token.run_sync_soon(_offer, found, address)
            except trio.RunFinishedError:
                pass  # found in the last moment of the program

        try:
            try:
                await trio.to_thread.run_sync(self._start, hand_over)
            except Exception as error:  # noqa: BLE001 - a network may forbid it in many ways
                log.warning("nodes on this network are not discovered: %s", error)
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_announced)
                async for address in receive:
                    await post(AddressFound(address))
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + STOP_S):
                await trio.to_thread.run_sync(self._stop, abandon_on_cancel=True)

    async def _keep_announced(self) -> None:
        """Announce this node anew where its addresses have changed."""
        while True:
            await trio.sleep(LOOK_AGAIN_S)
            if tuple(self._addresses()) != self._announced_at:
                try:
                    await trio.to_thread.run_sync(self._announce)
                except Exception as error:  # noqa: BLE001 - a network may forbid it in many ways
                    log.warning("this node's new addresses are not announced: %s", error)

    # --- in other threads ------------------------------------------------------------------------
    def _start(self, hand_over: Callable[[str], None]) -> None:
        own = {
            entry.address
            for entries in psutil.net_if_addrs().values()
            for entry in entries
            if entry.family in (socket.AF_INET, socket.AF_INET6)
        }
        for interface in self._interfaces:  # the library would leave a socket behind
            if interface not in own:
                raise OSError(f"no interface of this machine has the address {interface}")
        import zeroconf  # noqa: PLC0415 - 10 MiB that a node without discovery does without

        self._zeroconf = zeroconf.Zeroconf(
            interfaces=list(self._interfaces) or zeroconf.InterfaceChoice.All,
            ip_version=_families(self._interfaces or own, zeroconf.IPVersion),
        )
        zeroconf.ServiceBrowser(
            self._zeroconf,
            SERVICE,
            handlers=[lambda **change: self._heard(change, hand_over)],
        )
        self._announce()

    def _announce(self) -> None:
        """Announce where this node is now, in the place of what was said before."""
        import zeroconf  # noqa: PLC0415 - as above

        assert self._zeroconf is not None, "it is announced after it was started"
        addresses = self._announced_at = tuple(self._addresses())
        before, self._announced = (
            self._announced,
            self._announcement(zeroconf.ServiceInfo, addresses),
        )
        if before is not None:
            self._zeroconf.unregister_service(before)
        if self._announced is not None:
            self._zeroconf.register_service(self._announced)

    def _stop(self) -> None:
        if self._zeroconf is not None:
            self._zeroconf.close()  # takes its announcements back

    def _announcement(self, make: type[ServiceInfo], places: Sequence[str]) -> ServiceInfo | None:
        addresses = announceable(places, self._interfaces)
        if not addresses:
            log.info("this node listens on loopback only; it is not announced")
            return None
        # Not random, as the specification would allow: the id says no more than the addresses do.
        name = self._node_id[-40:].lower()
        return make(
            SERVICE,
            f"{name}.{SERVICE}",
            port=addresses[0].port,
            server=f"{name}.local.",
            addresses=[ipaddress.ip_address(address.host).packed for address in addresses],
            properties=txt_record(self._mesh, [str(address) for address in addresses]),
        )

    def _heard(self, change: dict[str, Any], hand_over: Callable[[str], None]) -> None:
        """A service came or changed; called in a thread of python-zeroconf."""
        if change["state_change"].name == "Removed":
            return
        import zeroconf  # noqa: PLC0415 - as above

        info = zeroconf.ServiceInfo(SERVICE, change["name"])
        if info.load_from_cache(change["zeroconf"]) or self._ask(info, change["zeroconf"]):
            for address in found_addresses(info.text or b"", self._mesh, self._node_id):
                hand_over(address)

    def _ask(self, info: ServiceInfo, network: Zeroconf) -> bool:
        """Ask for a service's records, if that was not done too often; whether they came."""
        now = time.monotonic()
        if len(self._asked) == ASKS and now - self._asked[0] < ASKS_S:
            log.debug("an announced name without records is passed over: %s", info.name)
            return False
        self._asked.append(now)
        return info.request(network, ASK_MS)


def _families(addresses: Iterable[str], version: type[IPVersion]) -> IPVersion:
    """The families of IP that these addresses are of: a machine may know only one."""
    kinds = {ipaddress.ip_address(address.partition("%")[0]).version for address in addresses}
    if kinds == {4}:
        return version.V4Only
    return version.V6Only if kinds == {6} else version.All


def _offer(found: trio.MemorySendChannel[str], address: str) -> None:
    try:
        found.send_nowait(address)
    except (trio.WouldBlock, trio.BrokenResourceError):
        log.debug("an announced address was dropped: %s", address)


def announceable(addresses: Iterable[str], interfaces: tuple[str, ...]) -> list[Address]:
    """What to announce: loopback addresses only where discovery itself is on loopback."""
    on_loopback = any(ipaddress.ip_address(interface).is_loopback for interface in interfaces)
    parsed = [parse(text) for text in addresses]
    usable = [
        address
        for address in parsed
        if address.kind in ("ip4", "ip6")
        and ipaddress.ip_address(address.host).is_loopback == on_loopback
    ]
    return usable[: limits.ADDRESSES_PER_PEER]


def txt_record(mesh: str, addresses: Iterable[str]) -> bytes:
    """The TXT record that announces `addresses`; one too long for the format is left out."""
    fields = [MESH_FIELD + mesh.encode()]
    fields += [ADDRESS_FIELD + address.encode() for address in addresses]
    return b"".join(
        bytes([len(field)]) + field for field in fields if len(field) <= TXT_STRING_BYTES
    )


def found_addresses(record: bytes, mesh: str, own: NodeId) -> list[str]:
    """Addresses in another node's TXT record; none where it is of another mesh or malformed."""
    fields = []
    at = 0
    while at < len(record):
        length = record[at]
        fields.append(record[at + 1 : at + 1 + length])
        at += 1 + length
    if MESH_FIELD + mesh.encode() not in fields:
        return []
    found = []
    for field in fields:
        if field.startswith(ADDRESS_FIELD):
            try:
                address = parse(field[len(ADDRESS_FIELD) :].decode("ascii"))
            except (AddressError, UnicodeDecodeError):
                continue
            if address.peer is not None and address.peer != own:
                found.append(str(address))
    return found[: limits.ADDRESSES_PER_PEER]
