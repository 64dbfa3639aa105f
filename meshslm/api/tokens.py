"""Text as tokens and back, and conversations as prompts: requests and replies.

The shapes are those of llama.cpp's own server, and `model` in addition.
"""

from __future__ import annotations

import msgspec

from meshslm import limits
from meshslm.api.asked import Wanted, refuse_unserved
from meshslm.api.decode import bad_request
from meshslm.api.fields import TokenId, check_bytes
from meshslm.api.openai_requests import ChatRequest


class TokenizeRequest(Wanted, kw_only=True):
    """Body of `POST /tokenize`."""

    model: str = "auto"
    content: str
    add_special: bool | None = None
    parse_special: bool | None = None
    with_pieces: bool | None = None

    def check(self) -> None:
        """Raises `RequestFault` where the request does not make sense or is not served."""
        self.check_wanted()
        refuse_unserved(self, ("with_pieces",))
        if self.add_special is False or self.parse_special is True:
            raise bad_request(
                "Tokens are those that a prompt of this text would have: with what the model "
                "wants around it ('add_special'), and control tokens in it read as text (no "
                "'parse_special').",
                "parse_special" if self.parse_special else "add_special",
            )
        check_bytes(self.content, "content", limits.PROMPT_BYTES)


class TokenizeReply(msgspec.Struct, kw_only=True):
    """Answer of `POST /tokenize`."""

    tokens: list[int]


class DetokenizeRequest(Wanted, kw_only=True):
    """Body of `POST /detokenize`."""

    model: str = "auto"
    tokens: list[TokenId]

    def check(self) -> None:
        """Raises `RequestFault` where the request does not make sense."""
        self.check_wanted()
        most = limits.PACKED_TOKENS
        if len(self.tokens) > most:
            raise bad_request(
                f"'tokens' has {len(self.tokens)} tokens; at most {most} are taken.", "tokens"
            )


class DetokenizeReply(msgspec.Struct, kw_only=True):
    """Answer of `POST /detokenize`."""

    content: str


class TemplateRequest(ChatRequest, kw_only=True):
    """Body of `POST /apply-template`: a chat completion, of which only the prompt is made."""

    model: str = "auto"


class TemplateReply(msgspec.Struct, kw_only=True):
    """Answer of `POST /apply-template`."""

    prompt: str
