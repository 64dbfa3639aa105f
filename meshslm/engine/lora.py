"""Whether a LoRA adapter fits a base model, told from both headers before llama.cpp sees it.

Rules:
- An adapter changes matrices of the base by products of two small ones: both must be there for each
  matrix, with shapes that meet and that are the base's. Anything else is for another base.
- The rank is bounded: it decides memory and time.
- A base whose last matrix is its embedding takes no change of that: llama.cpp would look rows of it
  up and multiply by it with the same factors, and end the process.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from meshslm.engine.gguf import GgufHeader, Tensor
from meshslm.errors import OurFault

RANK: Final = 1024
"""The largest rank that is published is 512; most have 8 to 64."""
_TYPES: Final = frozenset({"F32", "F16", "BF16", "Q8_0"})
_A, _B = ".lora_a", ".lora_b"
_EMBEDDING: Final = "token_embd.weight"
_OUTPUT: Final = "output.weight"


def check_adapter(name: str, adapter: GgufHeader, base: GgufHeader) -> None:
    """Raise `OurFault`, which says why, where `adapter` cannot be used with `base`."""
    kind = adapter.text("general.type") or "model"
    if kind != "adapter" or adapter.text("adapter.type") != "lora":
        raise OurFault(f"{name} is no LoRA adapter but a GGUF file of type {kind!r}")
    if "adapter.alora.invocation_tokens" in adapter.metadata:
        raise OurFault(f"{name} works only behind certain tokens (aLoRA), which is not supported")
    if adapter.architecture != base.architecture:
        raise OurFault(
            f"{name} is an adapter for another base: of architecture {adapter.architecture!r}, "
            f"not {base.architecture!r}"
        )
    alpha = adapter.metadata.get("adapter.lora.alpha")
    if not isinstance(alpha, float) or not math.isfinite(alpha):
        raise OurFault(f"{name} is damaged: its alpha is {alpha!r}, not a number")
    matrices = {tensor.name: tensor for tensor in base.tensors if len(tensor.shape) == 2}
    changed = _pairs(name, adapter)
    if not changed:
        raise OurFault(f"{name} is damaged: it changes nothing")
    if _EMBEDDING in changed and _EMBEDDING in matrices and _OUTPUT not in matrices:
        raise OurFault(
            f"{name} changes the embedding, which this base also uses as its last matrix: "
            "llama.cpp cannot compute that"
        )
    for target, (a, b) in changed.items():
        _check_shapes(name, target, a, b, matrices)


def _pairs(name: str, adapter: GgufHeader) -> Mapping[str, tuple[Tensor, Tensor]]:
    tensors = {tensor.name: tensor for tensor in adapter.tensors}
    pairs = {}
    for tensor in adapter.tensors:
        target = tensor.name.removesuffix(_A).removesuffix(_B)
        if target == tensor.name:
            raise OurFault(f"{name} is damaged: {tensor.name!r} is no part of an adapter")
        if tensor.type not in _TYPES:
            raise OurFault(f"{name} is damaged: {tensor.name!r} has the type {tensor.type}")
        a, b = tensors.get(target + _A), tensors.get(target + _B)
        if a is None or b is None:
            raise OurFault(f"{name} is damaged: {tensor.name!r} lacks its counterpart")
        pairs[target] = (a, b)
    return pairs


def _check_shapes(
    name: str, target: str, a: Tensor, b: Tensor, matrices: Mapping[str, Tensor]
) -> None:
    base = matrices.get(target)
    if base is None:
        raise OurFault(f"{name} is an adapter for another base: there is no matrix {target!r}")
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise OurFault(f"{name} is damaged: {target!r} is changed by what is no matrix")
    # Rows of the embedding are looked up, not multiplied, so its first factor lies the other way.
    flipped = target == _EMBEDDING
    inputs, rank = (b.shape[1], a.shape[0]) if flipped else (a.shape[0], a.shape[1])
    outputs = a.shape[1] if flipped else b.shape[1]
    if b.shape[0] != rank or not 1 <= rank <= RANK:
        raise OurFault(
            f"{name} is damaged: the factors of {target!r} have the ranks {rank} and "
            f"{b.shape[0]}, expected the same, at most {RANK}"
        )
    if (inputs, outputs) != base.shape:
        raise OurFault(
            f"{name} is an adapter for another base: {target!r} has the shape {base.shape} here, "
            f"{(inputs, outputs)} there"
        )
