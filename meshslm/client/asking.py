"""What a client may ask for, and the HTTP requests that say it.

No I/O: both clients send what is made here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict
from urllib.parse import quote

import msgspec

from meshslm.api.admin import LONGEST_MS
from meshslm.api.history import TASKS, USAGE
from meshslm.api.registry import REGISTRY
from meshslm.api.state import FORGET

_MARGIN_S = 10.0
"""Waited beyond a request's deadline, so that the node's own words about it arrive."""

CONNECT_S = 5.0
"""A node that does not take a connection by then is not there."""


class CalledFunction(TypedDict):
    """What was to be called. `arguments` is JSON text."""

    name: str
    arguments: str


class MessageCall(TypedDict):
    """A call in an assistant's turn."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class Message(TypedDict):
    """One turn: `role` is `system`, `user`, `assistant` or `tool`."""

    role: str
    content: str
    tool_calls: NotRequired[list[MessageCall]]
    """Of an assistant's turn."""
    tool_call_id: NotRequired[str]
    """Of a tool's turn: the call that it answers."""
    reasoning_content: NotRequired[str]
    """What the assistant thought before it answered."""


class Urgency(TypedDict, total=False):
    """On whose behalf, how urgent, and how long it may take."""

    user: str
    """An engine serves all users equally; only a hash of it leaves the node."""
    priority: Literal["interactive", "background"]
    deadline_ms: int
    """Time for the whole answer; at most, and by default, ten minutes."""


class Routing(TypedDict, total=False):
    """How whoever answers is to be chosen."""

    strategy: str
    """`auto`, `round-robin`, `least-connections`, `response-time`, `capacity`, `prefix`, `cost` or
    `local-first`."""
    conversation: str
    """Requests of the same name stay at one node where they can."""
    private: bool
    """The prompt does not leave the mesh for an upstream."""
    cascade: bool
    """A small model answers first, and a larger one where that is not good enough."""


class Options(Urgency, total=False):
    """How an answer is made. What is left out, the specialist's profile decides."""

    system: str
    """Put before the messages as a system message."""
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repeat_penalty: float
    frequency_penalty: float
    presence_penalty: float
    seed: int
    stop: str | list[str]
    logit_bias: dict[int, float]
    response_format: dict[str, Any]
    """`{"type": "json_object"}`, or a schema; `json_form` writes one."""
    grammar: str
    """GBNF; instead of a `response_format`."""
    tools: list[dict[str, Any]]
    """Functions that the model may ask to be called; `tool` writes one."""
    tool_choice: str | dict[str, Any]
    """`auto`, `none`, `required`, or `{"type": "function", "function": {"name": ...}}`."""
    parallel_tool_calls: bool
    enable_thinking: bool
    reasoning_effort: str
    thinking_budget: int
    """Tokens to think at most."""
    adapter: str
    """A LoRA adapter to answer with."""
    memory: dict[str, Any]
    """`{"namespace": ...}`: what of shared memory fits goes into the prompt."""
    conversation: str
    """Which the messages go on with; its turns are kept in shared memory."""
    routing: Routing
    """How whoever answers is to be chosen."""


class RouteOptions(Routing, total=False):
    """What `route` may be told, beside who is asked."""

    max_tokens: int


def tool(name: str, description: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A function for `tools`; `parameters` is the JSON schema of its arguments."""
    function = {"name": name, "description": description, "parameters": dict(parameters)}
    return {"type": "function", "function": function}


def json_form(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A `response_format`: JSON that keeps a schema."""
    shape = {"name": name, "schema": dict(schema), "strict": True}
    return {"type": "json_schema", "json_schema": shape}


@dataclass(frozen=True, slots=True)
class Asking:
    """A request, ready to be sent."""

    path: str
    body: bytes | None = None
    """None where nothing is posted."""
    silence_s: float = 10.0
    """How long to wait for the next byte of its answer; by default as for one from memory."""

    @property
    def method(self) -> str:
        """The HTTP method."""
        return "GET" if self.body is None else "POST"


PEERS = Asking("/mesh/peers")
STATUS = Asking("/mesh/status")
MODELS = Asking("/v1/models")
CONSENSUS = Asking("/mesh/consensus")
MEMBERS = Asking(REGISTRY)


def deciding(act: str, subject: str, fields: dict[str, object]) -> Asking:
    """A command to the coordinators; `fields` has what else it needs."""
    return posting("/mesh/consensus/decisions", {"act": act, "subject": subject, **fields})


def deciding_who(order: str, node: str) -> Asking:
    """An order about who decides: `found`, `add`, `remove` or `transfer`."""
    return posting("/mesh/consensus/seats", {"order": order, "node": node})


def decided(kind: str, subject: str) -> Asking:
    """What is decided."""
    return Asking(f"/mesh/consensus/decisions?kind={quote(kind)}&subject={quote(subject)}")


def forgetting(document: str, author: str, *, force: bool) -> Asking:
    """An order to give up what an author wrote to a document."""
    body: dict[str, object] = {"document": document, "author": author, "force": force}
    return posting(FORGET, body)


def ordering(model: str, order: str, *, now: bool = False) -> Asking:
    """An order about a model of the asked node: `load`, `unload`, `pin` or `unpin`."""
    return posting(f"/mesh/models/{quote(model, safe='')}/{order}", {"now": True} if now else {})


def past_tasks(limit: int, state: str, *, mesh: bool) -> Asking:
    """The newest tasks of the asked node, or of its whole mesh."""
    wanted = f"&state={quote(state, safe='')}" if state else ""
    return Asking(f"{TASKS}?limit={limit}{wanted}" + ("&mesh=true" if mesh else ""))


def past_task(task: str) -> Asking:
    """One of them."""
    return Asking(f"{TASKS}/{quote(task, safe='')}")


def used(days: int) -> Asking:
    """The mesh's ledger of the last days."""
    return Asking(f"{USAGE}?days={days}")


def draining(limit_s: float) -> Asking:
    """An order to the asked node to leave within so many seconds."""
    return posting("/mesh/drain", {"limit_s": limit_s})


def asking(
    prompt: str | Sequence[Message], model: str, options: Options, *, stream: bool
) -> Asking:
    """The request for a chat completion; a text is one message of the user."""
    body = chat_body(prompt, model, options)
    if stream:
        body.update(stream=True, stream_options={"include_usage": True})
    return posting("/v1/chat/completions", body)


def chat_body(prompt: str | Sequence[Message], model: str, options: Options) -> dict[str, object]:
    """The body of a chat completion."""
    chosen: dict[str, object] = dict(options)
    messages = list(prompt) if not isinstance(prompt, str) else [_turn("user", prompt)]
    system = chosen.pop("system", None)
    if isinstance(system, str):
        messages.insert(0, _turn("system", system))
    return {"model": model, "messages": messages, **chosen}


def posting(path: str, body: Mapping[str, object]) -> Asking:
    """`body` as a request; its `deadline_ms` bounds how long its answer is waited for."""
    deadline_ms = body.get("deadline_ms", LONGEST_MS)
    assert isinstance(deadline_ms, int)
    return Asking(path, msgspec.json.encode(body), deadline_ms / 1000 + _MARGIN_S)


def _turn(role: str, content: str) -> Message:
    return {"role": role, "content": content}
