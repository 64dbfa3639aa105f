"""Tries damaged updates in a process of its own: a crash or hang of the library ends only this.

`python -m tests.state.fuzz_child SEED CASES`: prints how many were accepted, and `sound` at
the end. What the check accepts is applied, read, saved, loaded again, and written on.
"""

from __future__ import annotations

import sys
from random import Random

from meshslm.errors import PeerFault
from meshslm.state.entry import Entry, pack, unpack
from meshslm.state.part import Part, Poisoned
from meshslm.state.validate import check_update
from tests.state.updates import KEY, damaged, history


def try_one(updates: list[tuple[bytes, int, int]], draw: Random) -> bool:
    """Damage one update of a history; whether it was accepted and applied."""
    place = draw.randrange(len(updates))
    part = Part(KEY)
    for update, _, after in updates[:place]:
        part.apply(update, after)
    data = damaged(updates[place][0], draw)
    try:
        changes = check_update(data, part.client, part.clock)
    except PeerFault:
        return False
    if any(key in part.live for key in changes.made):
        return False
    try:
        part.apply(data, part.clock + changes.count)
    except Poisoned as error:
        if "changed" in str(error):
            return False  # it wrote over what it had written over before: told, and thrown away
        raise
    for packed in part.live.values():
        unpack(packed)
    assert part.content == part.recomputed()
    again = Part(KEY)
    again.load(part.snapshot(), part.clock, part.content)
    assert again.live == part.live
    again.write({"after": pack(Entry(b"on", 99))})
    assert again.content == again.recomputed()
    return True


def main(seed: int, cases: int) -> None:
    """Try so many."""
    draw = Random(seed)
    accepted = 0
    updates = history(seed)
    for case in range(cases):
        if case % 100 == 99:
            updates = history(draw.randrange(2**32))
        accepted += try_one(updates, draw)
    print(f"{accepted} of {cases} accepted")
    print("sound")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
