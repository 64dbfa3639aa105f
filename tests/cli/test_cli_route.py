"""`meshslm route` shows who would be asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from meshslm.api.routing import (
    CandidateInfo,
    ComplexitySign,
    CostTerms,
    DomainScore,
    RouteReply,
)
from tests.cli.local_server import Answering, served_by

if TYPE_CHECKING:
    from tests.cli.conftest import Run

NAMES = CostTerms.__struct_fields__
CHOSEN = CandidateInfo(
    node="12D3",
    node_name="attic\x1b[31m",
    profile="code",
    model="tiny",
    rank=1,
    dropped="",
    upstream=False,
    cost_ms=CostTerms(**{**dict.fromkeys(NAMES, 0.0), "queue": 12.0, "total": 345.0}),
)
DROPPED = CandidateInfo(
    node="12D4",
    node_name="cellar",
    profile="code",
    model="tiny",
    rank=0,
    dropped="tried already",
    upstream=False,
    cost_ms=None,
)
REPLY = RouteReply(
    node="12D3",
    node_name="attic",
    profile="code",
    model="tiny",
    reason="auto: domain code 0.40",
    strategy="auto",
    tier="edge",
    complexity=0.25,
    signs=[ComplexitySign(sign="asks for reasoning", weight=0.25)],
    domains=[DomainScore(domain="code", score=0.4)],
    candidates=[CHOSEN, DROPPED],
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What a node was posted, which answers with `REPLY`."""
    posted: list[dict[str, Any]] = []

    class Handler(Answering):
        def do_POST(self) -> None:
            assert self.path == "/mesh/route"
            posted.append(json.loads(self.body()))
            self.whole(200, msgspec.json.encode(REPLY))

    with served_by(Handler) as url:
        monkeypatch.setenv("MESHSLM_URL", url)
        yield posted


def test_it_shows_verdict_candidates_and_terms(run: Run, asked: list[dict[str, Any]]) -> None:
    shown = run("route", "Why", "this?", "--strategy", "prefix", "--private", "--max-tokens", "9")
    assert shown.code == 0, shown.err
    assert "attic as code (tiny)" in shown.out
    assert "tier edge, complexity 0.25" in shown.out
    assert "asks for reasoning 0.25" in shown.out
    assert "345" in shown.out
    assert "tried already" in shown.out
    assert "\x1b" not in shown.out
    (body,) = asked
    assert body["messages"] == [{"role": "user", "content": "Why this?"}]
    assert body["routing"] == {"strategy": "prefix", "private": True}
    assert body["max_tokens"] == 9


def test_every_term_of_a_total_is_shown(run: Run, asked: list[dict[str, Any]]) -> None:
    shown = run("route", "Why?")
    assert asked
    (header,) = [line.split() for line in shown.out.splitlines() if line.split()[:1] == ["rank"]]
    assert set(NAMES) <= set(header)


def test_it_tells_programs_all_of_it(run: Run, asked: list[dict[str, Any]]) -> None:
    shown = run("route", "--json", "Why?")
    assert json.loads(shown.out) == msgspec.to_builtins(REPLY)
    assert "routing" not in asked[0]


@pytest.mark.parametrize("words", [("route", " "), ("route", "--strategy", "fastest", "Why?")])
def test_nonsense_is_a_wrong_use(run: Run, words: tuple[str, ...]) -> None:
    assert run(*words).code == 2
