"""Reads and checks the header of a GGUF file, before llama.cpp sees it.

llama.cpp is native code that aborts, or worse, on some files that are cut short or forged, so every
count, length and offset is checked here first. It also tells what a file is without loading it.

Rules:
- Nothing is trusted: each number is bounded before it is used, and memory stays below
  `HEADER_BYTES` plus what `Header` keeps.
- Whatever is wrong is an `OurFault` that names the file, the place and the numbers.
- Large arrays (vocabulary, merges) are walked, not kept.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from meshslm.engine.gguf_types import FILE_TYPES, TENSOR_TYPES
from meshslm.errors import OurFault

HEADER_BYTES: Final = 256 * 1024 * 1024
"""Largest header: a vocabulary of 262,144 tokens with merges takes about 10 MB."""
KEYS: Final = 4096
"""Metadata entries; models have 20 to 60."""
TENSORS: Final = 65_536
"""Tensors; the largest models that are published have some thousands."""
KEY_BYTES: Final = 256
STRING_BYTES: Final = 1024 * 1024
"""One metadata text that is kept; chat templates reach 30 KB."""
TOKEN_BYTES: Final = 64 * 1024
"""One element of an array of texts."""
ARRAY_ITEMS: Final = 16 * 1024 * 1024
KEPT_ITEMS: Final = 64
"""Arrays up to this length are kept whole; of longer ones only type and length."""
NAME_BYTES: Final = 63
"""llama.cpp keeps tensor names in 64 bytes."""
DIMENSIONS: Final = 4
TENSOR_BYTES: Final = 2**50

_CHUNK: Final = 1024 * 1024
_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)

_SCALARS: Final[Mapping[int, struct.Struct]] = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_STRING: Final = 8
_ARRAY: Final = 9


@dataclass(frozen=True, slots=True)
class LongArray:
    """An array that was checked but not kept."""

    element_type: int
    count: int


Scalar = int | float | bool | str
Value = Scalar | tuple[Scalar, ...] | LongArray


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: `offset` is its place in the file, `nbytes` its size there."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a GGUF file says about itself, checked against its size."""

    version: int
    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    file_size: int

    def text(self, key: str) -> str:
        """A metadata text; empty where there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> int:
        """A metadata whole number; 0 where there is none."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else 0

    @property
    def architecture(self) -> str:
        """The model family, such as `llama`."""
        return self.text("general.architecture")

    @property
    def name(self) -> str:
        """The model's own name for itself."""
        return self.text("general.name")

    @property
    def context_length(self) -> int:
        """Longest context the model was trained for, in tokens; 0 where it does not say."""
        return self.number(f"{self.architecture}.context_length")

    @property
    def vocabulary(self) -> int:
        """Tokens in its vocabulary."""
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, LongArray):
            return tokens.count
        return len(tokens) if isinstance(tokens, tuple) else 0

    @property
    def parameters(self) -> int:
        """Weights in all its tensors."""
        return sum(_product(tensor.shape) for tensor in self.tensors)

    @property
    def quantisation(self) -> str:
        """Name of its quantisation: what it declares, or else the type of most of its bytes."""
        if "general.file_type" in self.metadata:
            declared = FILE_TYPES.get(self.number("general.file_type"))
            if declared is not None:
                return declared
        sizes: dict[str, int] = {}
        for tensor in self.tensors:
            sizes[tensor.type] = sizes.get(tensor.type, 0) + tensor.nbytes
        return max(sizes, key=lambda name: sizes[name]) if sizes else "unknown"

    @property
    def chat_template(self) -> str:
        """Its Jinja chat template; empty where it has none."""
        return self.text("tokenizer.chat_template")


def read_header(path: str | Path) -> GgufHeader:
    """Read and check the header of the GGUF file at `path`; see `read_parts`."""
    return read_parts(path)[0]


def read_encoded(path: str | Path, prefix: str) -> Mapping[str, bytes]:
    """Metadata whose keys begin with `prefix`, in the written form, for copying it."""
    return read_parts(path, prefix)[1]


