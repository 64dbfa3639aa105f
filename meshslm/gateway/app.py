"""The application: which route is answered by what.

Rules:
- Every error, whatever its source, has OpenAI's shape.
- `docs/api.md` lists the routes; a test compares it with `ROUTES`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from meshslm import limits
from meshslm.api.admin import Health, Readiness
from meshslm.api.openai_responses import Model
from meshslm.core.cascade import Check
from meshslm.errors import FaultCode, RequestFault
from meshslm.gateway.answering import Answering
from meshslm.gateway.consensus import ConsensusPages
from meshslm.gateway.draining import PATH as DRAIN
from meshslm.gateway.draining import DrainPage
from meshslm.gateway.guard import Guard, HostPolicy
from meshslm.gateway.history import HistoryPages
from meshslm.gateway.jobs import Job, Reader
from meshslm.gateway.memory import MemoryPages, SharedState
from meshslm.gateway.messages import read_message
from meshslm.gateway.model_orders import PATH as MODEL_ORDERS
from meshslm.gateway.model_orders import ModelOrders
from meshslm.gateway.openai_jobs import read_chat, read_completion
from meshslm.gateway.operations import (
    read_detokenize,
    read_embedding,
    read_rerank,
    read_template,
    read_tokenize,
)
from meshslm.gateway.recalling import Recalling
from meshslm.gateway.recording import RecordingPage
from meshslm.gateway.registry import RegistryPage
from meshslm.gateway.replies import fault_reply, json_reply, refusal
from meshslm.gateway.responses import Responses
from meshslm.gateway.routing import RoutePage
from meshslm.gateway.service import NodeService
from meshslm.gateway.state_pages import StatePages
from meshslm.gateway.views import model_list, peers_reply, status_reply
from meshslm.gateway.watching import Watching
from meshslm.observe.meters import CONTENT_TYPE, Meters

READERS: dict[str, Reader] = {
    "/v1/chat/completions": read_chat,
    "/v1/completions": read_completion,
    "/v1/messages": read_message,
    "/v1/embeddings": read_embedding,
    "/v1/rerank": read_rerank,
    "/tokenize": read_tokenize,
    "/detokenize": read_detokenize,
    "/apply-template": read_template,
}
"""What makes a job of the body that is sent to a path."""


def create_app(
    service: NodeService,
    *,
    version: str,
    host: str = "127.0.0.1",
    allowed_hosts: tuple[str, ...] = (),
    body_bytes: int = limits.HTTP_BODY_BYTES,
    deadline_ms: int = limits.DEADLINE_MS,
    recording: Callable[[str], bytes] | None = None,
    state: SharedState | None = None,
    checks: Mapping[str, Check] | None = None,
) -> Starlette:
    """The HTTP face of the node behind `service`.

    `host` is the address it will be served on: on loopback only requests for a loopback host or
    one of `allowed_hosts` are heard. A body has at most `body_bytes`; a
    request that names no deadline gets `deadline_ms`. `recording` gives what the flight recorder
    has, where there is one. `state` are its shared documents, where it keeps any. `checks` say
    which answers of small models may be given, by profile.
    """
    meters = Meters(
        version=version, status=service.status, peers=service.peers, consensus=service.consensus
    )
    pages = _Pages(service, meters, created=int(time.time()))
    responses = Responses(deadline_ms=deadline_ms)
    explain = RoutePage(service, body_bytes=body_bytes, deadline_ms=deadline_ms)
    recalling = Recalling(service, state)
    readers: dict[str, Callable[[bytes], Job]] = {
        **{path: partial(read, deadline_ms=deadline_ms) for path, read in READERS.items()},
        "/v1/responses": responses.read,
    }
    answering = partial(
        Answering,
        meters,
        body_bytes=body_bytes,
        recalling=recalling,
        service=service,
        checks=checks or {},
    )
    routes = [
        *(Route(path, answering(read), methods=["POST"]) for path, read in readers.items()),
        Route("/v1/responses/{name}", responses.get, methods=["GET"]),
        Route("/v1/responses/{name}", responses.delete, methods=["DELETE"]),
        Route("/v1/models", pages.models),
        Route("/v1/models/{name:path}", pages.model),
        Route("/healthz", pages.healthz),
        Route("/readyz", pages.readyz),
        Route("/metrics", pages.metrics),
        Route("/mesh/peers", pages.peers),
        Route("/mesh/status", pages.status),
        Route("/mesh/route", explain.__call__, methods=["POST"]),
        Route("/mesh/recording", RecordingPage(recording), methods=["GET"]),
        Route(DRAIN, DrainPage(service).__call__, methods=["POST"]),
        *ConsensusPages(service).routes(),
        *_of_documents(service, state),
        Route(MODEL_ORDERS, ModelOrders(service).__call__, methods=["POST"]),
    ]
    guard = Middleware(
        Guard,
        hosts=HostPolicy(host, allowed_hosts),
        meters=meters,
        route_of=_templates(route.path for route in routes),
    )
    return Starlette(
        routes=routes,
        middleware=[guard],
        exception_handlers={HTTPException: _on_http, RequestFault: _on_fault},
    )


def _of_documents(service: NodeService, state: SharedState | None) -> Iterable[Route]:
    """What shows and changes shared documents."""
    memory = MemoryPages(service, state)
    yield from memory.routes()
    yield from StatePages(service, state).routes()
    yield from Watching(memory).routes()
    yield from HistoryPages(state).routes()
    yield from RegistryPage(service, state).routes()


class _Pages:
    """The short routes."""

    def __init__(self, service: NodeService, meters: Meters, *, created: int) -> None:
        self._service = service
        self._meters = meters
        self._created = created

    async def models(self, _request: Request) -> Response:
        """Everything `model` of a request may name now."""
        return json_reply(model_list(self._service.peers(), self._created))

    async def model(self, request: Request) -> Response:
        """One of them; 404 with the known ones otherwise."""
        name = request.path_params["name"]
        known = model_list(self._service.peers(), self._created).data
        found: Model | None = next((model for model in known if model.id == name), None)
        if found is None:
            names = ", ".join(model.id for model in known)
            raise RequestFault(
                FaultCode.UNKNOWN_MODEL,
                f"The model '{name}' does not exist in this mesh. Known: {names}.",
                param="model",
            )
        return json_reply(found)

    async def healthz(self, _request: Request) -> Response:
        """The process is there and its loop turns."""
        return json_reply(Health())

    async def readyz(self, _request: Request) -> Response:
        """Whether requests can be answered: 200 or 503."""
        ready, reason = self._service.ready()
        return json_reply(Readiness(ready=ready, reason=reason), status=200 if ready else 503)

    async def metrics(self, _request: Request) -> Response:
        """Meters in Prometheus' text format."""
        return Response(self._meters.text(), headers={"content-type": CONTENT_TYPE})

    async def peers(self, _request: Request) -> Response:
        """The nodes this node knows."""
        return json_reply(peers_reply(self._service.peers()))

    async def status(self, _request: Request) -> Response:
        """This node about itself."""
        return json_reply(status_reply(self._service.status()))


def _templates(paths: Iterable[str]) -> Callable[[str], str]:
    """Maps a path to its route's template, so that counters have few labels."""
    exact = set(paths)
    open_ = {path.partition("{")[0]: path.replace(":path", "") for path in exact if "{" in path}

    def template(path: str) -> str:
        if path in exact:
            return path
        return next((name for start, name in open_.items() if path.startswith(start)), "other")

    return template


async def _on_http(request: Request, error: Exception) -> Response:
    """Errors of HTTP itself."""
    assert isinstance(error, HTTPException), error
    path, method = request.url.path, request.method
    detail = error.detail
    if error.detail in ("Not Found", ""):
        detail = f"There is no {path} here."
    elif error.status_code == 405:
        detail = f"{method} is not allowed on {path}."
    return refusal(error.status_code, detail, error.headers, path=path)


async def _on_fault(request: Request, error: Exception) -> Response:
    """What a client asked for and cannot have."""
    assert isinstance(error, RequestFault), error
    return fault_reply(error, path=request.url.path)
