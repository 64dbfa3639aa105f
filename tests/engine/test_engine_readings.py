"""Which texts are read together, and how operations take turns."""

from __future__ import annotations

from datetime import date
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm.engine.embedding import Reading, Readings
from meshslm.engine.llama import Vocabulary
from meshslm.engine.operations import CHARACTERS, TOKENS, Desk
from meshslm.engine.protocol import Ended, Produced, Report
from meshslm.errors import FaultCode, RequestFault
from meshslm.limits import PACKED_TOKENS
from meshslm.wire.messages import ChatMessage, TaskRequest
from meshslm.wire.tokens import packed

ROWS = 100
sizes = st.lists(st.lists(st.integers(1, ROWS), min_size=1, max_size=12), max_size=6)


def read_all(sizes: list[list[int]], most: int = 8) -> list[list[tuple[int, int]]]:
    """All calls: (request, text) each."""
    readings = Readings(ROWS, most)
    for number, texts in enumerate(sizes):
        readings.add(Reading(number, [[0] * size for size in texts], compares=False, arrived=0.0))
    calls = []
    while not readings.idle:
        call = readings.take()
        assert call, "it would never end"
        calls.append([(reading.number, item) for reading, item in call])
    return calls


@given(sizes, st.integers(1, 8))
def test_every_text_is_read_once_in_order_within_bounds(sizes: list[list[int]], most: int) -> None:
    calls = read_all(sizes, most)
    for call in calls:
        assert len(call) <= most
        assert sum(sizes[number][item] for number, item in call) <= ROWS
    for number, texts in enumerate(sizes):
        order = [item for call in calls for who, item in call if who == number]
        assert order == list(range(len(texts)))


@given(sizes, st.integers(1, ROWS))
def test_a_request_of_one_text_does_not_wait_for_one_of_a_thousand(
    sizes: list[list[int]], size: int
) -> None:
    calls = read_all([[size] * 1000, [size]])
    first = next(n for n, call in enumerate(calls) if (1, 0) in call)
    assert first <= 1


@given(sizes)
def test_a_stopped_request_is_read_no_more(sizes: list[list[int]]) -> None:
    readings = Readings(ROWS)
    for number, texts in enumerate(sizes):
        readings.add(Reading(number, [[0] * size for size in texts], compares=False, arrived=0.0))
    readings.take()
    readings.stop(0)
    while not readings.idle:
        assert all(reading.number != 0 for reading, _ in readings.take())


# --- operations between steps ---------------------------------------------------------------------
class Letters:
    """A vocabulary in which each character is a token."""

    size = 128

    def tokens(self, text: str, *, special: bool, begins: bool = False) -> list[int]:
        assert begins
        assert not special
        return [ord(character) for character in text]

    def text(self, tokens: list[int]) -> str:
        return "".join(map(chr, tokens))


def render(request: TaskRequest, _: date) -> tuple[str, list[int]]:
    text = "|".join(message.content for message in request.messages)
    return text, [ord(character) for character in text]


def desk(*, chats: bool = True) -> Desk:
    return Desk(cast("Vocabulary", Letters()), render if chats else None)


def work(desk: Desk) -> list[Report]:
    reports = []
    while not desk.idle:
        reports += desk.work()
    return reports


def request(operation: str, **fields: object) -> TaskRequest:
    return TaskRequest("m", operation=operation, **fields)  # type: ignore[arg-type]  # any field


texts = st.text(alphabet="abc", max_size=3 * TOKENS)


@given(st.lists(texts, min_size=1, max_size=5))
def test_tokens_come_in_chunks_that_a_message_has_room_for(inputs: list[str]) -> None:
    asked = desk()
    asked.start(7, request("tokenize", inputs=tuple(inputs)), date.min)
    *produced, ended = work(asked)
    found: dict[int, list[int]] = {item: [] for item in range(len(inputs))}
    seen = []
    for report in produced:
        assert isinstance(report, Produced)
        assert len(report.chunk.tokens) <= TOKENS
        found[report.chunk.item] += report.chunk.tokens
        seen.append(report.chunk.item)
    assert ["".join(map(chr, tokens)) for tokens in found.values()] == inputs
    assert set(seen) == set(range(len(inputs))), "an empty text has a chunk, too"
    assert isinstance(ended, Ended)
    assert ended.usage.prompt_tokens == sum(map(len, inputs))


def test_a_template_gives_its_text_and_its_tokens_in_parts() -> None:
    asked = desk()
    long = "y" * (CHARACTERS + 5)
    messages = (ChatMessage("user", "x"), ChatMessage("user", long))
    asked.start(1, request("template", messages=messages), date.min)
    chunks = [report.chunk for report in work(asked) if isinstance(report, Produced)]
    assert "".join(chunk.text for chunk in chunks) == f"x|{long}"
    assert sum(len(chunk.tokens) for chunk in chunks) == len(long) + 2
    assert max(len(chunk.text) for chunk in chunks) <= CHARACTERS


def test_as_many_tokens_as_a_context_has_become_text() -> None:
    asked = desk()
    tokens = [65 + place % 26 for place in range(PACKED_TOKENS)]
    asked.start(1, request("detokenize", packed=packed(tokens)), date.min)
    chunks = [report.chunk for report in work(asked) if isinstance(report, Produced)]
    assert "".join(chunk.text for chunk in chunks) == "".join(map(chr, tokens))


def test_operations_take_turns() -> None:
    asked = desk()
    asked.start(1, request("tokenize", inputs=("a" * TOKENS * 4,)), date.min)
    asked.start(2, request("tokenize", inputs=("b",)), date.min)
    numbers = [report.run for report in work(asked) if isinstance(report, Produced | Ended)]
    assert numbers[:4] == [1, 2, 1, 2]


def test_a_stopped_operation_says_nothing_more() -> None:
    asked = desk()
    asked.start(1, request("tokenize", inputs=("a",)), date.min)
    asked.stop(1)
    asked.stop(2)
    assert asked.idle


@pytest.mark.parametrize(
    ("wrong", "param", "why"),
    [
        (request("tokenize"), "input", "at least one text"),
        (request("detokenize", given=(5, 128)), "tokens", "has tokens 0 to 127"),
        (request("detokenize", packed=packed((5, 128))), "tokens", "has tokens 0 to 127"),
        (request("detokenize", packed=b"abc"), "tokens", "3 bytes of tokens"),
        (request("template"), "messages", "needs a conversation"),
        (request("embed", inputs=("x",)), "model", "was not trained to make vectors"),
        (request("rerank", inputs=("x",)), "model", "was not trained to make vectors"),
        (request("dance"), "model", "cannot do 'dance'"),
    ],
)
def test_what_cannot_be_done_is_refused(wrong: TaskRequest, param: str, why: str) -> None:
    asked = desk()
    with pytest.raises(RequestFault, match=why) as caught:
        asked.start(1, wrong, date.min)
    assert caught.value.code is FaultCode.BAD_REQUEST
    assert caught.value.param == param
    assert asked.idle


def test_no_template_without_conversations() -> None:
    with pytest.raises(RequestFault, match="cannot do 'template'"):
        desk(chats=False).start(
            1, request("template", messages=(ChatMessage("user", "x"),)), date.min
        )
