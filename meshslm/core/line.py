"""Who is next: a line in which interactive work goes first and tenants share fairly.

The core keeps the runs that wait for an engine in such a line, and the engine those that wait for a
slot.

Rules:
- Interactive before background. After `PASSES` interactive entries in a row that background work
  had to let pass, one of that goes first: it is slow under load, and never starves.
- Among those who wait, the tenant that was served least is next, in tokens, as the virtual token
  counter of Sheng et al. has it (Fairness in Serving Large Language Models, OSDI 2024). Whoever
  comes back has no credit for the time that it asked for nothing.
- One tenant's entries of a kind keep their order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

PASSES: Final = 16
"""Interactive entries that may pass waiting background work: about a twentieth of all turns are
left to it (a guess)."""
TENANTS: Final = 1024
"""Tenants whose service is remembered; those that wait always are."""

T = TypeVar("T")


@dataclass(slots=True)
class _Lane(Generic[T]):
    """Entries of one priority, by tenant. No tenant is kept without entries."""

    entries: dict[str, deque[tuple[int, T]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(map(len, self.entries.values()))


class Line(Generic[T]):
    """Entries that wait."""

    def __init__(self) -> None:
        self._interactive: _Lane[T] = _Lane()
        self._background: _Lane[T] = _Lane()
        self._served: dict[str, int] = {}
        self._floor = 0
        """Service of the tenant that was taken last."""
        self._count = 0
        self._passed = 0

    def __len__(self) -> int:
        return len(self._interactive) + len(self._background)

    def __iter__(self) -> Iterator[T]:
        """All entries, interactive ones first; not in the order of their turns."""
        for lane in (self._interactive, self._background):
            for entries in lane.entries.values():
                yield from (entry for _, entry in entries)

    @property
    def interactive(self) -> int:
        """Interactive entries."""
        return len(self._interactive)

    @property
    def background(self) -> int:
        """Background entries."""
        return len(self._background)

    def last_background(self) -> T | None:
        """The background entry that came last."""
        newest = (entries[-1] for entries in self._background.entries.values())
        return max(newest, key=lambda one: one[0], default=(0, None))[1]

    def add(self, entry: T, tenant: str = "", *, background: bool = False) -> None:
        """Put an entry at the end of its tenant's."""
        self._count += 1
        self._queue(tenant, background=background).append((self._count, entry))

    def put_back(self, entry: T, tenant: str = "", *, background: bool = False) -> None:
        """Put an entry that had its turn already before its tenant's others."""
        queue = self._queue(tenant, background=background)
        queue.appendleft((queue[0][0] if queue else self._count, entry))

    def next(self) -> T | None:
        """Whose turn it is; the same until something changes."""
        chosen = self._choose()
        return None if chosen is None else chosen[0].entries[chosen[1]][0][1]

    def take(self) -> tuple[T, bool]:
        """Take the next one out; whether it is background work that has waited long enough.

        Raises `IndexError` where nobody waits.
        """
        chosen = self._choose()
        if chosen is None:
            raise IndexError("nobody waits")
        lane, tenant = chosen
        queue = lane.entries[tenant]
        _, entry = queue.popleft()
        if not queue:
            del lane.entries[tenant]
        self._floor = self._served.get(tenant, 0)
        aged = lane is self._background and self._passed >= PASSES
        passes = lane is self._interactive and bool(self._background.entries)
        self._passed = self._passed + 1 if passes else 0
        return entry, aged

    def remove(self, unwanted: Callable[[T], bool]) -> None:
        """Forget entries."""
        for lane in (self._interactive, self._background):
            for tenant, queue in list(lane.entries.items()):
                left = deque(item for item in queue if not unwanted(item[1]))
                if left:
                    lane.entries[tenant] = left
                else:
                    del lane.entries[tenant]

    def charge(self, tenant: str, tokens: int) -> None:
        """A tenant was served so many tokens."""
        self._served[tenant] = self._served.get(tenant, 0) + tokens
        if len(self._served) > TENANTS:
            waiting = self._interactive.entries.keys() | self._background.entries.keys()
            idle = [name for name in self._served if name not in waiting]
            if idle:
                del self._served[min(idle, key=lambda name: self._served[name])]

    def _queue(self, tenant: str, *, background: bool) -> deque[tuple[int, T]]:
        lanes = (self._interactive, self._background)
        if not any(tenant in lane.entries for lane in lanes):
            waiting = [self._served.get(name, 0) for lane in lanes for name in lane.entries]
            least = min(waiting, default=self._floor)
            self._served[tenant] = max(self._served.get(tenant, 0), least)
        return lanes[background].entries.setdefault(tenant, deque())

    def _choose(self) -> tuple[_Lane[T], str] | None:
        lane = self._interactive
        if not lane.entries or (self._passed >= PASSES and self._background.entries):
            lane = self._background
        if not lane.entries:
            return None
        return lane, min(
            lane.entries, key=lambda name: (self._served.get(name, 0), lane.entries[name][0][0])
        )
