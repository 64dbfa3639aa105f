"""Which domain a text is about, judged by its meaning and its words together.

A trained head weighs how near a text is to the cards of each domain: by the vectors of an embedding
model (a kernel ridge regression on the cards' texts, the mean of the nearest five, the centroid)
and by words. It has one weight for each kind of nearness and none for any one domain, so that it
holds for domains that were not known when it was trained. Without vectors a second head weighs
words alone.

Rules:
- Probabilities add up to one over all domains and `nothing`; below a threshold the answer is that
  it is not known, and the generalist takes the request.
- The last turn of the user decides; the one before it stands in front, shortened, so that "and in
  Python?" is understood.
- What is read of a request is bounded, whatever its length: head and tail.
- The same cards and vectors give the same judge, in whatever order they became known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import Final

import numpy as np
import numpy.typing as npt

from meshslm import limits
from meshslm.core.classify import GENERAL, UNSURE_BELOW, Classifier, Score, classifier_for, sample
from meshslm.core.common_words import COMMON
from meshslm.wire.messages import DomainCard, TaskRequest

Vector = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]

NEAREST: Final = 5
RIDGE: Final = 0.1
"""Penalty of the kernel regression (a Gaussian kernel of directions from the mean). Of fifths of
the cards' examples 91 % were told right with 0.05 to 0.5, and 90 % by a linear one."""
LANDMARKS: Final = 768
"""Texts that the regression goes by, spread over all domains: 4,096 texts are weighed in 0.2 s."""
EVEN: Final = 1e-9
"""Keeps the regression solvable where two texts are the same."""


@dataclass(frozen=True, slots=True)
class Head:
    """What training found; see `scripts/train_classifier.py`."""

    weights: tuple[float, ...]
    """Of each kind of nearness."""
    general: float
    """Added for the generalist's own card."""
    nothing: tuple[float, float]
    """Score of "none of them": a constant, and a weight of the greatest nearness of one kind."""
    unsure_below: float
    """Least probability with which a domain is recognised."""
    model: str = ""
    """Embedding model whose vectors it weighs; empty: words alone."""
    prefix: str = ""
    """Put before each text, as the model was trained with."""


def gist(request: TaskRequest, most: int = limits.GIST_CHARACTERS) -> str:
    """What decides the domain: the last turn of the user behind the one before, or the prompt."""
    turns = [turn.content for turn in request.messages if turn.role == "user"]
    return gist_of(turns, most) if turns else sample(request.prompt, most)


def gist_of(turns: Sequence[str], most: int = limits.GIST_CHARACTERS) -> str:
    """The same for the turns of a user; empty where there are none."""
    shown = [sample(turn, limits.GIST_BEFORE_CHARACTERS) for turn in turns[-2:-1]]
    return " ".join([*shown, *(sample(turn, most) for turn in turns[-1:])])


def texts_of(cards: Iterable[DomainCard]) -> dict[str, list[str]]:
    """The texts of each domain, bounded, each once; sentences first."""
    found: dict[str, dict[str, None]] = {}
    ordered = sorted(set(cards), key=lambda card: (card.domain, card.sentence, card.examples))
    for card in ordered:
        texts = found.setdefault(card.domain, {})
        for text in (card.sentence, *card.examples):
            if text.strip() and len(texts) < limits.TEXTS_PER_DOMAIN:
                texts[sample(text, limits.GIST_CHARACTERS)] = None
    return {domain: list(texts) for domain, texts in found.items()}


@dataclass(frozen=True, slots=True)
class Judgement:
    """Every domain with its probability, best first. What is none of them is the generalist's.

    Nothing at all where nothing can be said.
    """

    scores: tuple[Score, ...]
    unsure_below: float
    """A best probability below this says: I do not know."""

    @property
    def domain(self) -> str:
        """The domain that was recognised; empty for none."""
        if not self.scores or self.scores[0].score < self.unsure_below:
            return ""
        return self.scores[0].domain


