"""Which quantisation of a model is the right one for this machine: each is tried, one is chosen.

The rule, in this order:
1. Only formats whose rows are the same alone and in a batch are taken, so that a reply can go on
   elsewhere with the same tokens, and only those that lose at most `LOSS` of the original's
   perplexity.
2. Q8_0, unless another of them is at least `FASTER` times as fast with a usual request.
3. Where none is left: the one that loses least, of those that are the same in a batch, or of all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from meshslm.errors import OurFault
from meshslm.models.child import LOG_BYTES, ChildFailed, run_child
from meshslm.models.disk import system_faults
from meshslm.models.progress import Progress, Report, Stage

CANDIDATES: Final = ("Q8_0", "Q4_0", "IQ4_NL", "Q4_K_M")
"""What is tried: eight bits, the two four-bit formats with fast kernels, and the usual mixture."""
DEFAULT: Final = "Q8_0"
LOSS: Final = 0.01
"""A hundredth of perplexity is what formats of six bits and more lose; four bits lose 2 to 20."""
FASTER: Final = 1.2
"""Below that the difference is not worth any loss (a guess)."""
PROMPT_TOKENS: Final = 200
ANSWER_TOKENS: Final = 100
"""A usual request (a guess): prompts are longer than answers."""


class Measured(msgspec.Struct, frozen=True):
    """What the trial of one file found."""

    prefill_tps: float
    """Prompt tokens in a second of one core."""
    decode_tps: float
    """Tokens in a second of one core, of one sequence."""
    together_tps: float
    """Likewise, of four sequences together."""
    perplexity: float
    """Over the text that comes with the program."""
    batch_invariant: bool
    """Rows are the same, to the last bit, alone and in company."""
    memory_mib: int
    """Of the process that tried it, with four sequences of 640 tokens."""


class Trial(msgspec.Struct, frozen=True):
    """One way to keep a model, and how it did."""

    quantisation: str
    size: int
    """Bytes of the file."""
    measured: Measured

    @property
    def seconds(self) -> float:
        """Of one core, for a usual request."""
        found = self.measured
        return PROMPT_TOKENS / found.prefill_tps + ANSWER_TOKENS / found.decode_tps

    def loss(self, original: Trial) -> float:
        """Perplexity lost against the file that was pulled, as a part of it."""
        return self.measured.perplexity / original.measured.perplexity - 1


def choose(trials: Sequence[Trial]) -> Trial:
    """The one to use; the first is the file that was pulled."""
    original = trials[0]
    same = [trial for trial in trials if trial.measured.batch_invariant]
    good = [trial for trial in same if trial.loss(original) <= LOSS]
    if not good:
        return min(same or trials, key=lambda trial: trial.loss(original))
    fastest = min(good, key=lambda trial: trial.seconds)
    usual = next((trial for trial in good if trial.quantisation == DEFAULT), None)
    if usual is not None and usual.seconds < fastest.seconds * FASTER:
        return usual
    return fastest


def measure(path: Path, log: Path, report: Report, environment: Mapping[str, str]) -> Measured:
    """Try the model file at `path` in a process of its own. Raises `OurFault`."""
    argv = [sys.executable, "-P", "-m", "meshslm.engine.trial", str(path), _threads()]

    def watch() -> None:
        report(Progress(Stage.MEASURING))

    try:
        run_child(argv, log=log, watch=watch, environment=environment)
    except ChildFailed as failure:
        why = (failure.log.splitlines() or ["it said nothing"])[-1]
        raise OurFault(f"it could not be tried (exit code {failure.code}): {why[:500]}") from None
    with system_faults(log):
        lines = log.read_bytes()[-LOG_BYTES:].splitlines()
    try:
        return msgspec.json.decode(lines[-1] if lines else b"", type=Measured)
    except msgspec.DecodeError as error:
        raise OurFault(f"the trial said what is not understood: {error}") from None


def _threads() -> str:
    """Two where there are as many cores: with one, no kernel splits its work."""
    return str(min(2, os.cpu_count() or 1))
