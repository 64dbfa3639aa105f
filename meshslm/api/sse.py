"""Server-sent events, both ends: how a stream of JSON goes over HTTP.

Rules:
- One event is one `data:` line with JSON in it. In OpenAI's older streams `[DONE]` says that the
  stream is whole; in newer ones, and Anthropic's, every event names its kind, and the last one
  says so.
- The decoder takes bytes as they come, splits only at line feeds, and bounds what it holds back.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from meshslm.limits import MIB

PREFIX = b"data: "
SUFFIX = b"\n\n"
DONE = b"[DONE]"
DONE_EVENT = PREFIX + DONE + SUFFIX

EVENT_BYTES = 8 * MIB
"""Longest event a reader takes: a chunk's text and its logprobs, with room."""

# `str.splitlines` breaks lines at these, and several clients split a stream with it.
_LINE_BREAKS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}

_encode = msgspec.json.Encoder().encode


def one_line(encoded: bytes) -> bytes:
    """JSON that no reader takes for more than one line."""
    if encoded.isascii():
        return encoded
    return encoded.decode().translate(_LINE_BREAKS).encode()


def text_json(text: str) -> bytes:
    """`text` as a JSON string on one line."""
    return one_line(_encode(text))


def event(payload: object) -> bytes:
    """`payload` as one event."""
    return PREFIX + one_line(_encode(payload)) + SUFFIX


def typed_event(kind: str, payload: Mapping[str, object] = MappingProxyType({})) -> bytes:
    """An event that has its kind on a line of its own, and as the `type` in its JSON."""
    data = one_line(_encode({"type": kind, **payload}))
    return b"event: %s\n%s%s%s" % (kind.encode(), PREFIX, data, SUFFIX)


class EventDecoder:
    """Cuts the bytes of a stream into the data of its events."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, received: bytes) -> list[bytes]:
        """The data of the events that `received` completes.

        Raises `ValueError` where an event is longer than `EVENT_BYTES`.
        """
        lines = (self._held + received).split(b"\n")
        self._held = lines.pop()
        if len(self._held) > EVENT_BYTES:
            raise ValueError(f"an event of the stream is longer than {EVENT_BYTES} bytes")
        # Every event we read has one line, so its end needs no waiting for the empty line.
        return [line[5:].strip() for line in lines if line.startswith(b"data:")]
