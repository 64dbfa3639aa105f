"""Whether what a model file says of itself is something that llama.cpp can take.

The format may be right and the numbers still impossible. llama.cpp refuses most of those itself;
the ones below end its process or have it compute nonsense, each found by forging the entry in a
small model.

Rules:
- What llama.cpp refuses by itself is left to it: it knows its architectures better.
- Everything refused is an `OurFault` that names the entry and its value.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from meshslm.engine.gguf import GgufHeader, read_parts
from meshslm.errors import OurFault

LAYERS: Final = 512
"""llama.cpp's own bound, which it asserts."""
EXPERTS: Final = 512
"""Likewise."""
_TEMPLATE_BYTES: Final = 256 * 1024
"""Chat templates reach 30 KB."""
_TOKENS: Final = "tokenizer.ggml.tokens"
_BERT_DEFAULTS: Final = 103
"""llama.cpp takes tokens up to this number for granted in a vocabulary of this kind."""


def read_model(path: Path) -> GgufHeader:
    """The header of the model file at `path`, checked as far as this program can.

    Raises `OurFault`. It looks at the vocabulary too, which takes as long as the rest: together
    28 ms for 50,000 tokens.
    """
    header, encoded = read_parts(path, _TOKENS)
    fault = next(_faults(header), "") or next(_token_faults(header, encoded), "")
    if fault:
        raise OurFault(f"{path.name} is not a usable model: {fault}")
    return header


def _faults(header: GgufHeader) -> Iterator[str]:
    """What is wrong with its numbers."""
    name = header.architecture
    for key, value in header.metadata.items():
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{key} is {value}"
        if key.endswith("_epsilon") and not (isinstance(value, float) and 0 <= value < 1):
            yield f"{key} is {value}, not between 0 and 1"
    layers = header.number(f"{name}.block_count")
    if f"{name}.block_count" in header.metadata and not 1 <= layers <= LAYERS:
        yield f"{name}.block_count is {layers}, not 1 to {LAYERS}"
    experts = header.number(f"{name}.expert_count")
    if not 0 <= experts <= EXPERTS:
        yield f"{name}.expert_count is {experts}, not 0 to {EXPERTS}"
    if experts and not 1 <= header.number(f"{name}.expert_used_count") <= experts:
        yield f"{name}.expert_used_count is not between 1 and {experts}"
    yield from _rope_faults(header)
    template = len(header.chat_template.encode())
    if template > _TEMPLATE_BYTES:
        yield f"its chat template has {template} bytes, at most {_TEMPLATE_BYTES}"


def _rope_faults(header: GgufHeader) -> Iterator[str]:
    """Rotated numbers come in pairs, and a head has no more of them than it is wide."""
    name = header.architecture
    if f"{name}.rope.dimension_count" not in header.metadata:
        return
    rotated = header.number(f"{name}.rope.dimension_count")
    heads = header.number(f"{name}.attention.head_count")
    wide = header.number(f"{name}.attention.key_length")
    if not wide and heads > 0:
        wide = header.number(f"{name}.embedding_length") // heads
    if rotated < 2 or rotated % 2 or (wide and rotated > wide):
        yield f"{name}.rope.dimension_count is {rotated}, with heads {wide} wide"
    base = header.metadata.get(f"{name}.rope.freq_base", 1.0)
    if not isinstance(base, float) or base <= 0:
        yield f"{name}.rope.freq_base is {base}"


def _token_faults(header: GgufHeader, encoded: Mapping[str, bytes]) -> Iterator[str]:
    """What is wrong with its vocabulary."""
    kind = header.text("tokenizer.ggml.model")
    if kind == "bert" and header.vocabulary <= _BERT_DEFAULTS:
        for role in ("bos", "seperator", "unknown"):
            number = header.metadata.get(f"tokenizer.ggml.{role}_token_id")
            if not isinstance(number, int) or not 0 <= number < header.vocabulary:
                yield f"its vocabulary has no {role} token"
    if _TOKENS not in header.metadata:
        return
    tokens = _texts(encoded[_TOKENS])
    named = [token for token in tokens if token]
    known = set(named)
    if len(known) != len(named):
        yield f"{len(named) - len(known)} of its tokens have the text of another"
    if kind == "llama":
        missing = [b for b in range(256) if not {b"<0x%02X>" % b, bytes([b])} & known]
        if missing:
            yield f"its vocabulary has no token for the byte {missing[0]}"


def _texts(encoded: bytes) -> list[bytes]:
    """The elements of a list of texts; none where it is one of something else."""
    kind, element, count = struct.unpack_from("<IIQ", encoded)
    if (kind, element) != (9, 8):
        return []
    unpack = struct.Struct("<Q").unpack_from
    texts = []
    at = 24
    for _ in range(count):
        end = at + unpack(encoded, at - 8)[0]
        texts.append(encoded[at:end])
        at = end + 8
    return texts