def read_parts(
    path: str | Path, prefix: str | None = None
) -> tuple[GgufHeader, Mapping[str, bytes]]:
    """The header, and metadata whose keys begin with `prefix` as it is written, type first.

    Raises `OurFault` where the file cannot be read, is no GGUF, is cut short, or is inconsistent.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            reader = _Reader(file, size, path.name)
            header = reader.header()
            return header, {} if prefix is None else reader.encoded(prefix)
    except OSError as error:
        raise OurFault(f"cannot read the model file {path}: {error.strerror or error}") from error


_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
_Item = TypeVar("_Item")


class _Reader:
    """Walks a header once, reading the file in chunks as it goes."""

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        self._file = file
        self._size = size
        self._name = name
        self._buffer = bytearray()
        self._at = 0
        self._places: dict[str, tuple[int, int]] = {}
        """Where each metadata value is in the buffer."""

    def fault(self, what: str) -> OurFault:
        return OurFault(f"{self._name} is not a usable GGUF file: {what}")

    def header(self) -> GgufHeader:
        version = self._version()
        tensor_count = self._count(TENSORS, "tensors")
        key_count = self._count(KEYS, "metadata entries")
        metadata: dict[str, Value] = {}
        for _ in range(key_count):
            key = self._text(KEY_BYTES, "a metadata key")
            if key in metadata:
                raise self.fault(f"metadata key {key!r} appears twice")
            begin = self._at
            metadata[key] = self._value(key)
            self._places[key] = (begin, self._at)
        alignment = metadata.get("general.alignment", 32)
        if (
            not isinstance(alignment, int)
            or not 8 <= alignment <= 65_536
            or (alignment & (alignment - 1))
        ):
            raise self.fault(f"general.alignment {alignment!r} is no power of two from 8 to 65536")
        tensors = self._tensors(tensor_count, alignment)
        return GgufHeader(version, metadata, tensors, self._size)

    def encoded(self, prefix: str) -> Mapping[str, bytes]:
        """Metadata whose keys begin with `prefix`, as it is written."""
        places = {key: place for key, place in self._places.items() if key.startswith(prefix)}
        return {key: bytes(self._buffer[begin:end]) for key, (begin, end) in places.items()}

    def _version(self) -> int:
        if self._size < 24:
            raise self.fault(f"it has {self._size} bytes, a header alone has 24")
        magic = self._bytes(4, "magic")
        if magic != _MAGIC:
            raise self.fault(f"it begins with {magic!r} instead of {_MAGIC!r}")
        version = self._u32("version")
        if version not in _VERSIONS:
            if int.from_bytes(version.to_bytes(4, "little"), "big") in _VERSIONS:
                raise self.fault("it is big-endian")
            raise self.fault(f"version {version}, only 2 and 3 are known")
        return version

    def _value(self, key: str) -> Value:
        kind = self._u32(f"type of {key!r}")
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind], key)
        if kind == _STRING:
            return self._text(STRING_BYTES, f"metadata {key!r}")
        if kind == _ARRAY:
            return self._array(key)
        raise self.fault(f"metadata {key!r} has unknown type {kind}")

    def _scalar(self, form: struct.Struct, what: str) -> Scalar:
        self._need(form.size, what)
        value: Scalar = form.unpack_from(self._buffer, self._at)[0]
        self._at += form.size
        return value

    def _array(self, key: str) -> Value:
        kind = self._u32(f"element type of {key!r}")
        count = self._count(ARRAY_ITEMS, f"elements of {key!r}")
        if kind == _STRING:
            if count <= KEPT_ITEMS:
                return self._items(count, lambda: self._text(TOKEN_BYTES, f"an element of {key!r}"))
            self._skip_texts(count, key)
            return LongArray(kind, count)
        if kind not in _SCALARS:
            raise self.fault(f"array {key!r} has elements of unknown type {kind}")
        form = _SCALARS[kind]
        if count <= KEPT_ITEMS:
            return self._items(count, lambda: self._scalar(form, key))
        self._need(form.size * count, f"array {key!r}")
        self._at += form.size * count
        return LongArray(kind, count)

    def _items(self, count: int, read: Callable[[], _Item]) -> tuple[_Item, ...]:
        return tuple(read() for _ in range(count))

    def _skip_texts(self, count: int, key: str) -> None:
        """Walk over `count` texts; the loop that a large vocabulary spends its time in."""
        unpack = _U64.unpack_from
        buffer = self._buffer
        at = self._at
        for _ in range(count):
            if at + 8 > len(buffer):
                self._at = at
                self._need(8, f"array {key!r}")
            (length,) = unpack(buffer, at)
            if length > TOKEN_BYTES:
                raise self.fault(f"an element of {key!r} has {length} bytes, at most {TOKEN_BYTES}")
            at += 8 + length
        self._at = at
        self._need(0, f"array {key!r}")

    def _tensors(self, count: int, alignment: int) -> tuple[Tensor, ...]:
        entries = [self._tensor_entry() for _ in range(count)]
        if len({name for name, *_ in entries}) != count:
            raise self.fault("two tensors have the same name")
        start = _padded(self._at, alignment)
        expected = 0
        tensors = []
        for name, shape, kind, offset in entries:
            if offset != expected:
                raise self.fault(f"tensor {name!r} is at offset {offset}, expected {expected}")
            type_name, nbytes = self._tensor_size(name, shape, kind)
            expected += _padded(nbytes, alignment)
            if start + offset + nbytes > self._size:
                raise self.fault(
                    f"it is cut short: tensor {name!r} ends at byte {start + offset + nbytes}, "
                    f"the file has {self._size}"
                )
            tensors.append(Tensor(name, shape, type_name, start + offset, nbytes))
        return tuple(tensors)

    def _tensor_entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._text(NAME_BYTES, "a tensor's name")
        dimensions = self._u32(f"dimensions of tensor {name!r}")
        if not 1 <= dimensions <= DIMENSIONS:
            raise self.fault(
                f"tensor {name!r} has {dimensions} dimensions, 1 to {DIMENSIONS} are known"
            )
        shape = tuple(self._u64(f"shape of tensor {name!r}") for _ in range(dimensions))
        kind = self._u32(f"type of tensor {name!r}")
        return name, shape, kind, self._u64(f"offset of tensor {name!r}")

    def _tensor_size(self, name: str, shape: tuple[int, ...], kind: int) -> tuple[str, int]:
        if kind not in TENSOR_TYPES:
            raise self.fault(f"tensor {name!r} has unknown type {kind}")
        type_name, block, block_bytes = TENSOR_TYPES[kind]
        if min(shape) < 1 or max(shape) > TENSOR_BYTES or _product(shape) > TENSOR_BYTES:
            raise self.fault(f"tensor {name!r} has the impossible shape {shape}")
        if shape[0] % block:
            raise self.fault(f"tensor {name!r} has rows of {shape[0]}, no multiple of {block}")
        return type_name, _product(shape) // block * block_bytes

    def _count(self, most: int, what: str) -> int:
        count = self._u64(f"number of {what}")
        if count > most:
            raise self.fault(f"{count} {what}, at most {most}")
        return count

    def _text(self, most: int, what: str) -> str:
        length = self._u64(f"length of {what}")
        if length > most:
            raise self.fault(f"{what} has {length} bytes, at most {most}")
        raw = self._bytes(length, what)
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self.fault(f"{what} is not UTF-8 (byte {error.start})") from None

    def _u32(self, what: str) -> int:
        self._need(4, what)
        (value,) = _U32.unpack_from(self._buffer, self._at)
        self._at += 4
        return int(value)

    def _u64(self, what: str) -> int:
        self._need(8, what)
        (value,) = _U64.unpack_from(self._buffer, self._at)
        self._at += 8
        return int(value)

    def _bytes(self, count: int, what: str) -> bytes:
        self._need(count, what)
        self._at += count
        return bytes(self._buffer[self._at - count : self._at])

    def _need(self, count: int, what: str) -> None:
        """Have `count` bytes from here in the buffer."""
        end = self._at + count
        if end <= len(self._buffer):
            return
        if end > self._size:
            raise self.fault(
                f"it is cut short: {what} ends at byte {end}, the file has {self._size}"
            )
        if end > HEADER_BYTES:
            raise self.fault(f"its header exceeds {HEADER_BYTES} bytes (in {what})")
        while len(self._buffer) < end:
            more = self._file.read(max(_CHUNK, end - len(self._buffer)))
            if not more:
                raise self.fault(f"it became shorter while it was read (in {what})")
            self._buffer += more


def _padded(value: int, alignment: int) -> int:
    return (value + alignment - 1) // alignment * alignment


def _product(shape: tuple[int, ...]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result
