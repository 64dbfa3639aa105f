"""The blocking client, against a gateway on a real socket."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import TypeVar

import pytest
import trio

from meshslm.api.admin import LONGEST_MS
from meshslm.client import DEFAULT_URL, Client, FaultCode, OurFault, RequestFault
from meshslm.client.asking import asking
from meshslm.settings import GatewaySettings
from meshslm.wire.messages import TaskRequest
from tests.gateway.scripted_service import (
    NODE,
    Step,
    breaking,
    failed,
    finished,
    nobody_waits,
    route,
    says,
)
from tests.gateway.served import Served

T = TypeVar("T")


async def with_client(served: Served, use: Callable[[Client], T]) -> T:
    """Run `use` in a thread, with a client for the gateway."""

    def run() -> T:
        with Client(served.url) as client:
            return use(client)

    return await trio.to_thread.run_sync(run)


async def test_ask(served: Served) -> None:
    def use(client: Client) -> None:
        answer = client.ask("Hi", model="domain:code", system="Be brief.", max_tokens=9, seed=4)
        assert answer.text == "Hello!"
        assert answer.finish_reason == "stop"
        assert (answer.node, answer.node_name) == (NODE, "beta")
        assert (answer.model, answer.profile) == ("smollm2", "coder")
        assert (answer.route, answer.attempts) == ("domain code", 1)
        assert (answer.queue_ms, answer.prefill_ms, answer.decode_ms) == (4.0, 5.0, 600.0)
        assert answer.ttft_ms is not None
        assert answer.tokens_per_s == pytest.approx(5.0)
        assert answer.usage.total_tokens == 10

    await with_client(served, use)
    asked = served.service.visits[0].request
    assert asked.selector == "domain:code"
    assert [(m.role, m.content) for m in asked.messages] == [
        ("system", "Be brief."),
        ("user", "Hi"),
    ]
    assert (asked.max_tokens, asked.sampling.seed) == (9, 4)


async def test_every_option_arrives(served: Served) -> None:
    def use(client: Client) -> None:
        client.ask(
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
            max_tokens=5,
            temperature=0.1,
            top_p=0.2,
            top_k=3,
            min_p=0.4,
            repeat_penalty=1.5,
            frequency_penalty=0.6,
            presence_penalty=0.7,
            seed=8,
            stop=["x"],
            logit_bias={9: 1.0},
            deadline_ms=1234,
        )

    await with_client(served, use)
    asked = served.service.visits[0].request
    chosen = asked.sampling
    assert [m.role for m in asked.messages] == ["user", "assistant"]
    assert (asked.max_tokens, asked.stop, asked.deadline_ms) == (5, ("x",), 1234)
    assert (chosen.temperature, chosen.top_p, chosen.top_k, chosen.min_p) == (0.1, 0.2, 3, 0.4)
    assert (chosen.repeat_penalty, chosen.frequency_penalty) == (1.5, 0.6)
    assert (chosen.presence_penalty, chosen.seed) == (0.7, 8)
    assert [(bias.token, bias.bias) for bias in chosen.logit_bias] == [(9, 1.0)]


async def test_stream(served: Served) -> None:
    gate = trio.Event()

    def gated(_request: TaskRequest) -> Iterable[Step]:
        yield route(node_name="bêta")
        yield says("Hel")
        yield gate
        yield says("lo\u2028!", finish="length")
        yield finished()

    served.service.script = gated

    def use(client: Client) -> None:
        with client.stream("Hi") as stream:
            assert next(stream) == "Hel"
            assert stream.route.node_name == "bêta"
            with pytest.raises(RuntimeError, match="read to its end"):
                _ = stream.answer
            trio.from_thread.run_sync(gate.set)
            assert list(stream) == ["lo\u2028!"]
            answer = stream.answer
        assert (answer.text, answer.finish_reason) == ("Hello\u2028!", "length")
        assert (answer.node_name, answer.queue_ms) == ("bêta", 4.0)
        assert answer.usage.completion_tokens == 3

    await with_client(served, use)


async def test_leaving_a_stream_ends_the_task(served: Served) -> None:
    def endless(_request: TaskRequest) -> Iterable[Step]:
        yield route()
        yield says("Hel")
        yield nobody_waits()

    served.service.script = endless

    def use(client: Client) -> None:
        with client.stream("Hi") as stream:
            next(stream)

    await with_client(served, use)
    with trio.fail_after(1):
        await served.service.visits[0].left.wait()


async def test_a_stream_is_used_in_a_block(served: Served) -> None:
    def use(client: Client) -> None:
        with pytest.raises(RuntimeError, match="`with` block"):
            next(client.stream("Hi"))

    await with_client(served, use)


async def test_peers_status_and_models(served: Served) -> None:
    def use(client: Client) -> None:
        assert [peer.name for peer in client.peers()] == ["alpha", "beta", "gamma"]
        assert client.status().tasks.served == 6
        assert client.models()[1].id == "domain:code"

    await with_client(served, use)


@pytest.mark.parametrize("code", list(FaultCode))
async def test_faults_keep_their_kind(served: Served, code: FaultCode) -> None:
    served.service.script = lambda _request: [failed(code, "the detail", retry_after_ms=1500)]

    def use(client: Client) -> None:
        for ask in (lambda: client.ask("Hi"), lambda: client.stream("Hi").__enter__()):
            with pytest.raises(RequestFault) as caught:
                ask()
            fault = caught.value
            assert (fault.code, fault.detail, fault.retry_after_ms) == (code, "the detail", 1500)

    await with_client(served, use)


async def test_a_bad_option_is_named(served: Served) -> None:
    def use(client: Client) -> None:
        with pytest.raises(RequestFault) as caught:
            client.ask("Hi", temperature=-1)
        assert (caught.value.code, caught.value.param) == (FaultCode.BAD_REQUEST, "temperature")

    await with_client(served, use)


async def test_a_stream_that_breaks_raises_after_its_text(served: Served) -> None:
    served.service.script = breaking(FaultCode.WORKER_LOST, "the worker died", says("Hel"))

    def use(client: Client) -> None:
        with client.stream("Hi") as stream:
            assert next(stream) == "Hel"
            with pytest.raises(RequestFault, match="the worker died") as caught:
                next(stream)
        assert caught.value.code is FaultCode.WORKER_LOST

    await with_client(served, use)


async def test_the_path_of_the_openai_api_is_taken_off(served: Served) -> None:
    def run() -> None:
        with Client(f"{served.url}/v1/") as client:
            assert client.ask("Hi").text == "Hello!"

    await trio.to_thread.run_sync(run)


# --- no node ------------------------------------------------------------------------------------
def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        Client(f"http://127.0.0.1:{port}") as client,
        pytest.raises(OurFault, match=rf"no node answers at http://127.0.0.1:{port}.*meshslm up"),
    ):
        client.status()


@pytest.mark.parametrize(
    "url",
    ["", "localhost:7416", "ftp://x", "/v1", "http://[", "http://a:b", "http://", "http://:80"],
)
def test_no_address_of_a_node(url: str) -> None:
    with pytest.raises(OurFault, match="no address of a node"):
        Client(url)


async def answer_everything_with(listener: trio.SocketListener, answer: bytes) -> None:
    """A server that is no node."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(answer)
            await stream.send_eof()
            async for _ in stream:
                pass  # closing with something unread would reset the connection

    await trio.serve_listeners(handle, [listener])


EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
CHUNK = (
    b'data: {"id":"x","created":1,"model":"m",'
    b'"choices":[{"index":0,"delta":{"content":"Hel"}}]}\n\n'
)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", "not a meshslm node"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "not a meshslm node"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\xff\xfe", "not a meshslm node"),
        (b"HTTP/1.1 502 Bad\r\ncontent-length: 2\r\n\r\nhi", "status 502"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{",
            "broke the connection off|not a meshslm",
        ),
        (EVENTS + CHUNK, "broke off in the middle|not a meshslm node"),
        (EVENTS + b"data: {\n\n", "not a meshslm node"),
        (b"", "broke the connection off"),
        (b"SSH-2.0-OpenSSH\r\n", "broke the connection off"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_answers_is_no_node(answer: bytes, told: str, *, stream: bool) -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]

    def run() -> None:
        with Client(f"http://127.0.0.1:{port}") as client:
            if stream:
                with client.stream("Hi") as pieces:
                    list(pieces)
            else:
                client.ask("Hi")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer_everything_with, listener, answer)
        with pytest.raises((OurFault, RequestFault), match=told):
            await trio.to_thread.run_sync(run)
        nursery.cancel_scope.cancel()


async def test_a_node_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshslm.client.asking._MARGIN_S", 0.05)
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]

    def run() -> None:
        with Client(f"http://127.0.0.1:{port}") as client:
            client.ask("Hi", deadline_ms=1)

    with pytest.raises(RequestFault, match="did not answer in time") as caught:
        await trio.to_thread.run_sync(run)
    assert caught.value.code is FaultCode.DEADLINE
    await listener.aclose()


# --- small things -------------------------------------------------------------------------------
def test_the_default_address_is_the_default_setting() -> None:
    assert f"http://127.0.0.1:{GatewaySettings().port}" == DEFAULT_URL


def test_messages_are_not_changed() -> None:
    from meshslm.client import Message

    messages: list[Message] = [{"role": "user", "content": "a"}]
    asked = asking(messages, "auto", {"system": "s"}, stream=False)
    assert messages == [{"role": "user", "content": "a"}]
    assert asked.silence_s > LONGEST_MS / 1000
