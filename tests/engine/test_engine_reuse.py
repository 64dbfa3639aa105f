"""With the real model: whatever is taken over, in whatever company, the tokens are the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from meshslm.engine.prefix_cache import TILE
from meshslm.engine.protocol import Command, Produced, Shutdown, Start
from meshslm.errors import FaultCode
from meshslm.wire.messages import ChatMessage, Chunk
from meshslm.wire.shares import Shares
from tests.engine.worker_script import ScriptedWorker, ask

pytestmark = pytest.mark.model

SYSTEM = "You tell stories. " + " ".join(
    f"Rule {number}: the {animal} must never be afraid of the {thing}."
    for number, (animal, thing) in enumerate(
        zip(["cat", "dog", "owl", "fox"] * 4, ["sea", "sun", "old house", "dark"] * 4, strict=True)
    )
)


def told(run: int, question: str, **fields: int | None) -> Start:
    messages = (ChatMessage("system", SYSTEM), ChatMessage("user", question))
    seed = fields.pop("seed", None)
    return ask(run, "", seed=seed, messages=messages)


@pytest.fixture(scope="module")
def worker(model_path: Path) -> ScriptedWorker:
    return ScriptedWorker(model_path)


@pytest.fixture(scope="module")
def alone(model_path: Path) -> dict[int, list[int]]:
    """The tokens of each run on a worker that has seen nothing before."""
    found = {}
    for command in questions():
        fresh = ScriptedWorker(model_path, slots=1)
        answer = fresh.play([command])[command.run]
        assert answer.usage.cached_tokens == 0
        found[command.run] = answer.tokens
    return found


def questions() -> list[Start]:
    return [
        told(1, "Who are you?"),
        told(2, "Tell me of the fox.", seed=7),
        told(3, "Tell me of the owl and the sea, please, and do not forget the old house."),
        ask(4, "What is a prime number?", seed=3),
    ]


def test_a_common_beginning_is_taken_over_and_changes_nothing(
    worker: ScriptedWorker, alone: dict[int, list[int]]
) -> None:
    commands: list[Command] = list(questions())
    for _ in range(2):
        one_by_one = worker.play(*([command] for command in commands))
        together = worker.play(commands)
        for answers in (one_by_one, together):
            assert {run: answer.tokens for run, answer in answers.items()} == alone
            assert answers[2].usage.cached_tokens >= 3 * TILE
            assert answers[2].usage.cached_tokens % TILE == 0
        worker.worker._scheduler.check()


def test_a_conversation_goes_on_where_it_was(worker: ScriptedWorker, model_path: Path) -> None:
    turns = [ChatMessage("system", SYSTEM)]
    cached = []
    for number, question in enumerate(["Hello!", "And then?", "Why?"]):
        turns.append(ChatMessage("user", question))
        command = ask(50 + number, "", messages=tuple(turns))
        warm = worker.play([command])[50 + number]
        fresh = ScriptedWorker(model_path, slots=1).play([command])[50 + number]
        assert warm.tokens == fresh.tokens
        cached.append(warm.usage.cached_tokens)
        turns.append(ChatMessage("assistant", warm.text))
    assert cached == sorted(cached)
    assert cached[0] >= 3 * TILE


def test_background_work_gives_way_and_its_text_stays(
    model_path: Path, alone: dict[int, list[int]]
) -> None:
    worker = ScriptedWorker(model_path, slots=1)
    background = Start(3, replace(questions()[2].request, priority="background"))
    answers = worker.play([background], later=[(4, ask(4, "What is a prime number?", seed=3))])
    assert {3: answers[3].tokens, 4: answers[4].tokens} == {n: alone[n] for n in (3, 4)}
    order = [report.run for report in worker.reports if isinstance(report, Produced)]
    assert order.index(4) < len(order) - order[::-1].index(3) - 1, "it did not give way"


LISTS = (
    "Repeat this list word by word, three times: apple, pear, plum, cherry, peach, apricot, "
    "lemon, orange, melon, grape."
)


@pytest.mark.parametrize("seed", [None, 11])
def test_guesses_change_nothing(model_path: Path, seed: int | None) -> None:
    with_guesses = ScriptedWorker(model_path, slots=2)
    without = ScriptedWorker(model_path, slots=2)
    without.worker.guesser.enabled = False
    command = ask(1, LISTS, 160, seed=seed)
    plain, guessed = (one.play([command])[1] for one in (without, with_guesses))
    assert guessed.tokens == plain.tokens
    assert guessed.text == plain.text
    assert without.worker.guesser.lookup.guessed == 0
    assert with_guesses.worker.guesser.lookup.accepted > 0
    assert len(with_guesses.told[1].chunks) == len(plain.chunks)


@pytest.mark.parametrize("seed", [None, 5])
def test_an_answer_goes_on_behind_what_was_delivered(
    worker: ScriptedWorker, seed: int | None
) -> None:
    command = ask(1, "Tell me of the sea, ünd ask me three questions.", 40, seed=seed)
    whole = worker.play([command])[1]
    for cut in (1, 17, 39):
        packed = b"".join(token.to_bytes(4, "little") for token in whole.tokens[:cut])
        resumed = worker.play([Start(2, replace(command.request, delivered=packed))])[2]
        assert whole.tokens[:cut] + resumed.tokens == whole.tokens
        delivered = "".join(chunk.text for chunk in whole.chunks[:cut])
        assert delivered + resumed.text == whole.text
        assert resumed.usage.completion_tokens == whole.usage.completion_tokens


@pytest.mark.parametrize("seed", [None, 5])
def test_several_choices_go_on_each_behind_its_own(
    worker: ScriptedWorker, seed: int | None
) -> None:
    first = ask(1, "Tell me of the sea, ünd ask me three questions.", 40, seed=seed)
    request = replace(first.request, choices=3, sampling=replace(first.request.sampling, seed=5))
    request = replace(request, sampling=replace(request.sampling, temperature=1.0))
    whole = worker.play([Start(1, request)])[1].chunks
    for cuts in ((0, 3, 40), (39, 1, 0), (7, 40, 40), (20, 19, 21)):
        had = [_of(whole, choice)[:cut] for choice, cut in enumerate(cuts)]
        parts = [b"".join(t.to_bytes(4, "little") for c in h for t in c.tokens) for h in had]
        finishes = tuple(h[-1].finish if h else "" for h in had)
        shares = Shares(tuple(map(len, parts)), finishes)
        rest = replace(request, delivered=b"".join(parts), shares=shares)
        resumed = worker.play([Start(2, rest)])[2]
        for choice, cut in enumerate(cuts):
            due, got = _of(whole, choice)[cut:], _of(resumed.chunks, choice)
            assert [c.tokens for c in got] == [c.tokens for c in due]
            assert "".join(c.text for c in got) == "".join(c.text for c in due)
            assert [c.finish for c in got] == [c.finish for c in due]
        assert resumed.usage.completion_tokens == sum(len(c.tokens) for c in whole)


def _of(chunks: list[Chunk], choice: int) -> list[Chunk]:
    return [chunk for chunk in chunks if chunk.choice == choice]


@pytest.mark.parametrize(
    ("shares", "why"),
    [
        (Shares((4, 4), ("", "")), "altogether"),
        (Shares((4,), ("",)), "1 parts"),
        (Shares((3, 1), ("", "")), "3 bytes"),
        (Shares((4, 0), ("stop", "length")), "had ended"),
    ],
)
def test_parts_that_cannot_be_are_refused(worker: ScriptedWorker, shares: Shares, why: str) -> None:
    request = replace(ask(1, "Hello", 40).request, choices=2)
    request = replace(request, delivered=b"\1\0\0\0", shares=shares)
    failed = worker.play([Start(1, request)])[1].failed
    assert failed is not None
    assert why in failed.detail


def test_another_model_s_words_that_are_more_tokens_here_than_are_left_go_on_by_one(
    worker: ScriptedWorker,
) -> None:
    request = replace(ask(1, "Hello", 3).request, begun="Once upon a time, by the wide grey sea,")
    answer = worker.play([Start(1, request)])[1]
    assert answer.failed is None
    assert len(answer.tokens) == 1
    assert answer.chunks[-1].finish in {"length", "stop"}


@pytest.mark.parametrize(
    ("delivered", "choices", "why"),
    [
        (b"abc", 1, "3 bytes"),
        (b"\xff\xff\xff\x7f", 1, "vocabulary"),
        (b"\0\0\0\0" * 40, 1, "has not ended"),
        (b"\1\0\0\0", 2, "2 choices"),
        (b"\2\0\0\0", 1, "had ended"),
    ],
)
def test_what_cannot_go_on_is_refused(
    worker: ScriptedWorker, delivered: bytes, choices: int, why: str
) -> None:
    request = replace(ask(1, "Hello", 40).request, delivered=delivered, choices=choices)
    failed = worker.play([Start(1, request)])[1].failed
    assert failed is not None
    assert why in failed.detail


def test_what_would_come_too_late_is_refused_with_the_estimate(worker: ScriptedWorker) -> None:
    worker.play([ask(1, "Tell me of the sea.", 60)])
    late = replace(told(2, "Hello? " * 200).request, deadline_ms=1)
    answers = worker.play([Start(2, late), ask(3, "Hello")])
    failed = answers[2].failed
    assert failed is not None
    assert failed.code is FaultCode.DEADLINE
    assert "1 ms are left" in failed.detail
    assert answers[3].tokens


def test_a_beginning_outlives_the_worker_and_damage_costs_only_time(
    model_path: Path, tmp_path: Path
) -> None:
    system = SYSTEM + " Remember: " + SYSTEM
    command = ask(1, "", messages=(ChatMessage("system", system), ChatMessage("user", "Who?")))
    keeping: dict[str, Any] = {"states": str(tmp_path / "states"), "states_mib": 500}
    first = ScriptedWorker(model_path, slots=2, **keeping)
    fresh = first.play([command, *questions()[3:]])[1]
    first.play([Shutdown(60.0)])
    (kept,) = (tmp_path / "states").iterdir()
    second = ScriptedWorker(model_path, slots=2, **keeping)
    again = second.play([command])[1]
    assert again.tokens == fresh.tokens
    assert again.usage.cached_tokens == (fresh.usage.prompt_tokens - 1) // TILE * TILE
    raw = bytearray(kept.read_bytes())
    raw[len(raw) // 2] ^= 1
    kept.write_bytes(raw)
    third = ScriptedWorker(model_path, slots=2, **keeping)
    once_more = third.play([command])[1]
    assert once_more.tokens == fresh.tokens
    assert once_more.usage.cached_tokens == 0
    assert not kept.exists()
