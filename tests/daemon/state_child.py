"""A node without a network that writes to a document as fast as it can, until it is killed.

`python -m tests.daemon.state_child FOLDER BOOT LAST_BOOT` says what it finds
(`have KEY REVISION`), then `go`, then every write that it was told is durable
(`done KEY REVISION`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import trio

from meshslm.adapters.keyring import load_or_create
from meshslm.adapters.signing import node_signer, signed_by
from meshslm.adapters.sqlite_journal import SqliteJournal
from meshslm.adapters.system_clock import SystemClock
from meshslm.chance import Chance
from meshslm.core.config import CoreConfig
from meshslm.core.events import Effect, Started, StartTimer, StopTimer
from meshslm.core.node import NodeCore
from meshslm.core.state_config import StateConfig
from meshslm.core.state_events import Change
from meshslm.daemon.pump import Pump
from meshslm.daemon.state_desk import StateDesk
from meshslm.daemon.state_keeper import StateKeeper
from meshslm.daemon.timers import Timers

DOC = "memory/kill"
KEYS = 50
WRITERS = 8


def say(*words: object) -> None:
    """A whole line at once: what was said was written."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def write(desk: StateDesk, writer: int) -> None:
    number = 0
    while True:
        key = f"k{writer}-{number % KEYS}"
        number += 1
        (revision,) = await desk.write(DOC, (Change(key, os.urandom(100)),))
        say("done", key, revision)


async def main(folder: Path, boot: int, last: int) -> None:
    key = load_or_create(folder)
    clock = SystemClock()
    config = CoreConfig(
        key.node_id, "n", state=StateConfig(sign=node_signer(key.secret), verify=signed_by)
    )
    core = NodeCore(config, Chance.from_int(boot))
    pump = Pump(core, clock)
    timers = Timers(clock, pump.handle)
    journal = SqliteJournal(folder / "state.sqlite")
    opened = journal.start(last)
    desk = StateDesk(core.documents, pump, lambda: 0)
    keeper = StateKeeper(journal, opened, pump, desk)
    performers = {
        StartTimer: timers.start,
        StopTimer: lambda effect: timers.stop(effect.key),
        **keeper.performers(),
    }

    def perform(effect: Effect) -> None:
        performers.get(type(effect), lambda _effect: None)(effect)

    pump.attach(perform)
    pump.handle(Started(boot, ()))
    keeper.begin()
    for name in core.documents.keys(DOC):
        entry = core.documents.read(DOC, name)
        say("have", name, entry.revision if entry is not None else -1)
    say("go")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        nursery.start_soon(keeper.run)
        for writer in range(WRITERS):
            nursery.start_soon(write, desk, writer)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
