"""What clients of one engine feel: gaps, beginnings in common, long chats, guesses, other servers.

`python -m bench.bench_serving [MODEL.gguf]` prints a table; `measure()` gives its rows. Each ratio
is of two things measured one after the other in the same run, on the same file and threads.
$LLAMA_SERVER names llama.cpp's own server, which is measured too where it is set.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
import trio

from bench.bench_engine import PROMPTS, default_model
from bench.table import Row, markdown, spread
from meshslm.adapters.engine_process import EngineProcess, EngineSpec
from meshslm.core.events import EngineLost, EngineReady, Event, RunEnded, RunFailed, RunProduced
from meshslm.engine.cores import cores
from meshslm.ids import RunId
from meshslm.wire.messages import ChatMessage, Sampling, TaskRequest, Usage

TOKENS = 96
CONTEXT = 2048
SLOTS = 8
PARTS = ("gaps", "shared", "chat", "guesses", "servers")
ROUNDS = 3
GOING = 60
"""Tokens after which a stream is at its pace."""
ANIMALS = ("cat", "owl", "fox", "hen", "cow", "bee", "ant", "elk", "emu", "eel", "yak", "ram")
SERVER_PACKAGES = (
    "fastapi", "uvicorn", "sse-starlette", "starlette-context", "pydantic-settings", "PyYAML",
)  # fmt: skip
"""What llama-cpp-python's server needs beside it; it wants an older starlette than ours."""
WITHOUT_REPACKING = """
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


def lines(count: int, start: int = 0) -> str:
    """Text of about twenty tokens a line, different for each start."""
    return "\n".join(
        f"Line {start + n}: the {ANIMALS[(start + n) % 12]} went home at {n % 24} o'clock."
        for n in range(count)
    )


@dataclass(slots=True)
class Reply:
    """When each token of a run came, in seconds."""

    began: float
    at: list[float] = field(default_factory=list)
    text: str = ""
    usage: Usage = field(default_factory=Usage)
    going: trio.Event = field(default_factory=trio.Event)
    """It has made some tokens."""
    done: trio.Event = field(default_factory=trio.Event)

    @property
    def first_ms(self) -> float:
        """Until the first token."""
        return 1000 * (self.at[0] - self.began)


class Client:
    """Asks an engine process."""

    def __init__(self, engine: EngineProcess) -> None:
        self.engine = engine
        self.ready = trio.Event()
        self._replies: dict[int, Reply] = {}

    async def post(self, event: Event) -> None:
        """Hear what the engine says."""
        match event:
            case EngineReady():
                self.ready.set()
            case RunProduced(run, chunk):
                now = time.perf_counter()
                self._replies[run].at += [now] * len(chunk.tokens)
                self._replies[run].text += chunk.text
                if len(self._replies[run].at) > GOING:
                    self._replies[run].going.set()
            case RunEnded(run, usage):
                self._replies[run].usage = usage
                self._replies[run].done.set()
            case RunFailed() | EngineLost():
                raise SystemExit(f"the engine failed: {event}")
            case _:
                pass

    def start(self, turns: Sequence[ChatMessage], tokens: int) -> Reply:
        """Begin a run."""
        number = len(self._replies) + 1
        reply = self._replies[number] = Reply(time.perf_counter())
        request = TaskRequest(
            "bench",
            messages=tuple(turns),
            max_tokens=tokens,
            sampling=Sampling(temperature=0.0),
        )
        self.engine.start_run(RunId(number), request)
        return reply

    async def ask(self, *turns: ChatMessage, tokens: int = TOKENS) -> Reply:
        """Run to the end."""
        reply = self.start(turns, tokens)
        await reply.done.wait()
        return reply

    async def ask_all(self, prompts: Sequence[str], tokens: int = TOKENS) -> list[Reply]:
        """Run all at the same time."""
        replies = [self.start((ChatMessage("user", prompt),), tokens) for prompt in prompts]
        for reply in replies:
            await reply.done.wait()
        return replies


@asynccontextmanager
async def serving(path: Path, threads: int, *, guesses: bool = True) -> AsyncIterator[Client]:
    """An engine that is ready."""
    spec = EngineSpec("bench", path, CONTEXT, SLOTS, threads, guesses=guesses)
    client = Client(EngineProcess(spec))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.engine.run, client.post)
        await client.ready.wait()
        yield client
        nursery.cancel_scope.cancel()


async def gaps(client: Client) -> list[Row]:
    """Time between tokens of a stream, while it is alone, and while a long prompt comes."""
    alone: list[float] = []
    beside: list[float] = []
    tokens = 0
    for turn in range(ROUNDS):
        stream = client.start((ChatMessage("user", PROMPTS[turn]),), 400)
        await stream.going.wait()
        other = client.start((ChatMessage("user", lines(75, 1000 * turn)),), 1)
        begin = len(stream.at)
        await other.done.wait()
        end = len(stream.at)
        tokens = other.usage.prompt_tokens
        await stream.done.wait()
        times = [1000 * (b - a) for a, b in zip(stream.at, stream.at[1:], strict=False)]
        alone += times[5 : begin - 1]
        beside += times[begin : end + 1]
    return [
        Row(
            f"Gap of a stream beside a prompt of {tokens} tokens, longest",
            f"{max(beside):.0f} ms",
            f"alone {max(alone):.0f} ms",
        ),
        Row(
            "The same, 95 of 100",
            f"{quantiles(beside, n=20)[-1]:.0f} ms",
            f"alone {quantiles(alone, n=20)[-1]:.0f} ms",
        ),
    ]


async def shared(client: Client) -> list[Row]:
    """Eight requests whose first 1,000 tokens are the same."""
    cold: list[float] = []
    warm: list[float] = []
    last: list[float] = []
    tokens = 0
    for turn in range(ROUNDS):
        system = ChatMessage("system", lines(50, 10_000 + 1000 * turn))
        asked = [ChatMessage("user", f"What did the {animal} do?") for animal in ANIMALS[:8]]
        first = await client.ask(system, asked[0], tokens=1)
        cold.append(first.first_ms)
        reply = await client.ask(system, asked[1], tokens=1)
        warm.append(reply.first_ms)
        tokens = reply.usage.cached_tokens
        other = ChatMessage("system", lines(50, 50_000 + 1000 * turn))
        replies = [client.start((other, question), 1) for question in asked]
        for reply in replies:
            await reply.done.wait()
        last.append(max(reply.first_ms for reply in replies))
    ratio = median(w / c for w, c in zip(warm, cold, strict=True))
    eight = median(w / c for w, c in zip(last, cold, strict=True))
    return [
        Row(
            f"First token, {tokens} tokens of the prompt known",
            spread(warm, "ms", 0),
            f"cold {spread(cold, 'ms', 0)}",
            f"{ratio:.3f}",
            "at most 0.15",
            ratio <= 0.15,
        ),
        Row(
            "Eight such at once, until the last has its first token",
            spread(last, "ms", 0),
            f"one alone, cold {spread(cold, 'ms', 0)}",
            f"{eight:.2f}",
        ),
    ]


async def chat(client: Client) -> list[Row]:
    """A chat of ten turns, and its last turn where nothing is known of it."""
    turns = [ChatMessage("system", lines(10, 90_000))]
    first: list[float] = []
    usage = Usage()
    for turn in range(10):
        turns.append(ChatMessage("user", f"Tell me what the {ANIMALS[turn]} did, and why."))
        reply = await client.ask(*turns, tokens=48)
        first.append(reply.first_ms)
        usage = reply.usage
        turns.append(ChatMessage("assistant", reply.text))
    strange = [ChatMessage("system", lines(10, 95_000)), *turns[1:-1]]
    cold = await client.ask(*strange, tokens=1)
    return [
        Row(
            f"First token of ten turns, the last of {usage.prompt_tokens} tokens "
            f"({usage.cached_tokens} known)",
            f"second {first[1]:.0f} ms, tenth {first[9]:.0f} ms",
            f"tenth, nothing known: {cold.first_ms:.0f} ms",
            f"{first[9] / cold.first_ms:.2f}",
        )
    ]


async def guesses(path: Path, threads: int) -> list[Row]:
    """One at a time with guesses and without: a text that repeats, and one that does not."""
    asked = {
        "an answer that repeats its prompt": "Repeat this list word by word, three times: apple, "
        "pear, plum, cherry, peach, apricot, lemon, orange, melon, grape.",
        "a story": PROMPTS[0],
    }
    rows = []
    async with (
        serving(path, threads) as guessing,
        serving(path, threads, guesses=False) as plain,
    ):
        for what, prompt in asked.items():
            speeds: tuple[list[float], list[float]] = ([], [])
            texts = set()
            for turn in range(ROUNDS + 1):
                for client, speed in zip((guessing, plain), speeds, strict=True):
                    reply = await client.ask(ChatMessage("user", prompt), tokens=160)
                    texts.add(reply.text)
                    if turn:  # the first warms up
                        speed.append((len(reply.at) - 1) / (reply.at[-1] - reply.at[0]))
            ratio = median(g / p for g, p in zip(*speeds, strict=True))
            same = "same text" if len(texts) == 1 else "OTHER TEXT"
            rows.append(
                Row(
                    f"Guesses on, {what}",
                    spread(speeds[0], "tokens/s"),
                    f"off {spread(speeds[1], 'tokens/s')}, {same}",
                    f"{ratio:.2f}",
                )
            )
    return rows


# --- other servers ------------------------------------------------------------------------------
def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def server(command: Sequence[str], environment: Mapping[str, str], port: int) -> Iterator[str]:
    """An OpenAI server as a subprocess, once it answers; its address."""
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        command,
        env=dict(environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 120
        while True:
            try:
                if httpx.get(f"{url}/v1/models", timeout=2).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{command[0]} does not start")
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(10)


async def http_speed(url: str, prompts: Sequence[str]) -> float:
    """Tokens a second of a server, all prompts at the same time."""
    made = 0
    timeout = httpx.Timeout(600)

    async def ask(http: httpx.AsyncClient, prompt: str) -> None:
        nonlocal made
        body: dict[str, Any] = {
            "model": "m",
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": TOKENS,
            "temperature": 0.0,
        }
        answer = await http.post(f"{url}/v1/chat/completions", json=body)
        made += answer.raise_for_status().json()["usage"]["completion_tokens"]

    began = time.perf_counter()
    async with httpx.AsyncClient(timeout=timeout) as http, trio.open_nursery() as nursery:
        for prompt in prompts:
            nursery.start_soon(ask, http, prompt)
    return made / (time.perf_counter() - began)


def python_server(path: Path, threads: int, port: int) -> tuple[list[str], dict[str, str]]:
    """The command of llama-cpp-python's own server, its packages in a folder of their own."""
    folder = Path.home() / ".cache" / "meshslm" / "bench-server"
    if not folder.is_dir():
        install = (sys.executable, "-m", "pip", "install", "-q", "--target", str(folder))
        subprocess.run([*install, *SERVER_PACKAGES], check=True)
    command = [sys.executable, "-c", WITHOUT_REPACKING, "--model", str(path)]
    command += ["--n_ctx", str(CONTEXT), "--n_threads", str(threads), "--n_threads_batch"]
    command += [str(threads), "--port", str(port)]
    return command, {**os.environ, "PYTHONPATH": str(folder)}


