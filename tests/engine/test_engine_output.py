"""Answer, thoughts and calls out of text that comes in pieces."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshslm.engine.output import Delta, OutputStream, Reading, Thinking
from meshslm.engine.tool_formats import HERMES, LLAMA3, ToolFormat
from meshslm.limits import TOOL_CALLS

NAMES = ("get_weather", "get", "add")
HERMES_CALLS = Reading(Thinking.NONE, HERMES, NAMES)
LLAMA_CALLS = Reading(Thinking.NONE, LLAMA3, NAMES)
THOUGHTS = Reading(Thinking.MAYBE)

Calls = list[tuple[str, str, str]]


def stream(reading: Reading, stops: tuple[str, ...] = ()) -> OutputStream:
    return OutputStream(reading, stops, lambda index: f"id{index}")


def read(
    reading: Reading, pieces: list[bytes], stops: tuple[str, ...] = ()
) -> tuple[str, str, Calls]:
    """Answer, thoughts and calls of all pieces, as a client puts them together."""
    output = stream(reading, stops)
    deltas: list[Delta] = [output.feed(piece) for piece in pieces]
    deltas.append(output.close())
    calls: Calls = []
    for piece in (piece for delta in deltas for piece in delta.calls):
        if piece.id:
            assert piece.index == len(calls)
            calls.append((piece.id, piece.name, ""))
        else:
            assert piece.index == len(calls) - 1
        number, name, arguments = calls[-1]
        calls[-1] = (number, name, arguments + piece.arguments)
    return "".join(d.text for d in deltas), "".join(d.reasoning for d in deltas), calls


def whole(reading: Reading, text: str, stops: tuple[str, ...] = ()) -> tuple[str, str, Calls]:
    return read(reading, [text.encode()], stops)


def hermes(name: str, arguments: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def llama(name: str, arguments: str) -> str:
    return f'{{"name": "{name}", "parameters": {arguments}}}'


def test_only_answer() -> None:
    assert whole(Reading(), "a <think> <tool_call> b") == ("a <think> <tool_call> b", "", [])


@pytest.mark.parametrize(
    ("thinking", "text", "answer", "thoughts"),
    [
        (Thinking.MAYBE, "<think>\nHm.\n</think>\n\nYes.", "Yes.", "Hm."),
        (Thinking.MAYBE, " \n<think>Hm.</think>Yes.", "Yes.", "Hm."),
        (Thinking.MAYBE, "Yes. <think>no</think>", "Yes. <think>no</think>", ""),
        (Thinking.MAYBE, "\n\nYes.", "\n\nYes.", ""),
        (Thinking.MAYBE, "<thin", "<thin", ""),
        (Thinking.MAYBE, "<think>\n\n</think>\n\nYes.", "Yes.", ""),
        (Thinking.MAYBE, "<think>a </b> </think", "", "a </b> </think"),
        (Thinking.MAYBE, "<think>a</think>b<think>c</think>", "b<think>c</think>", "a"),
        (Thinking.INSIDE, "Hm.\n</think>\n\nYes.", "Yes.", "Hm."),
        (Thinking.INSIDE, "Hm. <thi", "", "Hm. <thi"),
        (Thinking.INSIDE, "</think>Yes.", "Yes.", ""),
    ],
)
def test_thoughts(thinking: Thinking, text: str, answer: str, thoughts: str) -> None:
    assert whole(Reading(thinking), text) == (answer, thoughts, [])
    assert read(Reading(thinking), [bytes([byte]) for byte in text.encode()]) == (
        answer,
        thoughts,
        [],
    )


ROME = '{"city": "R\\"}{ome", "days": [1, {"a": "]"}]}'


@pytest.mark.parametrize(
    ("reading", "text", "answer", "calls"),
    [
        (HERMES_CALLS, hermes("get", "{}"), "", [("id0", "get", "{}")]),
        (HERMES_CALLS, hermes("get_weather", ROME), "", [("id0", "get_weather", ROME)]),
        (
            HERMES_CALLS,
            f"Let me see.\n\n{hermes('add', ROME)}\n{hermes('get', '{}')}\n",
            "Let me see.",
            [("id0", "add", ROME), ("id1", "get", "{}")],
        ),
        (
            HERMES_CALLS,
            f"{hermes('get', '{}')} Done. {hermes('add', '{}')}",
            "Done.",
            [("id0", "get", "{}"), ("id1", "add", "{}")],
        ),
        (HERMES_CALLS, "a <tool_call", "a <tool_call", []),
        (HERMES_CALLS, "a <tool_call>\n{", "a", []),
        (HERMES_CALLS, "a <tool_call> b", "a<tool_call> b", []),
        (HERMES_CALLS, hermes("other", "{}"), hermes("other", "{}"), []),
        (HERMES_CALLS, hermes("add", ROME)[:60], "", [("id0", "add", ROME[:19])]),
        (HERMES_CALLS, hermes("add", "{}")[:-5], "", [("id0", "add", "{}")]),
        (LLAMA_CALLS, llama("get", "{}"), "", [("id0", "get", "{}")]),
        (LLAMA_CALLS, "<|python_tag|>" + llama("get", ROME), "", [("id0", "get", ROME)]),
        (
            LLAMA_CALLS,
            f"{llama('get', '{}')}; {llama('add', ROME)}",
            "",
            [("id0", "get", "{}"), ("id1", "add", ROME)],
        ),
        (LLAMA_CALLS, f"See: {llama('get', '{}')}", f"See: {llama('get', '{}')}", []),
        (LLAMA_CALLS, '{"name": "Joe", "age": 3}', '{"name": "Joe", "age": 3}', []),
        (LLAMA_CALLS, '{"name": "get", "age": 3}', '{"name": "get", "age": 3}', []),
        (LLAMA_CALLS, '{"name": "ge', '{"name": "ge', []),
        (LLAMA_CALLS, "<|python_tag|>print(1)", "print(1)", []),
        (LLAMA_CALLS, "  \n", "  \n", []),
    ],
)
def test_calls(reading: Reading, text: str, answer: str, calls: Calls) -> None:
    assert whole(reading, text) == (answer, "", calls)


def test_a_call_after_thoughts() -> None:
    reading = Reading(Thinking.MAYBE, HERMES, NAMES)
    thoughts = "I could use <tool_call>."
    text = f"<think>{thoughts}</think>\n\n{hermes('get', '{}')}"
    assert whole(reading, text) == ("", thoughts, [("id0", "get", "{}")])


def test_arguments_come_as_they_are_written() -> None:
    output = stream(HERMES_CALLS)
    first = hermes("get", '{"a": "')
    first = first[: first.index('{"a": "') + len('{"a": "')]
    seen = [output.feed(piece.encode()).calls for piece in (first, "b", 'c"', "}", "}\n")]
    assert [[piece.arguments for piece in calls] for calls in seen] == [
        ['{"a": "'],
        ["b"],
        ['c"'],
        ["}"],
        [],
    ]
    assert output.calls == 1


def test_a_character_is_never_cut() -> None:
    text = hermes("get", '{"a": "é😀"}')
    output = stream(HERMES_CALLS)
    arguments = ""
    for byte in text.encode():
        for piece in output.feed(bytes([byte])).calls:
            assert "\ufffd" not in piece.arguments
            arguments += piece.arguments
    assert json.loads(arguments) == {"a": "é😀"}


def test_stop_strings_stop_the_answer_alone() -> None:
    reading = Reading(Thinking.MAYBE, HERMES, NAMES)
    first, second = hermes("get", '{"a": "STOP"}'), hermes("add", "{}")
    text = f"<think>one STOP two</think>{first}Well. STOP {second}"
    assert whole(reading, text, ("STOP",)) == (
        "Well. ",
        "one STOP two",
        [("id0", "get", '{"a": "STOP"}')],
    )


def test_calls_of_one_turn_are_bounded() -> None:
    answer, _, calls = whole(HERMES_CALLS, "\n".join([hermes("get", "{}")] * (TOOL_CALLS + 2)))
    assert len(calls) == TOOL_CALLS
    assert "<tool_call>" in answer


words = st.sampled_from(
    [
        *("<think>", "</think>", "<tool_call>", "</tool_call>", "<|python_tag|>"),
        *("\n", " ", "é", "😀", "STOP", "ST", "<", "</", "a", ";", "}", "{", '"', "\\"),
        *('{"name": "get", "arguments": {', '{"name": "add", "parameters": {', '"name"'),
        hermes("get", '{"a": "b"}'),
        hermes("get_weather", ROME),
        llama("add", '{"a": {"b": []}}'),
        llama("get_weather", "{}"),
    ]
)
readings = st.builds(
    Reading,
    st.sampled_from(Thinking),
    st.sampled_from([None, HERMES, LLAMA3]),
    st.just(NAMES),
)


@given(readings, st.lists(words, max_size=12).map("".join), st.lists(st.integers(0, 500)))
@example(LLAMA_CALLS, "<|python_tag|>" + llama("get", "{}"), list(range(60)))
@example(HERMES_CALLS, f"a \n{hermes('get', ROME)} \n", list(range(100)))
def test_the_cut_does_not_matter(reading: Reading, text: str, cuts: list[int]) -> None:
    raw = text.encode()
    places = sorted({0, len(raw), *(place % (len(raw) + 1) for place in cuts)})
    pieces = [raw[a:b] for a, b in pairwise(places)]
    for stops in ((), ("STOP",)):
        assert read(reading, pieces, stops) == read(reading, [raw], stops)


objects = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=5),
    st.recursive(
        st.none() | st.integers() | st.text(st.characters(codec="utf-8"), max_size=8),
        lambda s: st.lists(s, max_size=3),
    ),
    max_size=3,
)
TEXT = st.characters(codec="utf-8", exclude_characters="<{")
answers = st.text(TEXT, max_size=20).map(str.strip)


@given(
    st.sampled_from([HERMES, LLAMA3]),
    answers,
    st.lists(st.tuples(st.sampled_from(NAMES), objects), min_size=1, max_size=4),
    st.booleans(),
)
def test_what_was_written_is_read(
    form: ToolFormat, answer: str, calls: list[tuple[str, dict[str, object]]], thinks: bool
) -> None:
    write = hermes if form is HERMES else llama
    texts = [write(name, json.dumps(arguments, ensure_ascii=False)) for name, arguments in calls]
    answer = answer if form is HERMES else ""
    text = ("<think>so</think>" if thinks else "") + answer + form.between.join(texts)
    reading = Reading(Thinking.MAYBE if thinks else Thinking.NONE, form, NAMES)
    shown, thoughts, found = whole(reading, text)
    assert (shown, thoughts) == (answer, "so" if thinks else "")
    assert [(name, json.loads(text)) for _, name, text in found] == calls
