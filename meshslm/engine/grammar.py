"""Answers of a given form: which tokens may come next.

A grammar is compiled by llguidance, against the bytes of the model's own tokens; docs/decisions
says why by it. The only file that imports it.

Rules:
- A matcher is a function of its grammar and the tokens that it accepted: `replay` rebuilds it, on
  this node or on another.
- Everything that is wrong with a grammar is found when it is compiled, before a token is made.
- Time and memory of a matcher are bounded; one that overruns fails its run alone.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from meshslm.engine.gbnf import GrammarFault

Allowed = npt.NDArray[np.int64]

KEPT: Final = 16
"""Compiled grammars kept for the next request that brings the same one."""
SEPARATORS: Final = (", ", ": ")
"""Of items, and of names and values; no other space stands between the parts of JSON. Left to
choose, a small model writes spaces and new lines until its last token; and what is not chosen can
be guessed ahead."""

_LIMITS: Final = LLParserLimits(
    initial_lexer_fuel=200_000,
    max_grammar_size=200_000,
    max_lexer_states=50_000,
    verbose_errors=False,
)
"""Compiling takes at most some 100 ms, a token some 20 ms, the states of a lexer 100 MB."""
_CONTROL: Final = b"\xff"
"""llguidance: what follows is the name of a control token, not text."""


class Tokens(Protocol):
    """What is needed of a vocabulary."""

    size: int
    bos: int
    eos: int

    def tokens(self, text: str, *, special: bool, begins: bool = False) -> list[int]:
        """The tokens of a text."""

    def pieces(self) -> list[bytes]:
        """The bytes of every token, empty for control tokens."""

    def control_tokens(self) -> Mapping[str, int]:
        """Control tokens by their text."""

    def ends(self, token: int) -> bool:
        """The token ends a generation."""


class Matcher:
    """Follows one answer."""

    __slots__ = ("_inner", "_room")

    def __init__(self, inner: LLMatcher, room: _Room) -> None:
        self._inner = inner
        self._room = room

    def allows(self, token: int) -> bool:
        """`token` may come next; some thirty times cheaper than asking for all."""
        return self._inner.validate_tokens([token]) == 1

    def allowed(self) -> Allowed:
        """The tokens that may come next, in order. Raises `GrammarFault` where none may."""
        bits = self._room.bits
        self._inner.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
        if self._inner.is_error():
            raise GrammarFault(_told(self._inner.get_error()))
        each = np.unpackbits(bits.view(np.uint8), count=self._room.size, bitorder="little")
        tokens = np.flatnonzero(each)
        if not len(tokens):
            raise GrammarFault("no token of this model can go on")
        return tokens

    def ahead(self) -> list[int]:
        """Tokens of the text that must come next, as far as there is no choice.

        Other tokens of the same text may come instead.
        """
        return self._inner.compute_ff_tokens()

    def accept(self, token: int) -> None:
        """`token` came. Raises `GrammarFault` where it must not."""
        if not self._inner.consume_token(token):
            raise GrammarFault(_told(self._inner.get_error()))

    @property
    def done(self) -> bool:
        """The answer is whole, and nothing may follow."""
        return self._inner.is_stopped()

    @property
    def whole(self) -> bool:
        """The answer may end here."""
        return self._inner.is_accepting()

    def replay(self, tokens: Iterable[int]) -> None:
        """Accept `tokens` one after the other. Raises `GrammarFault`."""
        for token in tokens:
            self.accept(token)

    def copy(self) -> Matcher:
        """Another one in the same state."""
        return Matcher(self._inner.deep_copy(), self._room)


class _Room:
    """Where masks are written: one at a time."""

    __slots__ = ("bits", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.bits = np.zeros((size + 31) // 32, dtype=np.int32)


class Grammars:
    """Compiles for one vocabulary. Preparing takes 0.2 s for 49,152 tokens, so it can be timed."""

    def __init__(self, vocabulary: Tokens) -> None:
        self._vocabulary = vocabulary
        self._room = _Room(vocabulary.size)
        self._tokenizer: LLTokenizer | None = None
        self._kept: OrderedDict[str, LLMatcher] = OrderedDict()

    @property
    def prepared(self) -> bool:
        """The vocabulary is ready for the first matcher."""
        return self._tokenizer is not None

    def prepare(self) -> LLTokenizer:
        """Make the vocabulary ready, unless it is."""
        if self._tokenizer is None:
            self._tokenizer = LLTokenizer(
                TokenizerWrapper(_Bytes(self._vocabulary)),
                n_vocab=self._vocabulary.size,
                eos_token=[
                    token for token in range(self._vocabulary.size) if self._vocabulary.ends(token)
                ],
                slices=LLTokenizer.json_slices(),
            )
        return self._tokenizer

    def matcher(self, grammar: str) -> Matcher:
        """A matcher at its beginning, for what `together` made. Raises `GrammarFault`."""
        made = self._kept.get(grammar)
        if made is None:
            made = LLMatcher(self.prepare(), grammar, log_level=0, limits=_LIMITS)
            if made.is_error():
                raise GrammarFault(_told(made.get_error()))
            self._kept[grammar] = made
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(grammar)
        return Matcher(made.deep_copy(), self._room)


class _Bytes:
    """A vocabulary as llguidance wants to see it."""

    def __init__(self, vocabulary: Tokens) -> None:
        self._vocabulary = vocabulary
        self.eos_token_id = vocabulary.eos
        self.bos_token_id = vocabulary.bos if vocabulary.bos >= 0 else None
        self.tokens = vocabulary.pieces()
        controls = vocabulary.control_tokens()
        for text, token in controls.items():
            self.tokens[token] = _CONTROL + text.encode()
        self.special_token_ids = sorted(controls.values())

    def __call__(self, text: bytes) -> list[int]:
        return self._vocabulary.tokens(text.decode(errors="replace"), special=False)


def together(rules: str, schemas: Mapping[str, Mapping[str, Any]]) -> str:
    """A grammar of rules in llguidance's notation that name `schemas` as `@name`."""
    parts: list[dict[str, Any]] = [
        {"name": "answer", "lark_grammar": f"%llguidance {{}}\n{rules}"},
    ]
    parts += [{"name": name, "json_schema": schema} for name, schema in schemas.items()]
    return json.dumps({"grammars": parts}, ensure_ascii=False)


