"""What a model file is for, told from its header before it is loaded.

Rules:
- A model that reads a text at once, or says how it pools a text into one vector, embeds; with a
  head that ranks, it scores pairs of texts. It generates nothing.
- Every other model generates. llama.cpp would give a vector for it too, but one that it was never
  trained to give: measured as good as guessing, so it is not offered.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from meshslm.engine.gguf import GgufHeader

ENCODERS: Final = frozenset(
    {
        "bert",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
    }
)
"""Architectures that read a text at once and have no next token."""

TEXT: Final = ("tokenize", "detokenize")
"""What any model does."""
GENERATES: Final = ("generate", "template", *TEXT)
EMBEDS: Final = ("embed", "rerank", *TEXT)
RANKS: Final = ("rerank", *TEXT)


class Pooling(IntEnum):
    """How the vectors of a text's tokens become one, as llama.cpp numbers it."""

    NONE = 0
    MEAN = 1
    FIRST = 2
    LAST = 3
    RANK = 4
    """A head on top gives a score instead."""


def pooling_of(header: GgufHeader) -> Pooling:
    """How a model pools; `NONE` where it generates. Unknown numbers count as not said."""
    said = header.number(f"{header.architecture}.pooling_type")
    if said in (Pooling.MEAN, Pooling.FIRST, Pooling.LAST, Pooling.RANK):
        return Pooling(said)
    return Pooling.MEAN if header.architecture in ENCODERS else Pooling.NONE


def operations_of(header: GgufHeader) -> tuple[str, ...]:
    """Operations of `TaskRequest` that a model can do."""
    match pooling_of(header):
        case Pooling.NONE:
            return GENERATES
        case Pooling.RANK:
            return RANKS
        case _:
            return EMBEDS
