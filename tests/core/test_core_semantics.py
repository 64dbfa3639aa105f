"""The judge of domains, and what a hostile card may not do to it."""

from __future__ import annotations

import time
import tomllib
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm import data, limits
from meshslm.core.classify import GENERAL
from meshslm.core.heads import MEANING, WORDS
from meshslm.core.reading import is_name
from meshslm.core.semantics import Judge, Vector, gist, gist_of, texts_of
from meshslm.errors import PeerFault
from meshslm.wire.codec import decode, encode
from meshslm.wire.messages import Capability, ChatMessage, DomainCard, Hardware, TaskRequest
from tests.core.mesh import specialist

HEAD = MEANING["multilingual-e5-small"]
CARDS = (
    DomainCard("code", "programming", ("write a python function", "fix this compiler error")),
    DomainCard("cooking", "food", ("a recipe for soup", "how long do I boil an egg")),
    DomainCard(GENERAL, "anything else", ("hello there", "who was the first king")),
)
TOPICS = {"code": 0, "cooking": 1, GENERAL: 2}


def vector(text: str, topic: int, near: float = 0.5) -> Vector:
    """A made-up meaning: part topic, part the text's own."""
    seed = int.from_bytes(blake2b(text.encode(errors="replace"), digest_size=8).digest())
    own = np.random.default_rng(seed).normal(size=64)
    own /= np.linalg.norm(own)
    made = np.sqrt(1 - near**2) * own
    made[topic] += near
    result: Vector = (made / np.linalg.norm(made)).astype(np.float32)
    return result


def meanings(cards: tuple[DomainCard, ...] = CARDS) -> dict[str, Vector]:
    return {
        text: vector(text, TOPICS.get(domain, 3))
        for domain, texts in texts_of(cards).items()
        for text in texts
    }


def test_meaning_decides_where_words_cannot() -> None:
    judge = Judge(CARDS, WORDS, HEAD, meanings())
    text = "\u8bf7\u95ee\u8fd9\u4e2a\u600e\u4e48\u505a"
    for domain, topic in TOPICS.items():
        assert judge.judge(text, vector(text, topic, 0.8)).domain == domain
    assert Judge(CARDS, WORDS).judge(text).domain in ("", GENERAL)


def test_what_is_near_to_nothing_is_not_recognised_as_a_specialist() -> None:
    judge = Judge(CARDS, WORDS, HEAD, meanings())
    for number in range(20):
        text = f"nothing of the kind {number}"
        assert judge.judge(text, vector(text, 9, 0.9)).domain in ("", GENERAL)


@pytest.mark.parametrize(
    "text", ["Write a short poem on rain", "How do I tie a bow tie?", "What is this about?"]
)
def test_words_that_every_card_may_have_do_not_choose_between_two_domains(text: str) -> None:
    cards = tuple(
        DomainCard(card["domain"], card["sentence"], tuple(card["examples"]))
        for name in ("general", "code")
        for card in tomllib.loads(data.profile_texts()[name])["domains"]
    )
    judge = Judge(cards, WORDS)
    assert judge.judge(text).domain in ("", GENERAL)
    assert judge.judge("Fix the loop in my Python function").domain == "code"


def test_without_a_generalist_it_says_that_it_does_not_know() -> None:
    judge = Judge(CARDS[:2], WORDS, HEAD, meanings(CARDS[:2]))
    unknown = judge.judge("q", vector("q", 9, 0.95))
    assert unknown.domain == ""
    assert sum(score.score for score in unknown.scores) < 1.0


@given(st.permutations(CARDS), st.text(max_size=100), st.booleans())
def test_probabilities_add_up_whatever_the_order_of_cards(
    cards: list[DomainCard], text: str, meaning: bool
) -> None:
    vectors = meanings() if meaning else None
    one = vector(text, 0) if meaning else None
    found = Judge(tuple(cards), WORDS, HEAD, vectors).judge(text, one)
    again = Judge(CARDS, WORDS, HEAD, vectors).judge(text, one)
    assert [s.domain for s in found.scores] == [s.domain for s in again.scores]
    assert np.allclose([s.score for s in found.scores], [s.score for s in again.scores])
    assert sum(score.score for score in found.scores) in (0, pytest.approx(1.0))
    assert bool(found.scores) or not meaning
    assert all(0.0 <= score.score <= 1.0 for score in found.scores)


