"""The async client, on trio and on asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import pytest
import trio

from meshslm.client import AsyncClient, FaultCode, OurFault, RequestFault
from meshslm.wire.messages import TaskRequest
from tests.gateway.scripted_service import Step, failed, nobody_waits, route, says
from tests.gateway.served import Served

Use = Callable[[AsyncClient], Awaitable[None]]
Runner = Callable[[Served, Use], Awaitable[None]]


async def on_trio(served: Served, use: Use) -> None:
    async with AsyncClient(served.url) as client:
        await use(client)


async def on_asyncio(served: Served, use: Use) -> None:
    async def run() -> None:
        async with AsyncClient(served.url) as client:
            await use(client)

    await trio.to_thread.run_sync(lambda: asyncio.run(run()))


both = pytest.mark.parametrize("run", [on_trio, on_asyncio])


@both
async def test_ask_and_what_a_node_tells(served: Served, run: Runner) -> None:
    async def use(client: AsyncClient) -> None:
        answer = await client.ask("Hi", temperature=0.0)
        assert (answer.text, answer.node_name) == ("Hello!", "beta")
        assert [peer.name for peer in await client.peers()] == ["alpha", "beta", "gamma"]
        assert (await client.status()).name == "alpha"
        assert (await client.models())[0].id == "auto"

    await run(served, use)


@both
async def test_stream(served: Served, run: Runner) -> None:
    async def use(client: AsyncClient) -> None:
        async with client.stream("Hi") as stream:
            pieces = [piece async for piece in stream]
            answer = stream.answer
        assert "".join(pieces) == answer.text == "Hello!"
        assert answer.usage.completion_tokens == 3
        assert stream.route.node_name == "beta"

    await run(served, use)


@both
async def test_leaving_a_stream_ends_the_task(served: Served, run: Runner) -> None:
    def endless(_request: TaskRequest) -> Iterable[Step]:
        yield route()
        yield says("Hel")
        yield nobody_waits()

    served.service.script = endless

    async def use(client: AsyncClient) -> None:
        async with client.stream("Hi") as stream:
            assert await anext(stream) == "Hel"
            with pytest.raises(RuntimeError, match="read to its end"):
                _ = stream.answer
        async with client.stream("not even looked at"):
            pass

    await run(served, use)
    with trio.fail_after(1):
        for visit in served.service.visits:
            await visit.left.wait()


@both
async def test_faults(served: Served, run: Runner) -> None:
    served.service.script = lambda _request: [failed(FaultCode.NOT_READY, "loading")]

    async def use(client: AsyncClient) -> None:
        with pytest.raises(RequestFault, match="loading") as caught:
            await client.ask("Hi")
        assert caught.value.code is FaultCode.NOT_READY
        with pytest.raises(RequestFault, match="loading"):
            await client.stream("Hi").__aenter__()
        with pytest.raises(RuntimeError, match="`async with` block"):
            await anext(client.stream("Hi"))

    await run(served, use)


async def test_being_cancelled_ends_the_task(served: Served) -> None:
    served.service.script = lambda _request: [nobody_waits()]
    async with AsyncClient(served.url) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.ask, "Hi")
        visit = await served.service.next_visit()
        await visit.begun.wait()
        nursery.cancel_scope.cancel()
    with trio.fail_after(1):
        await visit.left.wait()


async def test_nobody_there() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    async with AsyncClient(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(OurFault, match="meshslm up"):
            await client.ask("Hi")
        with pytest.raises(OurFault, match="meshslm up"):
            await client.stream("Hi").__aenter__()
