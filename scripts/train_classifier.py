"""Train the heads that recognise domains, and write them to `meshslm/core/heads.py`.

    python -m scripts.train_classifier [--words]

A head weighs kinds of nearness, alike for all domains. Its training requests are the cards' own
examples, each fifth judged by cards without it, and the split `train`. For each fifth every domain
is also left out in turn: its examples are then of no known domain, which is how the head learns to
say so. Adam on the cross entropy, no random numbers; then all weights are scaled by one factor, so
that on the split `dev` probabilities are as often right as they say.

With `--words` only the head for words is trained anew. The embedding models are fetched where they
are not there. Takes about two minutes on two cores.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from bench.labelled import NOBODY, Embedder, cards, labelled
from meshslm.core import heads
from meshslm.core.classify import GENERAL
from meshslm.core.semantics import (
    Head,
    Judge,
    Matrix,
    Vector,
    gist_of,
    probabilities,
    texts_of,
)
from meshslm.wire.messages import DomainCard

TARGET = Path(__file__).resolve().parent.parent / "meshslm" / "core" / "heads.py"
MODELS: Final = {"multilingual-e5-small": "query: ", "all-minilm-l6-v2": ""}
"""Models for which a head is trained, and what they want before each text."""
FOLDS: Final = 5
STEPS: Final = 400
RATE: Final = 0.3
PULL: Final = 1e-5
"""Of all weights towards zero."""
NOBODY_WEIGHS: Final = 0.25
"""Requests of no domain are almost half of those made here, and some tenth of real ones."""
UNSURE_BELOW: Final = 0.3
"""On the split `dev` no more was right below this than above it of what the generalist took."""
EMPTY: Final = Head((), 0.0, (0.0, 0.0), 0.0)


@dataclass(frozen=True, slots=True)
class Seen:
    """One request beside one set of cards."""

    kinds: Matrix
    label: int
    """Place of its domain; -1 for the generalist's."""
    general: int
    """Place of the generalist's card."""


def seen(judge: Judge, text: str, vector: Vector | None, domain: str) -> Seen:
    """A request as a head sees it."""
    places = {name: place for place, name in enumerate(judge.domains)}
    label = -1 if domain == GENERAL else places.get(domain, -1)
    return Seen(judge.nearness(text, vector), label, places[GENERAL])


def training(known: tuple[DomainCard, ...], vectors: Mapping[str, Vector] | None) -> list[Seen]:
    """All training requests, each beside the cards of its fold."""
    made: list[Seen] = []
    extra = [(row.gist if vectors else row.words, row.domain) for row in labelled("train")]
    for fold in range(FOLDS):
        left = tuple(
            replace(
                card, examples=tuple(e for i, e in enumerate(card.examples) if i % FOLDS != fold)
            )
            for card in known
        )
        out = [(gist_of([e]), card.domain) for card in known for e in card.examples[fold::FOLDS]]
        made += beside(left, out + extra[fold::FOLDS], vectors)
        for place, card in enumerate(known):
            if card.domain != GENERAL:
                rest = tuple(other for other in left if other.domain != card.domain)
                strangers = [(text, NOBODY) for text, domain in out if domain == card.domain][::3]
                others = [pair for pair in out if pair[1] != card.domain][place::11]
                made += beside(rest, strangers + others, vectors)
    return made


def beside(
    known: tuple[DomainCard, ...],
    requests: Sequence[tuple[str, str]],
    vectors: Mapping[str, Vector] | None,
) -> list[Seen]:
    """Requests beside some cards."""
    judge = Judge(known, EMPTY, EMPTY if vectors else None, vectors)
    return [seen(judge, t, vectors[t] if vectors else None, domain) for t, domain in requests]


def fit(requests: Sequence[Seen]) -> Head:
    """The weights with the least cross entropy."""
    groups: dict[int, list[Seen]] = defaultdict(list)
    for request in requests:
        groups[request.kinds.shape[1]].append(request)
    batches = [Batch(group) for group in groups.values()]
    count = sum(batch.weights.sum() for batch in batches)
    kinds = requests[0].kinds.shape[0]
    at = np.concatenate([np.ones(kinds), np.zeros(3)])
    mean, square = np.zeros_like(at), np.zeros_like(at)
    for step in range(1, STEPS + 1):
        slope = sum(batch.slope(at) for batch in batches) / count + PULL * at
        mean = 0.9 * mean + 0.1 * slope
        square = 0.999 * square + 0.001 * slope * slope
        size = RATE * (1.0 if step < STEPS / 2 else 0.2)
        corrected = np.sqrt(square / (1 - 0.999**step)) + 1e-8
        at = at - size * mean / (1 - 0.9**step) / corrected
    numbers = [float(number) for number in at]
    return Head(tuple(numbers[:kinds]), numbers[kinds], (numbers[-2], numbers[-1]), UNSURE_BELOW)


