"""LoRA adapters with random weights, for a model file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from meshslm.engine.gguf import read_header
from meshslm.models.gguf_writer import Meta, TensorPlan, write_gguf

EMBEDDING = "token_embd.weight"


def write_adapter(
    path: Path,
    base: Path,
    *,
    seed: int = 1,
    rank: int = 4,
    size: float = 0.2,
    targets: tuple[str, ...] = ("attn_q.weight", "ffn_down.weight"),
    metadata: dict[str, Meta] | None = None,
    change: Callable[[list[TensorPlan]], list[TensorPlan]] = lambda plans: plans,
) -> Path:
    """Write an adapter for the model file `base`; `metadata` and `change` make it wrong."""
    header = read_header(base)
    chance = np.random.default_rng(seed)
    plans: list[TensorPlan] = []
    for tensor in header.tensors:
        if len(tensor.shape) == 2 and tensor.name.endswith(targets):
            inputs, outputs = tensor.shape
            first = (rank, outputs) if tensor.name == EMBEDDING else (inputs, rank)
            second = (rank, inputs) if tensor.name == EMBEDDING else (rank, outputs)
            plans.append(matrix(f"{tensor.name}.lora_a", first, chance, size))
            plans.append(matrix(f"{tensor.name}.lora_b", second, chance, size))
    about: dict[str, Meta] = {
        "general.type": "adapter",
        "general.architecture": header.architecture,
        "adapter.type": "lora",
        "adapter.lora.alpha": float(rank),
        **(metadata or {}),
    }
    with path.open("wb") as file:
        write_gguf(file.write, about, change(plans))
    return path


def matrix(
    name: str, shape: tuple[int, ...], chance: np.random.Generator, size: float
) -> TensorPlan:
    """A matrix of random numbers."""
    numbers = chance.normal(0, size, shape[::-1]).astype(np.float32)
    return TensorPlan(name, shape, "F32", lambda: [numbers.tobytes()])
