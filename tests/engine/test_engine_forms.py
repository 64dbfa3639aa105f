"""What a request asks of the form of its answer, with a model that says anything at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, cast

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshslm.engine.intake import Intake
from meshslm.engine.llama import Vocabulary
from meshslm.engine.runs import Run
from meshslm.engine.templates import ChatTemplate
from meshslm.engine.tool_formats import HERMES, LLAMA3, NAME, ToolFormat
from meshslm.errors import FaultCode, RequestFault
from meshslm.limits import TOOL_CALLS, TOOLS
from meshslm.wire.messages import (
    ChatMessage,
    Chunk,
    Constraint,
    Sampling,
    TaskRequest,
    Tool,
    ToolCall,
)
from tests.engine import chat_templates
from tests.engine.byte_vocabulary import ByteVocabulary
from tests.engine.schema_set import REFUSED, closed

TODAY = date(2026, 3, 1)
CONTEXT = 60_000
VOCABULARY = ByteVocabulary()
WEATHER = Tool(
    "get_weather",
    "Tells the weather.",
    json.dumps(closed(city={"type": "string", "maxLength": 6}, days={"enum": [1, 2, 3]})),
)
LIGHT = Tool("light.switch/on-2", "", json.dumps(closed(on={"type": "boolean"})))
SCHEMA = closed(ok={"type": "boolean"})
JSON_SCHEMA = Constraint("json_schema", json.dumps(SCHEMA))
ASKED = (ChatMessage("user", "What is the weather?"),)
PLAIN = TaskRequest("m", ASKED, max_tokens=1000, sampling=Sampling(temperature=1.0, seed=1))


def intake(template: str = chat_templates.HERMES, vocabulary: Any = VOCABULARY) -> Intake:
    chat = ChatTemplate(template, control_texts=tuple(vocabulary.control_tokens()))
    return Intake(cast(Vocabulary, vocabulary), chat, CONTEXT, 8)


INTAKES = {
    name: intake(getattr(chat_templates, name))
    for name in ("HERMES", "QWEN3", "R1", "EFFORT", "LLAMA3", "ALTERNATING", "OTHER_TOOLS")
}


def start(request: TaskRequest, family: str = "HERMES") -> Run:
    return INTAKES[family].run(1, request, 0.0, TODAY)


def prompt(run: Run) -> str:
    controls = {token: text for text, token in VOCABULARY.control_tokens().items()}
    raw = b"".join(
        controls[token].encode() if token in controls else VOCABULARY.piece(token)
        for token in run.prompt
    )
    return raw.decode()


@dataclass
class Said:
    """What a client puts together of one choice."""

    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    finish: str = ""

    def add(self, chunk: Chunk) -> None:
        assert not self.finish
        self.text += chunk.text
        self.reasoning += chunk.reasoning
        self.tokens += chunk.tokens
        for piece in chunk.calls:
            if piece.id:
                self.calls.append((piece.id, piece.name, ""))
            number, name, arguments = self.calls[-1]
            self.calls[-1] = (number, name, arguments + piece.arguments)
        self.finish = chunk.finish


def generate(run: Run, seed: int, *, ahead: Sequence[str] = (), choice: int = 0) -> Said:
    """Run a model that says `ahead` and then anything, with a liking for ends."""
    chance = np.random.default_rng(seed)
    said = Said()
    wanted = [token for text in ahead for token in VOCABULARY.tokens(text, special=True)]
    while not said.finish:
        row = chance.normal(0.0, 3.0, VOCABULARY.size).astype(np.float32)
        row[list(b'"}],')] += 4.0
        if wanted:
            row[wanted.pop(0)] = 100.0
        token = run.draw(choice, row, int(row.argmax()))
        said.add(run.take(choice, token, row, cast(Vocabulary, VOCABULARY)))
    return said


def refusal(request: TaskRequest, family: str = "HERMES") -> RequestFault:
    with pytest.raises(RequestFault) as caught:
        start(request, family)
    assert caught.value.code is FaultCode.BAD_REQUEST
    return caught.value


# --- constraints --------------------------------------------------------------------------------
@given(st.integers(0, 2**32), st.sampled_from([0.0, 1.0]), st.sampled_from([0, 1, 40]))
@settings(max_examples=40)
def test_whatever_the_model_says_is_of_the_form(seed: int, heat: float, top_k: int) -> None:
    sampling = Sampling(temperature=heat, top_k=top_k, seed=seed, repeat_penalty=1.3)
    request = replace(PLAIN, constraint=JSON_SCHEMA, sampling=sampling, choices=2)
    run = start(request)
    for choice in range(2):
        said = generate(run, seed + choice, choice=choice)
        jsonschema.validate(json.loads(said.text), SCHEMA)
        assert said.finish == "stop"
        assert VOCABULARY.text(said.tokens) == said.text
    assert run.finished


def test_any_object() -> None:
    run = start(replace(PLAIN, constraint=Constraint("json_object"), max_tokens=3000))
    said = generate(run, 5)
    assert said.finish == "stop"
    assert isinstance(json.loads(said.text), dict)


def test_a_grammar() -> None:
    run = start(replace(PLAIN, constraint=Constraint("gbnf", 'root ::= "yes" | "no" [0-9]{2}')))
    text = generate(run, 5).text
    assert text == "yes" or (text.startswith("no") and text[2:].isdigit())


def test_for_a_bare_prompt() -> None:
    said = generate(start(TaskRequest("m", prompt="Is it?", constraint=JSON_SCHEMA)), 1)
    jsonschema.validate(json.loads(said.text), SCHEMA)


def test_ends_by_length_inside_a_form() -> None:
    said = generate(start(replace(PLAIN, constraint=JSON_SCHEMA, max_tokens=4)), 1)
    assert (said.finish, len(said.tokens)) == ("length", 4)
    assert said.text.startswith("{")


def test_a_bias_cannot_leave_the_form() -> None:
    sampling = replace(PLAIN.sampling, logit_bias=())
    run = start(replace(PLAIN, constraint=JSON_SCHEMA, sampling=sampling))
    for choice in run.choices:
        choice.sampler._bias_tokens = np.array([ord("x")], dtype=np.int64)
        choice.sampler._bias_values = np.array([100.0], dtype=np.float32)
        choice.sampler.changes = True
    jsonschema.validate(json.loads(generate(run, 3).text), SCHEMA)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_a_schema_is_refused_before_a_token(case: Any) -> None:
    fault = refusal(replace(PLAIN, constraint=Constraint("json_schema", case.text)))
    assert fault.param == "response_format"
    assert case.refused in fault.detail


@pytest.mark.parametrize(
    ("constraint", "word"),
    [
        (Constraint("json_schema"), "without a schema"),
        (Constraint("json_object", "{}"), "takes no schema"),
        (Constraint("xml", "x"), "no form"),
        (Constraint("gbnf", "root ::= a"), "no rule `a`"),
        (Constraint("gbnf", ""), "no rule `root`"),
        (Constraint("gbnf", 'root ::= "a" root'), "never comes to an end"),
    ],
)
def test_other_constraints_are_refused(constraint: Constraint, word: str) -> None:
    fault = refusal(replace(PLAIN, constraint=constraint))
    assert (fault.param, word in fault.detail) == ("response_format", True)


# --- tools --------------------------------------------------------------------------------------
WITH_TOOLS = replace(PLAIN, tools=(WEATHER, LIGHT))
FAMILIES = ("HERMES", "QWEN3", "LLAMA3", "ALTERNATING", "OTHER_TOOLS", "R1")


def check_calls(said: Said) -> None:
    schemas = {tool.name: json.loads(tool.parameters) for tool in (WEATHER, LIGHT)}
    for _, name, arguments in said.calls:
        jsonschema.validate(json.loads(arguments), schemas[name])
    assert len({number for number, _, _ in said.calls}) == len(said.calls)


@pytest.mark.parametrize("family", FAMILIES)
@given(seed=st.integers(0, 2**32), parallel=st.booleans())
@settings(max_examples=8)
def test_any_model_makes_a_valid_call(family: str, seed: int, parallel: bool) -> None:
    request = replace(WITH_TOOLS, tool_choice="required", parallel_calls=parallel)
    run = start(replace(request, thinking_tokens=3), family)
    said = generate(run, seed)
    assert (said.finish, said.text) == ("tool_calls", "")
    assert len(said.calls) >= 1
    assert parallel or len(said.calls) == 1
    check_calls(said)


@pytest.mark.parametrize("family", FAMILIES[:-1])
def test_the_named_tool_is_called_once(family: str) -> None:
    request = replace(WITH_TOOLS, tool_choice=LIGHT.name, thinking_tokens=3)
    said = generate(start(request, family), 3)
    assert [name for _, name, _ in said.calls] == [LIGHT.name]
    check_calls(said)


@pytest.mark.parametrize("family", FAMILIES[:-1])
def test_answer_or_call_as_the_model_likes(family: str) -> None:
    run = start(WITH_TOOLS, family)
    said = generate(run, 1, ahead=["It is <warm> {.", "<|end|>"])
    assert (said.text, said.calls, said.finish) == ("It is <warm> {.", [], "stop")
    if family == "LLAMA3":
        call = '{"name": "get_weather", "parameters": '
    else:
        call = 'Well.\n<tool_call>\n{"name": "get_weather", "arguments": '
    said = generate(start(replace(WITH_TOOLS, parallel_calls=False), family), 1, ahead=[call])
    assert (said.text, said.finish) == ("" if family == "LLAMA3" else "Well.", "tool_calls")
    assert [name for _, name, _ in said.calls] == ["get_weather"]
    check_calls(said)


def test_parallel_calls_of_a_model_that_knows_them() -> None:
    call = '<tool_call>\n{"name": "light.switch/on-2", "arguments": {"on": true}}\n</tool_call>'
    said = generate(start(WITH_TOOLS), 1, ahead=[call, "\n", call, "<|end|>"])
    assert [name for _, name, _ in said.calls] == [LIGHT.name, LIGHT.name]
    assert said.finish == "tool_calls"
    call = '{"name": "light.switch/on-2", "parameters": {"on": true}}'
    said = generate(start(WITH_TOOLS, "LLAMA3"), 1, ahead=[call, "; ", call, "<|end|>"])
    assert [arguments for _, _, arguments in said.calls] == ['{"on": true}'] * 2


def test_ids_of_calls_are_the_run_s_own() -> None:
    request = replace(WITH_TOOLS, tool_choice="required")
    first, again = generate(start(request), 3), generate(start(request), 4)
    assert first.calls[0][0] == again.calls[0][0]
    other = replace(request, sampling=replace(PLAIN.sampling, seed=2))
    assert generate(start(other), 3).calls[0][0] != first.calls[0][0]


def test_no_tools_where_none_are_wanted() -> None:
    run = start(replace(WITH_TOOLS, tool_choice="none"))
    assert "get_weather" not in prompt(run)
    said = generate(run, 1, ahead=["<tool_call>", "<|end|>"])
    assert (said.text, said.calls) == ("<tool_call>", [])


def test_answer_of_a_form_or_call() -> None:
    request = replace(WITH_TOOLS, constraint=JSON_SCHEMA)
    said = generate(start(request), 1, ahead=["{"])
    jsonschema.validate(json.loads(said.text), SCHEMA)
    said = generate(start(request), 1, ahead=["<"])
    assert said.finish == "tool_calls"
    check_calls(said)


@pytest.mark.parametrize(
    ("change", "param", "word"),
    [
        ({"tools": (Tool(""),)}, "tools", "no name"),
        ({"tools": (Tool("a b"),)}, "tools", "no name of"),
        ({"tools": (Tool("a"), Tool("a"))}, "tools", "two tools"),
        ({"tools": tuple(Tool(f"t{n}") for n in range(TOOLS + 1))}, "tools", "at most"),
        ({"tools": (Tool("a", "", "{"),)}, "tools", "not JSON"),
        ({"tools": (Tool("a", "", '{"type": "string"}'),)}, "tools", "are an object"),
        ({"tools": (Tool("a", "", '{"properties": {"x": {"type": "z"}}}'),)}, "tools", "z"),
        ({"tools": (Tool("a", "", json.dumps(closed(x={"$ref": "#"}))),)}, "tools", "without end"),
        ({"tools": (Tool("a"),), "tool_choice": "b"}, "tool_choice", "'b'"),
        ({"tool_choice": "b"}, "tool_choice", "none"),
        ({"tool_choice": "required"}, "tool_choice", "no tools"),
        (
            {"tools": (Tool("a"),), "tool_choice": "required", "constraint": JSON_SCHEMA},
            "response_format",
            "instead of",
        ),
        ({"tools": (Tool("a"),), "messages": (), "prompt": "x"}, "tools", "bare prompt"),
    ],
)
def test_tools_that_are_refused(change: dict[str, Any], param: str, word: str) -> None:
    fault = refusal(replace(PLAIN, **change))
    assert (fault.param, word in fault.detail) == (param, True)


def test_what_the_compiler_does_not_know_of_a_tool_s_schema_is_passed_over() -> None:
    schema = closed(
        x={"type": "array", "items": {"enum": [1, 2]}, "uniqueItems": True, "maxItems": 2}
    )
    request = replace(PLAIN, tools=(Tool("a", "", json.dumps(schema)),), tool_choice="a")
    said = generate(start(request), 1)
    arguments = json.loads(said.calls[0][2])
    assert set(arguments["x"]) <= {1, 2}


def test_many_tools() -> None:
    tools = tuple(replace(WEATHER, name=f"tool_{n}") for n in range(TOOLS))
    said = generate(start(replace(PLAIN, tools=tools, tool_choice="required")), 9)
    assert said.finish == "tool_calls"


def test_calls_of_a_turn_are_bounded() -> None:
    call = '<tool_call>\n{"name": "light.switch/on-2", "arguments": {"on": true}}\n</tool_call>\n'
    request = replace(WITH_TOOLS, max_tokens=7000, sampling=Sampling(temperature=0.0))
    said = generate(start(request), 1, ahead=[call] * (TOOL_CALLS + 1))
    assert (len(said.calls), said.finish) == (TOOL_CALLS, "tool_calls")


# --- what the template is told ------------------------------------------------------------------
@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("HERMES", HERMES),
        ("QWEN3", HERMES),
        ("LLAMA3", LLAMA3),
        ("OTHER_TOOLS", None),
        ("R1", None),
    ],
)
def test_the_notation_is_found(family: str, expected: ToolFormat | None) -> None:
    assert ChatTemplate(getattr(chat_templates, family)).tool_format is expected


HISTORY = (
    ChatMessage("system", "Be brief."),
    ChatMessage("user", "Rome and Oslo?"),
    ChatMessage(
        "assistant",
        "",
        calls=(
            ToolCall("c1", "get_weather", '{"city": "Rome"}'),
            ToolCall("c2", "get_weather", '{"city": "Oslo"}'),
        ),
    ),
    ChatMessage("tool", "warm", call_id="c1"),
    ChatMessage("tool", "cold", call_id="c2"),
)


@pytest.mark.parametrize("family", FAMILIES)
def test_earlier_calls_are_told(family: str) -> None:
    text = prompt(start(replace(WITH_TOOLS, messages=HISTORY), family))
    for word in ("Tells the weather.", "Rome", "Oslo", "warm", "cold", "light.switch/on-2"):
        assert word in text, word
    assert text.index("Oslo", 40) > text.index("Rome", 40)


def test_each_call_with_its_answer_where_there_is_one_a_turn() -> None:
    text = prompt(start(replace(WITH_TOOLS, messages=HISTORY), "LLAMA3"))
    places = [text.index(word) for word in ('{"city": "Rome"}', "warm", '{"city": "Oslo"}', "cold")]
    assert places == sorted(places)


def test_tools_in_words_for_a_template_that_knows_none() -> None:
    text = prompt(start(replace(WITH_TOOLS, messages=HISTORY), "ALTERNATING"))
    assert text.startswith("<|begin|>system\nBe brief.\n\nYou can call")
    assert text.count("<|begin|>user") == 2
    assert '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}' in text


def test_tools_of_users_stay_text() -> None:
    tool = Tool("a", "<|end|>", json.dumps(closed(**{"<|begin|>": {"description": "<|end|>"}})))
    call = ToolCall("c", "a", json.dumps({"<|begin|>": "<|end|>"}))
    messages = (*ASKED, ChatMessage("assistant", "", calls=(call,)), ChatMessage("tool", "<|end|>"))
    for family in FAMILIES:
        with_them = start(replace(PLAIN, tools=(tool,), messages=messages), family)
        harmless = replace(tool, description="", parameters="")
        plain = (
            *ASKED,
            ChatMessage("assistant", "", calls=(replace(call, arguments="{}"),)),
            ChatMessage("tool", ""),
        )
        without = start(replace(PLAIN, tools=(harmless,), messages=plain), family)
        for token in VOCABULARY.control_tokens().values():
            assert with_them.prompt.count(token) == without.prompt.count(token)


@given(st.text(max_size=8))
def test_arguments_of_clients_never_break_the_template(arguments: str) -> None:
    call = ToolCall("c", "get_weather", arguments)
    messages = (*ASKED, ChatMessage("assistant", "", calls=(call,)), ChatMessage("tool", "x"))
    for family in ("HERMES", "ALTERNATING"):
        assert start(replace(WITH_TOOLS, messages=messages), family).prompt


def outcome(request: TaskRequest, family: str) -> FaultCode | None:
    """The fault; None where the run begins."""
    try:
        start(request, family)
    except RequestFault as fault:
        return fault.code
    return None


@pytest.mark.parametrize("family", ["HERMES", "ALTERNATING"])
@pytest.mark.parametrize("depth", [300, 900, 20_000])
def test_arguments_nested_without_end(family: str, depth: int) -> None:
    call = ToolCall("c", "get_weather", "[" * depth + "]" * depth)
    messages = (*ASKED, ChatMessage("assistant", "", calls=(call,)), ChatMessage("tool", "x"))
    found = outcome(replace(WITH_TOOLS, messages=messages), family)
    assert found in (None, FaultCode.BAD_REQUEST)


def test_names_of_tools() -> None:
    assert NAME.fullmatch("server.tool/do-it_2:x")
    for bad in ('a"b', "a b", "é", "a\\", "a" * 65, ""):
        assert not NAME.fullmatch(bad)


# --- thinking -----------------------------------------------------------------------------------
def test_thoughts_are_told_apart() -> None:
    said = generate(start(PLAIN, "QWEN3"), 1, ahead=["<think>\nHm.\n</think>\n\nYes.<|end|>"])
    assert (said.reasoning, said.text, said.finish) == ("Hm.", "Yes.", "stop")
    assert VOCABULARY.text(said.tokens) == "<think>\nHm.\n</think>\n\nYes."
    said = generate(start(PLAIN, "R1"), 1, ahead=["Hm.\n</think>\n\nYes.<|end|>"])
    assert (said.reasoning, said.text) == ("Hm.", "Yes.")


@pytest.mark.parametrize(
    ("family", "end"),
    [
        ("QWEN3", "assistant\n<think>\n\n</think>\n\n"),
        ("R1", "assistant\n<think>\n</think>\n\n"),
    ],
)
def test_no_thoughts_where_none_are_wanted(family: str, end: str) -> None:
    run = start(replace(PLAIN, thinking=False), family)
    assert prompt(run).endswith(end)
    said = generate(run, 1, ahead=["Yes. <think>x</think><|end|>"])
    assert (said.text, said.reasoning) == ("Yes. <think>x</think>", "")


def test_the_effort_is_told() -> None:
    request = replace(
        PLAIN,
        reasoning_effort="high",
        messages=(ChatMessage("assistant", "Yes.", reasoning="I thought."), *ASKED),
    )
    assert "Effort: high" in prompt(start(request, "EFFORT"))
    assert "I thought.Yes." in prompt(start(request, "EFFORT"))
    assert "Effort: medium" in prompt(start(PLAIN, "EFFORT"))


@pytest.mark.parametrize(("family", "opening"), [("QWEN3", ["<think>"]), ("R1", [])])
@pytest.mark.parametrize("most", [0, 5])
def test_thoughts_have_a_budget(family: str, opening: list[str], most: int) -> None:
    run = start(replace(PLAIN, thinking_tokens=most), family)
    said = generate(run, 1, ahead=[*opening, "hmmmm" * 9])
    assert said.reasoning == "hmmmm"[:most]
    assert "</think>" in VOCABULARY.text(said.tokens)


@pytest.mark.parametrize(("family", "opening"), [("QWEN3", "<think>"), ("R1", "")])
def test_the_form_begins_after_the_thoughts(family: str, opening: str) -> None:
    request = replace(PLAIN, constraint=JSON_SCHEMA)
    said = generate(
        start(request, family), 1, ahead=[f'{opening}maybe {{"x": <tool_call></think>\n']
    )
    assert said.reasoning == 'maybe {"x": <tool_call>'
    jsonschema.validate(json.loads(said.text), SCHEMA)
    bounded = replace(request, thinking_tokens=3)
    said = generate(start(bounded, family), 1, ahead=[f"{opening}aaaaaaaaa"])
    assert said.reasoning == "aaa"
    jsonschema.validate(json.loads(said.text), SCHEMA)


def test_calls_after_thoughts() -> None:
    ahead = ['<think>use <tool_call>?</think>\n\n<tool_call>\n{"name": "get_weather"']
    said = generate(start(replace(WITH_TOOLS, parallel_calls=False), "QWEN3"), 1, ahead=ahead)
    assert (said.reasoning, said.text, said.finish) == ("use <tool_call>?", "", "tool_calls")
    check_calls(said)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"thinking": True}, "enable_thinking"),
        ({"thinking": False, "thinking_tokens": 9}, "thinking_budget"),
        ({"thinking": True, "thinking_tokens": 0}, "thinking_budget"),
        ({"thinking": False, "reasoning_effort": "low"}, "reasoning_effort"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort"),
        ({"thinking": True, "messages": (), "prompt": "x"}, "enable_thinking"),
    ],
)
def test_contradictions_are_refused(change: dict[str, Any], param: str) -> None:
    assert refusal(replace(PLAIN, **change)).param == param


# --- taking an answer over ----------------------------------------------------------------------
@pytest.mark.parametrize(("answer", "met"), [("abc STOP", "STOP"), ("abc END", "")])
def test_the_stop_string_that_was_met_is_told(answer: str, met: str) -> None:
    run = start(replace(PLAIN, stop=("never", "STOP")), "HERMES")
    row = np.zeros(VOCABULARY.size, dtype=np.float32)
    tokens = [*VOCABULARY.tokens(answer, special=False), *([] if met else [VOCABULARY.eos])]
    chunks = [run.take(0, token, row, cast(Vocabulary, VOCABULARY)) for token in tokens]
    assert {chunk.stopped for chunk in chunks[:-1]} == {""}
    assert (chunks[-1].finish, chunks[-1].stopped) == ("stop", met)


@given(st.integers(0, 2**32), st.integers(0, 2**16))
@settings(max_examples=60)
def test_rebuilt_from_the_delivered_tokens(seed: int, place: int) -> None:
    request, family, ahead = (
        (replace(PLAIN, constraint=JSON_SCHEMA, stop=("STOP",)), "HERMES", []),
        (replace(WITH_TOOLS, tool_choice="required"), "LLAMA3", []),
        (replace(WITH_TOOLS, thinking_tokens=4), "QWEN3", ["<think>hmmmmmmmm"]),
        (replace(PLAIN, thinking_tokens=4, constraint=JSON_SCHEMA), "R1", ["hmm"]),
        (replace(PLAIN, stop=("STOP",), max_tokens=40), "HERMES", ["abc STO"]),
    )[seed % 5]
    undisturbed = generate(start(request, family), seed, ahead=ahead)
    place %= len(undisturbed.tokens)
    delivered = undisturbed.tokens[:place]
    run = start(request, family)
    said = Said(tokens=list(delivered))
    for delta in run.replay(0, delivered, cast(Vocabulary, VOCABULARY)):
        said.add(Chunk(0, text=delta.text, reasoning=delta.reasoning, calls=delta.calls))
    choice = run.choices[0]
    row = np.zeros(VOCABULARY.size, dtype=np.float32)
    for token in undisturbed.tokens[place:]:
        assert not choice.forced or choice.forced[0] == token
        assert choice.matcher is None or choice.matcher.allows(token)
        said.add(run.take(0, token, row, cast(Vocabulary, VOCABULARY)))
    if not said.finish:
        said.add(run.take(0, VOCABULARY.eos, row, cast(Vocabulary, VOCABULARY)))
    assert said == undisturbed
