"""An endpoint outside the mesh, good and hostile, over real sockets."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits
from meshslm.adapters.upstream_budget import Bounds, UpstreamBudget
from meshslm.adapters.upstream_engine import UpstreamEngine, UpstreamSpec
from meshslm.adapters.upstream_key import read_key
from meshslm.core.events import EngineReady, Event, RunEnded, RunFailed, RunProduced
from meshslm.errors import RETRYABLE, FaultCode, OurFault
from meshslm.ids import RunId
from meshslm.wire.messages import ChatMessage, Sampling, TaskRequest

KEY = "sk-never-to-be-seen"
REQUEST = TaskRequest(
    "auto", (ChatMessage("user", "hello"),), max_tokens=8, sampling=Sampling(temperature=0.5)
)
RUN = RunId(1)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
Serve = Callable[[trio.SocketStream, bytes], Awaitable[None]]


def event(text: str = "", finish: str | None = None, **more: Any) -> bytes:
    delta = {"content": text} if text else {}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice], **more}).encode() + b"\n\n"


async def good(stream: trio.SocketStream, _request: bytes) -> None:
    await stream.send_all(HEAD + event("Good ") + event("day"))
    await stream.send_all(event(finish="stop"))
    usage = {"prompt_tokens": 5, "completion_tokens": 2}
    counts = {"choices": [], "usage": usage}
    await stream.send_all(b"data: " + json.dumps(counts).encode() + b"\n\ndata: [DONE]\n\n")


class Seen:
    """What an engine posted."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._news = trio.Event()

    async def post(self, *events: Event) -> None:
        for event in events:
            self.events.append(event)
            self._news.set()

    async def until(self, *kinds: type) -> Event:
        """The first event of a kind, once it is there."""
        with trio.fail_after(10):
            while True:
                found = next((e for e in self.events if isinstance(e, kinds)), None)
                if found is not None:
                    return found
                self._news = trio.Event()
                await self._news.wait()

    @property
    def text(self) -> str:
        return "".join(e.chunk.text for e in self.events if isinstance(e, RunProduced))


@asynccontextmanager
async def endpoint(
    serve: Serve, tmp_path: Path, *, timeout_s: float = 5.0, **bounds: Any
) -> AsyncIterator[tuple[UpstreamEngine, Seen, list[bytes]]]:
    """An engine in front of `serve`, which gets each connection once its request is here."""
    requests: list[bytes] = []

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            request = b""
            while b"\r\n\r\n" not in request or not request.endswith(b"}"):
                request += await stream.receive_some()
            requests.append(request)
            try:
                await serve(stream, request)
            except trio.BrokenResourceError:
                pass  # it hung up

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        spec = UpstreamSpec(f"http://127.0.0.1:{port}/v1", "big", KEY, 0.5, timeout_s)
        engine = UpstreamEngine(spec, UpstreamBudget(Bounds(**bounds), tmp_path / "spent.json"))
        seen = Seen()
        nursery.start_soon(engine.run, seen.post)
        await seen.until(EngineReady)
        yield engine, seen, requests
        nursery.cancel_scope.cancel()


async def test_an_answer_streams_through(tmp_path: Path) -> None:
    async with endpoint(good, tmp_path) as (engine, seen, requests):
        engine.start_run(RUN, REQUEST)
        ended = await seen.until(RunEnded, RunFailed)
    assert isinstance(ended, RunEnded)
    assert seen.text == "Good day"
    assert (ended.usage.prompt_tokens, ended.usage.completion_tokens) == (5, 2)
    last = [e for e in seen.events if isinstance(e, RunProduced)][-1]
    assert last.chunk.finish == "stop"
    head, _, body = requests[0].partition(b"\r\n\r\n")
    assert f"Bearer {KEY}".encode() in head
    assert b"POST /v1/chat/completions" in head
    said = json.loads(body)
    assert (said["model"], said["stream"], said["temperature"]) == ("big", True, 0.5)


async def _hang(stream: trio.SocketStream) -> None:
    while await stream.receive_some():
        pass


async def stall_first(stream: trio.SocketStream, _request: bytes) -> None:
    await _hang(stream)


async def stall_later(stream: trio.SocketStream, _request: bytes) -> None:
    await stream.send_all(HEAD + event("Good "))
    await _hang(stream)


