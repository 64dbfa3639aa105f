"""An HTTP server that answers as a node would, from values that a test sets.

Its bodies are made by the same shapes that the gateway and the client use.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from meshslm.api.admin import (
    Card,
    HardwareInfo,
    LoadInfo,
    PeerInfo,
    PeersReply,
    SpecialistInfo,
    StatusReply,
    TaskCountsInfo,
)
from meshslm.api.faults import HTTP_FAULTS, envelope
from meshslm.api.openai_responses import (
    ChatAnswer,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    CompletionUsage,
    Model,
    ModelHost,
    ModelInfo,
    ModelList,
    RouteInfo,
)
from meshslm.api.registry import HostedInfo, MemberInfo, RegistryReply
from meshslm.errors import RequestFault
from tests.cli.local_server import Answering, served_by

NODE = "12D3KooWStandInNodeStandInNodeStandInNodeStandInNode"
ROUTE = RouteInfo(
    node=NODE,
    node_name="node-b",
    model="smollm2-135m-instruct",
    profile="writing",
    route="classified as writing (0.81)",
    attempts=2,
    ttft_ms=42.5,
    queue_ms=1.0,
    prefill_ms=30.0,
    decode_ms=200.0,
)
USAGE = CompletionUsage(prompt_tokens=12, completion_tokens=8, total_tokens=20)
LOAD = LoadInfo(model="smollm2-135m-instruct", ready=True, running=1, free_slots=7, decode_tps=88.4)


@dataclass
class StandIn:
    """What the node says, and what it was asked."""

    pieces: list[str] = field(default_factory=lambda: ["Snow", " on the", " lamp."])
    fault: RequestFault | None = None
    breaks_off: bool = False
    ready: bool = True
    route: RouteInfo = ROUTE
    url: str = ""
    status: StatusReply = field(default_factory=lambda: STATUS)
    models: ModelList | None = field(default_factory=lambda: MODELS)
    asked: list[dict[str, Any]] = field(default_factory=list)

    def completion(self) -> bytes:
        text = "".join(self.pieces)
        choice = ChatChoice(
            index=0, message=ChatAnswer(role="assistant", content=text), finish_reason="stop"
        )
        body = ChatCompletion(
            id="c", created=1, model="m", choices=[choice], usage=USAGE, meshslm=self.route
        )
        return msgspec.json.encode(body)

    def events(self) -> Iterator[bytes]:
        for piece in self.pieces:
            choice = ChatChunkChoice(index=0, delta=ChatDelta(content=piece))
            yield msgspec.json.encode(ChatChunk(id="c", created=1, model="m", choices=[choice]))
        if self.fault is not None:
            yield msgspec.json.encode(envelope(self.fault))
        elif not self.breaks_off:
            last = ChatChunk(
                id="c", created=1, model="m", choices=[], usage=USAGE, meshslm=self.route
            )
            yield msgspec.json.encode(last)
            yield b"[DONE]"


PEERS = PeersReply(
    peers=[
        PeerInfo(
            node=NODE,
            name="node-a",
            state="self",
            agent="meshslm/0.1.0",
            address="/ip4/127.0.0.1/tcp/7415",
            rtt_ms=None,
            heard_ms=None,
            specialists=[],
            hardware=HardwareInfo(),
            loads=[],
        ),
        PeerInfo(
            node=NODE[::-1],
            name="node-b",
            state="alive",
            agent="meshslm/0.1.0",
            address="/ip4/127.0.0.1/tcp/7425",
            rtt_ms=0.8,
            heard_ms=310.0,
            specialists=[
                SpecialistInfo(
                    profile="writing",
                    model="smollm2-135m-instruct",
                    digest="d" * 64,
                    quantisation="Q8_0",
                    context=2048,
                    slots=8,
                    domains=[Card(domain="writing"), Card(domain="poetry")],
                )
            ],
            hardware=HardwareInfo(cores=2),
            loads=[LOAD],
        ),
    ]
)
REGISTRY = RegistryReply(
    members=[
        MemberInfo(node=NODE, name="node-a", version="meshslm/0.1.0", there=True, seen_ms=0.0),
        MemberInfo(
            node="12D3KooWAway",
            name="node-c",
            version="meshslm/0.1.0",
            there=False,
            seen_ms=7_200_000.0,
            hosts=[HostedInfo(profile="law", model="qwen3-0.6b", domains=["law"])],
        ),
    ]
)
STATUS: StatusReply = StatusReply(
    node=NODE,
    name="node-a",
    mesh="demo",
    version="0.1.0",
    boot=3,
    uptime_ms=125_000.0,
    addresses=["/ip4/127.0.0.1/tcp/7415"],
    peers_alive=1,
    leaving=False,
    tasks=TaskCountsInfo(
        arrived=9,
        finished=6,
        failed=1,
        cancelled=1,
        active=1,
        retried=2,
        continued=1,
        served=4,
        refused=0,
    ),
    loads=[LOAD],
)


HOST = ModelHost(
    node=NODE,
    node_name="node-b",
    profile="writing",
    model="smollm2-135m-instruct",
    ready=True,
    context=2048,
    quantisation="Q8_0",
    slots=8,
)
MODELS: ModelList = ModelList(
    data=[
        Model(
            id=name,
            created=1,
            owned_by="meshslm",
            meshslm=ModelInfo(kind=kind, hosts=[HOST]),
        )
        for kind, name in [("auto", "auto"), ("domain", "domain:writing"), ("profile", "writing")]
    ]
)


FIXED: dict[str, msgspec.Struct] = {"/mesh/peers": PEERS, "/mesh/registry": REGISTRY}


@contextmanager
def stand_in_node() -> Iterator[StandIn]:
    """Serve a stand-in on a free port of loopback."""
    told = StandIn()

    class Handler(Answering):
        def do_GET(self) -> None:
            if self.path in FIXED:
                self.whole(200, msgspec.json.encode(FIXED[self.path]))
            elif self.path == "/mesh/status":
                self.whole(200, msgspec.json.encode(told.status))
            elif self.path == "/v1/models" and told.models is not None:
                self.whole(200, msgspec.json.encode(told.models))
            elif self.path == "/readyz":
                self.whole(200 if told.ready else 503, b'{"ready": false, "reason": "loads"}')
            else:
                self.whole(404, b"{}")

        def do_POST(self) -> None:
            asked = json.loads(self.body())
            told.asked.append(asked)
            if told.fault is not None and not told.pieces:
                body = msgspec.json.encode(envelope(told.fault))
                self.whole(HTTP_FAULTS[told.fault.code].status, body)
            elif not asked.get("stream"):
                self.whole(200, told.completion())
            else:
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.end_headers()
                for event in told.events():
                    self.wfile.write(b"data: " + event + b"\n\n")

    with served_by(Handler) as told.url:
        yield told
