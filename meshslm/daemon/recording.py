"""The file of a flight recorder: what a core was made of, and every event that it was given.

A core is a function of its configuration, its seed and its events, so these replay it. The file is
gzip over lines of JSON: one `Start`, then one `Step` for each event, with what the core did, by
kind, to be compared with.

Rules:
- Unless texts are kept, no word of a prompt, an answer or a credential is in a step: each is
  replaced, when the step is made, by a filler of the same number of characters and bytes.
- Decisions that read the text are pinned by what they were: a task is asked of the very node and
  profile that was chosen for it. So a replay does the same, in kind and number.
- A file is somebody else's: reading it raises `OurFault`, whatever is in it, and is bounded.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, Final, get_args

import msgspec

from meshslm import limits
from meshslm.core.config import CoreConfig
from meshslm.core.events import Effect, Event
from meshslm.errors import UNREADABLE, OurFault

FORMAT: Final = 1
EVENTS: Final = {kind.__name__: kind for kind in get_args(Event)}
GONE: Final = "raised"
"""Stands for what was done where the core raised."""


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What a core was made of."""

    format: int = FORMAT
    program: str
    """Version that recorded: another may decide otherwise."""
    seed: bytes
    config: msgspec.Raw
    """A `CoreConfig`; a function in it is its name."""
    texts: bool
    """Whether texts are as they were."""
    missing: int = 0
    """Events that are not in the file: after `whole` of them, older ones made room for newer."""
    whole: int = 0
    """Events from the start on without a gap."""
    reason: str = ""
    """Why it was written."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """An event, and what was done."""

    now: int
    kind: str
    event: msgspec.Raw
    did: str
    """Kinds of the effects, in order."""
    sum: int | None = None
    """CRC-32 of the effects as JSON, where texts are kept."""
    route: tuple[str, str, str] | None = None
    """Task, profile and node, where one was chosen and texts are not kept."""


_ENCODER: Final = msgspec.json.Encoder()
_KINDS: dict[tuple[type, ...], str] = {}
"""Few sequences of effects come again and again."""
_KINDS_MOST: Final = 4096


def kinds(effects: Iterable[Effect]) -> str:
    """The kinds of effects in order, in short: `Send*3 StartTimer`."""
    types = tuple(map(type, effects))
    known = _KINDS.get(types)
    if known is None:
        counted = ((kind.__name__, len(list(run))) for kind, run in groupby(types))
        known = " ".join(name if n == 1 else f"{name}*{n}" for name, n in counted)
        if len(_KINDS) < _KINDS_MOST:
            _KINDS[types] = known
    return known


def checksum(effects: list[Effect]) -> int:
    """Equal for equal effects; unequal ones hardly ever share it."""
    return zlib.crc32(_ENCODER.encode(effects))


def config_json(config: CoreConfig) -> msgspec.Raw:
    """The configuration as it stands in a start."""
    return msgspec.Raw(msgspec.json.encode(config, enc_hook=_name_of))


def config_of(start: Start, functions: Mapping[str, Callable[..., Any]]) -> CoreConfig:
    """The configuration of a start, with functions by their names. Raises `OurFault`."""

    def function(_type: type, name: object) -> Any:
        if name not in functions:
            raise OurFault(f"the recorded node was made with {name!r}, which is not known here")
        return functions[str(name)]

    try:
        return msgspec.json.decode(start.config, type=CoreConfig, dec_hook=function)
    except UNREADABLE as error:
        raise OurFault(f"the settings in this recording are damaged: {error}") from error


def _name_of(function: Any) -> str:
    return str(function.__name__)


def line(value: object) -> bytes:
    """One line of the file."""
    return _ENCODER.encode(value) + b"\n"


def event_json(event: Event) -> msgspec.Raw:
    """An event as it stands in a step."""
    return msgspec.Raw(_ENCODER.encode(event))


def event_of(step: Step) -> Event:
    """The event of a step. Raises `OurFault` for one that is none."""
    kind = EVENTS.get(step.kind)
    if kind is None:
        raise OurFault(f"this version knows no event {step.kind[:64]!r}")
    try:
        event: Event = msgspec.json.decode(step.event, type=kind)
    except UNREADABLE as error:
        raise OurFault(f"an event {step.kind} is damaged: {error}") from error
    return event


def write_recording(start: Start, steps: Iterable[bytes]) -> bytes:
    """The whole file, of lines that were made before."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=6, mtime=0) as file:
        file.write(line(start))
        for step in steps:
            file.write(step)
    return buffer.getvalue()


def read_recording(data: bytes, name: str = "recording") -> tuple[Start, Iterator[Step]]:
    """What a file holds. Raises `OurFault`, also while the steps are read."""
    lines = _lines(data, name)
    first = next(lines, b"")
    start = _decoded(first, Start, name)
    if start.format != FORMAT:
        raise OurFault(f"{name} has format {start.format}; this version reads {FORMAT}")
    return start, (_decoded(text, Step, name) for text in lines)


def _decoded(text: bytes, kind: Any, name: str) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except UNREADABLE as error:
        raise OurFault(f"{name} is no recording of a node, or damaged: {error}") from error


def _lines(data: bytes, name: str) -> Iterator[bytes]:
    most = limits.RECORDING_LINE_BYTES
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            while text := file.readline(most):
                if len(text) == most:
                    raise OurFault(f"{name} has a line of more than {most} bytes")
                yield text
    except (OSError, EOFError, zlib.error) as error:
        raise OurFault(f"{name} is no recording of a node, or damaged: {error}") from error
