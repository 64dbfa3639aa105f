"""Workers that lie, hang or flood: each ends alone, and another takes its place."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import trio

from meshslm.adapters import engine_process
from meshslm.adapters.engine_process import EngineProcess, EngineSpec
from meshslm.core.events import EngineLost, EngineReady
from tests.adapters.engine_client import EngineClient, chat, serving

HEAD = """
import socket, sys, time
from meshslm.engine.protocol import *
pipe = socket.socket(fileno=int(sys.argv[sys.argv.index("--fd") + 1]))
pipe.recv(65536)
READY = Ready(2, 512, 10, 10, "Q8_0", "fake", 1)
"""
"""How a pretended worker begins: it has read its first command."""

SPEC = EngineSpec("m", Path("/nonexistent/model.gguf"), hang_s=0.5)


def fake(body: str) -> tuple[str, ...]:
    """The command of a pretended worker."""
    return (sys.executable, "-P", "-c", HEAD + textwrap.dedent(body))


async def reasons(body: str, spec: EngineSpec = SPEC) -> list[str]:
    """Why each of an engine's workers was lost, until it gave up."""
    client = EngineClient(EngineProcess(spec, command=fake(body)))
    with trio.fail_after(60):
        await client.engine.run(client.post)
    lost = [state for state in client.states if isinstance(state, EngineLost)]
    assert [state.final for state in lost] == [False] * (len(lost) - 1) + [True]
    return [state.reason for state in lost]


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "model_path" in request.fixturenames:
        return  # a real worker on a busy machine may take a second to begin
    monkeypatch.setattr(engine_process, "BACKOFF_S", 0.01)
    monkeypatch.setattr(engine_process, "LOADING_CRASHES", 2)
    monkeypatch.setattr(engine_process, "LOAD_HANG_S", 1.0)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("pipe.sendall(b'\\xff' * 100)", "a frame of"),
        ("pipe.sendall(b'\\x00\\x00\\x00\\x04abcd')", "does not understand"),
        ("pipe.sendall(b'\\x00\\x00\\x00\\x02\\x91\\x93')", "does not understand"),
        ("pipe.sendall(encode([READY])[:-1] + b'\\xc1')", "does not understand"),
        ("pipe.sendall(b'\\x00\\x00')", "exit code 0"),
        ("print('the last words', file=sys.stderr); sys.exit(7)", "exit code 7: the last words"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGABRT)", "signal 6"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "runs out of memory"),
        ("time.sleep(60)", "reported nothing for 1 s"),
    ],
)
async def test_a_worker_that_never_gets_ready_is_given_up(body: str, why: str) -> None:
    told = await reasons(body)
    assert len(told) == 2
    assert all(why in reason for reason in told)
    assert "given up" in told[-1]


async def test_a_worker_that_says_why_is_given_up_at_once() -> None:
    assert await reasons("pipe.sendall(encode([Unusable('no such tensor')]))") == ["no such tensor"]


async def test_garbage_after_it_was_ready_costs_one_worker() -> None:
    body = """
        pipe.sendall(encode([READY]))
        pipe.recv(65536)
        pipe.sendall(b'HTTP/1.1 400 Bad Request')
        time.sleep(60)
    """
    engine = EngineProcess(SPEC, command=fake(body))
    async with serving(engine) as client:
        before = engine.pid
        client.start(chat("Hello"))
        await client.until(lambda: len(client.states) >= 3)
        lost, again = client.states[1:3]
        assert isinstance(lost, EngineLost)
        assert "a frame of" in lost.reason
        assert isinstance(again, EngineReady)
        assert engine.pid != before


async def test_reports_on_runs_that_nobody_started_are_not_passed_on() -> None:
    body = """
        from meshslm.errors import FaultCode
        from meshslm.wire.messages import Chunk, Timings, Usage
        lies = [Produced(9, Chunk(0, (1,), "x")), Ended(9, Usage(1, 1), Timings()),
                Failed(9, FaultCode.INTERNAL, "no"), Produced(1, Chunk(0, (1,), "early"))]
        pipe.sendall(encode([READY, *lies]))
        pipe.recv(65536)
        pipe.sendall(encode([*lies[:3], Ended(1, Usage(1, 1), Timings()), *lies[3:]]))
        time.sleep(60)
    """
    async with serving(EngineProcess(SPEC, command=fake(body))) as client:
        reply = await client.ask(chat("Hello"))
        assert reply.ended
        assert reply.chunks == []


