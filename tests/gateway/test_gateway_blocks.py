"""Streams of typed events say what the whole answers say, whatever a task produces."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from meshslm.api.responses_request import ResponseRequest
from meshslm.api.sse import EventDecoder
from meshslm.gateway.jobs import Head
from meshslm.gateway.kept import KeptResponses
from meshslm.gateway.messages import MessageEvents, MessageWhole
from meshslm.gateway.response_answers import Exchange
from meshslm.gateway.response_events import ResponseEvents
from meshslm.gateway.responses import ResponseWhole
from meshslm.gateway.transcript import Begun, Ended, Grown, Transcript
from meshslm.wire.messages import CallPiece, Chunk, Usage

HEAD = Head("resp_1", 1_700_000_000, "model", None)
USAGE = Usage(3, 4, 1)
pieces = st.builds(
    CallPiece,
    index=st.integers(0, 2),
    id=st.sampled_from(["", "call_1"]),
    name=st.sampled_from(["", "look_up"]),
    arguments=st.sampled_from(["", "{", '"a": 1}', "{}", "\u2028"]),
)
chunks = st.builds(
    Chunk,
    choice=st.just(0),
    tokens=st.lists(st.integers(0, 9), max_size=2).map(tuple),
    text=st.text(max_size=5),
    reasoning=st.text(max_size=3),
    calls=st.lists(pieces, max_size=2).map(tuple),
    finish=st.sampled_from(["", "", "", "stop", "length", "tool_calls"]),
)
answers = st.lists(chunks, max_size=8)


def events_of(raw: bytes) -> list[dict[str, Any]]:
    """Events, each with the kind that the line before it says."""
    kinds = [line[7:] for line in raw.decode().split("\n") if line.startswith("event: ")]
    events = [json.loads(data) for data in EventDecoder().feed(raw)]
    assert [event["type"] for event in events] == kinds
    return events


@given(produced=answers)
def test_blocks_begin_grow_and_end_in_order(produced: list[Chunk]) -> None:
    transcript = Transcript()
    steps = [step for chunk in produced for step in transcript.add(chunk)] + transcript.end()
    texts: dict[int, str] = {}
    ended: list[int] = []
    for step in steps:
        number = step.block.number
        match step:
            case Begun(block):
                assert number == len(texts), "numbered as they begin"
                assert block.text == ""
                assert len(ended) == number, "those before it have ended"
                texts[number] = ""
            case Grown(_, text):
                texts[number] += text
            case Ended():
                assert number == len(ended)
                ended.append(number)
    assert ended == list(texts), "each ends once"
    assert list(texts.values()) == [block.text for block in transcript.blocks]
    assert transcript.text == "".join(chunk.text for chunk in produced)
    assert transcript.reasoning == "".join(chunk.reasoning for chunk in produced)


@given(produced=answers)
def test_a_stream_of_messages(produced: list[Chunk]) -> None:
    whole, writer = MessageWhole(), MessageEvents(HEAD)
    raw = b""
    for chunk in produced:
        whole.add(chunk)
        raw += writer.chunk(chunk)
    events = events_of(raw + writer.end(USAGE, None))
    body = json.loads(msgspec.json.encode(whole.body(HEAD, USAGE, None)))
    assert events[0]["type"] == "message_start"
    assert events[-1] == {"type": "message_stop"}
    assert events[-2]["delta"]["stop_reason"] == body["stop_reason"]
    assert events[-2]["usage"] == body["usage"]
    told: list[dict[str, Any]] = []
    inputs: dict[int, str] = {}
    for event in events[1:-2]:
        match event["type"]:
            case "content_block_start":
                assert event["index"] == len(told)
                told.append(event["content_block"])
            case "content_block_delta":
                delta = event["delta"]
                for field in ("text", "thinking"):
                    told[event["index"]][field] = told[event["index"]].get(field, "") + delta.get(
                        field, ""
                    )
                inputs[event["index"]] = inputs.get(event["index"], "") + delta.get(
                    "partial_json", ""
                )
    for index, block in enumerate(body["content"]):
        assert told[index]["type"] == block["type"]
        for field in ("text", "thinking", "id", "name"):
            assert told[index].get(field, "") == block.get(field, "")
        if block["type"] == "tool_use" and block["input"]:
            assert json.loads(inputs[index]) == block["input"]


@given(produced=answers, keep=st.booleans())
def test_a_stream_of_a_response(produced: list[Chunk], *, keep: bool) -> None:
    asked = ResponseRequest(model="auto", input="Hi", store=keep)
    kept = KeptResponses()
    exchange = Exchange(asked, (), kept)
    whole, writer = ResponseWhole(exchange), ResponseEvents(HEAD, exchange)
    raw = b""
    for chunk in produced:
        whole.add(chunk)
        raw += writer.chunk(chunk)
    events = events_of(raw + writer.end(USAGE, None))
    body = json.loads(msgspec.json.encode(whole.body(HEAD, USAGE, None)))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1]["type"] == f"response.{body['status']}"
    assert events[-1]["response"] == body
    added = [e["item"]["id"] for e in events if e["type"] == "response.output_item.added"]
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    assert added == [item["id"] for item in body["output"]]
    assert [item["id"] for item in done] == added
    deltas: dict[str, str] = dict.fromkeys(added, "")
    for event in events:
        if event["type"].endswith(".delta"):
            deltas[event["item_id"]] += event["delta"]
    for item in body["output"]:
        text = item["arguments"] if "arguments" in item else item["content"][0]["text"]
        assert deltas[item["id"]] == text
    assert (kept.get(HEAD.id, 0.0) is not None) == keep
