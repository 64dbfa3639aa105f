"""From the text of a model to answer, thoughts and calls of tools, while it is being written.

Rules:
- What comes out does not depend on how the text was cut into pieces.
- As much is held back as could still become a tag or a call, and not a character more; half a tag
  is never shown as answer, unless the text ends there.
- A call's arguments are passed on as the model writes them: their pieces together are its JSON.
- Stop strings are looked for in the answer alone.
- It takes any text: what only looks like a call is answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from meshslm.engine.text import StopFilter, TextStream
from meshslm.engine.tool_formats import ToolFormat
from meshslm.limits import TOOL_CALLS
from meshslm.wire.messages import CallPiece

THINK: Final = "<think>"
THOUGHT: Final = "</think>"
_SPACE: Final = " \n"
"""Between the parts of a call's head: what the grammars allow, and no more."""


class Thinking(Enum):
    """How an answer begins."""

    NONE = auto()
    """With the answer."""
    MAYBE = auto()
    """Perhaps with thoughts between tags."""
    INSIDE = auto()
    """In the middle of thoughts: the prompt ended with the opening tag."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read one kind of answer."""

    thinking: Thinking = Thinking.NONE
    format: ToolFormat | None = None
    names: tuple[str, ...] = ()
    """Of the tools that may be called."""

    @property
    def plain(self) -> bool:
        """All of it is answer."""
        return self.thinking is Thinking.NONE and self.format is None


@dataclass(slots=True)
class Delta:
    """What a piece of text released."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[CallPiece, ...] = ()


class OutputStream:
    """One choice: bytes of tokens in, deltas out."""

    __slots__ = ("_decoder", "_parser")

    def __init__(
        self, reading: Reading, stops: Sequence[str], call_id: Callable[[int], str]
    ) -> None:
        self._decoder = TextStream(stops if reading.plain else ())
        self._parser = None if reading.plain else OutputParser(reading, stops, call_id)

    @property
    def stopped(self) -> str:
        """The stop string that was found in the answer."""
        return self._decoder.stopped if self._parser is None else self._parser.stopped

    @property
    def thinking(self) -> bool:
        """The text is among thoughts now."""
        return self._parser is not None and self._parser.thinking

    @property
    def between_characters(self) -> bool:
        """No character is incomplete."""
        return self._decoder.between_characters

    @property
    def calls(self) -> int:
        """Calls that are complete."""
        return 0 if self._parser is None else self._parser.complete

    def feed(self, piece: bytes) -> Delta:
        """Add a token's bytes."""
        text = self._decoder.feed(piece)
        return Delta(text) if self._parser is None else self._parser.feed(text)

    def close(self) -> Delta:
        """No more tokens come; what was still held back."""
        text = self._decoder.close()
        return Delta(text) if self._parser is None else self._parser.close(text)


