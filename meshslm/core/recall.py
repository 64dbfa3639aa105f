"""Which entries of memory belong into a prompt, by their words and by their meaning. Pure.

Words are compared by BM25, meanings by the cosine of embeddings, and the two orders are joined by
reciprocal ranks: neither kind of score has to be made comparable with the other.

Sources: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009);
Cormack, Clarke and Buettcher, Reciprocal Rank Fusion (SIGIR 2009), whose constant 60 is taken over.

Rules:
- What does not fit the query at all, by words or meaning, is left out, whatever room there is.
- Equal scores keep the order in which entries were given.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log, sqrt
from operator import mul

from meshslm.core.memory import Found

WORD = re.compile(r"[^\W_]+")
SATURATION = 1.2
LENGTH = 0.75
"""BM25's usual constants."""
FAR_BELOW = 1 / 3
"""Of the best score: what is under it shares words like "the" and "is" (a guess)."""
RANKS = 60
RELATED = 0.25
"""Cosine below which texts have nothing to do with each other: measured on the packaged embedding
model, sentences of unrelated subjects stay under 0.2."""
BYTES_PER_TOKEN = 3.0
"""Fewer than texts have: a budget is rather kept than used up."""

INTRODUCTION = (
    "These are notes from shared memory that may help. Use what fits the question, and name the "
    "key in brackets of each note that you used."
)


@dataclass(frozen=True, slots=True)
class Note:
    """An entry as text."""

    found: Found
    text: str


def words(text: str) -> list[str]:
    """The words of a text, alike for comparing."""
    return WORD.findall(text.casefold())


def by_words(query: str, notes: Sequence[Note]) -> list[int]:
    """Places of the notes that share words with the query, best first."""
    wanted = dict.fromkeys(words(query))
    counts = [Counter(words(f"{note.found.key} {note.text}")) for note in notes]
    lengths = [counted.total() for counted in counts]
    mean = sum(lengths) / max(1, len(lengths)) or 1.0
    rarity = {word: _rarity(sum(word in c for c in counts), len(counts)) for word in wanted}
    scores = [
        sum(
            rarity[word]
            * counted[word]
            * (SATURATION + 1)
            / (counted[word] + SATURATION * (1 - LENGTH + LENGTH * length / mean))
            for word in wanted
            if word in counted
        )
        for counted, length in zip(counts, lengths, strict=True)
    ]
    return _best(scores, above=FAR_BELOW * max(scores, default=0.0))


def _rarity(having: int, of: int) -> float:
    return log(1 + (of - having + 0.5) / (having + 0.5))


def by_meaning(query: Sequence[float], vectors: Sequence[Sequence[float] | None]) -> list[int]:
    """Places of the vectors that are near the query's, nearest first; None is nowhere."""
    return _best(
        [-1.0 if vector is None else cosine(query, vector) for vector in vectors], above=RELATED
    )


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Cosine of the angle between vectors; 0 where one of them is no direction."""
    if len(one) != len(other):
        return 0.0
    size = sqrt(sum(map(mul, one, one)) * sum(map(mul, other, other)))
    return sum(map(mul, one, other)) / size if size else 0.0


def joined(orders: Iterable[Sequence[int]]) -> list[int]:
    """Several orders as one."""
    scores: dict[int, float] = {}
    for order in orders:
        for rank, place in enumerate(order):
            scores[place] = scores.get(place, 0.0) + 1.0 / (RANKS + rank + 1)
    return sorted(scores, key=lambda place: (-scores[place], place))


def fitting(notes: Sequence[Note], order: Sequence[int], budget_tokens: int) -> list[Note]:
    """The best notes that together fit a budget; one that is too long is passed over."""
    left = budget_tokens - tokens_of(INTRODUCTION)
    chosen: list[Note] = []
    for place in order:
        note = notes[place]
        cost = tokens_of(_line(note))
        if cost <= left:
            left -= cost
            chosen.append(note)
    return chosen


def told(notes: Sequence[Note]) -> str:
    """What is put into the prompt."""
    return "\n".join([INTRODUCTION, *map(_line, notes)])


def tokens_of(text: str) -> int:
    """Tokens of a text, about, and rather too many."""
    return int(len(text.encode()) / BYTES_PER_TOKEN) + 1


def _line(note: Note) -> str:
    return f"[{note.found.key}] {' '.join(note.text.split())}"


def _best(scores: Sequence[float], *, above: float) -> list[int]:
    places = (place for place, score in enumerate(scores) if score > above)
    return sorted(places, key=lambda place: (-scores[place], place))
