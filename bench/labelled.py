"""The labelled requests by which the recognition of domains is trained and measured.

Written by hand for this purpose. The three files do not overlap: `train` and the cards' own
examples train the head, `dev` chooses its settings, `held_out` is measured.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.engines import library
from meshslm import data, limits
from meshslm.core.semantics import Vector, gist_of
from meshslm.engine.kinds import Pooling
from meshslm.engine.llama_encoder import Encoder
from meshslm.wire.messages import DomainCard

FOLDER = Path(__file__).resolve().parent / "data"
NOBODY = "unknown"
"""Label of requests for which no card is there: the generalist's, like those labelled `general`."""
PACKAGED = ("code", "writing", "general")
ROWS = 512


@dataclass(frozen=True, slots=True)
class Labelled:
    """A request, and where it belongs."""

    domain: str
    kind: str
    """`short`, `long`, `trap` (words of another domain), `multilingual` or `multi-turn`."""
    turns: tuple[str, ...]
    """Of user and assistant by turns, the user's first and last."""

    @property
    def gist(self) -> str:
        """What a node reads."""
        return gist_of(self.turns[::2])

    @property
    def words(self) -> str:
        """What a node looks at for words alone."""
        return gist_of(self.turns[::2], limits.WORDS_CHARACTERS)


def labelled(split: str) -> list[Labelled]:
    """The requests of a split: `train`, `dev` or `held_out`."""
    lines = (FOLDER / f"requests_{split}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = map(json.loads, lines)
    return [Labelled(row["domain"], row["kind"], tuple(row["turns"])) for row in rows]


def cards() -> tuple[DomainCard, ...]:
    """The packaged profiles' cards, and those of the other domains."""
    packaged = data.profile_texts()
    texts = [packaged[name] for name in PACKAGED]
    texts.append((FOLDER / "cards.toml").read_text(encoding="utf-8"))
    found = [card for text in texts for card in tomllib.loads(text)["domains"]]
    return tuple(
        DomainCard(card["domain"], card["sentence"], tuple(card["examples"])) for card in found
    )


class Embedder:
    """A model of the store, in this process, as a worker loads it."""

    def __init__(self, model: str, prefix: str, threads: int = 2) -> None:
        path = library().ensure(model, lambda _: None).path
        self._prefix = prefix
        self._encoder = Encoder(
            path,
            rows=ROWS,
            texts=1,
            pooling=Pooling.MEAN,
            threads=threads,
            on_progress=lambda _: None,
        )
        self._known: dict[str, Vector] = {}

    def vector(self, text: str) -> Vector:
        """Of length one."""
        if text not in self._known:
            vocabulary = self._encoder.vocabulary
            tokens = vocabulary.tokens(self._prefix + text, special=False, begins=True)
            raw = self._encoder.encode([tokens[: ROWS - 2]])[0]
            self._known[text] = raw / np.linalg.norm(raw)
        return self._known[text]

    def vectors(self, texts: Iterable[str]) -> dict[str, Vector]:
        """Of many, by text."""
        return {text: self.vector(text) for text in texts}
