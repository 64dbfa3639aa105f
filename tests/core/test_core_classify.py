"""The lexical classifier and the router's estimates."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshslm.chance import Chance
from meshslm.core.classify import Classifier, distinct, features, sample
from meshslm.core.route import Candidate, Refusal, Verdict, choose, cost_ms
from meshslm.ids import NodeId
from meshslm.wire.messages import ChatMessage, DomainCard, EngineLoad, TaskRequest
from tests.core.mesh import specialist

CARDS = (
    DomainCard("code", "programming", ("write a python function", "fix this compiler error")),
    DomainCard("cooking", "food", ("a recipe for soup", "how long do I boil an egg")),
)


def test_an_example_is_of_its_own_domain() -> None:
    classifier = Classifier(CARDS)
    for card in CARDS:
        for example in card.examples:
            assert classifier.classify(example)[0].domain == card.domain


def test_parts_of_words_count_too() -> None:
    assert Classifier(CARDS).classify("recipes")[0].domain == "cooking"


def test_what_no_card_mentions_scores_nothing() -> None:
    assert all(score.score == 0 for score in Classifier(CARDS).classify("12 + 30"))


@given(st.permutations(CARDS), st.text(max_size=200))
def test_the_order_of_cards_changes_nothing(cards: list[DomainCard], text: str) -> None:
    assert Classifier(cards).classify(text) == Classifier(CARDS).classify(text)
    assert distinct([*cards, *cards]) == distinct(CARDS)


@given(st.text(max_size=500))
def test_scores_are_cosines(text: str) -> None:
    for score in Classifier(CARDS).classify(text):
        assert 0.0 <= score.score <= 1.0 + 1e-9
    assert features(text) == features(text)


@given(st.text(max_size=100), st.integers(2, 20))
def test_a_sample_keeps_head_and_tail(text: str, most: int) -> None:
    shown = sample(text, most)
    assert len(shown) <= max(len(text), most + 1)
    assert text.startswith(shown[: most // 2])
    assert text.endswith(shown[len(shown) - min(most // 2, len(text)) :])


def candidate(
    node: str,
    *,
    rtt: float = 1.0,
    ready: bool = True,
    free: int = 2,
    queued: int = 0,
    prefill_tps: float = 0.0,
    decode_tps: float = 0.0,
) -> Candidate:
    load = EngineLoad(
        "tiny",
        ready,
        queued=queued,
        free_slots=free,
        prefill_tps=prefill_tps,
        decode_tps=decode_tps,
    )
    return Candidate(NodeId(node), node, specialist("coder", "code"), load, rtt)


REQUEST = TaskRequest("coder", (ChatMessage("user", "x" * 400),), max_tokens=50)


def pick(candidates: list[Candidate], tried: list[NodeId] | None = None) -> Verdict | Refusal:
    return choose(REQUEST, candidates, tried or [], Classifier(CARDS), Chance.from_int(1))


def test_the_cost_counts_distance_queue_speed_and_readiness() -> None:
    base = cost_ms(candidate("a"), REQUEST)
    for worse in (
        candidate("a", rtt=100.0),
        candidate("a", free=0, queued=4),
        candidate("a", ready=False),
        candidate("a", prefill_tps=10.0),
        candidate("a", decode_tps=5.0),
    ):
        assert cost_ms(worse, REQUEST) > base
    expected = 400 / 4 / 200 * 1000 + 50 / 50 * 1000 + 1.0
    assert base == expected


def test_the_cheapest_untried_wins_and_the_reason_is_ascii() -> None:
    near, far = candidate("near"), candidate("far", rtt=300.0)
    first = pick([far, near])
    assert isinstance(first, Verdict)
    assert first.candidate is near
    assert first.reason.isascii()
    second = pick([far, near], [NodeId("near")])
    assert isinstance(second, Verdict)
    assert second.candidate is far
    none = pick([far, near], [NodeId("near"), NodeId("far")])
    assert isinstance(none, Refusal)
    assert none.exhausted


def test_equals_share_the_work() -> None:
    chance = Chance.from_int(3)
    equals = [candidate("a"), candidate("b")]
    chosen = set()
    for _ in range(32):
        verdict = choose(REQUEST, equals, [], Classifier(CARDS), chance)
        assert isinstance(verdict, Verdict)
        chosen.add(verdict.candidate.node)
    assert chosen == {"a", "b"}
