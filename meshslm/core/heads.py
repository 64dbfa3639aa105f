"""Weights of the heads that say what a text is about.

Written by `python -m scripts.train_classifier`; see `core.semantics` for what they weigh.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from meshslm.core.semantics import Head

WORDS: Final = Head(
    weights=(24.88, 24.415),
    general=-4.09,
    nothing=(0.566, 2.932),
    unsure_below=0.3,
    model="",
    prefix="",
)

MEANING: Final[Mapping[str, Head]] = {
    "multilingual-e5-small": Head(
        weights=(15.167, 14.562, 17.059, 16.048),
        general=0.005,
        nothing=(3.965, -0.864),
        unsure_below=0.3,
        model="multilingual-e5-small",
        prefix="query: ",
    ),
    "all-minilm-l6-v2": Head(
        weights=(17.61, 5.208, 8.819, 5.336),
        general=-0.781,
        nothing=(0.72, 0.603),
        unsure_below=0.3,
        model="all-minilm-l6-v2",
        prefix="",
    ),
}
"""By embedding model."""
