"""Completions over HTTP: answers, streams, headers, failures before and after the first token."""

from __future__ import annotations

from collections.abc import Iterable

import httpx
import msgspec
import pytest

from meshslm.api.openai_responses import ChatChunk, TextCompletion
from meshslm.api.sse import DONE, EventDecoder
from meshslm.errors import FaultCode, RequestFault
from meshslm.wire.messages import TaskRequest, TokenLogprob, TopLogprob
from tests.gateway.scripted_service import (
    NODE,
    TASK,
    Step,
    failed,
    finished,
    greeting,
    route,
    says,
)
from tests.gateway.served import Served

LOGPROBS = (
    TokenLogprob(
        "Hé",
        "Hé".encode(),
        -0.25,
        (TopLogprob("Hé", "Hé".encode(), -0.25), TopLogprob("X", b"X", -2.0)),
    ),
    TokenLogprob("llo", b"llo", -1.5, (TopLogprob("llo", b"llo", -1.5),)),
)


def events_of(response: httpx.Response) -> list[bytes]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    return EventDecoder().feed(response.content)


def chunks_of(response: httpx.Response) -> list[ChatChunk]:
    events = events_of(response)
    assert events.pop() == DONE
    return [msgspec.json.decode(event, type=ChatChunk) for event in events]


# --- whole answers ------------------------------------------------------------------------------
async def test_a_whole_chat_answer(served: Served) -> None:
    response = await served.chat(model="domain:code")
    body = response.json()
    assert body.pop("created") > 1_700_000_000
    assert body.pop("meshslm").pop("ttft_ms") >= 0
    assert body == {
        "id": f"chatcmpl-{TASK}",
        "object": "chat.completion",
        "model": "smollm2",
        "system_fingerprint": "fp_dddddddddddd",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello!", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 3,
            "total_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 2},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "accepted_prediction_tokens": 2,
                "rejected_prediction_tokens": 3,
            },
        },
    }
    assert served.service.visits[0].request.selector == "domain:code"


async def test_a_whole_text_answer(served: Served) -> None:
    plain = (await served.text(n=2)).json()
    assert plain["object"] == "text_completion"
    assert plain["id"] == f"cmpl-{TASK}"
    assert [choice["text"] for choice in plain["choices"]] == ["Hello!", "Hello!"]
    assert [choice["index"] for choice in plain["choices"]] == [0, 1]
    assert plain["usage"]["completion_tokens"] == 6
    echoed = (await served.text(echo=True)).json()
    assert echoed["choices"][0]["text"] == "OnceHello!"


async def test_headers_say_who_answered_and_when(served: Served) -> None:
    headers = (await served.chat()).headers
    assert headers["x-meshslm-node"] == NODE
    assert headers["x-meshslm-node-name"] == "beta"
    assert headers["x-meshslm-model"] == "smollm2"
    assert headers["x-meshslm-profile"] == "coder"
    assert headers["x-meshslm-route"] == "domain code"
    assert headers["x-meshslm-attempts"] == "1"
    assert headers["x-meshslm-queue-ms"] == "4.0"
    assert float(headers["x-meshslm-ttft-ms"]) >= 0
    streamed = (await served.chat(stream=True)).headers
    assert streamed["x-meshslm-node-name"] == "beta"
    assert float(streamed["x-meshslm-ttft-ms"]) >= 0
    assert streamed["x-meshslm-queue-ms"] == "4.0"


async def test_the_last_route_counts(served: Served) -> None:
    def moved(_request: TaskRequest) -> Iterable[Step]:
        yield route(node_name="alpha")
        yield route(node_name="beta", attempt=2)
        yield says("x", finish="length")
        yield finished()

    served.service.script = moved
    response = await served.chat()
    assert response.headers["x-meshslm-node-name"] == "beta"
    assert response.headers["x-meshslm-attempts"] == "2"
    assert response.json()["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("name", ["naïve\r\nset-cookie: a=b", "\x00\x7f", "100%", " ", "名前"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_peers_name_cannot_break_the_headers(
    served: Served, name: str, *, stream: bool
) -> None:
    def named(_request: TaskRequest) -> Iterable[Step]:
        yield route(node_name=name, reason=name)
        yield says("x", finish="stop")
        yield finished()

    served.service.script = named
    response = await served.chat(stream=stream, **_usage(stream=stream))
    assert response.status_code == 200
    assert "set-cookie" not in response.headers
    told = chunks_of(response)[-1].meshslm if stream else None
    assert (told.node_name if told else response.json()["meshslm"]["node_name"]) == name


def _usage(*, stream: bool) -> dict[str, object]:
    return {"stream_options": {"include_usage": True}} if stream else {}


