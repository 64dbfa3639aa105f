"""How many layers of a model to put on a GPU: as many as its free memory takes.

Rules:
- Pure: the header and the free memory are handed in.
- llama.cpp fills from the end: one layer on the GPU is what ends the model, two add its last layer.
- What cannot be estimated is not put there: running out of a GPU's memory ends the process.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from meshslm.engine.estimate import estimate
from meshslm.engine.gguf import GgufHeader
from meshslm.limits import MIB

RESERVE_MIB: Final = 512
"""The GPU library's own, its kernels included, and what other programs take meanwhile (a guess:
contexts of CUDA have 300 to 500)."""
_LAYER: Final = re.compile(r"blk\.(\d+)\.")
_BEGIN: Final = "token_embd.weight"


@dataclass(frozen=True, slots=True)
class Offload:
    """What goes to the GPU."""

    layers: int
    """As llama.cpp counts them; 0: nothing."""
    of: int
    """Those of the whole model."""
    needed_mib: float
    """Of the GPU's memory."""
    why: str = ""
    """Why it is not more; empty where it is everything."""


def plan(header: GgufHeader, free_mib: float, context: int, slots: int, batch: int) -> Offload:
    """The most layers that fit into `free_mib` of GPU memory, with their KV and buffers."""
    layers = header.number(f"{header.architecture}.block_count")
    of = layers + 1
    if free_mib <= 0:
        return Offload(0, of, 0, "there is no GPU that llama.cpp was built for")
    found = estimate(header, context, slots, batch)
    if found.kv_mib is None or found.compute_mib is None or layers < 1:
        return Offload(0, of, 0, found.unknown or "its layers are not known")
    ends, weights = _sizes(header, layers)
    needed = RESERVE_MIB + found.compute_mib + ends
    if needed > free_mib:
        return Offload(0, of, 0, f"one layer needs {needed:.0f} MiB, {free_mib:.0f} are free")
    for count, size in enumerate(reversed(weights), start=1):
        more = needed + size + found.kv_mib / layers
        if more > free_mib:
            why = f"{count + 1} layers need {more:.0f} MiB, {free_mib:.0f} are free"
            return Offload(count, of, needed, why)
        needed = more
    return Offload(of, of, needed)


def _sizes(header: GgufHeader, layers: int) -> tuple[float, list[float]]:
    """MiB of what ends the model, and of each of its layers."""
    weights = [0.0] * layers
    ends = 0.0
    own_end = any(tensor.name == "output.weight" for tensor in header.tensors)
    for tensor in header.tensors:
        found = _LAYER.match(tensor.name)
        size = tensor.nbytes / MIB
        if found and int(found[1]) < layers:
            weights[int(found[1])] += size
        elif tensor.name != _BEGIN or not own_end:
            ends += size  # the matrix that begins a model stays, unless it also ends it
    return ends, weights