def c_server(path: Path, threads: int, port: int) -> tuple[list[str], dict[str, str]]:
    """The command of llama.cpp's own server."""
    command = [os.environ["LLAMA_SERVER"], "-m", str(path), "-np", str(SLOTS), "-t", str(threads)]
    command += ["-c", str(CONTEXT * SLOTS), "-fa", "on", "--port", str(port)]
    return command, dict(os.environ)


async def against(client: Client, url: str, name: str, targets: Mapping[int, float]) -> list[Row]:
    """Both in turn, with so many requests at the same time."""
    rows = []
    for count, target in targets.items():
        ours: list[float] = []
        theirs: list[float] = []
        for turn in range(ROUNDS):
            prompts = [f"{prompt} Make it number {turn}." for prompt in PROMPTS[:count]]
            theirs.append(await http_speed(url, prompts))
            began = time.perf_counter()
            replies = await client.ask_all(prompts)
            made = sum(reply.usage.completion_tokens for reply in replies)
            ours.append(made / (time.perf_counter() - began))
        ratio = median(a / b for a, b in zip(ours, theirs, strict=True))
        rows.append(
            Row(
                f"{count} at a time, against {name}",
                spread(ours, "tokens/s"),
                f"{name} {spread(theirs, 'tokens/s')}",
                f"{ratio:.2f}",
                f"at least {target}",
                ratio >= target,
            )
        )
    return rows


