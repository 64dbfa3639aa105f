"""The scripted engine: what it says is known, when it says it is determined."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from meshslm.adapters.scripted_engine import ScriptedEngine, Speed, answer, expected_text
from meshslm.adapters.scripted_port import ScriptedPort
from meshslm.core.events import EngineLost, EngineReady, Event, RunEnded, RunFailed, RunProduced
from meshslm.errors import FaultCode
from meshslm.ids import Instant, RunId
from meshslm.wire.messages import Sampling, TokenBias
from tests.adapters.engine_client import EngineClient, chat, serving

SECOND = 1_000_000


def play(engine: ScriptedEngine, actions: list[Any]) -> list[tuple[int, Event]]:
    """Start (text) and stop (number) runs, 20 ms apart; all events with their times."""
    events: list[tuple[int, Event]] = []
    number = 0

    def drain(until: int) -> None:
        while (at := engine.next_at()) is not None and at <= until:
            events.extend((at, event) for event in engine.advance(at))

    for step, action in enumerate(actions):
        now = Instant(step * 20_000)
        drain(now)
        if isinstance(action, int):
            engine.stop_run(RunId(action), now)
        else:
            engine.start_run(RunId(number), action, now)
            number += 1
    drain(10**12)
    return events


requests = st.builds(
    lambda text, most, choices: chat(text, most, choices=choices),
    st.text(max_size=30),
    st.integers(0, 60),
    st.integers(1, 4),
)
script = st.lists(st.one_of(requests, st.integers(0, 10)), max_size=20)


@given(script)
def test_every_run_says_what_is_expected_and_ends_once(actions: list[Any]) -> None:
    engine = ScriptedEngine("m", Speed(slots=4))
    events = play(engine, actions)
    asked = [action for action in actions if not isinstance(action, int)]
    stopped = {action for action in actions if isinstance(action, int)}
    for number, request in enumerate(asked):
        ends = [e for _, e in events if isinstance(e, RunEnded) and e.run == number]
        assert len(ends) == 1 or (number in stopped and not ends)
        if not ends:
            continue
        for choice in range(request.choices):
            said = [
                e.chunk
                for _, e in events
                if isinstance(e, RunProduced) and e.run == number and e.chunk.choice == choice
            ]
            assert "".join(chunk.text for chunk in said) == expected_text(request, choice)
            assert [chunk.finish for chunk in said if chunk.finish] == [said[-1].finish]
    assert engine.running == engine.waiting == 0


@given(script)
def test_the_same_calls_give_the_same_events(actions: list[Any]) -> None:
    assert play(ScriptedEngine("m"), actions) == play(ScriptedEngine("m"), actions)


@given(script)
def test_time_never_goes_back(actions: list[Any]) -> None:
    times = [at for at, _ in play(ScriptedEngine("m", Speed(slots=2)), [*actions])]
    assert times == sorted(times)


def test_answers_differ_by_text_and_choice_and_respect_the_limit() -> None:
    one = chat("one", 0)
    texts = {expected_text(one), expected_text(one, 1), expected_text(chat("two", 0))}
    assert len(texts) == 3
    whole = answer(one, 0)
    short = answer(chat("one", 5), 0)
    assert whole.finish == "stop"
    assert (short.tokens, short.finish) == (whole.tokens[:5], "length")


def test_speed_decides_the_times() -> None:
    engine = ScriptedEngine("m", Speed(prefill_tps=10, decode_tps=4, slots=1))
    events = play(engine, [chat("x" * 24, 3), chat("y", 3)])
    first = [at for at, e in events if isinstance(e, RunProduced) and e.run == 0]
    assert first == [SECOND, 1.25 * SECOND, 1.5 * SECOND]
    ends = [e for _, e in events if isinstance(e, RunEnded)]
    assert ends[0].timings.prefill_ms == 1000
    assert ends[1].timings.queue_ms == 1480


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (chat("x", 5000), FaultCode.CONTEXT_OVERFLOW),
        (chat("x" * 50_000, 0), FaultCode.CONTEXT_OVERFLOW),
        (chat("x", 5, choices=9), FaultCode.BAD_REQUEST),
        (
            chat("x", sampling=Sampling(logit_bias=(TokenBias(32_000, 1.0),))),
            FaultCode.BAD_REQUEST,
        ),
    ],
)
def test_it_refuses_what_the_real_one_refuses(request_: Any, code: FaultCode) -> None:
    engine = ScriptedEngine("m")
    engine.start_run(RunId(1), request_, Instant(5))
    assert engine.next_at() == 5
    (event,) = engine.advance(Instant(5))
    assert isinstance(event, RunFailed)
    assert event.code is code
    assert engine.next_at() is None


async def test_the_port_answers_crashes_and_comes_back(autojump_clock: Any) -> None:
    port = ScriptedPort("m", load_ms=2000)
    async with serving(port) as client:
        assert trio.current_time() >= 2
        reply = await client.ask(chat("hello", 10))
        assert reply.text() == expected_text(chat("hello", 10))
        _, broken = client.start(chat("more", 50))
        await client.until(lambda: broken.chunks)
        port.crash("pulled the plug")
        await client.until(lambda: len(client.states) >= 3)
        assert client.states == [
            EngineReady("m", 8),
            EngineLost("m", "pulled the plug"),
            EngineReady("m", 8),
        ]
        assert broken.ended is None
        run, stopped = client.start(chat("stop me", 50))
        await client.until(lambda: len(stopped.chunks) > 2)
        port.stop_run(run)
        count = len(stopped.chunks)
        assert (await client.ask(chat("hello", 10))).ended
        assert len(stopped.chunks) == count


async def test_it_keeps_the_port_s_promises_before_anything_ran() -> None:
    client = EngineClient(ScriptedPort("m"))
    client.engine.stop_run(RunId(99))
    assert client.engine.model == "m"