class Batch:
    """Requests beside equally many domains."""

    def __init__(self, group: Sequence[Seen]) -> None:
        self.kinds = np.array([request.kinds for request in group])
        self.labels = np.array([request.label for request in group])
        self.general = np.array([request.general for request in group])
        self.weights = np.where(self.labels < 0, NOBODY_WEIGHS, 1.0)
        self.greatest = self.kinds[:, 1].max(axis=1)
        self.rows = np.arange(len(group))

    def slope(self, at: Matrix) -> Matrix:
        """Of the cross entropy; the generalist's card and "nothing" are right together."""
        rows, kinds = self.rows, self.kinds.shape[1]
        logits = np.einsum("k,bkd->bd", at[:kinds], self.kinds)
        logits[rows, self.general] += at[kinds]
        nothing = at[kinds + 1] + at[kinds + 2] * self.greatest
        logits = np.concatenate([logits, nothing[:, None]], axis=1)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        wanted = np.zeros_like(shares)
        known = self.labels >= 0
        wanted[rows[known], self.labels[known]] = 1.0
        card, none = shares[rows, self.general], shares[:, -1]
        wanted[rows[~known], self.general[~known]] = (card / (card + none))[~known]
        wanted[~known, -1] = (none / (card + none))[~known]
        error = (shares - wanted) * self.weights[:, None]
        return np.concatenate(
            [
                np.einsum("bd,bkd->k", error[:, :-1], self.kinds),
                [error[rows, self.general].sum()],
                [error[:, -1].sum()],
                [(error[:, -1] * self.greatest).sum()],
            ]
        )


def scaled(head: Head, factor: float) -> Head:
    """The same order of domains, with other probabilities."""
    weights = tuple(round(weight * factor, 3) for weight in head.weights)
    constant, slope = head.nothing
    nothing = (round(constant * factor, 3), round(slope * factor, 3))
    return replace(head, weights=weights, general=round(head.general * factor, 3), nothing=nothing)


def calibrated(head: Head, requests: Sequence[Seen]) -> Head:
    """Scaled so that what is right is likeliest."""

    def surprise(candidate: Head) -> float:
        total = 0.0
        for request in requests:
            general = np.arange(request.kinds.shape[1]) == request.general
            chances = probabilities(candidate, request.kinds, general)
            specialists = float(chances[~general].sum())
            right = chances[request.label] if request.label >= 0 else 1.0 - specialists
            total -= float(np.log(max(right, 1e-9)))
        return total

    return min((scaled(head, 0.4 + 0.02 * step) for step in range(50)), key=surprise)


def trained(model: str, prefix: str) -> Head:
    """The head for a model; for words alone where it has no name."""
    known = cards()
    dev = labelled("dev")
    vectors: dict[str, Vector] | None = None
    if model:
        texts = [text for group in texts_of(known).values() for text in group]
        texts += [row.gist for row in (*labelled("train"), *dev)]
        vectors = Embedder(model, prefix).vectors(texts)
    head = fit(training(known, vectors))
    asked = [(row.gist if vectors else row.words, row.domain) for row in dev]
    requests = beside(known, asked, vectors)
    return replace(calibrated(head, requests), model=model, prefix=prefix)


def module(words: Head, meaning: Sequence[Head]) -> str:
    """The source of `meshslm/core/heads.py`."""
    entries = "".join(f'    "{head.model}": {shown(head)},\n' for head in meaning)
    return (
        '"""Weights of the heads that say what a text is about.\n\n'
        "Written by `python -m scripts.train_classifier`; see `core.semantics` for what they weigh."
        '\n"""\n\n'
        "from __future__ import annotations\n\n"
        "from collections.abc import Mapping\nfrom typing import Final\n\n"
        "from meshslm.core.semantics import Head\n\n"
        f"WORDS: Final = {shown(words)}\n\n"
        f"MEANING: Final[Mapping[str, Head]] = {{\n{entries}}}\n"
        '"""By embedding model."""\n'
    )


def shown(head: Head) -> str:
    """A head as source."""
    return (
        f"Head(weights={head.weights}, general={head.general}, nothing={head.nothing}, "
        f'unsure_below={head.unsure_below}, model="{head.model}", prefix="{head.prefix}")'
    )


def main() -> None:
    """Train all heads and write them."""
    words = trained("", "")
    if sys.argv[1:] == ["--words"]:
        meaning = list(heads.MEANING.values())
    else:
        meaning = [trained(model, prefix) for model, prefix in MODELS.items()]
    TARGET.write_text(module(words, meaning), encoding="utf-8")
    print(f"wrote {TARGET}; lay it out with ruff format")


if __name__ == "__main__":
    main()