async def _measure(path: Path, threads: int, parts: Sequence[str]) -> list[Row]:
    rows = []
    async with serving(path, threads) as client:
        for part in (gaps, shared, chat):
            if part.__name__ in parts:
                rows += await part(client)
    if "guesses" in parts:
        rows += await guesses(path, threads)
    if "servers" in parts:
        rows += await servers(path, threads)
    return rows


async def servers(path: Path, threads: int) -> list[Row]:
    """Other servers, in turn with this one."""
    rows = []
    async with serving(path, threads) as client:
        port = free_port()
        with server(*python_server(path, threads, port), port) as url:
            rows += await against(client, url, "llama-cpp-python's server", {1: 1.0, 8: 3.0})
        if os.environ.get("LLAMA_SERVER"):
            port = free_port()
            with server(*c_server(path, threads, port), port) as url:
                rows += await against(client, url, "llama-server", {1: 0.98, 8: 1.0, 16: 1.0})
    return rows


def measure() -> list[Row]:
    """The rows for the page of figures, with the default model."""
    return trio.run(_measure, default_model(), len(cores()), PARTS)


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    given = parser.parse_args()
    path, threads = given.model or default_model(), given.threads or len(cores())
    print(markdown(trio.run(_measure, path, threads, given.parts)))


if __name__ == "__main__":
    main()