async def test_logprobs_of_a_chat(served: Served) -> None:
    def likely(_request: TaskRequest) -> Iterable[Step]:
        yield route()
        yield says("Héllo", logprobs=LOGPROBS, finish="stop")
        yield finished()

    served.service.script = likely
    whole = (await served.chat(logprobs=True, top_logprobs=2)).json()
    content = whole["choices"][0]["logprobs"]["content"]
    assert content[0] == {
        "token": "Hé",
        "logprob": -0.25,
        "bytes": [72, 195, 169],
        "top_logprobs": [
            {"token": "Hé", "logprob": -0.25, "bytes": [72, 195, 169]},
            {"token": "X", "logprob": -2.0, "bytes": [88]},
        ],
    }
    assert served.service.visits[0].request.logprobs == 2
    streamed = chunks_of(await served.chat(logprobs=True, stream=True))
    spoken = [c.choices[0].logprobs for c in streamed if c.choices[0].logprobs]
    assert msgspec.to_builtins(spoken[0]) == whole["choices"][0]["logprobs"]
    assert served.service.visits[1].request.logprobs == 0


async def test_logprobs_of_a_text(served: Served) -> None:
    def likely(_request: TaskRequest) -> Iterable[Step]:
        yield route()
        yield says("Hé", logprobs=LOGPROBS[:1])
        yield says("llo", logprobs=LOGPROBS[1:], finish="stop")
        yield finished()

    served.service.script = likely
    whole = (await served.text(logprobs=2)).json()["choices"][0]["logprobs"]
    assert whole == {
        "tokens": ["Hé", "llo"],
        "token_logprobs": [-0.25, -1.5],
        "top_logprobs": [{"Hé": -0.25, "X": -2.0}, {"llo": -1.5}],
        "text_offset": [0, 2],
    }
    events = events_of(await served.text(logprobs=2, stream=True))[:-1]
    shapes = [msgspec.json.decode(event, type=TextCompletion) for event in events]
    offsets = [s.choices[0].logprobs.text_offset for s in shapes if s.choices[0].logprobs]
    assert offsets == [[0], [2]]


# --- streams ------------------------------------------------------------------------------------
async def test_a_chat_stream(served: Served) -> None:
    chunks = chunks_of(await served.chat(stream=True, n=2))
    assert {chunk.id for chunk in chunks} == {f"chatcmpl-{TASK}"}
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert {chunk.model for chunk in chunks} == {"smollm2"}
    assert all(chunk.usage is None and chunk.meshslm is None for chunk in chunks)
    for index in range(2):
        own = [c.choices[0] for c in chunks if c.choices[0].index == index]
        assert (own[0].delta.role, own[0].delta.content) == ("assistant", "")
        assert [c.delta.role for c in own[1:]] == [None] * 4
        assert "".join(c.delta.content or "" for c in own) == "Hello!"
        assert [c.finish_reason for c in own] == [None] * 4 + ["stop"]
        assert own[-1].delta.content is None


async def test_usage_comes_last_when_asked_for(served: Served) -> None:
    response = await served.chat(stream=True, stream_options={"include_usage": True})
    *earlier, last = chunks_of(response)
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (7, 3)
    assert last.meshslm is not None
    assert (last.meshslm.node_name, last.meshslm.queue_ms) == ("beta", 4.0)
    raw = [msgspec.json.decode(event) for event in events_of(response)[:-1]]
    assert [event["usage"] for event in raw[:-1]] == [None] * len(earlier)


async def test_a_text_stream(served: Served) -> None:
    response = await served.text(stream=True, echo=True, stream_options={"include_usage": True})
    *events, done = events_of(response)
    assert done == DONE
    shapes = [msgspec.json.decode(event, type=TextCompletion) for event in events]
    assert {shape.object for shape in shapes} == {"text_completion"}
    assert "".join(c.text for shape in shapes for c in shape.choices) == "OnceHello!"
    assert shapes[-2].choices[0].finish_reason == "stop"
    assert shapes[-1].usage is not None


async def test_a_stream_without_any_text_is_still_whole(served: Served) -> None:
    served.service.script = lambda _request: [route(), finished(completion=0)]
    assert chunks_of(await served.chat(stream=True)) == []
    assert (await served.chat()).json()["choices"][0]["message"]["content"] == ""


