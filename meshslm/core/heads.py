"""Weights of the heads that say what a text is about.

Written by `python -m scripts.train_classifier`; see `core.semantics` for what they weigh.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from meshslm.core.semantics import Head

WORDS: Final = Head(
    weights=(21.711, 20.087),
    general=-1.911,
    nothing=(-0.31, 14.947),
    unsure_below=0.3,
    model="",
    prefix="",
)

MEANING: Final[Mapping[str, Head]] = {
    "multilingual-e5-small": Head(
        weights=(17.954, 21.286, 22.766, 20.148),
        general=0.864,
        nothing=(4.265, -6.443),
        unsure_below=0.3,
        model="multilingual-e5-small",
        prefix="query: ",
    ),
    "all-minilm-l6-v2": Head(
        weights=(18.097, 7.417, 10.176, 2.378),
        general=-0.477,
        nothing=(0.418, 1.392),
        unsure_below=0.3,
        model="all-minilm-l6-v2",
        prefix="",
    ),
}
"""By embedding model."""
