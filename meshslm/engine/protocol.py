"""What daemon and worker say to each other over their socket pair.

A frame is four bytes of length (big-endian) and a msgpack array of commands, or of reports: all
that one step produced goes in one frame, and one write.

Rules:
- Both ends are of the same build and start together: there are no versions.
- A frame has a bound all the same, so that a broken worker cannot take the daemon's memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from meshslm.errors import FaultCode, OurFault
from meshslm.limits import MIB
from meshslm.wire.messages import Chunk, TaskRequest, Timings, Usage

FRAME_BYTES: Final = 16 * MIB
"""The largest request has 2 MiB; a step's reports have some kilobytes."""

_LENGTH_BYTES: Final = 4


# --- commands: daemon to worker -------------------------------------------------------------------
class Load(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """First command: load the model at `path`."""

    path: str
    context: int
    slots: int
    batch: int
    threads: int | None
    readable: tuple[str, ...] = ()
    """Files and folders that it may read beside the model."""
    writable: tuple[str, ...] = ()
    """Folders in which it may also write."""
    sandbox: str = "auto"
    """`off`, `auto` (as far as the system can) or `required`."""
    private_mib: int = 0
    """Memory that is not a mapped file, at most; 0: without bound."""
    gpu_layers: int | None = None
    """Layers to put on a GPU; None: as many as fit. Without a GPU none are."""
    states: str = ""
    """Folder for computed beginnings of prompts, which is writable; empty: none are kept."""
    states_mib: int = 0
    """Size of that folder, at most."""
    guesses: bool = True
    """Guess tokens, while that pays."""
    draft: str = ""
    """File of a model that guesses what this one will say; empty: there is none."""


class Start(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Begin a run."""

    run: int
    request: TaskRequest
    adapter: str = ""
    """File of the LoRA adapter that the request names; empty where there is none of that name."""
    coalesce: bool = False
    """Tokens may wait `limits.COALESCE_MS` for those that follow, but for the first."""


class Stop(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Stop a run; nothing more is reported of it."""

    run: int


class Forget(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """An adapter's file was removed; its memory is free once no run uses it."""

    adapter: str


class Shutdown(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Leave at once, or after keeping states for so many seconds at most."""

    keep_s: float = 0.0


Command = Load | Start | Stop | Forget | Shutdown


# --- reports: worker to daemon --------------------------------------------------------------------
class Loading(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """How much of the model is loaded, 0 to 1."""

    fraction: float


class Ready(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The model is loaded; runs may come."""

    slots: int
    context: int
    vocabulary: int
    parameters: int
    quantisation: str
    description: str
    threads: int
    sandbox: tuple[str, ...] = ()
    """What confines it."""
    unconfined: tuple[str, ...] = ()
    """What does not, and why."""
    gpu_layers: int = 0
    """Layers that are on a GPU."""
    draft: bool = False
    """A draft model guesses for it."""
    undrafted: str = ""
    """Why the one that was named does not; empty where it does, or where none was."""


class Unusable(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The model cannot be loaded, and trying again would not help. The worker leaves."""

    detail: str


class Produced(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """New tokens of a run."""

    run: int
    chunk: Chunk


class Ended(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """All choices of a run finished."""

    run: int
    usage: Usage
    timings: Timings


class Failed(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A run broke off, or never began."""

    run: int
    code: FaultCode
    detail: str
    param: str = ""
    """Field of the request that is at fault, if one is."""


class Measured(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Speeds, in tokens a second, and what is warm."""

    prefill_tps: float
    decode_tps: float
    warm: tuple[int, ...] = ()
    """Runs whose prompts are still in slots, the last used first."""


class Beat(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A step was computed that had nothing else to report."""


Report = Loading | Ready | Unusable | Produced | Ended | Failed | Measured | Beat

_encoder = msgspec.msgpack.Encoder()
_commands = msgspec.msgpack.Decoder(list[Command])
_reports = msgspec.msgpack.Decoder(list[Report])


def encode(items: Sequence[Command] | Sequence[Report]) -> bytes:
    """One frame."""
    body = _encoder.encode(items)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def decode_commands(body: bytes) -> list[Command]:
    """The commands of a frame's body. Raises `OurFault`."""
    try:
        return _commands.decode(body)
    except msgspec.MsgspecError as error:
        raise OurFault(f"the daemon sent what the worker does not understand: {error}") from error


def decode_reports(body: bytes) -> list[Report]:
    """The reports of a frame's body. Raises `OurFault`."""
    try:
        return _reports.decode(body)
    except msgspec.MsgspecError as error:
        raise OurFault(f"the worker sent what the daemon does not understand: {error}") from error


class FrameReader:
    """Cuts a byte stream into frames' bodies."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add what was read; the bodies that are now whole. Raises `OurFault`."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH_BYTES:
            length = int.from_bytes(self._buffer[:_LENGTH_BYTES], "big")
            if length > FRAME_BYTES:
                raise OurFault(f"a frame of {length} bytes on the engine's pipe")
            end = _LENGTH_BYTES + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH_BYTES:end])
            del self._buffer[:end]
            yield body
