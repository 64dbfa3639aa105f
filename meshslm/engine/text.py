"""From tokens' bytes to text that may be shown: whole characters, and nothing of a stop string.

Rules:
- A UTF-8 character that spans tokens is held back until it is whole; bytes that are no UTF-8 become
  U+FFFD.
- Of several stop strings the one that is complete first counts; of those complete at the same
  character the longest. The stop string and what follows are never shown.
- As much text is held back as could still become a stop string, and not a character more.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class StopFilter:
    """Cuts one text at the first of its stop strings."""

    __slots__ = ("_held", "_longest", "_stops", "stopped")

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = tuple(stop for stop in dict.fromkeys(stops) if stop)
        self._longest = max((len(stop) for stop in self._stops), default=0)
        self._held = ""
        self.stopped = ""
        """The stop string that was found; the text is complete."""

    def feed(self, new: str) -> str:
        """Add text; what may be shown of it."""
        if self.stopped:
            return ""
        if not self._stops:
            return new
        text = self._held + new
        cut, self.stopped = self._find(text, len(self._held))
        if self.stopped:
            self._held = ""
            return text[:cut]
        keep = self._possible_start(text)
        self._held = text[keep:]
        return text[:keep]

    def close(self) -> str:
        """No more comes; the text that was still held back."""
        text, self._held = self._held, ""
        return text

    def _find(self, text: str, known: int) -> tuple[int, str]:
        """Where the first complete stop string begins, and it; it ends after `known` characters."""
        best: tuple[int, int, str] | None = None
        for stop in self._stops:
            start = text.find(stop, max(0, known - len(stop) + 1))
            if start >= 0 and (best is None or (start + len(stop), start) < best[:2]):
                best = (start + len(stop), start, stop)
        return (0, "") if best is None else best[1:]

    def _possible_start(self, text: str) -> int:
        """The first place from which the end of `text` could grow into a stop string."""
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            rest = text[start:]
            if any(stop.startswith(rest) for stop in self._stops):
                return start
        return len(text)


class TextStream:
    """The text of one choice."""

    __slots__ = ("_decoder", "_filter")

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._filter = StopFilter(stops)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def stopped(self) -> str:
        """The stop string that was found; the text is complete."""
        return self._filter.stopped

    @property
    def between_characters(self) -> bool:
        """No character is incomplete."""
        return not self._decoder.getstate()[0]

    def feed(self, piece: bytes) -> str:
        """Add a token's bytes; the text that it releases."""
        return self._filter.feed(self._decoder.decode(piece))

    def close(self) -> str:
        """No more tokens come; the text that was still held back."""
        text = self._filter.feed(self._decoder.decode(b"", final=True))
        return text + self._filter.close()
