"""`memory` and `conversation` of a chat request: what is put into its prompt from shared memory."""

from __future__ import annotations

from typing import Annotated

import msgspec

from meshslm import limits
from meshslm.api.decode import bad_request
from meshslm.api.fields import check_bytes

BUDGET_TOKENS = 512
BUDGET_MOST = 32_768


class RecallShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`memory` of a request: entries of a namespace that fit a query go into the prompt."""

    namespace: str
    query: str | None = None
    """By default the last turn of the user."""
    budget_tokens: Annotated[int, msgspec.Meta(ge=16, le=BUDGET_MOST)] = BUDGET_TOKENS
    """Of the prompt, about; the entries that fit best come first."""

    def check(self) -> None:
        """Raises `RequestFault` where it makes no sense."""
        if not self.namespace:
            raise bad_request("'memory.namespace' is empty.", "memory.namespace")
        check_bytes(self.query or "", "memory.query", limits.PROMPT_BYTES)


class Citation(msgspec.Struct, kw_only=True):
    """An entry of shared memory that was put into the prompt."""

    namespace: str
    key: str
    revision: int


def check_recall(memory: RecallShape | None, conversation: str | None, choices: int) -> None:
    """Raises `RequestFault` where these fields of a chat request make no sense."""
    if memory is not None:
        memory.check()
    if conversation is None:
        return
    check_bytes(conversation, "conversation", limits.NAME_BYTES)
    if not conversation or not conversation.isprintable():
        raise bad_request("'conversation' has a printable name.", "conversation")
    if choices > 1:
        raise bad_request(
            f"A conversation goes on with one answer, but 'n' asks for {choices}.", "n"
        )