def test_a_domain_whose_card_was_not_read_yet_is_judged_by_words() -> None:
    new = DomainCard("gardening", "plants", ("prune the apple tree", "sow carrots"))
    judge = Judge((*CARDS, new), WORDS, HEAD, meanings())
    words = {s.domain: s.score for s in judge.judge("prune it", vector("prune it", 9)).scores}
    others = {s.domain: s.score for s in judge.judge("boil it", vector("prune it", 9)).scores}
    assert words["gardening"] > others["gardening"]


def asked(*contents: str) -> TaskRequest:
    turns = []
    for number, content in enumerate(contents):
        turns.append(ChatMessage("assistant" if number % 2 else "user", content))
    return TaskRequest("auto", tuple(turns))


def test_the_last_turn_decides_behind_the_one_before() -> None:
    assert gist(asked("first", "answer", "write a parser", "done", "and in Go?")) == (
        "write a parser and in Go?"
    )
    assert gist(TaskRequest("auto", prompt="complete me")) == "complete me"
    assert gist(TaskRequest("auto", (ChatMessage("system", "be kind"),))) == ""


@given(st.lists(st.text(max_size=5_000), max_size=4))
def test_what_is_read_is_bounded(turns: list[str]) -> None:
    most = limits.GIST_CHARACTERS + limits.GIST_BEFORE_CHARACTERS + 3
    assert len(gist_of(turns)) <= most


def test_a_huge_text_costs_no_more_than_a_long_one() -> None:
    judge = Judge(CARDS, WORDS)
    huge = "python " * 1_000_000
    request = asked(huge)
    begun = time.perf_counter()
    assert judge.judge(gist(request)).scores[0].domain == "code"
    assert time.perf_counter() - begun < 0.5


# --- hostile cards ------------------------------------------------------------------------------
def test_a_card_with_a_million_examples_never_gets_in() -> None:
    card = DomainCard("code", "s", tuple(map(str, range(1_000_000))))
    hostile = specialist("p", "code")
    with pytest.raises(ValueError, match="examples"):
        encode(Capability(1, 1, (type(hostile)("p", "m", "d", "q", 1, 1, (card,)),), Hardware()))
    within = DomainCard("code", "s", tuple(map(str, range(limits.EXAMPLES_PER_CARD))))
    raw = encode(
        Capability(1, 1, (type(hostile)("p", "m", "d", "q", 1, 1, (within,)),), Hardware())
    )
    # The same list, said to be longer: 16-bit and 32-bit lengths of a packed array.
    longer = raw.replace(b"\xdc\x00\x40", b"\xdd\x00\x0f\x42\x40")
    assert longer != raw
    with pytest.raises(PeerFault):
        decode(longer)


def test_many_cards_of_one_domain_are_read_up_to_a_bound() -> None:
    cards = tuple(
        DomainCard("code", f"sentence {n}", tuple(f"example {n} {i}" for i in range(64)))
        for n in range(40)
    )
    assert len(texts_of(cards)["code"]) == limits.TEXTS_PER_DOMAIN


def test_a_domain_in_another_script_is_a_domain_like_others() -> None:
    cards = (
        *CARDS,
        DomainCard(
            "\u043a\u0443\u043b\u0438\u043d\u0430\u0440\u0438\u044f",
            "\u0435\u0434\u0430",
            ("\u0431\u043e\u0440\u0449", "\u0441\u0443\u043f"),
        ),
    )
    assert is_name(cards[-1].domain)
    assert (
        Judge(cards, WORDS).judge("\u0431\u043e\u0440\u0449").scores[0].domain == cards[-1].domain
    )


def test_a_name_that_looks_like_another_takes_nothing_from_it() -> None:
    twin = DomainCard("c\u043ede", "sport", ("who won the match", "rules of tennis"))
    judge = Judge((*CARDS, twin), WORDS)
    assert judge.judge("write a python function").domain == "code"


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a\r\nX-Evil: 1", "a\x00", "\u202eedoc", "co\u200bde", "a@b", "a:b", "a/b", "a,b"],
)
def test_a_name_that_no_selector_could_have_is_no_name(name: str) -> None:
    assert not is_name(name)
