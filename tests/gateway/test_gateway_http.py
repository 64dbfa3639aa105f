"""Requests that are no OpenAI business: bodies, hosts, routes, ids, what a node tells of itself."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import httpx
import pytest
import trio

from meshslm import limits
from meshslm.wire.messages import TaskRequest
from tests.gateway.scripted_service import ScriptedService, Step
from tests.gateway.served import CHAT, TEXT, Served, chat_body, gateway

TEN_BYTES_DECLARED_ONE_SENT = (
    b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{"
)


def error_of(response: httpx.Response) -> dict[str, str | None]:
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert response.headers["content-type"] == "application/json"
    error: dict[str, str | None] = body["error"]
    return error


# --- bodies -------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"model": "auto", }', "not valid JSON"),
        (b'{"model": NaN}', "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b'{"model": "\xff"}', "not valid UTF-8: byte 0xff at offset 11"),
        (b'{"unknown": "\xc3("}', "not valid UTF-8"),
        (b'{"model": "\\ud800", "prompt": "x"}', "not valid JSON"),
        (b"[]", "Invalid body: Expected `object`, got `array`"),
        (b"null", "Invalid body"),
        (b'"text"', "Invalid body"),
        (b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b"{}", "Missing required parameter"),
    ],
)
async def test_a_body_that_is_no_request(served: Served, path: str, body: bytes, told: str) -> None:
    response = await served.http.post(path, content=body)
    assert response.status_code == 400
    error = error_of(response)
    assert told in str(error["message"])
    assert error["type"] == "invalid_request_error"
    assert served.service.visits == []


@pytest.mark.parametrize("path", [CHAT, TEXT])
async def test_a_body_declared_too_large(served: Served, path: str) -> None:
    response = await served.http.post(path, content=b"x" * (limits.HTTP_BODY_BYTES + 1))
    assert response.status_code == 413
    assert str(limits.HTTP_BODY_BYTES) in str(error_of(response)["message"])
    assert (await served.chat()).status_code == 200


async def test_a_body_that_grows_too_large() -> None:
    async with gateway(ScriptedService(), body_bytes=1000) as served:
        sent = 0

        async def body() -> AsyncIterator[bytes]:
            nonlocal sent
            for _ in range(50):
                sent += 100
                yield b"x" * 100

        response = await served.http.post(CHAT, content=body())
        assert response.status_code == 413
        assert error_of(response)["code"] == "payload_too_large"
        assert (await served.chat()).status_code == 200


async def test_a_refused_client_that_never_stops_sending_is_cut_off(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HTTP_LINGER_BYTES", 100_000)
    async with await trio.open_tcp_stream("127.0.0.1", served.address.port) as stream:
        await stream.send_all(
            b"POST /nowhere HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999\r\n\r\n"
        )
        with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x" * 50_000_000)


async def test_a_body_that_never_comes(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTP_BODY_MS", 50)
    monkeypatch.setattr(limits, "HTTP_LINGER_MS", 50)
    async with await trio.open_tcp_stream("127.0.0.1", served.address.port) as stream:
        await stream.send_all(TEN_BYTES_DECLARED_ONE_SENT)
        with trio.fail_after(10):
            received = b"".join([part async for part in stream])
    assert received.startswith(b"HTTP/1.1 408 ")
    assert b"request_timeout" in received


async def test_a_client_that_leaves_before_its_body_is_whole(served: Served) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", served.address.port) as stream:
        await stream.send_all(TEN_BYTES_DECLARED_ONE_SENT)
    assert (await served.chat()).status_code == 200
    assert len(served.service.visits) == 1


async def test_a_bug_is_a_500_without_its_trace(served: Served) -> None:
    def broken(_request: TaskRequest) -> list[Step]:
        raise ZeroDivisionError("the secret detail")

    served.service.script = broken
    response = await served.chat()
    assert response.status_code == 500
    assert "secret" not in response.text
    assert error_of(response)["type"] == "server_error"
    assert response.headers["x-request-id"] in str(error_of(response)["message"])


# --- routes -------------------------------------------------------------------------------------
async def test_unknown_routes_and_wrong_methods(served: Served) -> None:
    missing = await served.http.get("/v1/nothing")
    assert (missing.status_code, error_of(missing)["code"]) == (404, "not_found")
    wrong = await served.http.get(CHAT)
    assert (wrong.status_code, error_of(wrong)["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"
    posted = await served.http.post("/mesh/peers", content=b"x" * 5_000_000)
    assert (posted.status_code, error_of(posted)["code"]) == (405, "method_not_allowed")


async def test_websockets_are_refused(served: Served) -> None:
    response = await served.http.get(
        "/v1/models",
        headers={
            "connection": "upgrade",
            "upgrade": "websocket",
            "sec-websocket-version": "13",
            "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
        },
    )
    assert response.status_code == 403


async def test_every_answer_has_a_request_id(served: Served) -> None:
    own = await served.http.get("/healthz", headers={"x-request-id": "a.b_c-1"})
    assert own.headers["x-request-id"] == "a.b_c-1"
    first, second = await served.http.get("/healthz"), await served.http.get("/nowhere")
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    forged = await served.http.get("/healthz", headers={"x-request-id": "a b\tc"})
    assert forged.headers["x-request-id"].startswith("req-")


# --- hosts --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("host", "heard"),
    [
        ("127.0.0.1:7416", True),
        ("localhost", True),
        ("LOCALHOST:1", True),
        ("node.localhost", True),
        ("[::1]:7416", True),
        ("127.8.8.8", True),
        ("box.lan", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("10.0.0.1", False),
        ("[", False),
        ("", False),
    ],
)
async def test_only_loopback_hosts_are_heard(host: str, *, heard: bool) -> None:
    async with gateway(ScriptedService(), allowed_hosts=("Box.LAN",)) as served:
        response = await served.http.get("/healthz", headers={"host": host})
        assert response.status_code == (200 if heard else 403)
        if not heard:
            assert error_of(response)["code"] == "forbidden"


@pytest.mark.parametrize(
    ("origin", "heard"),
    [
        ("http://localhost:3000", True),
        ("http://127.0.0.1:7416", True),
        ("https://evil.example", False),
        ("null", False),
    ],
)
async def test_only_pages_of_loopback_hosts_may_ask(
    served: Served, origin: str, *, heard: bool
) -> None:
    response = await served.http.post(CHAT, json=chat_body(), headers={"origin": origin})
    assert response.status_code == (200 if heard else 403)
    assert len(served.service.visits) == (1 if heard else 0)


async def test_a_node_that_listens_everywhere_hears_every_host() -> None:
    async with gateway(ScriptedService(), host="0.0.0.0") as served:
        response = await served.http.get("/healthz", headers={"host": "box.example"})
        assert response.status_code == 200


# --- what a node tells --------------------------------------------------------------------------
async def test_health_and_readiness(served: Served) -> None:
    assert (await served.http.get("/healthz")).json() == {"status": "ok"}
    ready = await served.http.get("/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (200, True)
    served.service.readiness = (False, "smollm2 is loading")
    loading = await served.http.get("/readyz")
    assert loading.status_code == 503
    assert loading.json() == {"ready": False, "reason": "smollm2 is loading"}


async def test_models_say_who_hosts_them(served: Served) -> None:
    listed = (await served.http.get("/v1/models")).json()
    assert listed["object"] == "list"
    names = [model["id"] for model in listed["data"]]
    assert names == ["auto", "domain:code", "domain:writing", "coder", "writer", "smollm2"]
    smollm2 = listed["data"][-1]
    assert (smollm2["object"], smollm2["owned_by"]) == ("model", "meshslm")
    hosts = [(h["node_name"], h["profile"], h["ready"]) for h in smollm2["meshslm"]["hosts"]]
    assert hosts == [("alpha", "writer", True), ("beta", "coder", False)]
    one = await served.http.get("/v1/models/domain:code")
    assert one.json() == listed["data"][1]


async def test_an_unknown_model_is_told_the_known_ones(served: Served) -> None:
    response = await served.http.get("/v1/models/org/gpt-9")
    assert response.status_code == 404
    error = error_of(response)
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert "org/gpt-9" in str(error["message"])
    assert "domain:code" in str(error["message"])


async def test_peers_and_status(served: Served) -> None:
    peers = (await served.http.get("/mesh/peers")).json()["peers"]
    assert [(peer["name"], peer["state"]) for peer in peers] == [
        ("alpha", "self"),
        ("beta", "alive"),
        ("gamma", "unreachable"),
    ]
    assert peers[1]["specialists"][0]["domains"][0]["domain"] == "code"
    status = (await served.http.get("/mesh/status")).json()
    assert (status["name"], status["boot"], status["tasks"]["retried"]) == ("alpha", 3, 4)


async def test_metrics_count_what_happened(served: Served) -> None:
    await served.chat()
    await served.chat(n=99)
    await served.http.get("/random/path")
    text = (await served.http.get("/metrics")).text

    def value(sample: str) -> float:
        found = re.search(rf"^{re.escape(sample)} (.*)$", text, re.MULTILINE)
        assert found, sample
        return float(found[1])

    assert value('meshslm_http_requests_total{route="/v1/chat/completions",status="200"}') == 1
    assert value('meshslm_http_requests_total{route="/v1/chat/completions",status="400"}') == 1
    assert value('meshslm_http_requests_total{route="other",status="404"}') == 1
    assert value('meshslm_tasks_total{outcome="finished"}') == 1
    assert value('meshslm_tokens_total{kind="prompt"}') == 7
    assert value('meshslm_tokens_total{kind="completion"}') == 3
    assert value("meshslm_time_to_first_token_seconds_count") == 1
    assert value("meshslm_task_duration_seconds_count") == 1
    assert value('meshslm_peers{state="alive"}') == 1
    assert value('meshslm_peers{state="unreachable"}') == 1
    assert value('meshslm_engine_queued{model="smollm2"}') == 2
    assert value('meshslm_peer_rtt_seconds{name="beta",peer="12D3KooWbeta"}') == 0.0125
    assert value('meshslm_build_info{version="0.0"}') == 1


async def test_two_gateways_in_one_process_count_apart(served: Served) -> None:
    async with gateway(ScriptedService()) as other:
        await served.chat()
        assert 'outcome="finished"' not in (await other.http.get("/metrics")).text


async def test_nothing_a_client_wrote_reaches_the_log(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    await served.chat(messages=[{"role": "user", "content": "my secret diary"}])
    told = json.dumps([record.__dict__ for record in caplog.records], default=str)
    assert "answered" in told
    assert "diary" not in told
    assert "Hello!" not in told
