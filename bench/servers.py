"""Other servers on the same machine, as subprocesses, asked over HTTP.

They get the user's own environment, not the engine's: how OpenMP's threads wait is theirs to
choose.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import trio

from bench import USER_ENVIRONMENT
from bench.engines import GOING, question
from bench.turns import say
from meshslm.wire.messages import TaskRequest

READY_S: Final = 120.0
LOOK_S: Final = 0.1
COUNTED: Final = re.compile(rb'"completion_tokens": ?(\d+)')
BUILT: Final = Path(__file__).resolve().parent.parent / "build" / "llama-server" / "llama-server"
PACKAGES: Final = (
    "fastapi", "uvicorn", "sse-starlette", "starlette-context", "pydantic-settings", "PyYAML",
)  # fmt: skip
"""What llama-cpp-python's server needs beside it; it wants an older starlette than ours."""
WITHOUT_REPACKING: Final = """
import runpy, sys
import llama_cpp
defaults = llama_cpp.llama_model_default_params
def parameters():
    made = defaults()
    made.use_extra_bufts = False
    return made
llama_cpp.llama_model_default_params = llama_cpp.llama_cpp.llama_model_default_params = parameters
sys.argv[0] = "llama_cpp.server"
runpy.run_module("llama_cpp.server", run_name="__main__")
"""
"""llama-cpp-python's server with weights as the engine has them: repacked ones end it with a
segmentation fault on processors with AMX."""


@dataclass(frozen=True, slots=True)
class Place:
    """What every server gets alike."""

    model: Path
    threads: int
    slots: int
    context: int
    """Tokens of one slot."""


class ServerDiedError(Exception):
    """A server did not start."""


class Server:
    """A server that answers."""

    def __init__(self, http: httpx.AsyncClient, *, whole: bool = False) -> None:
        """`whole`: answers come at their end, instead of token by token."""
        self._http = http
        self._ask = self._whole if whole else self._streamed

    def answering_whole(self) -> Server:
        """The same server, asked for whole answers."""
        return Server(self._http, whole=True)

    async def _whole(self, request: TaskRequest) -> int:
        reply = await self._http.post("/v1/chat/completions", json=_body(request))
        return int(reply.raise_for_status().json()["usage"]["completion_tokens"])

    async def _streamed(self, request: TaskRequest) -> int:
        made = 0
        async for piece in self._pieces(request):
            if found := COUNTED.search(piece):
                made = int(found[1])
        if not made:
            raise SystemExit("a stream ended without a count of its tokens")
        return made

    async def _pieces(self, request: TaskRequest) -> AsyncGenerator[bytes, None]:
        """Events as they come; looked through, not parsed, as this process shares the cores."""
        body = {**_body(request), "stream": True, "stream_options": {"include_usage": True}}
        async with self._http.stream("POST", "/v1/chat/completions", json=body) as reply:
            reply.raise_for_status()
            async for piece in reply.aiter_raw():
                yield piece

    async def speed(self, requests: Sequence[TaskRequest]) -> float:
        """Tokens a second of all together."""
        made = 0

        async def one(request: TaskRequest) -> None:
            nonlocal made
            tokens = await self._ask(request)
            made += tokens  # not `made += await`, which would add to what was there before

        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for request in requests:
                nursery.start_soon(one, request)
        return made / (time.perf_counter() - began)

    async def first_ms(self, request: TaskRequest) -> float:
        """Until the whole answer of one token."""
        assert request.max_tokens == 1
        began = time.perf_counter()
        await self._whole(request)
        return 1000 * (time.perf_counter() - began)

    @asynccontextmanager
    async def streaming(self, requests: Sequence[TaskRequest]) -> AsyncIterator[None]:
        """While these run; they are hung up on at the end."""

        async def stream(request: TaskRequest, going: trio.Event) -> None:
            pieces = 0
            async with aclosing(self._pieces(request)) as found:
                async for piece in found:
                    pieces += piece.count(b"data:")
                    if pieces >= GOING:
                        going.set()
            going.set()

        all_going = [trio.Event() for _ in requests]
        async with trio.open_nursery() as nursery:
            for request, going in zip(requests, all_going, strict=True):
                nursery.start_soon(stream, request, going)
            for going in all_going:
                await going.wait()
            yield
            nursery.cancel_scope.cancel()


def _body(request: TaskRequest) -> dict[str, Any]:
    messages = [{"role": turn.role, "content": turn.content} for turn in request.messages]
    return {
        "model": "bench",
        "messages": messages,
        "max_tokens": request.max_tokens,
        "temperature": request.sampling.temperature,
        "top_k": 1,  # the likeliest, and less work for samplers that go through all tokens
    }


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def _process(
    command: Sequence[str], environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    null = subprocess.DEVNULL
    process = subprocess.Popen(command, env=dict(environment), stdout=null, stderr=null)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@asynccontextmanager
async def serving(command: Sequence[str], environment: Mapping[str, str]) -> AsyncIterator[Server]:
    """A server as a subprocess, once it answers; the command gets a port."""
    port = str(_free_port())
    # A connection that rested longer may be closed by the server just as it is used again.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=2.0)
    with _process([*command, "--port", port], environment) as process:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=600, limits=limits
        ) as http:
            for _ in range(int(READY_S / LOOK_S)):
                if process.poll() is not None or await _answers(http):
                    break
                await trio.sleep(LOOK_S)
            if process.poll() is not None or not await _answers(http):
                raise ServerDiedError(f"{command[0]} does not start")
            yield Server(http)


async def _answers(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/v1/models")).status_code == 200
    except httpx.HTTPError:
        return False


def python_server(place: Place) -> tuple[list[str], dict[str, str]]:
    """llama-cpp-python's own server, its packages in a folder of their own."""
    folder = Path.home() / ".cache" / "meshslm" / "bench-server"
    if not folder.is_dir():
        install = (sys.executable, "-m", "pip", "install", "-q", "--target", str(folder))
        subprocess.run([*install, *PACKAGES], check=True)
    threads = str(place.threads)
    command = [sys.executable, "-c", WITHOUT_REPACKING, "--model", str(place.model)]
    command += ["--n_ctx", str(place.context), "--n_threads", threads]
    command += ["--n_threads_batch", threads, "--flash_attn", "true"]
    return command, {**USER_ENVIRONMENT, "PYTHONPATH": str(folder)}


def find_llama_server() -> str | None:
    """llama.cpp's own server: $LLAMA_SERVER, on PATH, or made by `make llama-server`."""
    if named := os.environ.get("LLAMA_SERVER"):
        if shutil.which(named) is None:
            raise SystemExit(f"$LLAMA_SERVER is no program: {named}")
        return named
    return shutil.which("llama-server") or (str(BUILT) if BUILT.exists() else None)


async def llama_server(program: str, place: Place) -> list[str]:
    """Its command: the same file, threads, slots and context; all else as it likes.

    Repacked weights, which are its own choice, end it with a segmentation fault on some processors
    with AMX: there it gets mapped ones, as the engine has them.
    """
    threads = str(place.threads)
    command = [program, "-m", str(place.model), "-np", str(place.slots), "-t", threads]
    command += ["-tb", threads, "-c", str(place.context * place.slots), "-fa", "on"]
    try:
        async with serving(command, USER_ENVIRONMENT) as server:
            await server.first_ms(question("Hello", 1))
    except (ServerDiedError, httpx.HTTPError):
        say("llama-server does not survive repacked weights here: it gets --no-repack")
        return [*command, "--no-repack"]
    return command
