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

PREPARED: Final = "Q8_0"
"""The quantisation that every model is prepared to."""

_BLOCK, _BLOCK_BYTES = 32, 34
"""Q8_0 keeps 32 weights in 34 bytes."""


def prepare(
    original: Path, header: GgufHeader, stage: Path, report: Report, environment: Mapping[str, str]
) -> tuple[Fetched, str]:
    """Quantise `original` to `PREPARED` into the folder `stage`.

    Returns the new file and the program that made it. Raises `OurFault`.
    """
    estimate = prepared_size(header)
    need_space(stage, estimate, f"the {PREPARED} file")
    target = stage / "prepared.gguf"
    target.unlink(missing_ok=True)

    def watch() -> None:
        done = target.stat().st_size if target.exists() else 0
        report(Progress(Stage.PREPARING, min(done, estimate), estimate))

    try:
        _quantise(original, target, stage / "quantise.log", watch, environment)
        made = read_header(target)
        digest, size = digest_of(target, report, Stage.PREPARING)
    except ChildFailed as failure:
        target.unlink(missing_ok=True)
        need_space(stage, estimate, f"the {PREPARED} file")  # a full disk is the likeliest cause
        why = (failure.log.splitlines() or ["it said nothing"])[-1]
        raise OurFault(
            f"preparing the model as {PREPARED} failed with exit code {failure.code}: {why[:500]}"
        ) from failure
    if made.quantisation != PREPARED:
        raise OurFault(f"the quantiser made {made.quantisation} instead of {PREPARED}")
    return Fetched(target, digest, size), _versions()


def _quantise(
    original: Path,
    target: Path,
    log: Path,
    watch: Callable[[], None],
    environment: Mapping[str, str],
) -> None:
    # -P: no module is taken from the folder that we happen to be in.
    argv = [sys.executable, "-P", "-m", "meshslm.engine.quantise"]
    run_child(
        [*argv, str(original), str(target), PREPARED],
        log=log,
        watch=watch,
        environment=environment,
    )


def prepared_size(header: GgufHeader) -> int:
    """Bytes of the prepared file, at most: vectors stay as they are, matrices shrink or grow."""
    start = min((tensor.offset for tensor in header.tensors), default=header.file_size)
    return start + sum(_tensor_size(tensor) for tensor in header.tensors)


def _tensor_size(tensor: Tensor) -> int:
    if len(tensor.shape) == 1:
        return tensor.nbytes
    weights = 1
    for size in tensor.shape:
        weights *= size
    return max(tensor.nbytes, weights * _BLOCK_BYTES // _BLOCK)


def _versions() -> str:
    try:
        binding = metadata.version("llama-cpp-python")
    except metadata.PackageNotFoundError:
        binding = "of unknown version"
    return f"meshslm {__version__}, llama-cpp-python {binding}"
