"""Answers of a given form, from a real model."""

from __future__ import annotations

import json
import re
import struct
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from meshslm.adapters.engine_process import EngineProcess, EngineSpec
from meshslm.errors import FaultCode
from meshslm.wire.messages import ChatMessage, Constraint, Sampling, TaskRequest, Tool, ToolCall
from tests.adapters.engine_client import Reply, chat, serving
from tests.engine.schema_set import REFUSED, SUPPORTED, closed

pytestmark = pytest.mark.model

PERSON = closed(
    name={"type": "string", "maxLength": 20}, age={"type": "integer", "minimum": 0, "maximum": 120}
)
PERSON_ASKED = chat(
    "Invent a person.", 120, constraint=Constraint("json_schema", json.dumps(PERSON))
)
WEATHER = Tool(
    "get_weather",
    "Tells the weather of a city.",
    json.dumps(closed(city={"type": "string", "maxLength": 20}, unit={"enum": ["C", "F"]})),
)
WEATHER_ASKED = chat("How warm is it in Rome?", 120, tools=(WEATHER,), tool_choice="required")


@pytest.fixture
def spec(model_path: Path) -> EngineSpec:
    return EngineSpec("m", model_path, context=1024, slots=8)


def calls(reply: Reply, choice: int = 0) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    for chunk in reply.chunks:
        for piece in chunk.calls if chunk.choice == choice else ():
            if piece.id:
                found.append((piece.id, piece.name, ""))
            number, name, arguments = found[-1]
            found[-1] = (number, name, arguments + piece.arguments)
    return found


async def test_every_schema_is_kept_or_refused(spec: EngineSpec) -> None:
    async with serving(EngineProcess(spec)) as client:
        asked = [
            chat(
                "Give me an example.",
                120,
                constraint=Constraint("json_schema", case.text),
                sampling=Sampling(temperature=heat, seed=11),
            )
            for heat in (0.0, 1.0)
            for case in SUPPORTED
        ]
        replies = await client.ask_all(asked)
        refused = await client.ask_all(
            [chat("Example?", constraint=Constraint("json_schema", case.text)) for case in REFUSED]
        )
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    for case, reply in zip(SUPPORTED * 2, replies, strict=True):
        if reply.finish() == ["length"]:
            assert case.endless, (case.name, reply.text())
            continue
        assert reply.finish() == ["stop"], (case.name, reply.failed)
        jsonschema.validate(json.loads(reply.text()), json.loads(case.text), format_checker=checker)
    for case, reply in zip(REFUSED, refused, strict=True):
        assert reply.failed is not None
        assert reply.failed.code is FaultCode.BAD_REQUEST
        assert case.refused in reply.failed.detail
        assert not reply.chunks


async def test_a_call_from_a_model_that_knows_no_tools(spec: EngineSpec) -> None:
    hot = replace(WEATHER_ASKED, sampling=Sampling(temperature=1.0, seed=5), choices=3)
    named = replace(WEATHER_ASKED, tools=(Tool("other"), WEATHER), tool_choice="get_weather")
    async with serving(EngineProcess(spec)) as client:
        replies = await client.ask_all([WEATHER_ASKED, hot, named])
    for reply, choices in zip(replies, (1, 3, 1), strict=True):
        for choice in range(choices):
            assert reply.finish(choice) == ["tool_calls"]
            ((_, name, arguments),) = calls(reply, choice)
            assert name == "get_weather"
            jsonschema.validate(json.loads(arguments), json.loads(WEATHER.parameters))
            assert reply.text(choice) == ""


async def test_answers_to_calls_are_read(spec: EngineSpec) -> None:
    call = ToolCall("call_1", "get_weather", '{"city": "Rome", "unit": "C"}')
    messages = (
        *WEATHER_ASKED.messages,
        ChatMessage("assistant", "", calls=(call,)),
        ChatMessage("tool", "It is 31 C.", call_id="call_1"),
    )
    request = replace(WEATHER_ASKED, messages=messages, tool_choice="auto", max_tokens=48)
    async with serving(EngineProcess(spec)) as client:
        reply = await client.ask(request)
    assert "31" in reply.text()


async def test_other_forms(spec: EngineSpec) -> None:
    grammar = Constraint("gbnf", 'root ::= ("yes" | "no") ", " [0-9]{2} " percent."')
    async with serving(EngineProcess(spec)) as client:
        judged, anything, short = await client.ask_all(
            [
                chat("Will it rain?", constraint=grammar),
                chat("A person?", 100, constraint=Constraint("json_object")),
                replace(PERSON_ASKED, max_tokens=5),
            ]
        )
    assert re.fullmatch("(yes|no), [0-9]{2} percent\\.", judged.text())
    if anything.finish() == ["stop"]:
        assert isinstance(json.loads(anything.text()), dict)
    assert anything.text().startswith("{")
    assert (short.finish(), len(short.tokens())) == (["length"], 5)


@pytest.mark.parametrize("request_", [PERSON_ASKED, WEATHER_ASKED], ids=["schema", "tool"])
@pytest.mark.parametrize("heat", [0.0, 1.0])
async def test_the_same_in_company_and_when_taken_over(
    spec: EngineSpec, request_: TaskRequest, heat: float
) -> None:
    request = replace(request_, sampling=Sampling(temperature=heat, seed=7))
    others = [chat(f"Count to {number}.", 60) for number in range(20, 26)]
    async with serving(EngineProcess(spec)) as client:
        alone = await client.ask(request)
        company, *_ = await client.ask_all([request, *others])
        tokens = alone.tokens()
        places = range(1, len(tokens), 7)
        resumed = await client.ask_all(
            [
                replace(request, delivered=struct.pack(f"<{place}I", *tokens[:place]))
                for place in places
            ]
        )
    assert company.tokens() == tokens
    assert (company.text(), calls(company)) == (alone.text(), calls(alone))
    for place, rest in zip(places, resumed, strict=True):
        before = Reply(chunks=[])
        for chunk in alone.chunks:
            if len(before.tokens()) + len(chunk.tokens) <= place:
                before.chunks.append(chunk)
        whole = Reply(chunks=[*before.chunks, *rest.chunks])
        assert whole.tokens() == tokens
        assert (whole.text(), calls(whole)) == (alone.text(), calls(alone))
        assert whole.finish() == alone.finish()


@pytest.mark.long
async def test_a_form_that_becomes_too_much_fails_alone(spec: EngineSpec) -> None:
    grammar = 'root ::= ([a-z ]* "a" [a-z ]{18} "b" [a-z ]{18}){9}'
    wild = chat("Go on.", 900, constraint=Constraint("gbnf", grammar))
    wild = replace(wild, sampling=Sampling(temperature=3.0, seed=1))
    async with serving(EngineProcess(spec)) as client:
        failed, fine = await client.ask_all([wild, PERSON_ASKED])
    assert failed.failed is not None
    assert failed.failed.code is FaultCode.BAD_REQUEST
    assert fine.finish() == ["stop"]
    assert len(client.states) == 1
