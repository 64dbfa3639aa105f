"""A draft model changes nothing of an answer, whatever it is, and is asked only while it pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm.engine.cores import ThreadChoice
from meshslm.engine.drafts import CATCH_UP, Drafter, _in_common
from meshslm.engine.guessing import BASELINE, REFRESH, Guesser
from meshslm.engine.protocol import Start, Stop
from meshslm.engine.quantise import quantise
from meshslm.engine.runs import Run
from meshslm.engine.speculate import PAUSE, TRIALS
from meshslm.engine.vocabularies import check_draft
from meshslm.errors import OurFault
from meshslm.models.synthetic import ModelShape, synthesise
from meshslm.wire.messages import Chunk, Constraint, Tool
from tests.engine.worker_script import ScriptedWorker, Told, ask

STORY = "Tell me a story of the sea."
FORM = Constraint(
    "json_schema",
    '{"type":"object","properties":{"name":{"type":"string","maxLength":12},'
    '"age":{"type":"integer","maximum":99}},"required":["name","age"]}',
)
LOOK = Tool("look", "", '{"type":"object","properties":{"place":{"type":"string","maxLength":9}}}')


# --- the real model, with drafts that are good, middling and useless ----------------------------
@pytest.fixture(scope="module")
def drafts(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("drafts")
    quantise(model_path, folder / "rough.gguf", "Q4_0", lambda _: None)
    shape = ModelShape("llama", 2, 64, 128, 1, 1, 64, 49_152, 8192)
    for name, size in (("noise", 49_152), ("other", 49_280)):
        synthesise(
            folder / f"{name}.gguf", replace(shape, vocabulary=size), "Q8_0", model_path, _silent
        )
    return {"itself": model_path, **{path.stem: path for path in folder.iterdir()}}


def _silent(_: object) -> None:
    """Reports that nobody reads."""


@pytest.fixture(scope="module")
def plain(model_path: Path) -> ScriptedWorker:
    worker = ScriptedWorker(model_path, slots=2)
    worker.worker.guesser.enabled = False
    worker.threads = ThreadChoice(1)
    return worker


def chunks(told: Told) -> list[Chunk]:
    """Those of each choice, one choice after the other."""
    found = [replace(chunk, queue_ms=0.0) for chunk in told.chunks]
    return sorted(found, key=lambda chunk: chunk.choice)


def always(worker: ScriptedWorker) -> ScriptedWorker:
    """Have drafts asked even where they do not pay, and nothing looked up; with one thread."""
    worker.threads = ThreadChoice(1)
    guesser = worker.worker.guesser
    guesser.draft._trials = -(10**9)
    guesser.lookup._pause = 10**9
    return worker


@pytest.mark.model
@pytest.mark.parametrize("name", ["itself", "rough", "noise"])
def test_the_answer_is_the_same_with_a_draft(
    plain: ScriptedWorker, model_path: Path, drafts: dict[str, Path], name: str
) -> None:
    drafting = always(ScriptedWorker(model_path, slots=2, draft=str(drafts[name])))
    assert (drafting.ready.draft, drafting.ready.undrafted) == (True, "")
    guesser = drafting.worker.guesser
    for seed in (None, 7):
        before = guesser.draft.guessed, guesser.draft.accepted
        command = ask(1, STORY, 24, seed=seed, logprobs=2)
        told = drafting.play([command])[1]
        assert chunks(told) == chunks(plain.play([command])[1])
        guessed = guesser.draft.guessed - before[0]
        accepted = guesser.draft.accepted - before[1]
        assert guessed > 0
        assert (told.usage.guessed_tokens, told.usage.accepted_tokens) == (guessed, accepted)
        if name == "itself":
            assert accepted == guessed
        elif name == "rough":
            assert accepted >= guessed / 8
        else:
            assert accepted <= guessed / 16


@pytest.mark.model
def test_forms_calls_stops_company_resumption_and_cancelling_go_on_working(
    plain: ScriptedWorker, model_path: Path, drafts: dict[str, Path]
) -> None:
    drafting = always(ScriptedWorker(model_path, slots=2, draft=str(drafts["rough"])))
    story = ask(1, STORY, 24)
    whole = plain.play([story])[1]
    packed = b"".join(token.to_bytes(4, "little") for token in whole.tokens[:9])
    commands: list[Start] = [
        ask(2, "A person?", 32, constraint=FORM),
        ask(3, "Look at the sea.", 32, seed=3, tools=(LOOK,), tool_choice="look"),
        ask(4, STORY, 24, stop=(whole.text[20:26],)),
        Start(5, replace(story.request, delivered=packed)),
        Start(6, replace(story.request, choices=2)),
        ask(7, STORY * 12, 12),
    ]
    alone = [plain.play([command])[command.run] for command in commands]
    for command, expected in zip(commands, alone, strict=True):
        assert chunks(drafting.play([command])[command.run]) == chunks(expected)
    together = drafting.play([*commands], later=[(30, Stop(2))])
    for command, expected in list(zip(commands, alone, strict=True))[1:]:
        assert chunks(together[command.run]) == chunks(expected)
    assert drafting.worker.guesser.draft.accepted > 0


@pytest.mark.model
def test_what_cannot_be_a_draft(model_path: Path, drafts: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(OurFault, match=r"49280 tokens .* 49152 tokens .* same tokenizer"):
        ScriptedWorker(model_path, draft=str(drafts["other"]))
    raw = drafts["noise"].read_bytes()
    assert "\u0120story".encode() in raw
    forged = tmp_path / "forged.gguf"
    forged.write_bytes(raw.replace("\u0120story".encode(), "\u0120storz".encode(), 1))
    with pytest.raises(OurFault, match="other texts"):
        check_draft("big", model_path, "small", forged)
    without = ScriptedWorker(model_path, slots=1, draft=str(tmp_path / "missing.gguf"))
    assert not without.ready.draft
    assert "missing.gguf" in without.ready.undrafted
    assert without.play([ask(1, STORY, 4)])[1].tokens
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(raw[: len(raw) - 4096])
    assert ScriptedWorker(model_path, slots=1, draft=str(cut)).ready.undrafted


# --- a draft's memory -----------------------------------------------------------------------------
class CountingModel:
    """Says the next number, keeps what it was given, and counts its rows."""

    def __init__(self, *, forgets_ends: bool = True) -> None:
        self.forgets_ends = forgets_ends
        self.trained_context = 4096
        self.held: list[int] = []
        self.rows = 0
        self._added: list[int] = []

    def set_threads(self, _: int) -> None:
        """It has none."""

    def keep(self, slot: int, tokens: int) -> None:
        assert slot == 0
        del self.held[tokens:]

    def begin(self) -> None:
        self._added = []

    def add(self, slot: int, start: int, tokens: Sequence[int], *, wanted: bool) -> None:
        assert (slot, start) == (0, len(self.held)), wanted
        self._added = list(tokens)

    def compute(self) -> None:
        assert len(self._added) <= CATCH_UP
        self.held += self._added
        self.rows += len(self._added)

    def logits(self, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        row = np.zeros((count, 100), dtype=np.float32)
        row[-1, (self.held[-1] + 1) % 100] = 1.0
        return row


def run_of(prompt: list[int], made: list[int], most: int = 1000) -> Run:
    def suppose(number: int, row: Any, ahead: list[int]) -> int:
        return int(row.argmax())

    choice = SimpleNamespace(tokens=made)
    return cast("Run", SimpleNamespace(prompt=prompt, choices=[choice], most=most, suppose=suppose))


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=90), st.integers(0, 5)),
        max_size=12,
    )
)
def test_a_draft_holds_what_was_taken_and_computes_nothing_twice(
    turns: list[tuple[list[int], int]],
) -> None:
    model = CountingModel()
    drafter = Drafter(cast("Any", model), 4096)
    for known, made in turns:
        run = run_of(known, known[:made])
        tokens = [*known, *known[:made]]
        for _ in range(4):
            before, held = model.rows, list(model.held)
            guesses = drafter.guess(run, 0, 4, 1)
            shared = min(_in_common(held, tokens), len(tokens) - 1)
            if guesses:
                assert guesses == [(tokens[-1] + n) % 100 for n in range(1, 5)]
                assert model.held == [*tokens, *guesses[:-1]]
                assert model.rows - before == len(tokens) - shared + 3
                break
            assert model.held == tokens[: len(model.held)]
        else:
            raise AssertionError("it never catches up")


@given(st.lists(st.integers(0, 1)), st.lists(st.integers(0, 1)))
def test_what_two_have_in_common(one: list[int], other: list[int]) -> None:
    count = _in_common(one, other)
    assert one[:count] == other[:count]
    assert one[count : count + 1] != other[count : count + 1] or count == len(one) == len(other)


def test_a_draft_guesses_nothing_that_cannot_be_afforded() -> None:
    drafter = Drafter(cast("Any", CountingModel()), 10)
    assert len(drafter.guess(run_of([1, 2], [3], most=4), 0, 7, 1)) == 2
    assert drafter.guess(run_of([1, 2], [3], most=2), 0, 7, 1) == []
    assert len(drafter.guess(run_of([1] * 8, [3]), 0, 7, 1)) == 2
    assert drafter.guess(run_of([1] * 10, [3]), 0, 7, 1) == []
    with pytest.raises(OurFault, match="forget"):
        Drafter(cast("Any", CountingModel(forgets_ends=False)), 10)


# --- who is asked ---------------------------------------------------------------------------------
class Asked:
    """Stands for a drafter and for a run; says what it is told to."""

    def __init__(self) -> None:
        self.found: list[int] = []
        self.drafted: list[int] = [1, 2]
        self.times = 0

    def guess(self, *_: object) -> list[int]:
        self.times += 1
        return self.drafted


def guessing(asked: Asked) -> tuple[Guesser, Run]:
    run = cast("Run", SimpleNamespace(guess=lambda number, most: asked.found))
    guesser = Guesser(cast("Drafter", asked))
    for _ in range(BASELINE):
        assert guesser.guess(run, 0, 1) == []
        guesser.learn(0.010, 0, 0)
    return guesser, run


def test_a_draft_that_pays_is_asked_but_for_a_plain_step_now_and_then() -> None:
    guesser, run = guessing(Asked())
    seen = []
    for _ in range(2 * (REFRESH + 1)):
        guesses = guesser.guess(run, 0, 1)
        seen.append(bool(guesses))
        guesser.learn(0.012 if guesses else 0.010, len(guesses), len(guesses))
    assert seen == ([True] * REFRESH + [False]) * 2


def test_a_draft_that_does_not_pay_is_asked_ever_less_often() -> None:
    asked = Asked()
    guesser, run = guessing(asked)
    for pause in (PAUSE, 2 * PAUSE):
        for _ in range(TRIALS):
            assert guesser.guess(run, 0, 1)
            guesser.learn(0.015, 2, 0)
        times = asked.times
        for _ in range(pause):
            assert guesser.guess(run, 0, 1) == []
            guesser.learn(0.010, 0, 0)
        assert asked.times == times


def test_what_was_said_before_comes_first_and_a_draft_fills_in_where_it_does_not_pay() -> None:
    asked = Asked()
    guesser, run = guessing(asked)
    asked.found = [9]
    for _ in range(TRIALS):
        assert guesser.guess(run, 0, 1) == [9]
        guesser.learn(0.030, 1, 0)
    assert asked.times == 0
    assert guesser.guess(run, 0, 1) == [1, 2]
    guesser.enabled = False
    assert guesser.guess(run, 0, 1) == []


def test_catching_up_is_charged_to_the_guesses_that_come_of_it() -> None:
    asked = Asked()
    asked.drafted = []
    guesser, run = guessing(asked)
    assert guesser.guess(run, 0, 1) == []
    guesser._aside_s = guesser._owed_s = 3.2
    guesser.learn(3.210, 0, 0)
    assert guesser.draft._plain_s == pytest.approx(0.010)
    asked.drafted = [1, 2]
    for _ in range(TRIALS):
        assert guesser.guess(run, 0, 1)
        guesser.learn(0.012, 2, 2)
    assert not guesser.draft.worthwhile