def with_options(schema: Mapping[str, Any], *, lenient: bool = False) -> dict[str, Any]:
    """The schema with this engine's options, whatever options it brings.

    `lenient` passes over what the compiler does not support.
    """
    options = {
        "whitespace_flexible": False,
        "item_separator": SEPARATORS[0],
        "key_separator": SEPARATORS[1],
        "coerce_one_of": lenient,
        "lenient": lenient,
    }
    return {**schema, "x-guidance": options}


def check_schema(schema: Mapping[str, Any]) -> str:
    """Why a schema with options cannot be compiled; empty where it can."""
    failed, told = LLMatcher.validate_grammar_with_warnings(
        together("start: @s\n", {"s": schema}), None, limits=_LIMITS
    )
    return _told(told[0]) if failed else ""


def _told(error: str) -> str:
    """What a client can use of an error."""
    lines: Sequence[str] = [line.strip() for line in error.splitlines() if line.strip()]
    text = "; ".join(lines[:6]) or "it does not fit"
    return text[:400]


def literal(text: str, controls: Mapping[str, int]) -> str:
    """`text` in llguidance's notation; the texts of control tokens stand for these tokens."""
    parts: list[str] = []
    plain = ""
    at = 0
    while at < len(text):
        found = next((name for name in controls if name and text.startswith(name, at)), "")
        if found:
            if plain:
                parts.append(json.dumps(plain, ensure_ascii=False))
            parts.append(f"<[{controls[found]}]>")
            plain = ""
        else:
            plain += text[at]
        at += len(found) or 1
    if plain:
        parts.append(json.dumps(plain, ensure_ascii=False))
    return " ".join(parts) or '""'
