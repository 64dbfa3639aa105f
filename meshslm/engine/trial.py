"""`python -m meshslm.engine.trial MODEL THREADS`: how fast and how good a model file is, as JSON.

A process of its own, because llama.cpp may abort it, and so that its memory can be told from
others'.

Rules:
- The measured calls are those of the engine: the same batches, contexts and kernels.
- Speeds are tokens in a second of processor time of one thread: so a busy neighbour, who can slow
  two threads down tenfold, does not decide which file seems the fastest.
- Perplexity is over the text that comes with the program, from its first token on.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from meshslm import data
from meshslm.engine.llama import Model
from meshslm.engine.llama_scores import PromptScores
from meshslm.errors import OurFault

TOKENS: Final = 640
"""Of the text, at most: the perplexity of small models differs by formats in the third digit."""
BATCH: Final = 256
SLOTS: Final = 4
STEPS: Final = 16
"""Tokens decoded for one measurement."""
REPETITIONS: Final = 2
BEGIN: Final = 64
"""Tokens of a sequence before its rows are compared."""
COMPARED: Final = 8
"""Rows compared alone and in company."""


def perplexity(model: Model, tokens: Sequence[int]) -> float:
    """How many tokens the model hesitates between, in the geometric mean. Raises `OurFault`."""
    scores = PromptScores(model, tokens, None)
    total = 0.0
    try:
        while scores.done < len(tokens):
            begin = scores.done
            rows = scores.step().astype(np.float64)
            following = np.array(tokens[begin + 1 : begin + 1 + len(rows)], dtype=np.intp)
            rows = rows[: len(following)]
            most = rows.max(axis=1)
            norms = most + np.log(np.exp(rows - most[:, None]).sum(axis=1))
            total += float((norms - rows[np.arange(len(following)), following]).sum())
    finally:
        scores.close()
    return math.exp(total / (len(tokens) - 1))


def best_rate(count: int, action: Callable[[], None]) -> float:
    """Tokens in a second of processor time, of an action that computes `count`, at its best."""
    times = []
    for _ in range(REPETITIONS):
        begin = time.process_time()
        action()
        times.append(time.process_time() - begin)
    return count / min(times)


def prefill(model: Model, tokens: Sequence[int]) -> None:
    """Compute a prompt in one call."""
    model.keep(0, 0)
    model.begin()
    model.add(0, 0, tokens, wanted=True)
    model.compute()


def decode(model: Model, tokens: Sequence[int], slots: int) -> None:
    """Go on with sequences of `BEGIN` tokens, a token of each in a call."""
    for slot in range(slots):
        model.keep(slot, BEGIN)
    for step in range(STEPS):
        model.begin()
        for slot in range(slots):
            model.add(slot, BEGIN + step, [tokens[BEGIN + step]], wanted=True)
        model.compute()


def fill(model: Model, tokens: Sequence[int]) -> None:
    """Begin all sequences with the same tokens."""
    for slot in range(SLOTS):
        model.keep(slot, 0)
        model.begin()
        model.add(slot, 0, tokens[:BEGIN], wanted=True)
        model.compute()


def batch_invariant(model: Model, tokens: Sequence[int]) -> bool:
    """Whether rows are the same, to the last bit, alone and in company."""
    fill(model, tokens)
    alone = []
    for step in range(COMPARED):
        model.begin()
        model.add(0, BEGIN + step, [tokens[BEGIN + step]], wanted=True)
        model.compute()
        alone.append(model.logits(1)[0].copy())
    for step, wanted in enumerate(alone):
        model.begin()
        for slot in range(1, SLOTS):
            other = tokens[BEGIN + step + (slot - 1) * COMPARED]
            model.add(slot, BEGIN + step, [other], wanted=True)
        model.compute()
        if not np.array_equal(model.logits(SLOTS - 1)[0], wanted):
            return False
    return True


def measure(path: Path, threads: int) -> dict[str, float | bool]:
    """Try the model file at `path`. Raises `OurFault`."""
    model = Model(
        path,
        context=TOKENS,
        slots=SLOTS,
        batch=BATCH,
        threads=1,
        on_progress=lambda _: None,
    )
    if not model.forgets_ends:
        raise OurFault(f"{path.name} cannot be tried: its sequences cannot forget their ends")
    tokens = model.vocabulary.tokens(data.trial_text(), special=False, begins=True)[:TOKENS]
    if len(tokens) < BEGIN + SLOTS * COMPARED:
        raise OurFault(f"{path.name} cuts the text to be tried with into only {len(tokens)} tokens")
    rows = tokens[:BATCH]
    prefill(model, rows)  # the first call reads the file
    prefill_tps = best_rate(len(rows), lambda: prefill(model, rows))
    fill(model, tokens)
    decode_tps = best_rate(STEPS, lambda: decode(model, tokens, 1))
    fill(model, tokens)
    together_tps = best_rate(STEPS * SLOTS, lambda: decode(model, tokens, SLOTS))
    hesitation = perplexity(model, tokens)
    model.set_threads(threads)  # rows are compared as they are computed in service
    return {
        "prefill_tps": round(prefill_tps, 1),
        "decode_tps": round(decode_tps, 1),
        "together_tps": round(together_tps, 1),
        "perplexity": round(hesitation, 4),
        "batch_invariant": batch_invariant(model, tokens),
        "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main(arguments: Sequence[str]) -> int:
    """Run as a program; the exit code."""
    try:
        found = measure(Path(arguments[0]), int(arguments[1]))
    except OurFault as fault:
        sys.stderr.write(f"{fault}\n")
        return 1
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
