"""The engine's throughput and first tokens, beside the bare loop and llama.cpp's own server.

All get the same file, threads, slots, context, prompts and greedy choice, and take turns. No prompt
is asked twice, so nothing that was computed before helps; the engine guesses no tokens here. The
bare loop is the limit. llama-server is measured where $LLAMA_SERVER, PATH or `make llama-server`
has it. Like the engine it tells this process of each token as it is made; beside that it is asked
for whole answers.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median

import httpx
import trio

from bench import USER_ENVIRONMENT
from bench.bare_loop import BareLoop
from bench.engines import Client, at_a_time, default_model, running, stories
from bench.servers import Place, Server, find_llama_server, llama_server, serving
from bench.table import Row, markdown
from bench.turns import Effort, Samples, Side, percentiles, say, speeds, take_turns
from meshslm.adapters.engine_process import EngineSpec
from meshslm.engine import openmp
from meshslm.engine.cores import cores

CONTEXT = 512
CONCURRENT = (1, 4, 8, 16, 32)
OF_BARE = {8: 0.97}
OF_LLAMA_SERVER = {1: 0.98, 8: 1.0, 16: 1.0}
WHOLE = (1, 8)
"""Also compared with whole answers."""
BESIDE = 7
"""Streams that run while a first token is waited for."""
FIRSTS = 20
PAUSE_S = 0.1
"""Between two requests beside streams, so that these run."""
EFFORT = Effort(least=3, most=7, budget_s=35)
QUICK = Effort(least=2, most=3, budget_s=15)
RIVAL = "llama-server"


class Compared:
    """The engine and the bare loop with the same requests, whose tokens should be the same."""

    def __init__(self, client: Client, bare: BareLoop, count: int) -> None:
        self._client = client
        self._bare = bare
        self._count = count
        self._tokens: dict[int, list[list[int]]] = {}
        self.differ = 0
        """Answers that were not the same on both sides."""

    def _note(self, turn: int, made: list[list[int]]) -> None:
        other = self._tokens.pop(turn, None)
        if other is None:
            self._tokens[turn] = made
        else:
            self.differ += sum(a != b for a, b in zip(made, other, strict=True))

    async def engine(self, turn: int) -> float:
        """Its speed."""
        speed, replies = await self._client.run(stories(self._count, turn))
        self._note(turn, [reply.tokens for reply in replies])
        return speed

    async def bare(self, turn: int) -> float:
        """Its speed."""
        speed, made = self._bare.run(stories(self._count, turn))
        self._note(turn, made)
        return speed


async def throughput(
    client: Client, bare: BareLoop, server: Server | None, concurrent: Sequence[int], effort: Effort
) -> tuple[list[Row], Server | None]:
    """The engine, the bare loop and the server in turn; the server, if it still runs."""
    rows = []
    for count in concurrent:
        say(f"{count} at a time")
        compared = Compared(client, bare, count)
        sides: dict[str, Side] = {"engine": compared.engine, "bare": compared.bare}
        if server is not None:
            sides[RIVAL] = at_a_time(server, count)
            if count in WHOLE:
                sides["whole"] = at_a_time(server.answering_whole(), count, "whole ")
        made, server = await _survived(sides, effort, server)
        same = f"{compared.differ} answers differ" if compared.differ else "same tokens"
        name = f"bare loop ({same})"
        ours = made["engine"]
        rows.append(speeds(f"{count} at a time", ours, name, made["bare"], OF_BARE.get(count)))
        if server is not None:
            least = OF_LLAMA_SERVER.get(count)
            rows.append(speeds(f"{count} at a time, to {RIVAL}", ours, RIVAL, made[RIVAL], least))
            if count in WHOLE:
                name = f"{RIVAL}, answers come whole"
                rows.append(speeds(f"{count} at a time, streamed", ours, name, made["whole"]))
    return rows, server


async def _survived(
    sides: dict[str, Side], effort: Effort, server: Server | None
) -> tuple[Samples, Server | None]:
    """Take turns; without the server where it ends meanwhile, as some builds do here."""
    try:
        return await take_turns(sides, effort), server
    except httpx.HTTPError as error:
        say(f"{RIVAL} broke off ({type(error).__name__}): measuring without it from here on")
        return await take_turns({name: sides[name] for name in ("engine", "bare")}, effort), None


async def firsts(sides: Mapping[str, Client | Server]) -> list[Row]:
    """Until the first token of a prompt of some 50 tokens, alone and beside streams."""
    say("first tokens")
    idle: dict[str, list[float]] = {name: [] for name in sides}
    busy: dict[str, list[float]] = {name: [] for name in sides}
    for name, side in sides.items():
        for number in range(FIRSTS + 1):
            took = await side.first_ms(stories(1, 1000 + number, 1)[0])
            if number:  # the first warms up
                idle[name].append(took)
        async with side.streaming(stories(BESIDE, 2000, CONTEXT - 100)):
            for number in range(FIRSTS):
                busy[name].append(await side.first_ms(stories(1, 3000 + number, 1)[0]))
                await trio.sleep(PAUSE_S)
    rows = []
    for what, found in (("nothing else running", idle), (f"beside {BESIDE} streams", busy)):
        row = Row(f"First token, {what}", percentiles(found["engine"]))
        if theirs := found.get(RIVAL):
            of = median(found["engine"]) / median(theirs)
            row = replace(row, against=f"{RIVAL} {percentiles(theirs)}", ratio=f"{of:.2f}")
        rows.append(row)
    return rows


async def barriers(command: Sequence[str]) -> list[Row]:
    """The server as its OpenMP waits by itself, and as the engine lets its own wait."""
    say("llama-server with the engine's way to wait at barriers")
    ours = openmp.settings(USER_ENVIRONMENT)
    rows = []
    async with (
        serving(command, USER_ENVIRONMENT) as own,
        serving(command, {**USER_ENVIRONMENT, **ours}) as changed,
    ):
        for count in (1, 8):
            made = await take_turns(
                {"own": at_a_time(own, count), "new": at_a_time(changed, count)}, QUICK
            )
            rows.append(
                speeds(
                    f"{RIVAL} with GOMP_SPINCOUNT={openmp.SPINS}, {count} at a time",
                    made["new"],
                    "with its own",
                    made["own"],
                )
            )
    return rows


async def _measure(
    path: Path, threads: int, concurrent: Sequence[int], effort: Effort
) -> list[Row]:
    slots = max(*concurrent, BESIDE + 1)
    place = Place(path, threads, slots, CONTEXT)
    program = find_llama_server()
    if program is None:
        say("llama-server is not here (make llama-server): measuring without it")
    command = [] if program is None else await llama_server(program, place)
    async with AsyncExitStack() as stack:
        spec = EngineSpec("bench", path, CONTEXT, slots, threads, guesses=False)
        client = await stack.enter_async_context(running(spec))
        server = None
        if command:
            server = await stack.enter_async_context(serving(command, USER_ENVIRONMENT))
        bare = BareLoop(path, slots, threads, CONTEXT)
        rows, server = await throughput(client, bare, server, concurrent, effort)
        sides: dict[str, Client | Server] = {"engine": client}
        if server is not None:
            sides[RIVAL] = server
        rows += await firsts(sides)
    if server is not None:
        rows += await barriers(command)
    return rows


def measure() -> list[Row]:
    """The rows for the page of figures, with the default model."""
    return trio.run(_measure, default_model(), len(cores()), CONCURRENT, EFFORT)


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--threads", type=int, default=len(cores()))
    parser.add_argument("--rounds", type=int, default=EFFORT.most)
    parser.add_argument("--concurrent", type=int, nargs="+", default=CONCURRENT)
    given = parser.parse_args()
    path = given.model or default_model()
    effort = Effort(min(EFFORT.least, given.rounds), given.rounds, EFFORT.budget_s)
    print(markdown(trio.run(_measure, path, given.threads, given.concurrent, effort)))


if __name__ == "__main__":
    main()