# --- failures -----------------------------------------------------------------------------------
FAULTS = [
    (FaultCode.BAD_REQUEST, 400, "bad_request"),
    (FaultCode.CONTEXT_OVERFLOW, 400, "context_length_exceeded"),
    (FaultCode.UNKNOWN_MODEL, 404, "model_not_found"),
    (FaultCode.OVERLOADED, 429, "overloaded"),
    (FaultCode.DEADLINE, 504, "deadline"),
    (FaultCode.CANCELLED, 503, "cancelled"),
    (FaultCode.PEER_LOST, 503, "peer_lost"),
    (FaultCode.WORKER_LOST, 503, "worker_lost"),
    (FaultCode.FORBIDDEN, 403, "not_permitted"),
    (FaultCode.NOT_READY, 503, "not_ready"),
    (FaultCode.CONFLICT, 409, "conflict"),
    (FaultCode.INTERNAL, 500, "internal"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("code", "status", "word"), FAULTS)
async def test_a_failure_before_the_first_token_has_its_status(
    served: Served, code: FaultCode, status: int, word: str, *, stream: bool
) -> None:
    detail = "2048 tokens fit, 3000 were asked for"
    served.service.script = lambda _request: [route(), failed(code, detail)]
    response = await served.chat(stream=stream)
    assert response.status_code == status
    assert response.json()["error"]["code"] == word
    assert response.json()["error"]["message"] == detail
    assert response.headers["x-meshslm-node-name"] == "beta"


async def test_the_field_at_fault_is_named(served: Served) -> None:
    served.service.script = lambda _request: [
        failed(FaultCode.CONTEXT_OVERFLOW, "too much", param="max_tokens")
    ]
    assert (await served.chat()).json()["error"]["param"] == "max_tokens"
    body = {"model": "auto", "input": "Hi"}
    response = await served.http.post("/v1/responses", json=body)
    assert response.json()["error"]["param"] == "max_output_tokens"


async def test_every_fault_has_been_tried() -> None:
    assert {code for code, _, _ in FAULTS} == set(FaultCode)


async def test_an_unknown_model_fails_before_any_route(served: Served) -> None:
    known = "Nobody here hosts 'gpt-9'. Known: smollm2, coder."
    served.service.script = lambda _request: [failed(FaultCode.UNKNOWN_MODEL, known)]
    response = await served.chat(model="gpt-9")
    assert response.status_code == 404
    assert response.json()["error"]["message"] == known
    assert "x-meshslm-node" not in response.headers


@pytest.mark.parametrize(("retry_ms", "seconds"), [(1, "1"), (1000, "1"), (1001, "2")])
async def test_an_overloaded_node_says_when_to_come_back(
    served: Served, retry_ms: int, seconds: str
) -> None:
    served.service.refusal = RequestFault(
        FaultCode.OVERLOADED, "64 runs wait already", retry_after_ms=retry_ms
    )
    response = await served.chat()
    assert response.status_code == 429
    assert response.headers["retry-after"] == seconds
    assert response.headers["retry-after-ms"] == str(retry_ms)


async def test_a_failure_in_the_middle_is_an_event_and_no_done(served: Served) -> None:
    def broken(_request: TaskRequest) -> Iterable[Step]:
        yield route()
        yield says("Hel")
        pause = _passing()
        yield pause
        yield failed(FaultCode.PEER_LOST, "beta is gone")

    served.service.script = broken
    *chunks, last = events_of(await served.chat(stream=True))
    assert [msgspec.json.decode(c)["choices"][0]["delta"].get("content") for c in chunks] == [
        "",
        "Hel",
    ]
    assert msgspec.json.decode(last) == {
        "error": {
            "message": "beta is gone",
            "type": "server_error",
            "param": None,
            "code": "peer_lost",
        }
    }
    text = (await served.http.get("/metrics")).text
    assert 'meshslm_tasks_total{outcome="peer_lost"} 1.0' in text


def _passing() -> Step:
    """A step that gives what came before it time to be sent, and nothing else."""
    import trio

    event = trio.Event()
    event.set()
    return event


async def test_half_an_answer_is_not_given_as_a_whole_one(served: Served) -> None:
    served.service.script = lambda _request: [route(), says("Hel"), failed(FaultCode.PEER_LOST)]
    assert (await served.chat()).status_code == 503


@pytest.mark.parametrize("stream", [False, True])
async def test_a_task_without_an_end_is_our_bug(served: Served, *, stream: bool) -> None:
    served.service.script = lambda _request: [route()]
    response = await served.chat(stream=stream)
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_choice_that_nobody_asked_for(served: Served, *, stream: bool) -> None:
    served.service.script = lambda _request: [route(), says("x", choice=1), finished()]
    response = await served.chat(stream=stream)
    assert response.status_code == 500
    served.service.script = greeting
    assert (await served.chat(stream=stream)).status_code == 200
