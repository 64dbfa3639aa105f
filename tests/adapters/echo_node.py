"""A node that sends every message back; prints its address. Run by tests as a process."""

from __future__ import annotations

import sys

import trio

from meshslm.adapters.keyring import NodeKey
from meshslm.adapters.libp2p_link import Libp2pLink
from meshslm.core.events import BytesReceived, Event, Lane


async def main() -> None:
    link = Libp2pLink(NodeKey.generate(), ("/ip4/127.0.0.1/tcp/0",))

    async def echo(*events: Event) -> None:
        for event in events:
            if isinstance(event, BytesReceived):
                link.send(event.peer, Lane.INTERACTIVE, event.message)

    def announce() -> None:
        sys.stdout.write(f"{link.addresses[0]}\n")
        sys.stdout.flush()

    await link.run(echo, started=announce)


if __name__ == "__main__":
    trio.run(main)
