"""What conversations begin with, in a few bytes: to tell which of them an engine has warm.

A mark stands for a conversation up to the end of one of its turns, and for all it is rendered
with. Any node can make the marks of a request, without the model or its tokenizer, and compare
them with those that a peer announces.

Rules:
- A mark covers everything before it, so equal marks mean equal beginnings, but for one chance in
  four thousand million each.
- Marks are advice about speed and never about what is true: a wrong one costs some time.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from meshslm import limits
from meshslm.wire.messages import TaskRequest

PROMPT_CHARACTERS = 1024
"""Of a prompt without turns, each so many have a mark."""


def marks(request: TaskRequest) -> tuple[bytes, ...]:
    """A mark for every turn of a request, or for parts of its prompt, shortest beginning first."""
    if request.messages:
        parts = [f"{turn.role}\0{turn.name}\0{turn.content}" for turn in request.messages]
    else:
        ends = range(0, len(request.prompt) - PROMPT_CHARACTERS + 1, PROMPT_CHARACTERS)
        parts = [request.prompt[start : start + PROMPT_CHARACTERS] for start in ends]
    name = blake2b(f"{request.adapter}\0{request.tools!r}".encode(), digest_size=16).digest()
    found = []
    for part in parts:
        name = blake2b(name + part.encode(errors="replace"), digest_size=16).digest()
        found.append(name[: limits.PREFIX_MARK_BYTES])
    return tuple(found)


def digest(warm: Iterable[tuple[bytes, ...]]) -> bytes:
    """What to announce of warm requests, the last used first: first and last mark of each."""
    chosen: dict[bytes, None] = {}
    for request_marks in warm:
        for mark in (*request_marks[-1:], *request_marks[:1]):
            chosen[mark] = None
    return b"".join(chosen)[: limits.PREFIX_DIGEST_BYTES]


def warm_turns(request: TaskRequest, announced: bytes) -> int:
    """How many of a request's marks, from the beginning, a digest has; 0 for none."""
    size = limits.PREFIX_MARK_BYTES
    known = {announced[at : at + size] for at in range(0, len(announced), size)}
    return max((n for n, mark in enumerate(marks(request), 1) if mark in known), default=0)
