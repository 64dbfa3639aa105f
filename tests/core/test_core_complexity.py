"""How hard requests seem, with reasons."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm.core.complexity import complexity_of
from meshslm.core.route_facts import Tier, tier_of
from meshslm.wire.messages import ChatMessage, Constraint, TaskRequest, Tool

EASY = (
    "hi",
    "What is the capital of France?",
    "Translate good morning into Spanish.",
    "How long do I boil an egg?",
    "\u4f60\u597d",
    "Wie alt ist der Eiffelturm?",
)
HARDER = (
    "Prove that there are infinitely many primes and explain why this fails for twin primes.",
    "Analysiere die Vor- und Nachteile von REST und gRPC und erkl\u00e4re, was wir nehmen sollten.",
    "Explique paso a paso c\u00f3mo se calcula la amortizaci\u00f3n, y por qu\u00e9 cambia.",
    "\u8bf7\u8bc1\u660e\u6839\u53f7\u4e8c\u662f\u65e0\u7406\u6570\uff0c\u5e76\u89e3\u91ca\u4e3a\u4ec0\u4e48\u3002",
)
HARD = (
    (
        "Design a distributed rate limiter. Compare token bucket and sliding window, analyse the "
        "trade-offs under clock skew, derive the memory bound, and optimise it:\n"
        "1. What fails first?\n2. How would you test the algorithm?\n3. What does it cost?\n"
        "4. How does it recover?\n5. How do we migrate step by step? Be thorough."
    ),
)


def asked(text: str) -> TaskRequest:
    return TaskRequest("auto", (ChatMessage("user", text),))


@pytest.mark.parametrize(
    ("texts", "tier"), [(EASY, Tier.EDGE), (HARDER, Tier.HYBRID), (HARD, Tier.CLOUD)]
)
def test_the_tiers(texts: tuple[str, ...], tier: Tier) -> None:
    for text in texts:
        found = complexity_of(asked(text))
        assert tier_of(found.value) is tier, (text, found)


def test_thresholds_can_be_set() -> None:
    value = complexity_of(asked(HARDER[0])).value
    assert tier_of(value, (0.9, 0.95)) is Tier.EDGE
    assert tier_of(value, (0.1, 0.2)) is Tier.CLOUD


def test_what_form_the_answer_has_counts() -> None:
    plain = complexity_of(asked("Which is better?")).value
    turns = (ChatMessage("user", "Which is better?"),)
    for harder in (
        TaskRequest("auto", turns, tools=(Tool("look_up"),)),
        TaskRequest("auto", turns, constraint=Constraint("json_object")),
        TaskRequest("auto", turns, reasoning_effort="high"),
        TaskRequest("auto", turns, max_tokens=4000),
        TaskRequest("auto", turns * 12),
    ):
        found = complexity_of(harder)
        assert found.value > plain
        assert found.reasons[0][1] == max(weight for _, weight in found.reasons)


@given(st.text(max_size=3000), st.integers(1, 40))
def test_the_estimate_is_the_sum_of_its_reasons(text: str, turns: int) -> None:
    found = complexity_of(TaskRequest("auto", (ChatMessage("user", text),) * turns))
    assert 0.0 <= found.value <= 1.0
    assert found.value == pytest.approx(min(1.0, sum(weight for _, weight in found.reasons)))
    assert all(why for why, _ in found.reasons)


def test_a_huge_text_costs_no_more_than_a_long_one() -> None:
    for text in ("why? " * 400_000, "{\n" * 1_000_000, "1. a\n" * 400_000, " " * 2_000_000):
        begun = time.perf_counter()
        complexity_of(asked(text))
        assert time.perf_counter() - begun < 0.2


def test_most_short_requests_of_the_benchmark_are_simple() -> None:
    path = Path(__file__).resolve().parents[2] / "bench" / "data" / "requests_dev.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    values = {
        kind: [complexity_of(asked(row["turns"][-1])).value for row in rows if row["kind"] == kind]
        for kind in ("short", "long")
    }
    assert all(value < 0.3 for value in values["short"])
    assert sum(values["long"]) / len(values["long"]) > 4 * sum(values["short"]) / len(
        values["short"]
    )
