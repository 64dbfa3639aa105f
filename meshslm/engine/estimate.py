"""How much memory a model will need, told from its header before anything is loaded.

Loading is refused, or another model is unloaded first, by these numbers: one that is too low swaps
the machine to death, so the parts that are not certain are rounded up.

Rules:
- What is not known is said to be unknown and why, never guessed: caches of sliding windows, of
  recurrent layers and of compressed attention are laid out differently in every architecture.
- Weights are mapped, so processes that load the same file share them; all other parts are a
  process's own.

The formulas were fitted to what llama.cpp allocates (its own log of buffer sizes) with contexts of
256 to 8192 tokens, 1 to 32 slots and calls of 128 to 2048 rows; a test compares them again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from meshslm.engine.gguf import GgufHeader
from meshslm.engine.kinds import Pooling, pooling_of
from meshslm.engine.prefix_cache import TILE
from meshslm.engine.speculate import GUESSES
from meshslm.limits import ADAPTERS, ADAPTERS_BYTES, MIB

DENSE: Final = frozenset({"llama", "qwen2", "qwen3", "gemma", "smollm3", "starcoder2", "olmo"})
"""Architectures whose every layer keeps a key and a value for every token, and whose feed-forward
part is one matrix product wide."""
PLAIN_ENCODERS: Final = frozenset({"bert", "nomic-bert", "jina-bert-v2"})
"""Architectures that read a text at once, and keep nothing of it."""

CELLS: Final = 256
"""llama.cpp rounds the tokens of a sequence up to a multiple of this."""
_F16, _F32 = 2, 4
PROCESS_BYTES: Final = 48 * MIB
"""Python, numpy, llama.cpp and the pipe's buffers of one worker, measured with no model."""
TOKEN_BYTES: Final = 400
"""What llama.cpp and the worker keep of one token of the vocabulary."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Memory of a loaded model, in MiB."""

    weights_mib: float
    """Mapped from the file, and shared by all processes that map it."""
    kv_mib: float | None
    """Keys and values of all slots; None where the architecture's layout is not known."""
    compute_mib: float | None
    """Buffers of a call and its results; None where the layout is not known."""
    process_mib: float
    """The worker itself and its vocabulary."""
    scoring_mib: float | None = 0.0
    """The second context, for `echo` with log-probabilities of as long a prompt as there may be."""
    adapters_mib: float = 0.0
    """LoRA adapters, all that may be held at a time."""
    unknown: str = ""
    """Why something is None; empty where nothing is."""

    @property
    def total_mib(self) -> float | None:
        """All of it; None where a part is not known."""
        if self.kv_mib is None or self.compute_mib is None or self.scoring_mib is None:
            return None
        return self.least_mib

    @property
    def least_mib(self) -> float:
        """What is known of it: at least so much is needed."""
        known = self.weights_mib + self.process_mib + self.adapters_mib
        return known + (self.kv_mib or 0) + (self.compute_mib or 0) + (self.scoring_mib or 0)


def cells(context: int) -> int:
    """Tokens that llama.cpp keeps room for in a sequence of `context` tokens.

    More than asked for: the engine adds up to a tile of rows to some calls and takes them back.
    """
    return (context + TILE + CELLS - 1) // CELLS * CELLS


def estimate(
    header: GgufHeader, context: int, slots: int, batch: int, adapters: Iterable[int] = ()
) -> Estimate:
    """Memory for `slots` sequences of `context` tokens, in calls of up to `batch` rows.

    `adapters` are the sizes in bytes of the LoRA adapters that requests may name.
    """
    largest = sorted(adapters, reverse=True)[:ADAPTERS]
    held = min(sum(largest), ADAPTERS_BYTES) / MIB
    weights = sum(tensor.nbytes for tensor in header.tensors) / MIB
    process = (PROCESS_BYTES + header.vocabulary * TOKEN_BYTES) / MIB
    shape, why = _shape(header)
    if shape is None:
        return Estimate(weights, None, None, process, None, held, why)
    if pooling_of(header) is not Pooling.NONE:
        # Texts are read whole and together, and llama.cpp has a result for each of their tokens.
        rows = max(batch, context)
        kept = (rows + CELLS - 1) // CELLS * CELLS
        kv = 0 if header.architecture in PLAIN_ENCODERS else kept * shape.cache_row * _F16
        compute = _compute_bytes(shape, kept, rows, rows, generates=False)
    else:
        kept = cells(context)
        kv = slots * kept * shape.cache_row * _F16
        compute = _compute_bytes(shape, kept, max(slots, 1 + GUESSES), batch, generates=True)
    scoring = scoring_mib(header, context) or 0.0
    return Estimate(weights, kv / MIB, compute / MIB, process, scoring, held)