async def garbage(stream: trio.SocketStream, _request: bytes) -> None:
    await stream.send_all(HEAD + b"data: \xff\xfe{]\n\n")


async def deep(stream: trio.SocketStream, _request: bytes) -> None:
    await stream.send_all(HEAD + b"data: " + b"[" * 100_000 + b"\n\n")


async def no_http(stream: trio.SocketStream, _request: bytes) -> None:
    await stream.send_all(b"SSH-2.0-OpenSSH_9.6\r\n")


async def endless_line(stream: trio.SocketStream, _request: bytes) -> None:
    await stream.send_all(HEAD + b"data: ")
    while True:
        await stream.send_all(b"x" * 65536)


async def endless(stream: trio.SocketStream, _request: bytes) -> None:
    await stream.send_all(HEAD)
    line = b": " + b"x" * 65536 + b"\n"
    while True:
        await stream.send_all(line)


async def redirect(stream: trio.SocketStream, _request: bytes) -> None:
    await stream.send_all(
        b"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/steal\r\n"
        b"content-length: 0\r\n\r\n"
    )


async def negative(stream: trio.SocketStream, _request: bytes) -> None:
    usage = {"prompt_tokens": -5, "completion_tokens": 2}
    await stream.send_all(HEAD + event("a", "stop", usage=usage))


async def broken_off(stream: trio.SocketStream, _request: bytes) -> None:
    await stream.send_all(HEAD + event("Good "))


async def a_page(stream: trio.SocketStream, _request: bytes) -> None:
    await stream.send_all(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\nlogin"[:-1]
    )


async def packed(stream: trio.SocketStream, _request: bytes) -> None:
    head = HEAD.replace(b"connection", b"content-encoding: gzip\r\nconnection")
    await stream.send_all(head + b"\x1f\x8b" + b"\0" * 100 + b"\ndata: x\n\n")


def status(code: int) -> Serve:
    async def serve(stream: trio.SocketStream, _request: bytes) -> None:
        body = b'{"error": {"message": "secret words"}}'
        length = str(len(body)).encode()
        await stream.send_all(
            b"HTTP/1.1 %d No\r\ncontent-length: %s\r\n\r\n" % (code, length) + body
        )

    return serve


@pytest.mark.parametrize(
    ("serve", "word"),
    [
        (stall_first, "silent"),
        (stall_later, "silent"),
        (garbage, "no answer"),
        (deep, "no answer"),
        (no_http, "cannot be reached"),
        (endless_line, "without an end"),
        (redirect, "elsewhere"),
        (negative, "no answer"),
        (broken_off, "broke off"),
        (a_page, "no stream"),
        (packed, "no answer"),
        (status(400), "400"),
        (status(401), "key"),
        (status(429), "overloaded"),
        (status(500), "500"),
    ],
)
async def test_a_bad_upstream_is_a_failure_that_the_mesh_makes_good(
    serve: Serve, word: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with endpoint(serve, tmp_path, timeout_s=0.3) as (engine, seen, _):
        engine.start_run(RUN, REQUEST)
        failed = await seen.until(RunEnded, RunFailed)
    assert isinstance(failed, RunFailed)
    assert failed.code in RETRYABLE
    assert word in failed.detail
    assert "secret words" not in failed.detail
    assert KEY not in failed.detail
    assert KEY not in caplog.text


def overloaded(said: bytes) -> Serve:
    async def serve(stream: trio.SocketStream, _request: bytes) -> None:
        head = b"HTTP/1.1 429 No\r\ncontent-length: 0\r\n"
        await stream.send_all(head + said + b"\r\n")

    return serve


@pytest.mark.parametrize(
    ("said", "ms"),
    [
        (b"retry-after: 7\r\n", 7_000),
        (b"", 1_000),
        (b"retry-after: 999999999\r\n", 3_600_000),
        (b"retry-after: 99999999999999999999\r\n", 1_000),
        (b"retry-after: -5\r\n", 1_000),
        (b"retry-after: \xb2\r\n", 1_000),
        (b"retry-after: Fri, 31 Dec 1999 23:59:59 GMT\r\n", 1_000),
    ],
)
async def test_who_is_overloaded_says_when_to_come_back(
    said: bytes, ms: int, tmp_path: Path
) -> None:
    async with endpoint(overloaded(said), tmp_path) as (engine, seen, _):
        engine.start_run(RUN, REQUEST)
        failed = await seen.until(RunEnded, RunFailed)
    assert isinstance(failed, RunFailed)
    assert (failed.code, failed.retry_after_ms) == (FaultCode.OVERLOADED, ms)


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -5, "completion_tokens": 2},
        {"prompt_tokens": 5, "completion_tokens": 10**12},
        {"prompt_tokens": "many"},
        [],
    ],
)
async def test_counts_that_cannot_be_are_not_believed(usage: Any, tmp_path: Path) -> None:
    async def serve(stream: trio.SocketStream, _request: bytes) -> None:
        counts = json.dumps({"choices": [], "usage": usage}).encode()
        await stream.send_all(HEAD + event("Good ") + event("day", "stop"))
        await stream.send_all(b"data: " + counts + b"\n\ndata: [DONE]\n\n")

    async with endpoint(serve, tmp_path, spend_per_day=1.0) as (engine, seen, _):
        engine.start_run(RUN, REQUEST)
        ended = await seen.until(RunEnded, RunFailed)
        assert not engine.refuses(REQUEST), "it does not use up the day"
    assert isinstance(ended, RunEnded)
    assert seen.text == "Good day"
    assert (ended.usage.prompt_tokens, ended.usage.completion_tokens) == (1, 2)


