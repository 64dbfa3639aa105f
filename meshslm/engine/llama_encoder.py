"""llama.cpp with a model that makes vectors or scores of whole texts.

Rules:
- Every text of a call is a sequence of its own; a text is never split over calls.
- Nothing is kept between calls.
- Calls of `PLAIN` to `TILE` rows have a context of their own, without flash attention: ggml takes a
  kernel for it there that goes row by row, and a text of 57 tokens took 77 ms of a core with it and
  53 without. For 16 it was 15 and 13, and for 128, which go by tiles, 85 and 115.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import llama_cpp as llama
import numpy as np
import numpy.typing as npt

from meshslm.engine.kinds import Pooling
from meshslm.engine.llama import DecodeFailed, Vocabulary, load_weights
from meshslm.engine.llama_rows import Rows
from meshslm.engine.prefix_cache import TILE
from meshslm.errors import OurFault

PLAIN: Final = 24
"""Rows from which plain attention is worth another rounding."""


class Encoder:
    """A loaded model with room for calls of `rows` tokens in `texts` texts."""

    def __init__(
        self,
        path: Path,
        *,
        rows: int,
        texts: int,
        pooling: Pooling,
        threads: int,
        on_progress: Callable[[float], None],
    ) -> None:
        """Load it. Raises `OurFault` where llama.cpp cannot, or where it gives several scores."""
        self._threads = threads
        self._model = load_weights(path, on_progress)
        few = min(rows, TILE - 1)
        tiled, plain = llama.LLAMA_FLASH_ATTN_TYPE_AUTO, llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._many = _make_context(self._model, rows, texts, pooling, threads, tiled)
        self._few = _make_context(self._model, few, min(texts, few), pooling, threads, plain)
        self._memories = {c: llama.llama_get_memory(c) for c in (self._many, self._few)}
        self.vocabulary = Vocabulary(llama.llama_model_get_vocab(self._model))
        if pooling is Pooling.RANK:
            self.width = int(llama.llama_model_n_cls_out(self._model))
            if self.width != 1:
                raise OurFault(f"{path.name} gives {self.width} scores of a text, one is expected")
        else:
            self.width = int(llama.llama_model_n_embd_out(self._model))
        self._rows = Rows(rows)

    @property
    def parameters(self) -> int:
        """Its weights."""
        return int(llama.llama_model_n_params(self._model))

    def set_threads(self, threads: int) -> None:
        """Compute with so many threads from the next call on."""
        if threads != self._threads:
            self._threads = threads
            for context in (self._many, self._few):
                llama.llama_set_n_threads(context, threads, threads)

    def encode(self, texts: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """A row of `width` numbers for each text. Raises `DecodeFailed`."""
        rows = self._rows
        rows.clear()
        for slot, tokens in enumerate(texts):
            rows.add(slot, 0, tokens, wanted=True)
        rows.want_all()
        context = self._few if PLAIN <= sum(map(len, texts)) < TILE else self._many
        memory = self._memories[context]
        if memory:
            llama.llama_memory_clear(memory, False)  # noqa: FBT003 - data may stay
            result = llama.llama_decode(context, rows.batch())
        else:
            result = llama.llama_encode(context, rows.batch())
        if result != 0:
            raise DecodeFailed(f"llama.cpp could not read {len(texts)} texts (code {result})")
        found = np.empty((len(texts), self.width), dtype=np.float32)
        for slot in range(len(texts)):
            pooled = llama.llama_get_embeddings_seq(context, slot)
            if not pooled:
                raise DecodeFailed("llama.cpp gave no vector")
            found[slot] = np.ctypeslib.as_array(pooled, (self.width,))
        return found


def _make_context(
    model: object, rows: int, texts: int, pooling: Pooling, threads: int, flash_attention: int
) -> object:
    parameters = llama.llama_context_default_params()
    # A text is read in one go, so a call has room for the longest. Where a cache is kept at all,
    # the texts of a call share it. llama.cpp tries a call with as many tokens of each text, and
    # ends the process where these are more than there is room for.
    room = -(-rows // texts) * texts
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = room
    parameters.n_seq_max = texts
    parameters.kv_unified = True
    parameters.embeddings = True
    parameters.pooling_type = int(pooling)
    parameters.flash_attn_type = flash_attention
    parameters.n_threads = parameters.n_threads_batch = threads
    made = llama.llama_init_from_model(model, parameters)
    if not made:
        raise OurFault(f"llama.cpp cannot make a context of {rows} tokens: is there enough memory?")
    return made
