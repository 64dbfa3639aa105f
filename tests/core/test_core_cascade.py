"""Which answers of small models are given, and who is asked where they are not."""

from __future__ import annotations

from dataclasses import replace
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm.core.candidates import Assessment, Candidate, Terms
from meshslm.core.cascade import Check, Written, confidence, fit_for_it, judge, ladder, openness
from meshslm.ids import NodeId
from meshslm.wire.messages import (
    ChatMessage,
    Constraint,
    DomainCard,
    Specialist,
    TaskRequest,
    TokenLogprob,
    TopLogprob,
)

REQUEST = TaskRequest("auto", messages=(ChatMessage("user", "Is it so?"),))
OBJECT = replace(REQUEST, constraint=Constraint("json_object"))
logprobs = st.floats(-50.0, 0.0)


def token(logprob: float, top: tuple[float, ...] = ()) -> TokenLogprob:
    return TokenLogprob("x", b"x", logprob, tuple(TopLogprob("x", b"x", one) for one in top))


SURE = (token(-0.01, (-0.01, -6.0)),) * 4
tokens = st.lists(
    st.builds(token, logprobs, st.lists(logprobs, max_size=5).map(tuple)), min_size=1, max_size=30
)


@given(tokens)
def test_confidence_is_a_share(answer: list[TokenLogprob]) -> None:
    assert 0.0 <= confidence(answer) <= 1.0


@given(tokens, st.data())
def test_a_likelier_token_never_makes_an_answer_less_trusted(
    answer: list[TokenLogprob], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(answer) - 1))
    likelier = data.draw(st.floats(answer[at].logprob, 0.0))
    better = [*answer[:at], replace(answer[at], logprob=likelier), *answer[at + 1 :]]
    assert confidence(better) >= confidence(answer) - 1e-12


@given(st.lists(st.floats(0.001, 1.0), min_size=2, max_size=5), st.floats(0.0, 1.0))
def test_openness_grows_towards_even_chances(shares: list[float], step: float) -> None:
    whole = sum(shares)
    some = [share / whole for share in shares]
    even = [share + step * (1 / len(some) - share) for share in some]

    def open_(parts: list[float]) -> float:
        return openness([TopLogprob("x", b"x", log(part)) for part in parts])

    assert open_(even) >= open_(some) - 1e-9


def test_where_it_was_open_it_is_trusted_less() -> None:
    open_ = token(-0.01, (log(0.5), log(0.49)))
    assert confidence([*SURE, open_]) < confidence([*SURE, token(-0.01, (-0.01, -6.0))])


@pytest.mark.parametrize(
    ("answer", "request_", "why_not"),
    [
        (Written("Yes.", "stop", SURE), REQUEST, ""),
        (Written("Yes.", "stop", (token(-3.0),)), REQUEST, "unsure"),
        (Written("Yes.", "stop"), REQUEST, "unsure"),
        (Written("Yes.", "", SURE), REQUEST, "not whole"),
        (Written(" \n", "stop", SURE), REQUEST, "empty"),
        (Written("Yes, and", "length", SURE), REQUEST, "cut off"),
        (Written("Yes, and", "length", SURE), replace(REQUEST, max_tokens=4), ""),
        (
            Written('{"a":', "length", SURE),
            replace(REQUEST, max_tokens=4, constraint=Constraint("json_object")),
            "cut off",
        ),
        (
            Written("Yes.", "stop", SURE),
            replace(REQUEST, constraint=Constraint("json_schema", "{}")),
            "form",
        ),
        (
            Written("[1]", "stop", SURE),
            OBJECT,
            "form",
        ),
        (Written("{}", "stop", SURE), OBJECT, ""),
        (
            Written("[" * 100_000, "stop", SURE),
            replace(REQUEST, constraint=Constraint("json_schema", "{}")),
            "form",
        ),
        (Written("", "tool_calls", SURE, ('{"a": 1}', "")), REQUEST, ""),
        (Written("", "tool_calls", SURE, ("{",)), REQUEST, "arguments"),
    ],
)
def test_what_is_broken_is_not_given(answer: Written, request_: TaskRequest, why_not: str) -> None:
    said = judge(answer, request_, Check()).why_not
    assert why_not in said
    assert bool(said) == bool(why_not)


