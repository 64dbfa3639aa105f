"""Sockets: ports, ends, clients that take nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from functools import partial

import pytest
import trio
import trio.testing

from meshslm import limits
from meshslm.errors import OurFault
from meshslm.gateway import HttpAddress, create_app, serve
from meshslm.wire.messages import TaskRequest
from tests.gateway.scripted_service import ScriptedService, Step, nobody_waits, route, says
from tests.gateway.served import Served, gateway
from tests.gateway.test_gateway_hangup import endless_text


async def start(nursery: trio.Nursery, service: ScriptedService) -> HttpAddress:
    app = create_app(service, version="0.0")
    address: HttpAddress = await nursery.start(partial(serve, app, port=0))
    return address


async def ask(address: HttpAddress, path: str = "/healthz") -> trio.SocketStream:
    stream = await trio.open_tcp_stream("127.0.0.1", address.port)
    await stream.send_all(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
    return stream


STREAMED = b'{"model":"auto","stream":true,"messages":[{"role":"user","content":"x"}]}'


async def ask_for_a_stream(address: HttpAddress) -> trio.SocketStream:
    stream = await trio.open_tcp_stream("127.0.0.1", address.port)
    await stream.send_all(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%s"
        % (len(STREAMED), STREAMED)
    )
    return stream


async def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OurFault, match=f"port {port} is in use; stop the program"):
            await serve(create_app(ScriptedService(), version="0"), port=port)


@pytest.mark.parametrize(
    ("host", "told"), [("192.0.2.1", "has no address"), ("no.such.host.invalid", "cannot serve")]
)
async def test_an_address_that_is_not_ours(host: str, told: str) -> None:
    with pytest.raises(OurFault, match=told):
        await serve(create_app(ScriptedService(), version="0"), host=host, port=0)


async def test_a_free_port_is_told(served: Served) -> None:
    assert served.address.port > 0
    assert served.url == f"http://127.0.0.1:{served.address.port}"
    assert HttpAddress("::1", 5).url == "http://[::1]:5"
    assert HttpAddress("0.0.0.0", 5).url == "http://127.0.0.1:5"


async def test_localhost_gets_one_port() -> None:
    async with trio.open_nursery() as nursery:
        app = create_app(ScriptedService(), version="0.0")
        address = await nursery.start(partial(serve, app, host="localhost", port=0))
        assert address.port > 0
        nursery.cancel_scope.cancel()


async def test_idle_connections_close_at_once_at_the_end() -> None:
    async with trio.open_nursery() as nursery:
        address = await start(nursery, ScriptedService())
        async with await ask(address) as stream:
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True), trio.fail_after(limits.HTTP_GRACE_MS / 2000):
                while await stream.receive_some():
                    pass


async def test_an_answer_under_way_may_end() -> None:
    gate = trio.Event()

    def gated(_request: TaskRequest) -> Iterable[Step]:
        yield route()
        yield says("Hel")
        yield gate
        yield says("lo!")

    service = ScriptedService(gated)
    async with trio.open_nursery() as nursery:
        address = await start(nursery, service)
        stream = await ask_for_a_stream(address)
        received = await stream.receive_some()
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            gate.set()
            async with stream:
                received += b"".join([part async for part in stream])
    assert b'"lo!"' in received


async def test_an_answer_without_end_is_cut_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTP_GRACE_MS", 50)

    def waiting(_request: TaskRequest) -> Iterable[Step]:
        yield route()
        yield says("Hel")
        yield nobody_waits()

    service = ScriptedService(waiting)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            address = await start(nursery, service)
            async with await ask_for_a_stream(address) as stream:
                await stream.receive_some()
                nursery.cancel_scope.cancel()
    assert service.visits[0].left.is_set()


async def test_a_client_that_takes_nothing_cannot_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "HTTP_GRACE_MS", 50)
    service = ScriptedService(endless_text)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            address = await start(nursery, service)
            async with await ask_for_a_stream(address) as stream:
                await stream.receive_some(1)
                await trio.testing.wait_all_tasks_blocked(0.05)  # its buffers are full
                nursery.cancel_scope.cancel()
    assert service.visits[0].left.is_set()


async def test_a_client_that_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTP_STALL_MS", 100)
    async with gateway(ScriptedService(endless_text)) as served:
        async with await ask_for_a_stream(served.address):
            visit = await served.service.next_visit()
            with trio.fail_after(5):
                await visit.left.wait()
        assert (await served.http.get("/healthz")).status_code == 200


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTP_CONNECTIONS", 2)
    async with trio.open_nursery() as nursery:
        address = await start(nursery, ScriptedService())
        kept = [await ask(address), await ask(address)]
        for stream in kept:
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        async with await trio.open_tcp_stream("127.0.0.1", address.port) as refused:
            received = b"".join([part async for part in refused])
            assert received.startswith(b"HTTP/1.1 503")
            assert b"Too many open connections" in received
            assert b'"code":"overloaded"' in received
        await kept.pop().aclose()
        await _until_served(address)
        await kept.pop().aclose()
        nursery.cancel_scope.cancel()


async def _until_served(address: HttpAddress) -> None:
    with trio.fail_after(5):
        while True:
            async with await ask(address) as stream:
                if (await stream.receive_some()).startswith(b"HTTP/1.1 200"):
                    return


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nhost: localhost\r\ncontent-length: "
        + b"9" * 5000
        + b"\r\n\r\n",
        b"POST /x HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET / HTTP/9.9\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
    ],
)
async def test_rubbish_harms_nobody(served: Served, sent: bytes) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", served.address.port) as stream:
        try:
            await stream.send_all(sent)
            await stream.send_eof()
            with trio.fail_after(5):
                received = b"".join([part async for part in stream])
        except trio.BrokenResourceError:
            received = b""  # cut off is an answer too
    assert not received.startswith(b"HTTP/1.1 2")
    assert not received.startswith(b"HTTP/1.1 5")
    assert (await served.chat()).status_code == 200
