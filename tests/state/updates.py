"""Sound updates to begin from, and how they are damaged."""

from __future__ import annotations

from random import Random

from meshslm.ids import NodeId
from meshslm.state.entry import Entry, pack
from meshslm.state.part import Part, PartKey

KEY = PartKey("memory/x", NodeId("author"), 7)


def history(seed: int, writes: int = 12) -> list[tuple[bytes, int, int]]:
    """Updates of one author, with the clocks before and after each."""
    draw = Random(seed)
    part = Part(KEY)
    found = []
    for revision in range(1, writes + 1):
        names = draw.sample(range(8), draw.randint(1, 4))
        value = draw.randbytes(draw.choice((0, 1, 20, 200)))
        packed = {
            f"key{name}": pack(Entry(value, revision, draw.choice((0, 10**12)), deleted=not value))
            for name in names
        }
        before = part.clock
        found.append((part.write(packed), before, part.clock))
    return found


def damaged(update: bytes, draw: Random) -> bytes:
    """The update with bits flipped, bytes put in, taken out, doubled, or numbers made large."""
    data = bytearray(update)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        place = draw.randrange(len(data)) if data else 0
        match draw.randrange(6):
            case 0 if data:
                data[place] ^= 1 << draw.randrange(8)
            case 1 if data:
                data[place] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
            case 2:
                data[place:place] = draw.randbytes(draw.randint(1, 6))
            case 3 if data:
                del data[place : place + draw.randint(1, 8)]
            case 4:
                end = place + draw.randint(1, 40)
                data[place:place] = data[place:end]
            case _:
                data[place:place] = b"\xff" * draw.randint(1, 9) + b"\x01"
    return bytes(data)
