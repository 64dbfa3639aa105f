"""Making the file that an engine loads out of the one that was pulled.

Q8_0 was measured to be both faster than most published formats on a CPU without a matrix unit, and
batch-invariant: the same tokens alone and in a batch (see docs/decisions).

Rules:
- The quantiser is native code that may abort: it runs in a process of its own.
- What it made is checked like anything that was fetched.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final

from meshslm import __version__
from meshslm.engine.gguf import GgufHeader, Tensor, read_header
from meshslm.errors import OurFault
from meshslm.models.child import ChildFailed, run_child
from meshslm.models.disk import digest_of, need_space
from meshslm.models.progress import Progress, Report, Stage
from meshslm.models.sources import Fetched
from meshslm.models.trials import CANDIDATES

PREPARED: Final = "Q8_0"
"""The quantisation that every model is prepared to, unless another one is asked for."""

_MOST_BITS: Final = {"Q8_0": 8.5, "Q4_0": 4.5, "IQ4_NL": 4.5, "Q4_K_M": 6.6}
"""Bits of a weight; of a mixture those of its widest format."""
_WIDE_BITS: Final = 8.5
"""Formats of a mixture fall back to this where a row is no multiple of theirs."""


def prepare(
    original: Path,
    header: GgufHeader,
    stage: Path,
    report: Report,
    environment: Mapping[str, str],
    quantisation: str = PREPARED,
) -> tuple[Fetched, str]:
    """Quantise `original` into the folder `stage`.

    Returns the new file and the program that made it. Raises `OurFault`.
    """
    if quantisation not in CANDIDATES:
        known = ", ".join(CANDIDATES)
        raise OurFault(f"models are not prepared as {quantisation!r}; known are {known}")
    estimate = prepared_size(header, quantisation)
    need_space(stage, estimate, f"the {quantisation} file")
    target = stage / f"{quantisation}.gguf"
    target.unlink(missing_ok=True)

    def watch() -> None:
        done = target.stat().st_size if target.exists() else 0
        report(Progress(Stage.PREPARING, min(done, estimate), estimate))

    try:
        _quantise(original, target, quantisation, watch, environment)
        made = read_header(target)
        digest, size = digest_of(target, report, Stage.PREPARING)
    except ChildFailed as failure:
        target.unlink(missing_ok=True)
        need_space(
            stage, estimate, f"the {quantisation} file"
        )  # a full disk is the likeliest cause
        why = (failure.log.splitlines() or ["it said nothing"])[-1]
        what = f"preparing the model as {quantisation} failed with exit code {failure.code}"
        raise OurFault(f"{what}: {why[:500]}") from failure
    if made.quantisation != quantisation:
        raise OurFault(f"the quantiser made {made.quantisation} instead of {quantisation}")
    return Fetched(target, digest, size), _versions()


def _quantise(
    original: Path,
    target: Path,
    quantisation: str,
    watch: Callable[[], None],
    environment: Mapping[str, str],
) -> None:
    # -P: no module is taken from the folder that we happen to be in.
    argv = [sys.executable, "-P", "-m", "meshslm.engine.quantise"]
    run_child(
        [*argv, str(original), str(target), quantisation],
        log=target.with_suffix(".log"),
        watch=watch,
        environment=environment,
    )


def prepared_size(header: GgufHeader, quantisation: str = PREPARED) -> int:
    """Bytes of the prepared file, at most: vectors stay as they are, matrices shrink or grow."""
    start = min((tensor.offset for tensor in header.tensors), default=header.file_size)
    bits = _MOST_BITS[quantisation]
    return start + sum(_tensor_size(tensor, bits) for tensor in header.tensors)


def _tensor_size(tensor: Tensor, bits: float) -> int:
    if len(tensor.shape) == 1:
        return tensor.nbytes
    if tensor.shape[0] % 256 and bits > _MOST_BITS["Q4_0"]:
        bits = _WIDE_BITS
    weights = 1
    for size in tensor.shape:
        weights *= size
    return max(tensor.nbytes, int(weights * bits / 8))


def _versions() -> str:
    try:
        binding = metadata.version("llama-cpp-python")
    except metadata.PackageNotFoundError:
        binding = "of unknown version"
    return f"meshslm {__version__}, llama-cpp-python {binding}"