async def test_new_requests_do_not_hide_a_hang() -> None:
    body = """
        pipe.sendall(encode([READY]))
        while True:
            pipe.recv(65536)
    """
    async with serving(EngineProcess(SPEC, command=fake(body))) as client:
        with trio.move_on_after(20):
            while len(client.states) == 1:
                client.start(chat("Hello", 1))
                await trio.sleep(0.05)
        lost = client.states[1]
        assert isinstance(lost, EngineLost)
        assert "reported nothing for 0.5 s" in lost.reason


async def test_an_idle_worker_is_not_killed_for_its_silence() -> None:
    body = """
        pipe.sendall(encode([READY]))
        pipe.recv(65536)
        from meshslm.wire.messages import Timings, Usage
        pipe.sendall(encode([Ended(1, Usage(1, 1), Timings())]))
        time.sleep(60)
    """
    spec = replace(SPEC, hang_s=0.1)
    async with serving(EngineProcess(spec, command=fake(body))) as client:
        await trio.sleep(0.5)
        assert (await client.ask(chat("Hello"))).ended
        assert len(client.states) == 1


async def test_a_worker_that_reads_nothing_is_replaced() -> None:
    """The pipe fills up, which must not stop the daemon."""
    body = """
        pipe.sendall(encode([READY]))
        time.sleep(60)
    """
    async with serving(EngineProcess(SPEC, command=fake(body))) as client:
        for _ in range(60):
            client.start(chat("x" * 100_000, 1))
        await client.until(lambda: len(client.states) >= 2)
        assert isinstance(client.states[1], EngineLost)


async def test_an_engine_that_was_given_up_can_be_loaded_again(tmp_path: Path) -> None:
    flag = tmp_path / "mended"
    body = f"""
        import os
        if not os.path.exists({str(flag)!r}):
            pipe.sendall(encode([Unusable("broken")]))
            sys.exit(3)
        pipe.sendall(encode([READY]))
        time.sleep(60)
    """
    engine = EngineProcess(SPEC, command=fake(body))
    client = EngineClient(engine)
    await engine.run(client.post)
    assert client.states == [EngineLost("m", "broken", final=True)]
    flag.touch()
    async with serving(engine) as again:
        assert again.states == [EngineReady("m", 2)]


def file_of(path: Path) -> str:
    """As the kernel names it."""
    return str(path.resolve())


@pytest.mark.model
async def test_two_workers_share_one_copy_of_the_weights(model_path: Path) -> None:
    spec = EngineSpec("m", model_path, context=512, slots=1)
    async with serving(EngineProcess(spec)) as one, serving(EngineProcess(spec)) as two:
        maps = []
        for client in (one, two):
            assert (await client.ask(chat("Hello", 3))).ended
            engine = client.engine
            assert isinstance(engine, EngineProcess)
            maps += psutil.Process(engine.pid).memory_maps()
    weights = [entry for entry in maps if entry.path == file_of(model_path)]
    assert len(weights) == 2
    mapped, taken = sum(entry.rss for entry in weights), sum(entry.pss for entry in weights)
    assert mapped > 1.5 * spec.path.stat().st_size, "each has nearly all of it"
    assert taken <= 0.55 * mapped, "and it is there once"


@pytest.mark.model
async def test_a_stopped_worker_is_killed_on_the_way_out(model_path: Path) -> None:
    engine = EngineProcess(EngineSpec("m", model_path, context=512, slots=1))
    began = 0.0
    pid = 0
    async with serving(engine):
        pid = engine.pid or 0
        os.kill(pid, signal.SIGSTOP)
        began = trio.current_time()
    assert trio.current_time() - began < 5
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