def test_a_profile_says_what_is_good_enough() -> None:
    answer = Written("Yes.", "stop", SURE)
    assert "shorter" in judge(answer, REQUEST, Check(min_characters=10)).why_not
    assert "looks for" in judge(answer, REQUEST, Check(pattern="^No")).why_not
    assert not judge(answer, REQUEST, Check(pattern="^Yes", min_characters=4)).why_not
    assert judge(answer, REQUEST, Check(confident=1.0)).why_not
    assert not judge(Written("Yes.", "stop"), REQUEST, Check(confident=0.0)).why_not


# --- whom to ask --------------------------------------------------------------------------------
def seen(
    profile: str,
    size: int,
    *,
    model: str = "",
    dropped: str = "",
    domain: str = "",
    upstream: bool = False,
) -> Assessment:
    cards = (DomainCard(domain, "Something."),) if domain else ()
    specialist = Specialist(
        profile, model or f"m{size}", "d", "Q8_0", 2048, 2, cards, size_mib=size
    )
    node = NodeId(f"n-{profile}")
    candidate = Candidate(node, node, specialist, None, 1.0, upstream=upstream)
    return Assessment(candidate, dropped, None if dropped else Terms(), 0 if dropped else 1)


def names(assessments: list[Assessment], request: TaskRequest = REQUEST) -> list[str]:
    return [tier.selector for tier in ladder(assessments, request)]


def test_each_step_is_twice_as_large() -> None:
    assert names([seen("big", 400), seen("small", 100), seen("middle", 150)]) == ["small", "big"]


def test_a_model_is_one_step_whatever_its_nodes_tell_of_its_size() -> None:
    told = [seen("a", 100, model="tiny"), seen("b", 900, model="tiny"), seen("c", 1000)]
    assert [step.model for step in ladder(told, REQUEST)] == ["tiny", "m1000"]
    assert [step.model for step in ladder(told[:2], REQUEST)] == ["tiny"]


def test_there_are_few_steps_and_the_last_is_the_largest() -> None:
    assert names([seen(f"p{size}", size) for size in (1, 2, 4, 8, 16)]) == ["p1", "p2", "p16"]


def test_an_upstream_comes_last_and_only_where_it_may_be_asked() -> None:
    small, cloud = seen("small", 100), seen("upstream", 0, dropped="upstream", upstream=True)
    assert names([cloud, small]) == ["small", "upstream"]
    assert names([cloud, small], replace(REQUEST, logprobs=1)) == ["small"]
    private = seen("upstream", 0, dropped="private", upstream=True)
    assert names([private, small]) == ["small"]
    assert names([cloud]) == []


def test_who_was_dropped_is_not_asked_but_for_its_size_or_domain() -> None:
    found = [
        seen("small", 100, dropped="tier"),
        seen("short", 10, dropped="context"),
        seen("law", 300, dropped="not for code", domain="law"),
        seen("all", 800, dropped="not for code", domain="general"),
    ]
    assert names(found) == ["small", "all"]


def test_a_name_that_means_two_models_is_not_asked_by() -> None:
    found = [seen("coder", 100, model="tiny"), seen("coder", 400, model="large")]
    assert names(found) == ["tiny", "large"]


def test_sizes_that_nobody_knows_make_no_steps() -> None:
    assert names([seen("one", 0), seen("two", 0)]) == []


@pytest.mark.parametrize(
    "request_",
    [
        replace(REQUEST, operation="embed"),
        replace(REQUEST, choices=2),
        replace(REQUEST, echo=True),
        replace(REQUEST, selector="tiny"),
        replace(REQUEST, selector="auto@alpha"),
    ],
)
def test_what_cannot_be_answered_in_steps(request_: TaskRequest) -> None:
    assert fit_for_it(request_)
    assert not fit_for_it(REQUEST)
    assert not fit_for_it(replace(REQUEST, selector="domain:code"))
