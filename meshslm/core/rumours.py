"""News waiting to be handed on: each piece a bounded number of times, the least told first.

Source: SWIM (Das, Gupta, Motivala 2002): what rides on messages that go out anyway reaches all of
n nodes when each hands it on about log n times.

Rules:
- Of one node there is one piece: the last that was added.
- Nothing is handed on more than `NEWS_REPEATS` times, and once more for each doubling of the mesh.
"""

from __future__ import annotations

from math import ceil, log2

from meshslm import mesh_limits
from meshslm.ids import NodeId
from meshslm.wire.detection import News

PER_MESSAGE = mesh_limits.NEWS // 2
"""Half of what a receiver takes: about 500 bytes."""


def repeats(members: int) -> int:
    """How often a piece of news is handed on by each node of a mesh of so many."""
    return mesh_limits.NEWS_REPEATS + ceil(log2(members + 1))


class Rumours:
    """The news of one node."""

    def __init__(self) -> None:
        self._waiting: dict[NodeId, tuple[int, News]] = {}
        """Times told, and what."""

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, news: News) -> None:
        """Hand `news` on; what was said of that node before is forgotten."""
        waiting = self._waiting
        if news.node not in waiting and len(waiting) >= mesh_limits.NEWS_KEPT:
            del waiting[max(waiting, key=lambda node: waiting[node][0])]
        waiting[news.node] = (0, news)

    def drop(self, node: NodeId) -> None:
        """What was to be said of a node no longer matters here."""
        self._waiting.pop(node, None)

    def take(self, members: int) -> tuple[News, ...]:
        """What rides on the next message in a mesh of `members`."""
        waiting = self._waiting
        if not waiting:
            return ()
        most = repeats(members)
        chosen = sorted(waiting, key=lambda node: waiting[node][0])[:PER_MESSAGE]
        taken = tuple(waiting[node][1] for node in chosen)
        for node, news in zip(chosen, taken, strict=True):
            told = waiting[node][0] + 1
            if told >= most:
                del waiting[node]
            else:
                waiting[node] = (told, news)
        return taken
