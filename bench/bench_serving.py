"""What clients of one engine feel: gaps, beginnings in common, long chats, guesses.

And how many tokens a second llama-cpp-python's own server makes of the same requests. Each ratio is
of two things measured one after the other in the same run, on the same file and threads.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import trio

from bench.engines import PROMPTS, Client, at_a_time, chat, default_model, question, running
from bench.servers import Place, python_server, serving
from bench.table import Row, markdown, spread
from bench.turns import Effort, Side, percentiles, ratio, say, speeds, take_turns
from meshslm.adapters.engine_process import EngineSpec
from meshslm.engine.cores import cores
from meshslm.wire.messages import ChatMessage, TaskRequest, Usage

CONTEXT = 2048
SLOTS = 8
PARTS = ("gaps", "shared", "turns", "guesses", "python")
ROUNDS = 3
EFFORT = Effort(least=3, most=5, budget_s=25)
OF_PYTHON_SERVER = {1: 1.0, 8: 3.0}
OF_COLD = 0.15
ANIMALS = ("cat", "owl", "fox", "hen", "cow", "bee", "ant", "elk", "emu", "eel", "yak", "ram")


def lines(count: int, start: int = 0) -> str:
    """Text of about twenty tokens a line, different for each start."""
    return "\n".join(
        f"Line {start + n}: the {ANIMALS[(start + n) % 12]} went home at {n % 24} o'clock."
        for n in range(count)
    )


async def gaps(client: Client) -> list[Row]:
    """Time between tokens of a stream, while it is alone, and while a long prompt comes."""
    alone: list[float] = []
    beside: list[float] = []
    tokens = 0
    for turn in range(ROUNDS):
        stream = client.start(question(PROMPTS[turn], 300))
        await stream.going.wait()
        before = len(stream.at)
        other = client.start(question(lines(75, 1000 * turn), 1))
        await other.done.wait()
        after = len(stream.at)
        tokens = other.usage.prompt_tokens
        await stream.done.wait()
        times = [1000 * (b - a) for a, b in zip(stream.at, stream.at[1:], strict=False)]
        alone += [*times[5 : before - 1], *times[after + 1 :]]
        beside += times[before - 1 : after + 1]
    return [
        Row(
            f"Gap between tokens of a stream beside a prompt of {tokens} tokens",
            f"{percentiles(beside)}, longest {max(beside):.0f} ms",
            f"alone {percentiles(alone)}, longest {max(alone):.0f} ms",
            f"{median(beside) / median(alone):.1f}",
        )
    ]


async def shared(client: Client) -> list[Row]:
    """Eight requests whose first 1,000 tokens are the same."""
    cold: list[float] = []
    warm: list[float] = []
    last: list[float] = []
    tokens = 0
    questions = [ChatMessage("user", f"What did the {animal} do?") for animal in ANIMALS[:SLOTS]]

    def asked(start: int) -> list[TaskRequest]:
        system = ChatMessage("system", lines(50, start))
        return [chat(system, one, tokens=1) for one in questions]

    for turn in range(ROUNDS):
        first, second, *_ = asked(10_000 + 1000 * turn)
        cold.append(await client.first_ms(first))
        reply = await client.ask(second)
        warm.append(reply.first_ms)
        tokens = reply.usage.cached_tokens
        replies = await client.ask_all(asked(50_000 + 1000 * turn))
        last.append(max(reply.first_ms for reply in replies))
    found = ratio(warm, cold)
    return [
        Row(
            f"First token, {tokens} tokens of the prompt known",
            spread(warm, "ms", 0),
            f"cold {spread(cold, 'ms', 0)}",
            f"{found:.3f}",
            f"at most {OF_COLD}",
            found <= OF_COLD,
        ),
        Row(
            f"{SLOTS} requests at once with the same new 1,000 tokens, "
            "until the last has its first token",
            spread(last, "ms", 0),
            f"one alone, cold {spread(cold, 'ms', 0)}",
            f"{ratio(last, cold):.2f}",
        ),
    ]


async def turns(client: Client) -> list[Row]:
    """A chat of ten turns, and its last turn where nothing is known of it."""
    said = [ChatMessage("system", lines(10, 90_000))]
    first: list[float] = []
    usage = Usage()
    for turn in range(10):
        said.append(ChatMessage("user", f"Tell me what the {ANIMALS[turn]} did, and why."))
        reply = await client.ask(chat(*said, tokens=32))
        first.append(reply.first_ms)
        usage = reply.usage
        said.append(ChatMessage("assistant", reply.text))
    strange = [ChatMessage("system", lines(10, 95_000)), *said[1:-1]]
    cold = await client.first_ms(chat(*strange, tokens=1))
    return [
        Row(
            f"First token of ten turns, the last of {usage.prompt_tokens} tokens "
            f"({usage.cached_tokens} known)",
            f"second {first[1]:.0f} ms, tenth {first[9]:.0f} ms",
            f"tenth, nothing known: {cold:.0f} ms",
            f"{first[9] / cold:.2f}",
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
    spec = EngineSpec("bench", path, CONTEXT, SLOTS, threads)
    async with running(spec) as guessing, running(replace(spec, guesses=False)) as plain:
        for what, prompt in asked.items():
            texts: set[str] = set()

            def pace(client: Client, prompt: str = prompt, texts: set[str] = texts) -> Side:
                async def once(_: int) -> float:
                    reply = await client.ask(question(prompt, 128))
                    texts.add(reply.text)
                    return reply.pace

                return once

            made = await take_turns({"on": pace(guessing), "off": pace(plain)}, EFFORT)
            same = "same text" if len(texts) == 1 else "OTHER TEXT"
            rows.append(speeds(f"Guesses on, {what}", made["on"], f"off ({same})", made["off"]))
    return rows


async def python(path: Path, threads: int) -> list[Row]:
    """llama-cpp-python's own server, in turn with this one."""
    place = Place(path, threads, SLOTS, CONTEXT)
    rows = []
    async with (
        running(EngineSpec("bench", path, CONTEXT, SLOTS, threads)) as client,
        serving(*python_server(place)) as server,
    ):
        whole = server.answering_whole()  # its streams tell no counts
        for count, least in OF_PYTHON_SERVER.items():
            made = await take_turns(
                {"ours": at_a_time(client, count), "theirs": at_a_time(whole, count)}, EFFORT
            )
            name = "llama-cpp-python's server"
            rows.append(speeds(f"{count} at a time", made["ours"], name, made["theirs"], least))
    return rows


async def _measure(path: Path, threads: int, parts: Sequence[str]) -> list[Row]:
    rows: list[Row] = []
    async with running(EngineSpec("bench", path, CONTEXT, SLOTS, threads)) as client:
        for part in (gaps, shared, turns):
            if part.__name__ in parts:
                say(part.__name__)
                rows += await part(client)
    for other in (guesses, python):
        if other.__name__ in parts:
            say(other.__name__)
            rows += await other(path, threads)
    return rows


def measure() -> list[Row]:
    """The rows for the page of figures, with the default model."""
    return trio.run(_measure, default_model(), len(cores()), PARTS)


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--threads", type=int, default=len(cores()))
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    given = parser.parse_args()
    path = given.model or default_model()
    print(markdown(trio.run(_measure, path, given.threads, given.parts)))


if __name__ == "__main__":
    main()