async def test_an_answer_without_end_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "UPSTREAM_ANSWER_BYTES", 1 << 20)
    async with endpoint(endless, tmp_path) as (engine, seen, _):
        engine.start_run(RUN, REQUEST)
        failed = await seen.until(RunEnded, RunFailed)
    assert isinstance(failed, RunFailed)
    assert "no end" in failed.detail


async def test_who_hangs_up_ends_it_there(tmp_path: Path) -> None:
    gone = trio.Event()

    async def serve(stream: trio.SocketStream, _request: bytes) -> None:
        await stream.send_all(HEAD + event("Good "))
        await _hang(stream)
        gone.set()

    async with endpoint(serve, tmp_path) as (engine, seen, _):
        engine.start_run(RUN, REQUEST)
        await seen.until(RunProduced)
        engine.stop_run(RUN)
        with trio.fail_after(5):
            await gone.wait()
    assert not any(isinstance(e, RunEnded | RunFailed) for e in seen.events)


async def test_nobody_there_is_a_failure(tmp_path: Path) -> None:
    engine = UpstreamEngine(
        UpstreamSpec("http://127.0.0.1:1/v1", "big", KEY),
        UpstreamBudget(Bounds(), tmp_path / "spent.json"),
    )
    seen = Seen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.run, seen.post)
        await seen.until(EngineReady)
        engine.start_run(RUN, REQUEST)
        failed = await seen.until(RunFailed)
        nursery.cancel_scope.cancel()
    assert isinstance(failed, RunFailed)
    assert failed.code in RETRYABLE


async def test_past_its_bounds_nothing_is_sent(tmp_path: Path) -> None:
    async with endpoint(good, tmp_path, requests_per_minute=1) as (engine, seen, requests):
        engine.start_run(RUN, REQUEST)
        await seen.until(RunEnded)
        engine.start_run(RunId(2), REQUEST)
        failed = await seen.until(RunFailed)
    assert isinstance(failed, RunFailed)
    assert failed.code is FaultCode.OVERLOADED
    assert 50_000 < failed.retry_after_ms <= 60_000
    assert len(requests) == 1


def test_it_says_beforehand_what_it_would_refuse(tmp_path: Path) -> None:
    budget = UpstreamBudget(Bounds(1, 0.5), tmp_path / "spent.json")
    engine = UpstreamEngine(UpstreamSpec("http://x", "big", price_per_1k=1.0), budget)
    assert engine.refuses(REQUEST) == ""
    assert "0.5 a day" in engine.refuses(replace(REQUEST, max_tokens=1000))
    assert "0.5 a day" in engine.refuses(replace(REQUEST, max_tokens=0))
    budget.set_aside(0.01)
    assert "1 requests a minute" in engine.refuses(REQUEST)


def test_the_key_is_in_no_representation() -> None:
    assert KEY not in repr(UpstreamSpec("http://x", "big", KEY))


