"""The least that could be done with llama.cpp's low-level calls: the limit for an engine."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import llama_cpp as llama
import numpy as np

from meshslm.engine.gguf import read_header
from meshslm.engine.llama import Vocabulary
from meshslm.engine.templates import ChatTemplate
from meshslm.wire.messages import TaskRequest

BATCH = 512


class BareLoop:
    """Fills a batch, decodes, takes the maximum; prompts one after the other, then all together."""

    def __init__(self, path: Path, slots: int, threads: int, context: int) -> None:
        model_parameters = llama.llama_model_default_params()
        model_parameters.use_extra_bufts = False
        model = llama.llama_model_load_from_file(str(path).encode(), model_parameters)
        parameters = llama.llama_context_default_params()
        parameters.n_ctx = context * slots
        parameters.n_batch = parameters.n_ubatch = BATCH
        parameters.n_seq_max = slots
        parameters.n_outputs_max = slots
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_ENABLED
        self._context = llama.llama_init_from_model(model, parameters)
        self._memory = llama.llama_get_memory(self._context)
        self._vocabulary = Vocabulary(llama.llama_model_get_vocab(model))
        self._batch = llama.llama_batch_init(BATCH, 0, 1)
        self._template = ChatTemplate(read_header(path).chat_template)

    def tokens(self, request: TaskRequest) -> list[int]:
        """The prompt's tokens, as the engine has them."""
        parts = self._template.render(request.messages, date.min)
        return [
            token for part in parts for token in self._vocabulary.tokens(part.text, special=True)
        ]

    def _decode(self, rows: Sequence[tuple[int, int, int, bool]]) -> None:
        """Compute rows of (token, position, sequence, logits wanted)."""
        batch = self._batch
        batch.n_tokens = len(rows)
        for place, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[place] = token
            batch.pos[place] = position
            batch.n_seq_id[place] = 1
            batch.seq_id[place][0] = sequence
            batch.logits[place] = wanted
        if llama.llama_decode(self._context, batch) != 0:
            raise SystemExit("llama_decode failed")

    def _best(self, count: int) -> list[int]:
        """The likeliest tokens of the `count` rows that were wanted."""
        address = ctypes.cast(llama.llama_get_logits(self._context), ctypes.c_void_p).value
        assert address is not None
        size = self._vocabulary.size
        flat = np.ctypeslib.as_array((ctypes.c_float * (count * size)).from_address(address))
        return [int(token) for token in flat.reshape(count, size).argmax(axis=1)]

    def run(self, requests: Sequence[TaskRequest]) -> tuple[float, list[list[int]]]:
        """Tokens a second, and the tokens of each."""
        prompts = [self.tokens(request) for request in requests]
        limits = [request.max_tokens for request in requests]
        ends = self._vocabulary.ends
        llama.llama_memory_clear(self._memory, False)  # noqa: FBT003 - a C call
        began = time.perf_counter()
        made: list[list[int]] = []
        for sequence, prompt in enumerate(prompts):
            last = len(prompt) - 1
            self._decode([(t, place, sequence, place == last) for place, t in enumerate(prompt)])
            made.append(self._best(1))
        going = list(range(len(prompts)))
        while going := [
            one for one in going if len(made[one]) < limits[one] and not ends(made[one][-1])
        ]:
            self._decode(
                [
                    (made[one][-1], len(prompts[one]) + len(made[one]) - 1, one, True)
                    for one in going
                ]
            )
            for one, token in zip(going, self._best(len(going)), strict=True):
                made[one].append(token)
        passed = time.perf_counter() - began
        made = [[token for token in one if not ends(token)] for one in made]
        return sum(map(len, made)) / passed, made
