"""Notes and conversations from shared memory in chat requests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from struct import pack
from typing import Any

import pytest

from meshslm.errors import FaultCode
from meshslm.wire.messages import TaskRequest
from tests.gateway.scripted_service import (
    Step,
    chunk,
    failed,
    finished,
    greeting,
    route,
    says,
)
from tests.gateway.served import Served
from tests.gateway.test_gateway_memory import NODES, two

NOTES = {
    "release": "Releases are cut on Thursdays.",
    "pet": {"dog": "Rex"},
    "lunch": "Lunch is at noon.",
}


async def remember(served: Served, notes: dict[str, Any] = NOTES) -> None:
    for key, value in notes.items():
        reply = await served.http.put(f"/mesh/memory/team/values/{key}", json={"value": value})
        assert reply.status_code == 200


def prompt(served: Served) -> list[tuple[str, str]]:
    request = served.service.visits[-1].request
    return [(turn.role, turn.content) for turn in request.messages]


def asks(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


async def test_notes_that_fit_are_put_in_and_cited() -> None:
    async with two() as (here, there):
        await remember(here)
        reply = await there.chat(
            messages=asks("When are releases cut?"), memory={"namespace": "team"}
        )
        assert reply.status_code == 200
        cited = reply.json()["meshslm"]["memory"]
        assert cited == [{"namespace": "team", "key": "release", "revision": 1}]
        (system, asked) = prompt(there)
        assert system[0] == "system"
        assert "[release] Releases are cut on Thursdays." in system[1]
        assert "Rex" not in system[1]
        assert asked == ("user", "When are releases cut?")


async def test_a_query_and_a_system_message_of_ones_own() -> None:
    async with two() as (here, _):
        await remember(here)
        turns = [{"role": "system", "content": "Be brief."}, *asks("What is its name?")]
        memory = {"namespace": "team", "query": "dog", "budget_tokens": 200}
        reply = await here.chat(messages=turns, memory=memory)
        assert [note["key"] for note in reply.json()["meshslm"]["memory"]] == ["pet"]
        system = prompt(here)[0][1]
        assert system.startswith("Be brief.\n\n")
        assert system.endswith('[pet] {"dog":"Rex"}')


async def test_nothing_fits_and_nothing_is_added() -> None:
    async with two() as (here, _):
        await remember(here)
        reply = await here.chat(messages=asks("Xylophones?"), memory={"namespace": "team"})
        assert "memory" not in reply.json()["meshslm"]
        assert prompt(here) == [("user", "Xylophones?")]


async def test_meaning_finds_what_words_do_not() -> None:
    def script(request: TaskRequest) -> Iterable[Step]:
        if request.operation != "embed":
            yield from greeting(request)
            return
        yield route()
        for item, text in enumerate(request.inputs):
            animal = any(word in text for word in ("dog", "Rex", "puppy"))
            yield chunk(item=item, vector=pack("<2f", float(animal), float(not animal)))
        yield finished(completion=0)

    async with two() as (here, _):
        here.service.script = script
        here.service.known = tuple(
            replace(
                peer,
                specialists=tuple(
                    replace(one, operations=("generate", "embed")) for one in peer.specialists
                ),
            )
            for peer in here.service.known
        )
        await remember(here)
        for _ in range(2):
            reply = await here.chat(messages=asks("My puppy?"), memory={"namespace": "team"})
            assert [note["key"] for note in reply.json()["meshslm"]["memory"]] == ["pet"]
        embedded = [v.request for v in here.service.visits if v.request.operation == "embed"]
        assert [len(request.inputs) for request in embedded] == [4, 1]  # the notes only once


async def test_a_conversation_goes_on_at_another_node() -> None:
    async with two() as (here, there):
        first = [{"role": "system", "content": "Be brief."}, *asks("Hi")]
        await here.chat(messages=first, conversation="c1")
        NODES[1].now_ms += 1000
        reply = await there.chat(messages=asks("And now?"), conversation="c1", stream=True)
        assert reply.status_code == 200
        assert prompt(there) == [
            ("system", "Be brief."),
            ("user", "Hi"),
            ("assistant", "Hello!"),
            ("user", "And now?"),
        ]
        conversation = there.service.visits[-1].request.routing.conversation
        assert conversation == here.service.visits[-1].request.routing.conversation != ""
        kept = await here.http.get("/mesh/memory/conversations/lists/c1")
        roles = [item["value"]["role"] for item in kept.json()["items"]]
        assert roles == ["system", "user", "assistant", "user", "assistant"]
        NODES[0].now_ms += 2000
        await here.chat(messages=first, conversation="c1")
        assert [role for role, _ in prompt(here)].count("system") == 1


async def test_a_conversation_with_a_private_turn_stays_private() -> None:
    """Its turns go with every later one."""
    async with two() as (here, there):
        await here.chat(messages=asks("Hi"), conversation="c2", routing={"private": True})
        await here.chat(messages=asks("Hi"), conversation="c3")
        for name, private in (("c2", True), ("c3", False)):
            for _ in range(2):
                NODES[0].now_ms += 1000
                NODES[1].now_ms += 1000
                await there.chat(messages=asks("And now?"), conversation=name)
                assert there.service.visits[-1].request.routing.private is private


async def test_an_answer_that_broke_off_leaves_no_turns() -> None:
    def script(_request: TaskRequest) -> Iterable[Step]:
        yield route()
        yield says("Hel")
        yield failed(FaultCode.PEER_LOST)

    async with two() as (here, _):
        here.service.script = script
        reply = await here.chat(conversation="c1")
        assert reply.status_code == 503
        kept = await here.http.get("/mesh/memory/conversations/lists/c1")
        assert kept.json()["items"] == []


async def test_old_turns_go_where_the_context_ends() -> None:
    async with two() as (here, _):
        for number in range(8):
            NODES[0].now_ms += 1000
            await here.chat(messages=asks(f"{number} " + "long " * 200), conversation="c1")
        kept = prompt(here)
        assert kept[0][1] != "0 " + "long " * 200
        assert len(kept) < 16
        assert kept[-1][1].startswith("7 ")


async def test_what_other_programs_write_into_a_conversation_is_passed_over() -> None:
    async with two() as (here, _):
        for value in (1, {"role": "tool", "content": "x"}, {"role": "user"}):
            await here.http.post("/mesh/memory/conversations/lists/c1", json={"value": value})
        await here.chat(conversation="c1")
        assert prompt(here) == [("user", "Hi")]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"memory": {"namespace": ""}}, "memory.namespace"),
        ({"memory": {"namespace": "team", "budget_tokens": 1}}, "memory.budget_tokens"),
        ({"memory": {"namespace": "team", "oops": 1}}, "memory"),
        ({"memory": {"namespace": "a*"}}, "namespace"),
        ({"conversation": ""}, "conversation"),
        ({"conversation": "x" * 200}, "conversation"),
        ({"conversation": "a\u0000b"}, "conversation"),
        ({"conversation": "c", "n": 2}, "n"),
    ],
)
async def test_what_makes_no_sense_is_refused(fields: dict[str, Any], param: str) -> None:
    async with two() as (here, _):
        reply = await here.chat(**fields)
        assert reply.status_code == 400, reply.text
        assert reply.json()["error"]["param"] == param
