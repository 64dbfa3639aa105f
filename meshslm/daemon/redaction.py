"""Events without what people wrote or read: for recordings that may be handed to others.

Rules:
- Everything of a request or a piece of an answer is replaced, but for the fields that are listed
  here as harmless: a field that comes later is replaced until somebody has thought about it.
- A filler has as many characters and as many bytes as what it stands for, so lengths that are
  counted, and bounds that are checked, stay.
- A message that cannot be read is replaced by one that cannot be read either.
"""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass, replace
from typing import Any, Final

from meshslm.core.events import BytesReceived, Event, RunFailed, RunProduced, TaskArrived
from meshslm.core.reading_events import RequestShown
from meshslm.daemon.state_redaction import STATE_EVENTS, without_entries, without_values
from meshslm.errors import PeerFault
from meshslm.wire.codec import UnknownKind, decode, encode, message_classes
from meshslm.wire.histories import HistoryTold
from meshslm.wire.messages import Chunk, TaskChunk, TaskFailed, TaskSubmit
from meshslm.wire.state import StateDeltas

HARMLESS: Final = {
    "TaskRequest": {"selector", "operation", "priority", "reasoning_effort", "adapter", "choices"},
    "ChatMessage": {"role"},
    "Constraint": {"kind"},
    "Chunk": {"finish"},
}
"""Texts, by class, that are kept. Single numbers and switches always are."""

_WIDTHS: Final = (
    (re.compile("[\x01-\x7f]"), "x"),
    (re.compile("[\x80-\u07ff]"), "\xe9"),
    (re.compile("[\u0800-\uffff]"), "\u20ac"),
    (re.compile("[\U00010000-\U0010ffff]"), "\U00010000"),
)
"""Characters that take one, two, three and four bytes, and what stands for each."""

_FILLED: Final = (TaskSubmit, TaskChunk, TaskFailed, StateDeltas, HistoryTold)
"""Messages with texts of people in them."""

_UNREADABLE: Final = b"\xc1"
"""The one byte that begins no MessagePack value."""

_ADMITS: Final = "token"
"""Field of a message that lets whoever has it into the mesh."""

_AS_THEY_ARE: Final = frozenset(
    kind.KIND
    for kind in message_classes()
    if not issubclass(kind, _FILLED) and not any(f.name == _ADMITS for f in fields(kind))
)


def without_texts(event: Event) -> Event:
    """The event with fillers for all that people wrote or read."""
    if type(event) is BytesReceived:
        message = _message(event.message)
        return event if message is event.message else replace(event, message=message)
    if isinstance(event, TaskArrived | RequestShown):
        return replace(event, request=_filled(event.request))
    if type(event) is RunProduced:
        return RunProduced(event.run, _chunk(event.chunk))
    if type(event) is RunFailed:
        return replace(event, detail=_filler(event.detail))
    if isinstance(event, STATE_EVENTS):
        return without_entries(event)
    return event


def _message(message: bytes) -> bytes:
    """A message begins with the mark of a pair, and with its kind."""
    if message[:1] == b"\x92" and message[1:2] and message[1] in _AS_THEY_ARE:
        return message
    try:
        said = decode(message)
    except UnknownKind as unknown:
        return _unknown(unknown.kind)
    except PeerFault:
        return _UNREADABLE * len(message)
    if isinstance(said, TaskSubmit):
        return encode(replace(said, request=_filled(said.request)))
    if isinstance(said, TaskChunk):
        return encode(TaskChunk(said.task, said.attempt, said.seq, _chunk(said.chunk)))
    if isinstance(said, TaskFailed):
        return encode(replace(said, detail=_filler(said.detail)))
    if isinstance(said, StateDeltas | HistoryTold):
        return without_values(said)
    if (secret := getattr(said, _ADMITS, None)) is not None:
        return encode(replace(said, **{_ADMITS: _value(secret)}))
    return message


def _unknown(kind: int) -> bytes:
    """An empty message of a kind that this version does not know."""
    if kind < 0:
        return _UNREADABLE
    if kind < 0x80:
        return bytes((0x92, kind, 0x80))
    return b"\x92\xcf" + min(kind, 2**64 - 1).to_bytes(8, "big") + b"\x80"


def _filled(part: Any) -> Any:
    """A part of a message with fillers in it; a default says nothing, and takes no bytes."""
    keep = HARMLESS.get(type(part).__name__, ())
    changes = {}
    for field in fields(part):
        value = getattr(part, field.name)
        if field.name not in keep and value != field.default:
            changes[field.name] = _value(value)
    return replace(part, **changes)


def _chunk(chunk: Chunk) -> Chunk:
    """A piece of an answer. Most have tokens and text alone, and these come in thousands."""
    if chunk.logprobs or chunk.calls or chunk.reasoning or chunk.vector or chunk.stopped:
        filled: Chunk = _filled(chunk)
        return filled
    return Chunk(
        chunk.choice,
        tuple(map(_token, chunk.tokens)),
        _filler(chunk.text),
        finish=chunk.finish,
        item=chunk.item,
        score=chunk.score,
        queue_ms=chunk.queue_ms,
        prompt_tokens=chunk.prompt_tokens,
    )


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return _filler(value)
    if isinstance(value, bytes):
        return bytes(len(value))
    if isinstance(value, tuple):
        return tuple(_token(item) if type(item) is int else _value(item) for item in value)
    return _filled(value) if is_dataclass(value) else value


def _filler(text: str) -> str:
    if text.isascii() and "\0" not in text:
        return "x" * len(text)  # a long prompt at once, and the node does not wait for it
    for characters, filler in _WIDTHS:
        text = characters.sub(filler, text)
    return text


def _token(token: int) -> int:
    """One that takes as many bytes on the wire."""
    return next(low for low in (65_536, 256, 128, 0) if token >= low) if token > 0 else 0
