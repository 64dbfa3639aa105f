"""llama.cpp through its low-level bindings: a model, its vocabulary, and calls of many rows.

With its siblings `llama_*` the only file that imports llama_cpp. Nothing here knows of runs or
requests.

Rules:
- Weights are mapped, never copied: several processes share one copy in memory. That is why the
  repacking of weights (`use_extra_bufts`) stays off; see docs/decisions.
- Each sequence has a KV stream of its own, and flash attention is on. With both, the rows of a
  sequence do not depend on what else is computed or resident, as long as the caller keeps rows of
  `schedule.TILE` and more apart from fewer.
- Logits are views of llama.cpp's own memory, valid until the next call.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import llama_cpp as llama
import numpy as np
import numpy.typing as npt

from meshslm.engine.estimate import cells
from meshslm.engine.llama_rows import Rows
from meshslm.engine.speculate import GUESSES
from meshslm.errors import OurFault

log = logging.getLogger("meshslm.engine.llama")

BUILD: Final = f"llama-cpp-python {llama.__version__} {llama.llama_print_system_info().decode()}"
"""Which llama.cpp computes, and with which of the processor's instructions."""

Adapter = Any
"""A loaded LoRA adapter; only llama.cpp looks inside."""

SPLIT_KEYS: Final = 256
"""Above so many tokens a lone row is attended to in one part per thread, which rounds otherwise."""

_LEVELS: Final = {
    2: logging.DEBUG,
    3: logging.WARNING,
    4: logging.ERROR,
}
_TOKEN_CONTROL: Final = int(llama.LLAMA_TOKEN_ATTR_CONTROL) | int(llama.LLAMA_TOKEN_ATTR_UNKNOWN)


class DecodeFailed(OurFault):
    """llama.cpp could not compute a call."""


def _on_log(level: int, text: bytes, _: object) -> None:
    number = _LEVELS.get(level)
    if number is not None:
        line = text.decode(errors="replace").rstrip()
        if line:
            log.log(number, "%s", line)


_log_callback = llama.llama_log_callback(_on_log)
llama.llama_log_set(_log_callback, ctypes.c_void_p(0))
llama.llama_backend_init()


def offloads() -> bool:
    """Whether a backend for GPUs is compiled in."""
    return bool(llama.llama_supports_gpu_offload())


