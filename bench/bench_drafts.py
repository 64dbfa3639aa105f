"""Answers with a draft model and without, from the same model, in turn.

`python -m bench.bench_drafts [MODEL.gguf]` prints a table; `measure()` gives its rows. Its drafts:

- The limit: the model guesses for a twin of itself with more layers that add nothing, which costs
  so many times as much and says the same. A smaller relative that agrees less often is below it.
- A coarser copy of the model, which is nearly always right and hardly faster.
- One of random weights, which is never right: what trying costs.

Nothing is found by looking back in these answers, or as much with a draft as without.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import trio

from bench.engines import PROMPTS, Client, Reply, default_model, question, running
from bench.table import Row, markdown
from bench.turns import Effort, Side, say, speeds, take_turns
from meshslm.adapters.engine_process import EngineSpec
from meshslm.engine.cores import cores
from meshslm.engine.gguf import Tensor, read_encoded, read_header
from meshslm.engine.quantise import quantise
from meshslm.models.gguf_writer import Encoded, Meta, TensorPlan, write_gguf
from meshslm.models.synthetic import ModelShape, synthesise

TOKENS = 96
COST = 4
"""Layers of the twin, in those of the model."""
EFFORT = Effort(least=3, most=5, budget_s=40)
ENDS = ("attn_output.weight", "ffn_down.weight")
"""What a layer adds goes through these; where they are 0 it adds nothing."""


def deepen(source: Path, target: Path, times: int) -> None:
    """Write a model with so many times the layers that says exactly what `source` says."""
    header = read_header(source)
    count = f"{header.architecture}.block_count"
    layers = header.number(count)
    metadata: dict[str, Meta] = {key: Encoded(raw) for key, raw in read_encoded(source, "").items()}
    metadata[count] = layers * times
    plans = [_copied(source, tensor, tensor.name) for tensor in header.tensors]
    first = [tensor for tensor in header.tensors if tensor.name.startswith("blk.0.")]
    for layer in range(layers, layers * times):
        for tensor in first:
            part = tensor.name.removeprefix("blk.0.")
            plans.append(_copied(source, tensor, f"blk.{layer}.{part}", empty=part in ENDS))
    with target.open("wb") as file:
        write_gguf(file.write, metadata, plans)


def _copied(source: Path, tensor: Tensor, name: str, *, empty: bool = False) -> TensorPlan:
    def data() -> Iterator[bytes]:
        if empty:
            yield bytes(tensor.nbytes)
            return
        with source.open("rb") as file:
            file.seek(tensor.offset)
            yield file.read(tensor.nbytes)

    return TensorPlan(name, tensor.shape, tensor.type, data)


def noise(source: Path, target: Path) -> None:
    """Write a small model of random weights with the tokens of `source`."""
    shape = ModelShape("llama", 4, 256, 768, 4, 4, 64, read_header(source).vocabulary, 8192)
    synthesise(target, shape, "Q8_0", source, lambda _: None)


async def compare(what: str, model: Path, draft: Path) -> Row:
    """One request at a time, with a draft and without."""
    say(what)
    context, threads = 512, len(cores())
    spec = EngineSpec("bench", model, context, 2, threads)
    drafting = EngineSpec("bench", model, context, 2, threads, draft=draft)
    answers: tuple[list[Reply], list[Reply]] = ([], [])

    def side(client: Client, replies: list[Reply]) -> Side:
        async def once(turn: int) -> float:
            reply = await client.ask(question(PROMPTS[turn % len(PROMPTS)], TOKENS))
            replies.append(reply)
            return reply.pace

        return once

    async with running(drafting) as one, running(spec) as other:
        sides = {"draft": side(one, answers[0]), "plain": side(other, answers[1])}
        samples = await take_turns(sides, EFFORT)
    same = sorted(r.tokens for r in answers[0]) == sorted(r.tokens for r in answers[1])
    guessed = sum(reply.usage.guessed_tokens for reply in answers[0])
    accepted = sum(reply.usage.accepted_tokens for reply in answers[0])
    told = f"{accepted} of {guessed} guesses right, {'same' if same else 'OTHER'} tokens"
    return speeds(f"{what}: {told}", samples["draft"], "no draft", samples["plain"])


def measure(model: Path | None = None) -> list[Row]:
    """The rows of the section."""
    model = model or default_model()
    with tempfile.TemporaryDirectory(prefix="meshslm-drafts-") as folder:
        twin, coarse, random = (Path(folder) / name for name in ("twin", "coarse", "random"))
        deepen(model, twin, COST)
        quantise(model, coarse, "Q4_0", lambda _: None)
        noise(model, random)
        pairs = (
            (f"A draft of 1/{COST} of the cost that says the same", twin, model),
            ("The same model with four bits as its draft", model, coarse),
            ("A draft that is never right", model, random),
        )
        return [trio.run(partial(compare, *pair)) for pair in pairs]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", type=Path)
    print(markdown(measure(parser.parse_args().model)))
