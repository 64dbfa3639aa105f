"""A stream on asyncio, given up after twenty pieces: that ends the generation on its node.

    python examples/async_asyncio.py

Needs a running node (`meshslm up`, or `make run`).
"""

from __future__ import annotations

import asyncio
import os

from meshslm.client import DEFAULT_URL, AsyncClient

PIECES = 20


async def main() -> None:
    """Look at the beginning of a long answer."""
    async with AsyncClient(os.environ.get("MESHSLM_URL", DEFAULT_URL)) as mesh:
        print("nodes:", ", ".join(peer.name for peer in await mesh.peers()))
        async with mesh.stream("Tell me a very long story.", model="auto") as stream:
            for _ in range(PIECES):
                print(await anext(stream, ""), end="", flush=True)
    print("\n... that is enough.")


if __name__ == "__main__":
    asyncio.run(main())
