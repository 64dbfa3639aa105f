"""A client that hangs up ends its task, whatever it was waiting for."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import trio
import trio.testing

from meshslm.client import AsyncClient
from meshslm.wire.messages import TaskRequest
from tests.gateway.scripted_service import Script, Step, finished, nobody_waits, route, says
from tests.gateway.served import Served

AT_ONCE_S = 1.0


def nothing_comes(_request: TaskRequest) -> Iterable[Step]:
    yield nobody_waits()


def routed_only(_request: TaskRequest) -> Iterable[Step]:
    yield route()
    yield nobody_waits()


def some_text(_request: TaskRequest) -> Iterable[Step]:
    yield route()
    yield says("Hel")
    yield nobody_waits()


def endless_text(_request: TaskRequest) -> Iterable[Step]:
    yield route()
    while True:
        yield says("on and on " * 50)
        step = trio.Event()
        step.set()
        yield step


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("script", [nothing_comes, routed_only, some_text])
async def test_hanging_up_leaves_the_task(served: Served, script: Script, *, stream: bool) -> None:
    served.service.script = script
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: served.chat(stream=stream))
        visit = await served.service.next_visit()
        await visit.begun.wait()
        nursery.cancel_scope.cancel()
    with trio.fail_after(AT_ONCE_S):
        await visit.left.wait()
    assert not visit.to_the_end
    text = (await served.http.get("/metrics")).text
    assert 'meshslm_tasks_total{outcome="cancelled"} 1.0' in text


async def test_hanging_up_in_the_middle_of_a_stream(served: Served) -> None:
    served.service.script = endless_text
    async with AsyncClient(served.url) as client, client.stream("x") as stream:
        assert await anext(stream)
    visit = served.service.visits[0]
    with trio.fail_after(AT_ONCE_S):
        await visit.left.wait()


async def test_a_client_that_stops_reading_and_leaves(served: Served) -> None:
    served.service.script = endless_text
    body = b'{"model":"auto","stream":true,"messages":[{"role":"user","content":"x"}]}'
    async with await trio.open_tcp_stream("127.0.0.1", served.address.port) as stream:
        await stream.send_all(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        visit = await served.service.next_visit()
        await stream.receive_some(1)
        await trio.testing.wait_all_tasks_blocked(0.05)  # the socket's buffers are full
        assert not visit.left.is_set()
    with trio.fail_after(AT_ONCE_S):
        await visit.left.wait()


async def test_one_that_hangs_up_does_not_disturb_others(served: Served) -> None:
    gate = trio.Event()

    def gated(request: TaskRequest) -> Iterable[Step]:
        yield route()
        yield says("Hel")
        yield gate
        yield says("lo!", finish="stop")
        yield finished()

    served.service.script = gated
    answers = []

    async def patient() -> None:
        answers.append(await served.chat())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(patient)
        kept = await served.service.next_visit()
        async with trio.open_nursery() as leaving:
            leaving.start_soon(served.chat)
            left = await served.service.next_visit()
            await left.begun.wait()
            leaving.cancel_scope.cancel()
        await left.left.wait()
        assert not kept.left.is_set()
        gate.set()
    assert answers[0].json()["choices"][0]["message"]["content"] == "Hello!"