def scoring_mib(header: GgufHeader, tokens: int) -> float | None:
    """Memory of the context in which a prompt of so many tokens is scored; None if not known.

    It has one sequence, and `TILE` rows with a result each in a call.
    """
    shape, _ = _shape(header)
    if shape is None:
        return None
    if pooling_of(header) is not Pooling.NONE:
        return 0.0
    kept = (tokens + CELLS - 1) // CELLS * CELLS
    kv = kept * shape.cache_row * _F16
    return (kv + _compute_bytes(shape, kept, TILE, TILE, generates=True)) / MIB


def draft_mib(header: GgufHeader, context: int) -> float:
    """Memory, in MiB, of a model that guesses for another one in that one's process.

    Where its layout is not known, at least so much.
    """
    found = estimate(header, context, 1, TILE)
    return found.least_mib - PROCESS_BYTES / MIB


@dataclass(frozen=True, slots=True)
class _Shape:
    """Widths, in numbers a token."""

    embedding: int
    feed_forward: int
    queries: int
    """Of all heads of a layer."""
    keys_values: int
    """Of all heads of the widest layer."""
    cache_row: int
    """Keys and values of all layers."""
    vocabulary: int


def _compute_bytes(shape: _Shape, kept: int, results: int, batch: int, *, generates: bool) -> int:
    """Buffers of the widest moment of a call, its mask, its results, and the product's scratch."""
    feeding = 3 * shape.feed_forward + 4 * shape.embedding
    attending = 3 * shape.queries + 2 * shape.keys_values + 3 * shape.embedding
    row = max(feeding, attending) * _F32 + 64
    result = results * (shape.vocabulary + shape.embedding) * _F32
    mask = kept * batch * _F16
    scratch = batch * max(shape.feed_forward, shape.queries) * _F16
    return max(batch * row, result if generates else 0) + mask + result + scratch


def _shape(header: GgufHeader) -> tuple[_Shape | None, str]:
    """The widths of a known architecture, or why they are not known."""
    name = header.architecture
    if name not in DENSE | PLAIN_ENCODERS:
        return None, f"the cache of the architecture {name!r} is not known to this program"
    if header.number(f"{name}.expert_count"):
        return None, "it has experts, whose buffers depend on how they are chosen"
    layers = header.number(f"{name}.block_count")
    embedding = header.number(f"{name}.embedding_length")
    heads = header.number(f"{name}.attention.head_count")
    feed_forward = header.number(f"{name}.feed_forward_length")
    if min(layers, embedding, heads, feed_forward) < 1:
        return None, "its header lacks layers, widths or heads, or has one for each layer"
    key = header.number(f"{name}.attention.key_length") or embedding // heads
    value = header.number(f"{name}.attention.value_length") or embedding // heads
    shared = _shared_heads(header, layers, heads)
    if not shared:
        return None, "its header does not say how many key and value heads each layer has"
    return _Shape(
        embedding=embedding,
        feed_forward=feed_forward,
        queries=heads * max(key, value),
        keys_values=max(shared) * (key + value),
        cache_row=sum(shared) * (key + value),
        vocabulary=header.vocabulary,
    ), ""


def _shared_heads(header: GgufHeader, layers: int, heads: int) -> tuple[int, ...]:
    """Key and value heads of each layer; empty where it is not said."""
    said = header.metadata.get(f"{header.architecture}.attention.head_count_kv", heads)
    if isinstance(said, tuple):
        numbers = tuple(item for item in said if isinstance(item, int) and item >= 0)
        return numbers if len(numbers) == layers else ()
    return (said,) * layers if isinstance(said, int) and said > 0 else ()