class Judge:
    """All domains that are known, and what is near to them."""

    def __init__(
        self,
        cards: tuple[DomainCard, ...],
        words: Head,
        meaning: Head | None = None,
        vectors: Mapping[str, Vector] | None = None,
    ) -> None:
        """`vectors`: of the texts of cards, by text; a domain without any is judged by words."""
        self._words: Classifier = classifier_for(cards)
        self._telling: Classifier = classifier_for(cards, COMMON)
        """For words alone: without those that any domain's card may have by chance."""
        self.domains = self._words.domains
        self._head, self._meaning = words, meaning
        self._general = np.array([domain == GENERAL for domain in self.domains])
        self._space: _Space | None = None
        if meaning is not None and vectors:
            texts = texts_of(cards)
            groups = [
                [vectors[text] for text in texts.get(domain, ()) if text in vectors]
                for domain in self.domains
            ]
            if sum(bool(group) for group in groups) > 1:
                self._space = _Space(groups)

    def judge(self, text: str, vector: Vector | None = None) -> Judgement:
        """What a gist is about; `vector` is its own, and without one the gist may be longer."""
        head = self._meaning if vector is not None and self._meaning else self._head
        if not self.domains:
            return Judgement((), head.unsure_below)
        kinds = self.nearness(text, vector)
        if vector is None and float(kinds[1].max()) < UNSURE_BELOW:
            return Judgement((), head.unsure_below)  # no card has a word of it
        chances = probabilities(head, kinds, self._general)
        nothing = max(0.0, 1.0 - float(chances.sum()))
        if self._general.any():
            chances = chances + nothing * self._general
            nothing = 0.0
        scores = [Score(d, float(p)) for d, p in zip(self.domains, chances, strict=True)]
        scores.sort(key=lambda score: (-score.score, score.domain))
        return Judgement(tuple(scores), max(head.unsure_below, nothing))

    def nearness(self, text: str, vector: Vector | None) -> Matrix:
        """A row for each kind of nearness, a column for each domain: what a head weighs."""
        words_of = self._telling if vector is None else self._words
        found = {score.domain: score.score for score in words_of.classify(text)}
        words = np.array([found[domain] for domain in self.domains])
        if vector is None:
            return np.stack([words - words.mean(), words])
        if self._space is None:
            zero = np.zeros(len(words))
            return np.stack([words - words.mean(), zero, zero, zero])
        return np.vstack([words - words.mean(), self._space.nearness(vector)])


class _Space:
    """The vectors of the cards' texts, by domain."""

    def __init__(self, groups: Sequence[Sequence[Vector]]) -> None:
        self._known = np.array([bool(group) for group in groups])
        full = [np.array(group, dtype=np.float64) for group in groups if group]
        rows = np.concatenate(full)
        sizes = [len(group) for group in full]
        self._starts = np.cumsum([0, *sizes[:-1]])
        self._sizes = sizes
        self._rows = rows
        centroids = np.array([group.mean(axis=0) for group in full])
        self._centroids = centroids / np.linalg.norm(centroids, axis=1, keepdims=True)
        # Each domain weighs the same, however many examples it has.
        weights = np.concatenate([np.full(size, len(rows) / len(full) / size) for size in sizes])
        labels = np.repeat(np.eye(len(full)), sizes, axis=0) - 1.0 / len(full)
        self._mean = rows.mean(axis=0)
        directions = self._direction(rows)
        places = np.linspace(0, len(rows) - 1, min(len(rows), LANDMARKS)).astype(int)
        self._landmarks = directions[places]
        kernel = np.exp(directions @ self._landmarks.T - 1.0)
        normal = kernel.T @ (weights[:, None] * kernel) + RIDGE * kernel[places]
        normal += EVEN * np.eye(len(places))
        self._slopes = np.linalg.solve(normal, kernel.T @ (weights[:, None] * labels))

    def _direction(self, rows: Matrix) -> Matrix:
        """From the mean of all texts, of length one."""
        centred = rows - self._mean
        lengths = np.linalg.norm(centred, axis=-1, keepdims=True)
        return np.asarray(centred / np.maximum(lengths, 1e-12))

    def nearness(self, vector: Vector) -> Matrix:
        near = np.exp(self._landmarks @ self._direction(np.asarray(vector, np.float64)) - 1.0)
        ridge = near @ self._slopes
        cosines = self._rows @ vector
        nearest = np.array(
            [
                np.sort(cosines[start : start + size])[-NEAREST:].mean()
                for start, size in zip(self._starts, self._sizes, strict=True)
            ]
        )
        central = self._centroids @ vector
        found = np.zeros((3, len(self._known)))
        found[:, self._known] = np.stack(
            [ridge, nearest - nearest.mean(), central - central.mean()]
        )
        return found


def probabilities(head: Head, kinds: Matrix, general: npt.NDArray[np.bool_]) -> Matrix:
    """Of each domain; what is missing to one is that it is none of them."""
    logits = np.asarray(head.weights) @ kinds + head.general * general
    constant, slope = head.nothing
    nothing = constant + slope * float(kinds[1].max())
    top = max(float(logits.max()), nothing)
    shares = np.exp(logits - top)
    return np.asarray(shares / (shares.sum() + exp(nothing - top)))
