"""A host made by the libp2p library alone, as another implementation would be. Run by a test.

Prints its address and echoes whatever comes on a stream of our protocol. An address on its standard
input is then dialled, and one frame sent there.
"""

from __future__ import annotations

import sys
from typing import Any

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_pair
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport
from multiaddr import Multiaddr  # type: ignore[import-untyped]  # it ships no types

PROTOCOL = "/meshslm/1.0.0"
MESSAGE = b"from the stock host"


async def echo(stream: Any) -> None:
    try:
        while data := await stream.read(65536):
            await stream.write(data)
    except Exception:  # noqa: BLE001 - the library raises many things at the end of a stream
        return  # the peer hung up


async def main() -> None:
    pair = create_new_key_pair()
    noise = Transport(pair, create_noise_pair().private_key)
    host = new_host(key_pair=pair, sec_opt={NOISE: noise})
    host.set_stream_handler(PROTOCOL, echo)
    async with host.run(listen_addrs=[Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        address = next(str(address) for address in host.get_addrs())
        sys.stdout.write(f"{address}\n")
        sys.stdout.flush()
        line = await trio.to_thread.run_sync(sys.stdin.readline)
        info = info_from_p2p_addr(Multiaddr(line.strip()))
        # It takes a moment to forget a connection that was closed, and has no event for that.
        while host.get_network().get_connections(info.peer_id):  # noqa: ASYNC110 - see above
            await trio.sleep(0.05)
        await host.connect(info)
        stream = await host.new_stream(info.peer_id, [PROTOCOL])
        await stream.write((len(MESSAGE) | 1 << 26).to_bytes(4, "big") + MESSAGE)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
