"""Answers in steps: what a client sees of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httpx
import pytest
import trio

from meshslm.core.candidates import Assessment, Candidate, Decision, Terms, Verdict
from meshslm.core.cascade import Check
from meshslm.core.events import RouteChosen
from meshslm.errors import FaultCode, RequestFault
from meshslm.gateway.cascading import checks_of
from meshslm.ids import NodeId
from meshslm.profiles import parse_profile
from meshslm.wire.messages import Specialist, TaskRequest, TokenLogprob, TopLogprob
from tests.gateway.scripted_service import (
    TASK,
    ScriptedService,
    Step,
    failed,
    finished,
    nobody_waits,
    says,
)
from tests.gateway.served import Served, chat_body, gateway

STEPS = {"routing": {"cascade": True}}


def probability(logprob: float) -> tuple[TokenLogprob, ...]:
    return (TokenLogprob("x", b"x", logprob, (TopLogprob("x", b"x", logprob),) * 5),)


def answers(small: Iterable[Step], large: Iterable[Step]) -> ScriptedService:
    """Two models, one four times as large as the other."""

    def script(request: TaskRequest) -> Iterable[Step]:
        model = "m100" if request.selector == "small" else "m400"
        yield RouteChosen(TASK, NodeId("n"), "n", request.selector, model, "d", "why", 1)
        yield from small if request.selector == "small" else large

    service = ScriptedService(script)
    found = []
    for name, size in (("large", 400), ("small", 100)):
        model = Specialist(name, f"m{size}", "d", "Q8_0", 2048, 2, size_mib=size)
        candidate = Candidate(NodeId(name), name, model, None, 1.0)
        found.append(Assessment(candidate, "", Terms(), 1))
    service.decision = Decision(Verdict(found[0].candidate, "why"), "auto", tuple(found))
    return service


def said(text: str, logprob: float) -> list[Step]:
    return [says(text, logprobs=probability(logprob), finish="stop"), finished(7, 3)]


async def ask(service: ScriptedService, **fields: Any) -> httpx.Response:
    async with gateway(service) as served:
        return await served.chat(**{**STEPS, **fields})


def selectors(service: ScriptedService) -> list[str]:
    return [visit.request.selector for visit in service.visits]


async def test_a_sure_small_answer_is_given() -> None:
    service = answers(said("Yes.", -0.05), said("No.", 0.0))
    async with gateway(service) as served:
        response = await served.chat(**STEPS)
        meters = (await served.http.get("/metrics")).text
    body = response.json()
    assert body["choices"][0]["message"]["content"] == "Yes."
    assert body["model"] == "m100"
    assert selectors(service) == ["small"]
    told = body["meshslm"]["cascade"]
    assert [step["profile"] for step in told["steps"]] == ["small"]
    assert told["steps"][0]["confidence"] > 0.5
    assert (told["escalations"], told["saved_tokens"]) == (0, 10)
    assert response.headers["x-meshslm-cascade"].startswith("small 0.")
    assert "meshslm_cascades_total 1.0" in meters
    assert "meshslm_cascade_saved_tokens_total 10.0" in meters


async def test_an_unsure_one_is_not() -> None:
    service = answers(said("Yes.", -3.0), said("No.", 0.0))
    async with gateway(service) as served:
        response = await served.chat(**STEPS)
        meters = (await served.http.get("/metrics")).text
    body = response.json()
    assert body["choices"][0]["message"]["content"] == "No."
    assert body["model"] == "m400"
    assert selectors(service) == ["small", "large"]
    told = body["meshslm"]["cascade"]
    assert "unsure" in told["steps"][0]["why_not"]
    assert (told["escalations"], told["saved_tokens"]) == (1, 0)
    assert "unsure" in response.headers["x-meshslm-cascade"]
    assert "meshslm_escalations_total 1.0" in meters


async def test_probabilities_are_told_only_to_who_wanted_them() -> None:
    service = answers(said("Yes.", -0.05), [])
    assert (await ask(service)).json()["choices"][0]["logprobs"] is None
    assert service.visits[0].request.logprobs == 5
    assert not service.visits[0].request.routing.cascade
    body = (await ask(service, logprobs=True, top_logprobs=2)).json()
    assert len(body["choices"][0]["logprobs"]["content"][0]["top_logprobs"]) == 2
    service = answers(said("Yes.", -9.0), [says("No.", finish="stop"), finished()])
    await ask(service)
    assert service.visits[1].request.logprobs is None


async def test_a_stream_begins_when_an_answer_was_found_good() -> None:
    doubt: list[Step] = [
        says("Perhaps", logprobs=probability(-5.0)),
        says("!", finish="stop"),
        finished(),
    ]
    response = await ask(answers(doubt, said("No.", 0.0)), stream=True)
    assert "Perhaps" not in response.text
    assert "No." in response.text
    assert response.text.rstrip().endswith("[DONE]")


async def test_the_last_step_streams_as_it_comes() -> None:
    more = trio.Event()
    steps: list[Step] = [says("No"), more, *said(".", 0.0)]
    service = answers(said("Yes.", -5.0), steps)
    async with gateway(service) as served:
        body = {**chat_body(stream=True), **STEPS}
        seen = b""
        async with served.http.stream("POST", "/v1/chat/completions", json=body) as response:
            async for piece in response.aiter_raw():
                seen += piece
                if b'"No"' in seen:
                    more.set()  # it was told before there was more
        assert seen.rstrip().endswith(b"[DONE]")


async def test_a_failed_step_is_passed_over() -> None:
    service = answers([failed(FaultCode.CONTEXT_OVERFLOW)], said("No.", 0.0))
    body = (await ask(service)).json()
    assert body["choices"][0]["message"]["content"] == "No."
    assert body["meshslm"]["cascade"]["steps"][0]["why_not"] == "it went wrong"


async def test_where_the_larger_fails_the_smaller_answer_is_given() -> None:
    service = answers(said("Yes.", -3.0), [failed(FaultCode.OVERLOADED)])
    response = await ask(service)
    assert response.status_code == 200
    assert response.json()["choices"][0]["message"]["content"] == "Yes."
    assert "it went wrong" in response.headers["x-meshslm-cascade"]


async def test_where_all_fail_it_is_told() -> None:
    service = answers([failed(FaultCode.WORKER_LOST)], [failed(FaultCode.OVERLOADED, "full", 2000)])
    response = await ask(service)
    assert response.status_code == 429
    assert response.headers["retry-after"] == "2"


async def test_a_service_that_takes_nothing_is_told() -> None:
    service = answers([], [])
    service.refusal = RequestFault(FaultCode.NOT_READY, "not yet")
    assert (await ask(service)).status_code == 503


async def test_who_hangs_up_ends_the_step() -> None:
    service = answers([says("Yes"), nobody_waits()], [])
    async with gateway(service) as served:
        with trio.move_on_after(20) as asking:
            async with trio.open_nursery() as nursery:

                async def post() -> None:
                    await served.chat(**STEPS)

                nursery.start_soon(post)
                visit = await service.next_visit()
                await visit.begun.wait()
                nursery.cancel_scope.cancel()
        assert not asking.cancelled_caught
        await visit.left.wait()


@pytest.mark.parametrize("fields", [{"n": 2}, {"model": "small"}, {"model": "auto@alpha"}])
async def test_what_cannot_be_judged_is_refused(served: Served, fields: dict[str, Any]) -> None:
    response = await served.chat(**STEPS, **fields)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "routing.cascade"
    assert not served.service.visits


async def test_the_header_says_the_same(served: Served) -> None:
    body = chat_body(n=2)
    headers = {"x-meshslm-cascade": "yes"}
    response = await served.http.post("/v1/chat/completions", json=body, headers=headers)
    assert response.status_code == 400
    assert (await served.http.post("/v1/chat/completions", json=body)).status_code == 200
    body["routing"] = {"cascade": True}
    headers = {"x-meshslm-cascade": "no"}
    response = await served.http.post("/v1/chat/completions", json=body, headers=headers)
    assert "disagree" in response.json()["error"]["message"]


async def test_a_profile_may_want_it_always() -> None:
    text = 'name = "small"\nmodel = "tiny"\n[cascade]\nalways = true\nmin_characters = 10\n'
    checks = checks_of([parse_profile("small.toml", text)])
    assert checks == {"small": Check(min_characters=10, always=True)}
    service = answers(said("Yes.", -0.05), said("No.", 0.0))
    async with gateway(service, checks=checks) as served:
        body = (await served.chat()).json()
        assert "shorter" in body["meshslm"]["cascade"]["steps"][0]["why_not"]
        assert body["choices"][0]["message"]["content"] == "No."
        # What cannot be judged is answered as ever.
        assert (await served.chat(model="small")).status_code == 200
        assert service.visits[-1].request.selector == "small"


async def test_without_a_ladder_it_is_answered_as_ever(served: Served) -> None:
    response = await served.chat(**STEPS)
    assert response.status_code == 200
    assert "x-meshslm-cascade" not in response.headers