class OutputParser:
    """Reads one answer as text."""

    def __init__(
        self, reading: Reading, stops: Sequence[str], call_id: Callable[[int], str]
    ) -> None:
        self._stops = StopFilter(stops)
        self._format = reading.format
        self._names = tuple(f'"{name}"' for name in reading.names)
        self._call_id = call_id
        self._held = ""
        self._delta = Delta()
        self._calls: list[CallPiece] = []
        self._begun = 0
        self._scan = _Scan()
        self._fresh = True
        self._final = False
        self.complete = 0
        self._state: Callable[[], bool] = {
            Thinking.NONE: self._answer,
            Thinking.MAYBE: self._beginning,
            Thinking.INSIDE: self._thoughts,
        }[reading.thinking]

    @property
    def thinking(self) -> bool:
        """The text is among thoughts now."""
        return self._state == self._thoughts

    @property
    def stopped(self) -> str:
        """The stop string that was found in the answer; nothing more is read."""
        return self._stops.stopped

    def feed(self, text: str) -> Delta:
        """Add text."""
        self._held += text
        self._delta, self._calls = Delta(), []
        while not self.stopped and self._state():
            pass
        self._delta.calls = tuple(self._calls)
        return self._delta

    def close(self, text: str) -> Delta:
        """Add the last text; what was still held back."""
        self._final = True
        delta = self.feed(text)
        delta.text += self._stops.close()
        return delta

    def _show(self, text: str) -> None:
        """`text` is answer."""
        self._delta.text += self._stops.feed(text)

    # --- states: each reads what it can; true where the next one has something to read ------------
    def _beginning(self) -> bool:
        text = self._held.lstrip()
        if text.startswith(THINK):
            self._held = text[len(THINK) :]
            self._state = self._thoughts
            return True
        if THINK.startswith(text) and not self._final:
            return False
        self._state = self._answer
        return True

    def _thoughts(self) -> bool:
        if self._fresh:
            self._held = self._held.lstrip()
            self._fresh = not self._held
        end = self._held.find(THOUGHT)
        if end >= 0:
            self._delta.reasoning += self._held[:end].rstrip()
            self._held = self._held[end + len(THOUGHT) :]
            self._state = self._after_thoughts
            return True
        keep = len(self._held) if self._final else _before_tag(self._held, THOUGHT)
        self._delta.reasoning += self._held[:keep]
        self._held = self._held[keep:]
        return False

    def _after_thoughts(self) -> bool:
        self._held = self._held.lstrip()
        if not self._held:
            return False
        self._state = self._answer
        return True

    def _answer(self) -> bool:
        if self._format is None:
            self._state = self._plain
            return True
        if not self._format.open:
            self._state = self._bare_head
            return True
        tag = self._format.open
        start = self._held.find(tag)
        if start >= 0:
            self._show(self._held[:start].rstrip())
            self._held = self._held[start + len(tag) :]
            self._state = self._tagged_head
            return True
        keep = len(self._held) if self._final else _before_tag(self._held, tag)
        self._show(self._held[:keep])
        self._held = self._held[keep:]
        return False

    def _plain(self) -> bool:
        self._show(self._held)
        self._held = ""
        return False

    def _tagged_head(self) -> bool:
        found = self._head(0)
        if found is not None and found >= 0:
            return True
        if found is None:
            if self._final:
                self._held = ""
            return False
        assert self._format is not None
        self._show(self._format.open)
        self._state = self._answer
        return True

    def _bare_head(self) -> bool:
        """At the beginning, where a call has no tag."""
        assert self._format is not None
        start = _skip(self._held, 0)
        marker = self._format.marker
        marked = bool(marker) and self._held.startswith(marker, start)
        if marked:
            start += len(marker)
        elif marker and not self._final and marker.startswith(self._held[start:]):
            return False
        found = self._head(start)
        if found is not None and found >= 0:
            return True
        if found is None and not self._final:
            return False
        if marked:
            self._held = self._held[start:]
        self._state = self._plain
        return True

    def _head(self, start: int) -> int | None:
        """Begin a call where its head is whole; None where more is needed, -1 where it is none."""
        assert self._format is not None
        found = _match_head(self._held, start, self._names, self._format.key)
        if found is None or isinstance(found, int):
            return found
        name, end = found
        if self._begun >= TOOL_CALLS:
            return -1
        self._calls.append(CallPiece(self._begun, self._call_id(self._begun), name[1:-1]))
        self._begun += 1
        self._scan = _Scan()
        self._held = self._held[end:]
        self._state = self._arguments
        return end

    def _arguments(self) -> bool:
        end = self._scan.end(self._held)
        text = self._held[:end]
        self._held = self._held[end:]
        if text:
            self._append(text)
        if not self._scan.whole:
            return False
        self.complete += 1
        self._state = self._tail
        return True

    def _append(self, arguments: str) -> None:
        index = self._begun - 1
        if self._calls and self._calls[-1].index == index:
            last = self._calls.pop()
            piece = CallPiece(index, last.id, last.name, last.arguments + arguments)
        else:
            piece = CallPiece(index, arguments=arguments)
        self._calls.append(piece)

    def _tail(self) -> bool:
        assert self._format is not None
        end = _match(self._held, 0, ("}", self._format.close))
        if end is None:
            if self._final:
                self._held = ""
            return False
        if end >= 0:
            self._held = self._held[end:]
        self._state = self._between
        return True

    def _between(self) -> bool:
        """After a call: another one, or answer."""
        assert self._format is not None
        self._held = self._held.lstrip(" \n;" if not self._format.open else None)
        if not self._held:
            return False
        if self._format.open:
            self._state = self._answer
            return True
        found = self._head(0)
        if found is None:
            if self._final:
                self._held = ""
            return False
        if found < 0:
            self._state = self._plain
        return True


class _Scan:
    """Finds the end of a JSON object that comes in pieces."""

    __slots__ = ("_depth", "_escaped", "_quoted", "whole")

    def __init__(self) -> None:
        self._depth = 0
        self._quoted = False
        self._escaped = False
        self.whole = False

    def end(self, text: str) -> int:
        """How much of `text` belongs to it."""
        for place, character in enumerate(text):
            if self._quoted:
                if self._escaped:
                    self._escaped = False
                elif character == "\\":
                    self._escaped = True
                elif character == '"':
                    self._quoted = False
            elif character == '"':
                self._quoted = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    self.whole = True
                    return place + 1
        return len(text)


def _match_head(
    text: str, start: int, names: Sequence[str], key: str
) -> tuple[str, int] | int | None:
    """The quoted name and where the arguments begin; None where more is needed, -1 for no head."""
    at = _match(text, start, ("{", '"name"', ":"))
    if at is None or at < 0:
        return at
    at = _skip(text, at)
    name = next((name for name in names if text.startswith(name, at)), None)
    if name is None:
        rest = text[at:]
        return None if any(name.startswith(rest) for name in names) else -1
    end = _match(text, at + len(name), (",", f'"{key}"', ":", "{"))
    if end is None or end < 0:
        return end
    return name, end - 1


def _match(text: str, at: int, parts: Sequence[str]) -> int | None:
    """Where `parts`, with space before each, end; None where more is needed, -1 where not so."""
    for part in parts:
        at = _skip(text, at)
        if text.startswith(part, at):
            at += len(part)
        elif part.startswith(text[at:]):
            return None
        else:
            return -1
    return at


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _before_tag(text: str, tag: str) -> int:
    """Where that end of `text` begins that could be space and the beginning of `tag`."""
    for start in range(max(0, len(text) - len(tag) + 1), len(text)):
        if tag.startswith(text[start:]):
            return len(text[:start].rstrip())
    return len(text.rstrip())
