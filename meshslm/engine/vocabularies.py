"""Whether two model files have the same tokens, so that one can guess what the other will say.

Rules:
- The same numbers must stand for the same texts; how texts are cut into tokens may differ.
- Only headers are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from meshslm.engine.gguf import GgufHeader, read_encoded, read_header
from meshslm.errors import OurFault

_TOKENS: Final = "tokenizer.ggml.tokens"
_KINDS: Final = ("tokenizer.ggml.model", "tokenizer.ggml.pre")


def check_draft(name: str, target: Path, draft_name: str, draft: Path) -> None:
    """Raise `OurFault` where the tokens of the file `draft` are not those of `target`.

    The names are what errors call them. Takes 0.1 s for 50,000 tokens.
    """
    ours, theirs = _told(read_header(target)), _told(read_header(draft))
    if ours != theirs:
        raise OurFault(
            f"the draft {draft_name} has {theirs}, but {name} has {ours}: a draft must be of the "
            "same tokenizer family"
        )
    if read_encoded(target, _TOKENS) != read_encoded(draft, _TOKENS):
        raise OurFault(
            f"the draft {draft_name} has {theirs}, as {name} has, but other texts for them: a "
            "draft must be of the same tokenizer family"
        )


def _told(header: GgufHeader) -> str:
    """Such as `49152 tokens of kind gpt2/smollm`."""
    kinds = "/".join(filter(None, map(header.text, _KINDS)))
    return f"{header.vocabulary} tokens of kind {kinds or 'unknown'}"
