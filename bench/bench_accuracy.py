"""How often requests are recognised: the trained heads beside words and centroids alone.

The split `held_out` is measured, through the same code as in a node: bounded texts, vectors of the
engine's encoder, the packaged heads. Writes the second half of `docs/routing-accuracy.md`.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.labelled import Embedder, Labelled, cards, labelled
from bench.table import Row
from meshslm.core.classify import GENERAL, UNSURE_BELOW, classifier_for
from meshslm.core.heads import MEANING, WORDS
from meshslm.core.semantics import Head, Judge, Vector, texts_of

PAGE = Path(__file__).resolve().parent.parent / "docs" / "routing-accuracy.md"
MARK = "<!-- Below this line: written by `python -m bench routing-accuracy`. -->"
MODEL = "multilingual-e5-small"
KINDS = ("short", "long", "trap", "multilingual", "multi-turn")
OVERALL, LEAST = 0.90, 0.75
DECISION_MS = 25.0
BINS = 10
RUNS = 100

FEW = ((0,), (0, 3, 5))
"""Specialists that small meshes have: the next one of all, and how many places behind it others."""

Shares = tuple[float, float, float]
Answer = tuple[str, float]
"""A domain, `general` for all that is the generalist's, and how sure that is."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a way of judging made of all requests."""

    name: str
    requests: Sequence[Labelled]
    answers: Sequence[Answer]

    def right(self, of: Callable[[Labelled], bool] = lambda _: True) -> float:
        """Share of right answers among some of the requests."""
        found = [
            told == wanted(request)
            for request, (told, _) in zip(self.requests, self.answers, strict=True)
            if of(request)
        ]
        return sum(found) / len(found)

    def calibration_error(self) -> float:
        """Mean distance of sureness and rightness, over ten bins of sureness."""
        bins: dict[int, list[tuple[bool, float]]] = defaultdict(list)
        for request, (told, sure) in zip(self.requests, self.answers, strict=True):
            place = min(BINS - 1, int(sure * BINS))
            bins[place].append((told == wanted(request), sure))
        return sum(
            abs(sum(right for right, _ in group) - sum(sure for _, sure in group))
            for group in bins.values()
        ) / len(self.requests)


def wanted(request: Labelled) -> str:
    """The right answer: what no card is for is the generalist's."""
    return request.domain if request.domain in {card.domain for card in cards()} else GENERAL


def of_kind(kind: str) -> Callable[[Labelled], bool]:
    """Requests of one kind."""
    return lambda request: request.kind == kind


def of_domain(domain: str) -> Callable[[Labelled], bool]:
    """Requests of one domain."""
    return lambda request: request.domain == domain


def by_words() -> Callable[[Labelled], Answer]:
    """The cosine of words and their parts, as it was before there were heads."""
    classifier = classifier_for(cards())

    def answer(request: Labelled) -> Answer:
        best = classifier.classify(request.turns[-1])[0]
        return (best.domain if best.score >= UNSURE_BELOW else GENERAL, best.score)

    return answer


def by_centroids(vectors: Mapping[str, Vector]) -> Callable[[Labelled], Answer]:
    """The nearest mean of a domain's cards."""
    groups = texts_of(cards())
    names = list(groups)
    means = np.array([np.mean([vectors[t] for t in texts], axis=0) for texts in groups.values()])
    means /= np.linalg.norm(means, axis=1, keepdims=True)

    def answer(request: Labelled) -> Answer:
        cosines = means @ vectors[request.gist]
        best = int(cosines.argmax())
        return names[best], float(cosines[best])

    return answer


def by_head(judge: Judge, vectors: Mapping[str, Vector] | None) -> Callable[[Labelled], Answer]:
    """A trained head."""

    def answer(request: Labelled) -> Answer:
        vector = vectors[request.gist] if vectors else None
        found = judge.judge(request.gist if vectors else request.words, vector)
        specialists = sum(s.score for s in found.scores if s.domain != GENERAL)
        domain = found.domain or GENERAL
        if not found.scores:
            return GENERAL, 1.0 / len(judge.domains)
        if domain == GENERAL:
            return GENERAL, 1.0 - specialists
        return domain, found.scores[0].score

    return answer


