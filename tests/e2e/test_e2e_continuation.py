"""An answer outlives its node: killed, hung, or without its engine, in the middle of a stream."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from meshslm.cli.demo_nodes import RunningNodes
from tests.e2e.conftest import Mesh, begin_mesh, family, until

pytestmark = pytest.mark.model

STREAM_SECONDS = 120.0
TOKENS = 48
TALE = {"messages": [{"role": "user", "content": "Write a long story about a lighthouse keeper."}]}
LIST = {
    "messages": [{"role": "user", "content": "Describe three animals that live in the sea."}],
    "response_format": {
        "type": "json_schema",
        "json_schema": {
            "name": "animals",
            "schema": {
                "type": "object",
                "properties": {
                    "animals": {
                        "type": "array",
                        "minItems": 3,
                        "maxItems": 3,
                        "items": {
                            "type": "object",
                            "properties": {
                                "name": {"type": "string", "maxLength": 20},
                                "legs": {"type": "integer", "minimum": 0, "maximum": 100},
                            },
                            "required": ["name", "legs"],
                            "additionalProperties": False,
                        },
                    }
                },
                "required": ["animals"],
                "additionalProperties": False,
            },
        },
    },
}
CALL = {
    "messages": [{"role": "user", "content": "What is the weather in Oslo and in Rome?"}],
    "tool_choice": "required",
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "city": {"type": "string", "maxLength": 24},
                        "country": {"type": "string", "maxLength": 24},
                        "unit": {"enum": ["celsius", "fahrenheit"]},
                    },
                    "required": ["city", "country", "unit"],
                    "additionalProperties": False,
                },
            },
        }
    ],
}


@pytest.fixture
def replicas(tmp_path: Path, models_dir: Path) -> Iterator[Mesh]:
    """A mesh in which node-b and node-c host the same."""
    roles = (("node-a", "code"), ("node-b", "writing"), ("node-c", "writing"))
    with RunningNodes() as nodes:
        yield begin_mesh(nodes, tmp_path / "mesh", models_dir, roles)


@dataclass
class Heard:
    """What a client got of one stream."""

    node: str = ""
    text: str = ""
    """Of all choices, in the order in which it came."""
    texts: dict[int, str] = field(default_factory=dict)
    """Of each choice."""
    finishes: dict[int, str] = field(default_factory=dict)
    arguments: str = ""
    finish: str = ""
    whole: bool = False
    last: dict[str, Any] = field(default_factory=dict)

    def take(self, event: dict[str, Any]) -> None:
        assert "error" not in event, event
        self.last = event
        for choice in event["choices"]:
            delta = choice["delta"]
            said, index = delta.get("content") or "", choice["index"]
            self.text += said
            self.texts[index] = self.texts.get(index, "") + said
            assert not (said and index in self.finishes), "more of a choice that had ended"
            if choice["finish_reason"]:
                self.finishes[index] = choice["finish_reason"]
            for call in delta.get("tool_calls", []):
                self.arguments += call["function"]["arguments"]
            self.finish = choice["finish_reason"] or self.finish


def listen(mesh: Mesh, question: dict[str, Any], disturb: Callable[[str], None] | None) -> Heard:
    """Ask node-a for what node-b or node-c must answer; disturb that one after a few events."""
    body = {
        "model": "domain:writing",
        "max_tokens": TOKENS * 2,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **question,
    }
    heard, events = Heard(), 0
    url = mesh.url("a") + "/v1/chat/completions"
    with httpx.stream("POST", url, json=body, timeout=STREAM_SECONDS, trust_env=False) as answer:
        assert answer.status_code == 200, answer.read()
        heard.node = answer.headers["x-meshslm-node-name"].removeprefix("node-")
        for line in answer.iter_lines():
            if line == "data: [DONE]":
                heard.whole = True
            elif line.startswith("data: "):
                heard.take(json.loads(line.removeprefix("data: ")))
                events += 1
                if events == 6 and disturb is not None:
                    disturb(heard.node)
    return heard


def same(disturbed: Heard, calm: Heard) -> None:
    assert (disturbed.text, disturbed.arguments) == (calm.text, calm.arguments)
    assert (disturbed.finish, disturbed.whole) == (calm.finish, True)
    told, usual = disturbed.last["usage"], calm.last["usage"]
    assert told["prompt_tokens"] == usual["prompt_tokens"]
    assert told["completion_tokens"] == usual["completion_tokens"]
    assert disturbed.last["meshslm"]["continued"] == "tokens"
    assert disturbed.last["meshslm"]["node_name"] != f"node-{disturbed.node}"


@pytest.mark.parametrize(
    "question",
    [
        pytest.param(TALE, id="text"),
        pytest.param(LIST, id="schema", marks=pytest.mark.long),
        pytest.param(CALL, id="call", marks=pytest.mark.long),
    ],
)
def test_an_answer_survives_the_death_of_its_engine(
    replicas: Mesh, question: dict[str, Any]
) -> None:
    mesh = replicas
    calm = listen(mesh, question, None)
    assert calm.whole
    assert len(calm.text + calm.arguments) > 40

    def kill(letter: str) -> None:
        os.kill(mesh.worker(letter), signal.SIGKILL)

    same(listen(mesh, question, kill), calm)


@pytest.mark.long
def test_each_of_several_choices_survives_the_death_of_their_node(replicas: Mesh) -> None:
    mesh = replicas
    question = {**TALE, "n": 3, "temperature": 1.0, "seed": 7, "max_tokens": TOKENS}
    calm = listen(mesh, question, None)
    assert len(set(calm.texts.values())) == 3

    def kill(letter: str) -> None:
        for pid in family(mesh[letter].pid):
            os.kill(pid, signal.SIGKILL)

    disturbed = listen(mesh, question, kill)
    assert (disturbed.texts, disturbed.finishes) == (calm.texts, calm.finishes)
    assert disturbed.whole
    assert disturbed.last["usage"]["completion_tokens"] == calm.last["usage"]["completion_tokens"]
    assert disturbed.last["meshslm"]["continued"] == "tokens"


def test_an_answer_survives_its_node_hanging_and_the_other_dying(replicas: Mesh) -> None:
    mesh = replicas
    calm = listen(mesh, TALE, None)
    hung: list[str] = []

    def hang(letter: str) -> None:
        hung.append(letter)
        for pid in family(mesh[letter].pid):
            os.kill(pid, signal.SIGSTOP)

    try:
        same(listen(mesh, TALE, hang), calm)
    finally:
        for pid in family(mesh[hung[0]].pid):
            os.kill(pid, signal.SIGCONT)
    until(lambda: len(mesh.sees("a")) == 3, 60, "all three are back")

    def kill(letter: str) -> None:
        for pid in family(mesh[letter].pid):
            os.kill(pid, signal.SIGKILL)

    same(listen(mesh, TALE, kill), calm)