# --- money --------------------------------------------------------------------------------------
@given(
    st.lists(st.tuples(st.floats(0.01, 2.0), st.floats(0.0, 1.0)), max_size=30),
    st.floats(0.5, 5.0),
)
def test_a_day_never_costs_more_than_it_may(asked: list[tuple[float, float]], most: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_bytes", lambda _self, data: len(data))
        patch.setattr(Path, "replace", lambda self, _target: self)
        bounds = Bounds(spend_per_day=most)
        budget = UpstreamBudget(bounds, Path("/nowhere/spent.json"), lambda: 1e9)
        spent = 0.0
        for cost, share in asked:
            if not budget.refusal(cost):
                budget.set_aside(cost)
                budget.settle(cost, cost * share)
                spent += cost * share
        assert spent <= most + 1e-9


def test_what_was_spent_outlives_a_restart_and_not_the_day(tmp_path: Path) -> None:
    now = [86_400.0 * 20_000]
    file = tmp_path / "spent.json"
    bounds = Bounds(spend_per_day=1.0)
    budget = UpstreamBudget(bounds, file, lambda: now[0])
    budget.set_aside(0.9)
    budget.settle(0.9, 0.9)
    again = UpstreamBudget(bounds, file, lambda: now[0])
    assert "0.9 is spent" in again.refusal(0.2)
    now[0] += 86_400
    assert not again.refusal(0.2)


def test_requests_a_minute_come_back(tmp_path: Path) -> None:
    now = [1000.0]
    bounds = Bounds(requests_per_minute=2)
    budget = UpstreamBudget(bounds, tmp_path / "spent.json", lambda: now[0])
    for _ in range(2):
        assert not budget.refusal(0.0)
        budget.set_aside(0.0)
    assert budget.refusal(0.0)
    assert budget.retry_after_ms(0.0) == 60_000
    now[0] += 60.0
    assert not budget.refusal(0.0)
    assert budget.retry_after_ms(0.0) == 0


def test_money_comes_back_with_the_next_day(tmp_path: Path) -> None:
    now = [86_400.0 * 20_000 + 80_000]
    budget = UpstreamBudget(Bounds(spend_per_day=1.0), tmp_path / "spent.json", lambda: now[0])
    budget.set_aside(0.9)
    assert budget.retry_after_ms(0.2) == 6_400_000
    assert budget.retry_after_ms(0.1) == 0
    assert budget.retry_after_ms(1.5) == 0, "no day is long enough for it"
    now[0] += 6_400
    budget.settle(0.9, 0.9)
    assert budget.retry_after_ms(0.1) == 0


def test_nothing_more_is_spent_while_that_cannot_be_written(tmp_path: Path) -> None:
    """A full disk ends no node, and does not begin the day anew."""
    file = tmp_path / "gone" / "spent.json"
    budget = UpstreamBudget(Bounds(spend_per_day=1.0), file)
    budget.set_aside(0.5)
    budget.settle(0.5, 0.5)
    assert "cannot be written" in budget.refusal(0.1)
    assert budget.retry_after_ms(0.1) == 60_000
    file.parent.mkdir()
    assert not budget.refusal(0.1)
    assert "0.5 is spent" in UpstreamBudget(Bounds(spend_per_day=1.0), file).refusal(0.6)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b'{"day": "x"}', b"[]"])
def test_an_account_that_cannot_be_read_is_no_fresh_day(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "spent.json"
    file.write_bytes(text)
    with pytest.raises(OurFault, match=r"spent\.json"):
        UpstreamBudget(Bounds(spend_per_day=1.0), file)


# --- the key ------------------------------------------------------------------------------------
def test_a_key_comes_from_a_file_or_a_variable(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert read_key(str(file), "", {}) == KEY
    assert read_key("", "UPSTREAM", {"UPSTREAM": KEY}) == KEY
    assert read_key("", "", {}) == ""


@pytest.mark.parametrize("text", [b"", b"two words", b"\xff\xfe", "schlüssel".encode(), b"a\nb"])
def test_what_is_no_key_is_refused_without_a_word_of_it(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(text)
    with pytest.raises(OurFault) as caught:
        read_key(str(file), "", {})
    assert "words" not in str(caught.value)


def test_two_places_for_a_key_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(OurFault, match="one of them"):
        read_key(str(tmp_path / "key"), "KEY", {"KEY": KEY})
    with pytest.raises(OurFault, match="cannot read"):
        read_key(str(tmp_path / "none"), "", {})
