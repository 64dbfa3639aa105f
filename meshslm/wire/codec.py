"""Messages to bytes and back.

A message is the msgpack array [kind, {field number: value}]; a part inside it is again a map by
field number. Field numbers that the reader does not know are skipped, so a later version may add
fields. Equal messages encode to equal bytes.

Rules:
- `decode` raises `PeerFault` and nothing else, whatever the bytes are, and the work and memory it
  spends are bounded by the length of the bytes: caps are given to the parser before it reads.
- `encode` raises ValueError for a message that no peer would accept: our bug.
- Both are synchronous and called from one thread.
"""

from __future__ import annotations

from typing import Any, Final, get_args

import msgpack

from meshslm import limits
from meshslm.errors import PeerFault
from meshslm.wire.compiler import Compiled, compile_classes
from meshslm.wire.messages import Message
from meshslm.wire.schema import HIGHEST_NUMBER, MOST_ITEMS

MOST_CONTAINERS: Final = 32 * 1024
"""Lists and maps in one message. The largest honest one is a chunk of 1024 tokens with 20 likely
ones each, 22 thousand; without a bound 2 MiB of empty lists would take 64 times their size."""

_BOUNDED_BY_LENGTH: Final = MOST_CONTAINERS
"""A message of no more bytes than this cannot hold too many containers, and is not counted."""


class UnknownKind(PeerFault):
    """A sound message of a kind that this version does not know; a later version may send one."""

    def __init__(self, kind: int) -> None:
        super().__init__(f"unknown message kind {kind}")
        self.kind = kind


def message_classes() -> tuple[type[Message], ...]:
    """Every message class, in ascending order of its kind."""
    return tuple(sorted(get_args(Message), key=lambda cls: int(cls.KIND)))


def encode(message: Message) -> bytes:
    """The bytes of `message`. ValueError where it breaks a bound of its class."""
    kind, to_fields = _ENCODERS[type(message)]
    data: bytes = _PACKER.pack((kind, to_fields(message)))
    if len(data) > limits.MESSAGE_BYTES:
        raise ValueError(
            f"{type(message).__name__} takes {len(data)} bytes, at most {limits.MESSAGE_BYTES}"
        )
    return data


def decode(data: bytes) -> Message:
    """The message in `data`, which must be one whole message and nothing more.

    `UnknownKind` for a sound message of a later version, otherwise `PeerFault`.
    """
    parsed = _parse(data)
    if type(parsed) is not tuple or len(parsed) != 2:
        raise PeerFault("a message must be a list of its kind and its fields")
    kind, fields = parsed
    if type(kind) is not int:
        raise PeerFault(f"the kind of a message must be a number, not {type(kind).__name__}")
    from_fields = _DECODERS.get(kind)
    if from_fields is None:
        raise UnknownKind(kind)
    message: Message = from_fields(fields)
    return message


def _parse(data: bytes) -> Any:
    if len(data) > limits.MESSAGE_BYTES:
        raise PeerFault(f"a message of {len(data)} bytes, at most {limits.MESSAGE_BYTES} allowed")
    hooks = _SMALL if len(data) <= _BOUNDED_BY_LENGTH else _Counting().hooks()
    try:
        return msgpack.unpackb(data, **_CAPS, **hooks)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise PeerFault(f"a message is not sound msgpack: {error}") from error


def _to_map(pairs: list[tuple[Any, Any]]) -> dict[int, Any]:
    """Fields by number. The parser alone would take the last of two equal keys, and True for 1."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise PeerFault("a message has a field twice")
    for number in fields:
        if type(number) is not int:
            raise PeerFault(f"a field number must be a number, not {type(number).__name__}")
    return fields


class _Counting:
    """Parser hooks that give up on a message made of too many lists and maps."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MOST_CONTAINERS

    def hooks(self) -> dict[str, Any]:
        return {"object_pairs_hook": self._map, "list_hook": self._list}

    def _map(self, pairs: list[tuple[Any, Any]]) -> dict[int, Any]:
        self._count()
        return _to_map(pairs)

    def _list(self, items: tuple[Any, ...]) -> tuple[Any, ...]:
        self._count()
        return items

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise PeerFault(f"a message has more than {MOST_CONTAINERS} lists and maps")


_CAPS: Final[dict[str, Any]] = {
    "strict_map_key": False,
    "use_list": False,
    "max_array_len": MOST_ITEMS,
    "max_map_len": HIGHEST_NUMBER,
    "max_str_len": limits.MESSAGE_BYTES,
    "max_bin_len": limits.MESSAGE_BYTES,
    "max_ext_len": 0,
}
_SMALL: Final[dict[str, Any]] = {"object_pairs_hook": _to_map}
_PACKER: Final = msgpack.Packer()

COMPILED: Final[dict[type, Compiled]] = compile_classes(*message_classes())
"""The functions of every message class and part."""

_ENCODERS: Final = {cls: (cls.KIND, COMPILED[cls].encode) for cls in message_classes()}
_DECODERS: Final = {cls.KIND: COMPILED[cls].decode for cls in message_classes()}
if len(_DECODERS) != len(_ENCODERS):
    raise TypeError("two message classes have the same KIND")
