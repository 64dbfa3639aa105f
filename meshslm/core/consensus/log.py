"""The entries of a log that are kept in memory, and whose votes they give.

Rules:
- Entries follow each other without a gap, behind a base of which index and term are known.
- A configuration counts from the moment on at which it is in the log, committed or not, and no
  longer once it is cut off.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshslm.wire.consensus import Configuration, Entry


class Log:
    """Entries behind a base."""

    def __init__(self) -> None:
        self.base_index = 0
        self.base_term = 0
        self._entries: list[Entry] = []
        self._configurations: list[tuple[int, Configuration]] = [(0, Configuration())]

    @property
    def last_index(self) -> int:
        """Index of the last entry, or of the base."""
        return self.base_index + len(self._entries)

    @property
    def last_term(self) -> int:
        """Term of the last entry, or of the base."""
        return self._entries[-1].term if self._entries else self.base_term

    @property
    def configuration(self) -> Configuration:
        """Who decides now."""
        return self._configurations[-1][1]

    @property
    def configured_at(self) -> int:
        """Index of the entry that says who decides now."""
        return self._configurations[-1][0]

    def configuration_at(self, index: int) -> Configuration:
        """Who decided as of an entry that is still known."""
        return next(c for at, c in reversed(self._configurations) if at <= index)

    def term_at(self, index: int) -> int | None:
        """Term of an entry; None where it is not kept."""
        if index == self.base_index:
            return self.base_term
        if self.base_index < index <= self.last_index:
            return self._entries[index - self.base_index - 1].term
        return None

    def entry(self, index: int) -> Entry:
        """An entry that is kept."""
        assert self.base_index < index <= self.last_index, f"entry {index} is not kept"
        return self._entries[index - self.base_index - 1]

    def behind(self, index: int, most: int) -> tuple[Entry, ...]:
        """Entries after `index`, which is kept, at most so many."""
        start = index - self.base_index
        return tuple(self._entries[start : start + most])

    def first_of_term(self, index: int) -> int:
        """The first kept entry of the run of one term in which `index` is."""
        term = self.term_at(index)
        while index - 1 > self.base_index and self.term_at(index - 1) == term:
            index -= 1
        return index

    def append(self, entries: Sequence[Entry]) -> None:
        """Put entries behind the last one."""
        for entry in entries:
            assert entry.index == self.last_index + 1, "the log has a gap"
            self._entries.append(entry)
            if entry.configuration is not None:
                self._configurations.append((entry.index, entry.configuration))

    def cut(self, index: int) -> None:
        """Forget entries from `index` on."""
        del self._entries[index - self.base_index - 1 :]
        self._configurations = [c for c in self._configurations if c[0] < index]

    def compact(self, index: int) -> None:
        """Forget entries up to `index`, which is kept."""
        if index <= self.base_index:
            return
        configured = self.configuration_at(index)
        term = self.term_at(index)
        assert term is not None, f"entry {index} is not kept"
        del self._entries[: index - self.base_index]
        self.base_index, self.base_term = index, term
        later = [c for c in self._configurations if c[0] > index]
        at = max(c[0] for c in self._configurations if c[0] <= index)
        self._configurations = [(at, configured), *later]

    def reset(self, index: int, term: int, configuration: Configuration) -> None:
        """Begin behind a snapshot."""
        self._entries = []
        self.base_index, self.base_term = index, term
        self._configurations = [(index, configuration)]
