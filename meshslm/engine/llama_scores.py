"""Logits behind every token of a prompt, which llama.cpp otherwise computes for the last one only.

It takes a context of its own, for the time of one prompt: room for so many results would otherwise
be held by every engine for what is rarely asked.

Rules:
- A call has `TILE` rows, so that running streams wait for few rows, and so that the rows are
  computed by the kernel that computes them otherwise.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import llama_cpp as llama
import numpy as np
import numpy.typing as npt

from meshslm.engine.llama import Adapter, DecodeFailed, Model, apply_adapter
from meshslm.engine.llama_rows import Rows
from meshslm.engine.prefix_cache import TILE


class PromptScores:
    """One prompt, computed `TILE` tokens at a time."""

    def __init__(self, model: Model, tokens: Sequence[int], adapter: Adapter | None) -> None:
        """Make room. Raises `DecodeFailed` where there is none."""
        self._tokens = tokens
        self._width = model.vocabulary.size
        self._rows = Rows(TILE)
        self.done = 0
        """Tokens computed so far."""
        parameters = llama.llama_context_default_params()
        parameters.n_ctx = (len(tokens) + 255) // 256 * 256
        parameters.n_batch = parameters.n_ubatch = parameters.n_outputs_max = TILE
        parameters.n_seq_max = 1
        parameters.kv_unified = False
        parameters.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_ENABLED
        parameters.n_threads = parameters.n_threads_batch = model.threads
        self._context = llama.llama_init_from_model(model.weights, parameters)
        if not self._context:
            raise DecodeFailed(f"no memory to score a prompt of {len(tokens)} tokens")
        if adapter is not None:
            apply_adapter(self._context, adapter)

    def step(self) -> npt.NDArray[np.float32]:
        """Logits behind the next tokens, a row each; valid until the next step or `close`.

        Raises `DecodeFailed`.
        """
        rows, begin = self._rows, self.done
        tokens = self._tokens[begin : begin + TILE]
        rows.clear()
        rows.add(0, begin, tokens, wanted=True)
        rows.want_all()
        result = llama.llama_decode(self._context, rows.batch())
        address = ctypes.cast(llama.llama_get_logits(self._context), ctypes.c_void_p).value
        if result != 0 or address is None:
            raise DecodeFailed(f"llama.cpp could not score a prompt (code {result})")
        self.done += len(tokens)
        view = (ctypes.c_float * (len(tokens) * self._width)).from_address(address)
        found = np.frombuffer(memoryview(view), dtype=np.float32)
        return found.reshape(len(tokens), self._width)

    def close(self) -> None:
        """Give the room back."""
        llama.llama_free(self._context)
