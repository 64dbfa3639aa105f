"""The tokenizer of one model file, for another: copied as it is written, and lengthened.

Tokens that are added stand for text of their own, so that a model which generates them says
something, but no text is ever cut into them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meshslm.engine.gguf import GgufHeader, read_encoded, read_header
from meshslm.errors import OurFault
from meshslm.models.gguf_writer import Encoded, encoded

TOKENS: Final = 1_000_000
"""More than any published vocabulary: the largest have 262,144."""
_ARRAY_HEAD: Final = struct.Struct("<IIQ")
_INT32, _FLOAT32, _STRING, _ARRAY = 5, 6, 8, 9
_NORMAL: Final = 1
"""Type of a token that stands for text."""
_RARE: Final = -1e6
"""Score of a token that is never chosen for a text."""


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """What goes into the metadata of a file that is to use it."""

    size: int
    """Tokens."""
    metadata: Mapping[str, Encoded]


def borrow(path: Path, size: int, *, encoder: bool) -> Tokenizer:
    """The tokenizer of the model file `path`, with `size` tokens; 0: as many as it has.

    `encoder`: it is for a model that reads whole texts. Raises `OurFault` where it does not fit.
    """
    header = read_header(path)
    have = header.vocabulary
    reads_whole = header.text("tokenizer.ggml.model") == "bert"
    if not have or reads_whole != encoder:
        wanted = "an embedding model" if encoder else "a language model"
        raise OurFault(f"{path.name} has no tokenizer of {wanted}: name a file of one")
    if size and not have <= size <= TOKENS:
        raise OurFault(
            f"the tokenizer of {path.name} has {have} tokens, which can be lengthened to at most "
            f"{TOKENS}, not brought to {size}"
        )
    copied = read_encoded(path, "tokenizer.")
    added = max(0, size - have)
    lengthened = {key: Encoded(_lengthened(raw, have, added)) for key, raw in copied.items()}
    return Tokenizer(have + added, {**lengthened, **_licence(header)})


def _licence(header: GgufHeader) -> Mapping[str, Encoded]:
    """The tokenizer is somebody's work: whose, stays with it."""
    licence = header.text("general.license")
    return {"general.license": Encoded(encoded(licence))} if licence else {}


def _lengthened(raw: bytes, have: int, added: int) -> bytes:
    """A metadata value, with more elements where it is an array that has one for each token."""
    if len(raw) < _ARRAY_HEAD.size or not added:
        return raw
    kind, element, count = _ARRAY_HEAD.unpack_from(raw)
    if kind != _ARRAY or count != have:
        return raw
    more = {
        _STRING: lambda: encoded([f"<added-{n}>" for n in range(added)])[_ARRAY_HEAD.size :],
        _INT32: lambda: struct.pack("<i", _NORMAL) * added,
        _FLOAT32: lambda: struct.pack("<f", _RARE) * added,
    }.get(element)
    if more is None:
        return raw
    return _ARRAY_HEAD.pack(kind, element, count + added) + raw[_ARRAY_HEAD.size :] + more()