class Vocabulary:
    """Tokens of one model."""

    def __init__(self, handle: object) -> None:
        self._handle = handle
        self.size: int = llama.llama_vocab_n_tokens(handle)
        self._pieces: dict[int, bytes] = {}
        self._ends = frozenset(
            token for token in range(self.size) if llama.llama_vocab_is_eog(handle, token)
        )
        self.adds_bos: bool = llama.llama_vocab_get_add_bos(handle)
        self.bos: int = llama.llama_vocab_bos(handle)
        self.eos: int = llama.llama_vocab_eos(handle)
        self.adds_eos: bool = llama.llama_vocab_get_add_eos(handle)
        self.sep: int = llama.llama_vocab_sep(handle)
        self.adds_sep: bool = llama.llama_vocab_get_add_sep(handle)

    def tokens(self, text: str, *, special: bool, begins: bool = False) -> list[int]:
        """The tokens of `text`.

        `special`: texts of control tokens become those tokens; never for what a user wrote.
        `begins`: it is the beginning of a prompt, so the vocabulary may add its own begin token.
        """
        raw = text.encode()
        room = len(raw) + 16
        while True:
            buffer = (llama.llama_token * room)()
            count = llama.llama_tokenize(self._handle, raw, len(raw), buffer, room, begins, special)
            if count >= 0:
                return buffer[:count]
            room = -count

    def piece(self, token: int) -> bytes:
        """The bytes that `token` stands for; empty for control tokens."""
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._read_piece(token, special=False)
        return known

    def _read_piece(self, token: int, *, special: bool) -> bytes:
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = llama.llama_token_to_piece(self._handle, token, buffer, room, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            room = -count

    def text(self, tokens: Sequence[int]) -> str:
        """The text of a whole sequence, without control tokens; what is no UTF-8 as U+FFFD."""
        given = (llama.llama_token * len(tokens))(*tokens)
        room = 16 * len(tokens) + 64
        remove, unparse = True, False
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = llama.llama_detokenize(
                self._handle, given, len(tokens), buffer, room, remove, unparse
            )
            if count >= 0:
                return buffer.raw[:count].decode(errors="replace")
            room = -count

    def ends(self, token: int) -> bool:
        """`token` ends a generation."""
        return token in self._ends

    def text_of(self, token: int) -> str:
        """How templates write a token, control tokens too; empty for none."""
        return self._read_piece(token, special=True).decode(errors="replace") if token >= 0 else ""

    def control_tokens(self) -> dict[str, int]:
        """Control tokens by their text, into which tokenising with `special` turns it."""
        found: dict[str, int] = {}
        for token in range(self.size):
            if int(llama.llama_vocab_get_attr(self._handle, token)) & _TOKEN_CONTROL:
                text = llama.llama_vocab_get_text(self._handle, token).decode(errors="replace")
                if text:
                    found.setdefault(text, token)
        return found

    def pieces(self) -> list[bytes]:
        """The bytes of every token, empty for control tokens; takes 0.1 s for 49,152."""
        room = 1024
        buffer = ctypes.create_string_buffer(room)
        read, handle, special = llama.llama_token_to_piece, self._handle, False
        found = []
        for token in range(self.size):
            count = read(handle, token, buffer, room, 0, special)
            found.append(buffer.raw[:count] if count >= 0 else self.piece(token))
        return found


class Model:
    """A loaded model with a context of `slots` sequences."""

    def __init__(
        self,
        path: Path,
        *,
        context: int,
        slots: int,
        batch: int,
        threads: int,
        on_progress: Callable[[float], None],
        gpu_layers: int = 0,
        exact: bool = True,
    ) -> None:
        """Load it. Raises `OurFault` where llama.cpp cannot.

        `exact`: a lone row is the same as in company, which takes longer.
        """
        self._threads = threads
        self._exact = exact
        self._model = load_weights(path, on_progress, gpu_layers=gpu_layers)
        self._adapter: Adapter | None = None
        self._context = _make_context(self._model, context, slots, batch, threads)
        self._memory = llama.llama_get_memory(self._context)
        self.vocabulary = Vocabulary(llama.llama_model_get_vocab(self._model))
        self._removes_rows = not (
            llama.llama_model_is_recurrent(self._model) or llama.llama_model_is_hybrid(self._model)
        )
        self._rows = Rows(batch + slots)
        self._last_place = context + 1
        self._seen = (0, 0)
        self._view = np.empty((0, self.vocabulary.size), dtype=np.float32)
        """Logits where `_seen` says, as llama.cpp keeps them at one place and overwrites them."""

    @property
    def weights(self) -> object:
        """The model itself, for a second context."""
        return self._model

    @property
    def trained_context(self) -> int:
        """Longest context it was trained for, in tokens."""
        return int(llama.llama_model_n_ctx_train(self._model))

    @property
    def parameters(self) -> int:
        """Its weights."""
        return int(llama.llama_model_n_params(self._model))

    @property
    def description(self) -> str:
        """llama.cpp's name for its kind."""
        buffer = ctypes.create_string_buffer(128)
        llama.llama_model_desc(self._model, buffer, 128)
        return buffer.value.decode(errors="replace")

    @property
    def threads(self) -> int:
        """Threads that compute."""
        return self._threads

    def set_threads(self, threads: int) -> None:
        """Compute with so many threads from the next call on."""
        if threads != self._threads:
            self._threads = threads
            llama.llama_set_n_threads(self._context, threads, threads)

    @property
    def forgets_ends(self) -> bool:
        """A sequence can forget its last tokens and go on from there."""
        return self._removes_rows

    def keep(self, slot: int, tokens: int) -> None:
        """Forget all but so many of a sequence's first tokens."""
        llama.llama_memory_seq_rm(self._memory, slot, tokens, -1)

    def copy(self, source: int, target: int) -> None:
        """Make the sequence `target` equal to `source`."""
        llama.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def state(self, slot: int) -> bytes:
        """A sequence's keys and values, as llama.cpp writes them."""
        room = llama.llama_state_seq_get_size(self._context, slot)
        buffer = np.empty(room, dtype=np.uint8)
        pointer = buffer.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        size = llama.llama_state_seq_get_data(self._context, pointer, room, slot)
        return buffer[:size].tobytes()

    def restore(self, slot: int, state: bytes) -> bool:
        """Make a sequence what it was when `state` was taken; False where llama.cpp will not."""
        self.keep(slot, 0)
        buffer = np.frombuffer(state, dtype=np.uint8)
        pointer = buffer.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        read = llama.llama_state_seq_set_data(self._context, pointer, len(state), slot)
        return int(read) == len(state)

    def load_adapter(self, path: Path) -> Adapter:
        """Load a LoRA adapter that was found to fit. Raises `OurFault` where llama.cpp cannot."""
        adapter = llama.llama_adapter_lora_init(self._model, str(path).encode())
        if not adapter:
            raise OurFault(f"llama.cpp cannot load the adapter {path.name}")
        return adapter

    def free_adapter(self, adapter: Adapter) -> None:
        """Forget one that no sequence uses any more."""
        if adapter is self._adapter:
            self.use_adapter(None)
        llama.llama_adapter_lora_free(adapter)

    def use_adapter(self, adapter: Adapter | None) -> None:
        """Compute with this adapter, or with none, from the next call on."""
        if adapter is not self._adapter:
            apply_adapter(self._context, adapter)
            self._adapter = adapter

    def begin(self) -> None:
        """Begin a new call."""
        self._rows.clear()

    def add(self, slot: int, start: int, tokens: Sequence[int], *, wanted: bool) -> None:
        """Add rows of one sequence; `wanted`: logits of the last one."""
        self._rows.add(slot, start, tokens, wanted=wanted)

    def compute(self) -> None:
        """Compute the call. Raises `DecodeFailed`."""
        rows = self._rows
        exact = self._exact and self._removes_rows
        lone = rows.lone(self._splits_from()) if exact else []
        for row in lone:
            # A second row, taken back afterwards, has a lone row computed as in a batch.
            slot, place = int(rows.slots[row]), int(rows.places[row])
            rows.add(slot, place + 1, (int(rows.tokens[row]),), wanted=False)
        result = llama.llama_decode(self._context, rows.batch())
        for row in lone:
            slot, place = int(rows.slots[row]), int(rows.places[row])
            llama.llama_memory_seq_rm(self._memory, slot, place + 1, -1)
        if result != 0:
            why = {1: "no room in the KV cache", 2: "it was aborted", -1: "the call was invalid"}
            raise DecodeFailed(f"llama.cpp: {why.get(result, 'it failed')} (code {result})")

    def _splits_from(self) -> int:
        """The place in its sequence from which a lone row is computed otherwise than in company."""
        if self._adapter is not None:
            return 0  # its matrices are no Q8_0: the product of a lone row rounds otherwise
        return SPLIT_KEYS if self._threads > 1 else self._last_place

    def logits(self, count: int) -> npt.NDArray[np.float32]:
        """Logits of the `count` rows that were wanted, in the order they were added."""
        pointer = llama.llama_get_logits(self._context)
        if not pointer:
            raise DecodeFailed("llama.cpp gave no logits")
        address = ctypes.addressof(pointer.contents)
        if (address, count) == self._seen:
            return self._view
        size = count * self.vocabulary.size
        view = (ctypes.c_float * size).from_address(address)
        rows = np.frombuffer(memoryview(view), dtype=np.float32)
        self._seen = (address, count)
        self._view = rows.reshape(count, self.vocabulary.size)
        return self._view


def load_weights(
    path: Path, on_progress: Callable[[float], None], *, gpu_layers: int = 0
) -> object:
    """Map a model file, and copy its last layers to a GPU. Raises `OurFault` where it cannot."""
    parameters = llama.llama_model_default_params()
    parameters.n_gpu_layers = gpu_layers
    parameters.load_mode = llama.LLAMA_LOAD_MODE_MMAP
    parameters.use_extra_bufts = False

    def progress(fraction: float, _: object) -> bool:
        on_progress(fraction)
        return True

    callback = llama.llama_progress_callback(progress)
    parameters.progress_callback = callback
    model = llama.llama_model_load_from_file(str(path).encode(), parameters)
    if not model:
        raise OurFault(f"llama.cpp cannot load {path.name}")
    return model


def apply_adapter(context: object, adapter: Adapter | None) -> None:
    """Have `context` compute with this adapter, or with none, from now on."""
    kind = llama.llama_adapter_lora_p_ctypes
    given = (kind * 1)() if adapter is None else (kind * 1)(adapter)
    scales = (ctypes.c_float * 1)(1.0)
    result = llama.llama_set_adapters_lora(context, given, 0 if adapter is None else 1, scales)
    if result != 0:
        raise DecodeFailed(f"llama.cpp cannot use an adapter (code {result})")


def _make_context(model: object, context: int, slots: int, batch: int, threads: int) -> object:
    parameters = llama.llama_context_default_params()
    parameters.n_ctx = cells(context) * slots
    parameters.n_batch = batch
    parameters.n_ubatch = batch
    parameters.n_seq_max = slots
    parameters.n_outputs_max = max(slots, 1 + GUESSES)
    parameters.kv_unified = False
    parameters.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_ENABLED
    parameters.n_threads = threads
    parameters.n_threads_batch = threads
    made = llama.llama_init_from_model(model, parameters)
    if not made:
        raise OurFault(
            f"llama.cpp cannot make a context of {slots} sequences of {context} tokens: is there "
            "enough memory?"
        )
    return made


def quantise_file(source: Path, target: Path, file_type: int, threads: int) -> None:
    """Write `source` anew at `target` with its matrices in another type. Raises `OurFault`."""
    parameters = llama.llama_model_quantize_default_params()
    parameters.ftype = file_type
    parameters.nthread = threads
    parameters.allow_requantize = True
    result = llama.llama_model_quantize(
        str(source).encode(), str(target).encode(), ctypes.byref(parameters)
    )
    if result != 0:
        raise OurFault(f"llama.cpp cannot quantise {source.name} (code {result})")
