"""Three servers of a DHT made by the libp2p library alone, each knowing the next. Run by tests.

Prints the address of each, one a line, and serves until its standard input ends.
"""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_pair
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr  # type: ignore[import-untyped]  # it ships no types

SERVERS = 3


def make_host() -> Any:
    pair = create_new_key_pair()
    noise = Transport(pair, create_noise_pair().private_key)
    return new_host(key_pair=pair, sec_opt={NOISE: noise})


async def main() -> None:
    async with AsyncExitStack() as stack:
        servers: list[tuple[Any, Any, str]] = []
        for _ in range(SERVERS):
            host = make_host()
            listen = [Multiaddr("/ip4/127.0.0.1/tcp/0")]
            await stack.enter_async_context(host.run(listen_addrs=listen))
            dht = KadDHT(host, DHTMode.SERVER)
            await stack.enter_async_context(background_trio_service(dht))
            servers.append((host, dht, str(host.get_addrs()[0])))
        for (host, dht, _), (_, _, address) in pairwise(servers):
            info = info_from_p2p_addr(Multiaddr(address))
            await host.connect(info)
            await dht.add_peer(info.peer_id, skip_server_mode_check=True)
        for _, _, address in servers:
            sys.stdout.write(f"{address}\n")
        sys.stdout.flush()
        await trio.to_thread.run_sync(sys.stdin.read)


if __name__ == "__main__":
    trio.run(main)
