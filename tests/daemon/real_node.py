"""A node above one real worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from meshslm.adapters.engine_process import EngineProcess, EngineSpec
from meshslm.daemon.hosting import Room
from meshslm.profiles import Profile
from tests.daemon.box import Box


@asynccontextmanager
async def real_node(spec: EngineSpec) -> AsyncIterator[Box[EngineProcess]]:
    """Ready, with the profile `p` on its model `m`; for two minutes at most."""
    box = Box(
        lambda _: EngineProcess(spec),
        (Profile(name="p", model="m"),),
        {"m": 400.0},
        Room(0, 0, lambda: 0),
    )
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(box.run)
            await box.until(m="ready")
            yield box
            nursery.cancel_scope.cancel()