def measure() -> list[Row]:
    """All ways of judging, on the held-out requests."""
    requests = labelled("held_out")
    known = cards()
    texts = [text for group in texts_of(known).values() for text in group]
    texts += [request.gist for request in requests]
    ways: list[tuple[str, Callable[[Labelled], Answer]]] = [("words, cosine", by_words())]
    ways.append(("words, head", by_head(Judge(known, WORDS), None)))
    times: list[float] = []
    small = {"words, head": few(requests, None, None)}
    for model, head in MEANING.items():
        embedder = Embedder(model, head.prefix)
        vectors = embedder.vectors(texts)
        judge = Judge(known, WORDS, head, vectors)
        ways.append((f"{model}, centroids", by_centroids(vectors)))
        ways.append((f"{model}, head", by_head(judge, vectors)))
        small[f"{model}, head"] = few(requests, head, vectors)
        if model == MODEL:
            times = decisions(judge, head.prefix, requests)
    outcomes = [Outcome(name, requests, list(map(way, requests))) for name, way in ways]
    chosen = next(o for o in outcomes if o.name == f"{MODEL}, head")
    write(outcomes, chosen, small)
    return rows(outcomes, chosen, times)


def decisions(judge: Judge, prefix: str, requests: Sequence[Labelled]) -> list[float]:
    """Milliseconds to embed and judge, of requests spread over all kinds."""
    embedder = Embedder(MODEL, prefix)
    found = []
    for request in requests[:: max(1, len(requests) // RUNS)]:
        begun = time.perf_counter()
        text = request.gist
        judge.judge(text, embedder.vector(text))
        found.append((time.perf_counter() - begun) * 1000.0)
    return found


def rows(outcomes: Sequence[Outcome], chosen: Outcome, times: Sequence[float]) -> list[Row]:
    """The figures that have something to reach, and what they are compared with."""
    against = ", ".join(f"{o.name} {o.right():.3f}" for o in outcomes if o is not chosen)
    all_right = chosen.right()
    found = [
        Row(
            f"requests recognised, of {len(chosen.requests)} held out",
            f"{all_right:.3f}",
            against,
            target=f"at least {OVERALL}",
            reached=all_right >= OVERALL,
        )
    ]
    for kind in KINDS:
        right = chosen.right(of_kind(kind))
        found.append(
            Row(
                f"of them {kind}",
                f"{right:.3f}",
                target=f"at least {LEAST}",
                reached=right >= LEAST,
            )
        )
    found.append(Row("calibration error", f"{chosen.calibration_error():.3f}"))
    p50, p95 = np.percentile(times, [50, 95])
    found.append(
        Row(
            "a decision with its embedding, p95",
            f"{p95:.1f} ms",
            f"p50 {p50:.1f} ms",
            target=f"under {DECISION_MS:g} ms",
            reached=bool(p95 < DECISION_MS),
        )
    )
    return found


def few(
    requests: Sequence[Labelled], head: Head | None, vectors: Mapping[str, Vector] | None
) -> list[Shares]:
    """The same requests in small meshes: a generalist and 1 or 3 of the specialists, each in turn.

    Means of the shares of all requests, of the specialists', and of the generalist's that are
    right. Most requests are the generalist's there.
    """
    by_domain = {card.domain: card for card in cards()}
    names = [name for name in by_domain if name != GENERAL]
    found = []
    for steps in FEW:
        shares = []
        for place in range(len(names)):
            chosen = {GENERAL, *(names[(place + step) % len(names)] for step in steps)}
            judge = Judge(tuple(by_domain[name] for name in chosen), WORDS, head, vectors)
            told = by_head(judge, vectors)
            right: dict[bool, list[bool]] = {True: [], False: []}
            for request in requests:
                special = request.domain in chosen - {GENERAL}
                want = request.domain if special else GENERAL
                right[special].append(told(request)[0] == want)
            both = right[True] + right[False]
            shares.append([float(np.mean(group)) for group in (both, right[True], right[False])])
        everything, specialists, generalist = np.mean(shares, axis=0)
        found.append((float(everything), float(specialists), float(generalist)))
    return found


def write(
    outcomes: Sequence[Outcome], chosen: Outcome, small: Mapping[str, Sequence[Shares]]
) -> None:
    """The measured half of the page."""
    head = PAGE.read_text(encoding="utf-8").partition(MARK)[0].rstrip()
    parts = [head, MARK, *compared(outcomes), *in_small_meshes(small)]
    parts += [*confusion(chosen), *reliability(chosen)]
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def compared(outcomes: Sequence[Outcome]) -> list[str]:
    """Accuracy by kind and by domain, a column for each way of judging."""
    requests = outcomes[0].requests
    kinds = Counter(request.kind for request in requests)
    domains = Counter(request.domain for request in requests)
    lines = [table_line(["", *(outcome.name for outcome in outcomes)])]
    lines.append("|---" * (len(outcomes) + 1) + "|")
    lines.append(table_line([f"all ({len(requests)})", *(f"{o.right():.3f}" for o in outcomes)]))
    for name, count in kinds.items():
        shares = [o.right(of_kind(name)) for o in outcomes]
        lines.append(table_line([f"{name} ({count})", *(f"{s:.3f}" for s in shares)]))
    for name, count in domains.items():
        shares = [o.right(of_domain(name)) for o in outcomes]
        lines.append(table_line([f"{name} ({count})", *(f"{s:.3f}" for s in shares)]))
    errors = [f"{o.calibration_error():.3f}" if o.name.endswith("head") else "" for o in outcomes]
    lines.append(table_line(["calibration error", *errors]))
    return ["## Accuracy", "\n".join(lines)]


def in_small_meshes(small: Mapping[str, Sequence[Shares]]) -> list[str]:
    """What `few` found, a row for each head and size."""
    lines = [table_line(["", "domains", "all", "specialists' requests", "generalist's"])]
    lines.append("|---" * 5 + "|")
    for name, sizes in small.items():
        for steps, shares in zip(FEW, sizes, strict=True):
            figures = (f"{share:.3f}" for share in shares)
            lines.append(table_line([name, str(len(steps) + 1), *figures]))
    about = "The same requests beside the generalist and few specialists, each in turn; means."
    return ["## Small meshes", about, "\n".join(lines)]


def confusion(chosen: Outcome) -> list[str]:
    """What was told for what; rows are what is right."""
    names = list(dict.fromkeys([*(card.domain for card in cards()), GENERAL]))
    told: Counter[tuple[str, str]] = Counter()
    for request, (answer, _) in zip(chosen.requests, chosen.answers, strict=True):
        told[request.domain, answer] += 1
    lines = [table_line(["", *names]), "|---" * (len(names) + 1) + "|"]
    lines += [
        table_line([domain, *(str(told[domain, name] or "") for name in names)])
        for domain in dict.fromkeys(request.domain for request in chosen.requests)
    ]
    about = "Rows: what is right. Columns: what the head for multilingual-e5-small told."
    return ["## Confusion", about, "\n".join(lines)]


def reliability(chosen: Outcome) -> list[str]:
    """How often each sureness was right."""
    bins: dict[int, list[bool]] = defaultdict(list)
    for request, (told, sure) in zip(chosen.requests, chosen.answers, strict=True):
        bins[min(BINS - 1, int(sure * BINS))].append(told == wanted(request))
    lines = [table_line(["sure", "requests", "right"]), "|---|---|---|"]
    for place in sorted(bins):
        group = bins[place]
        share = f"{sum(group) / len(group):.2f}"
        lines.append(
            table_line([f"{place / BINS:.1f} to {(place + 1) / BINS:.1f}", str(len(group)), share])
        )
    return ["## Calibration", "\n".join(lines)]


def table_line(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"
