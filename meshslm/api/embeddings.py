"""Texts as vectors, and texts by how well they fit a query: requests and replies.

Embeddings have OpenAI's shape, reranking the one that Jina, Cohere and others have in common.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from meshslm import limits
from meshslm.api.asked import Wanted
from meshslm.api.decode import bad_request
from meshslm.api.fields import TokenId, check_bytes, check_together
from meshslm.api.openai_responses import RouteInfo

TokenList = Annotated[list[TokenId], Meta(max_length=limits.PACKED_TOKENS)]


class EmbeddingRequest(Wanted, kw_only=True):
    """Body of `POST /v1/embeddings`."""

    input: str | list[str | TokenId | TokenList]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=limits.VECTOR_BYTES // 4)] | None = None

    def check(self) -> None:
        """Raises `RequestFault` where the request does not make sense."""
        self.check_wanted()
        if not self.input:
            raise bad_request("'input' is empty.", "input")
        if len({type(item) for item in self.input}) > 1:
            raise bad_request("'input' mixes texts and tokens; send two requests.", "input")
        if self.token_lists:
            _check_token_lists(self.token_lists)
        else:
            check_texts(self.texts, "input")

    @property
    def texts(self) -> list[str]:
        """The texts; none where tokens were given."""
        if isinstance(self.input, str):
            return [self.input]
        return [item for item in self.input if isinstance(item, str)]

    @property
    def token_lists(self) -> list[list[int]]:
        """The lists of tokens; none where texts were given."""
        if isinstance(self.input, str):
            return []
        lists = [item for item in self.input if isinstance(item, list)]
        single = [item for item in self.input if isinstance(item, int)]
        return [single] if single else lists


class EmbeddingUsage(msgspec.Struct, kw_only=True):
    """Token counts: nothing is generated."""

    prompt_tokens: int
    total_tokens: int


class Embedding(msgspec.Struct, kw_only=True):
    """One vector."""

    object: str = "embedding"
    index: int
    embedding: list[float] | str
    """Numbers, or 32-bit floats, little-endian, in base64."""


class EmbeddingReply(msgspec.Struct, kw_only=True):
    """Answer of `POST /v1/embeddings`."""

    object: str = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
    meshslm: RouteInfo | None = None


class DocumentShape(msgspec.Struct, kw_only=True):
    """A document with its text, as some clients send it and get it back."""

    text: str


class RerankRequest(Wanted, kw_only=True):
    """Body of `POST /v1/rerank`."""

    query: str
    documents: list[str | DocumentShape]
    top_n: Annotated[int, Meta(ge=1)] | None = None
    return_documents: bool | None = None

    @property
    def texts(self) -> list[str]:
        """The documents' texts."""
        return [item if isinstance(item, str) else item.text for item in self.documents]

    def check(self) -> None:
        """Raises `RequestFault` where the request does not make sense."""
        self.check_wanted()
        if not self.query:
            raise bad_request("'query' is empty.", "query")
        check_bytes(self.query, "query", limits.PROMPT_BYTES // 2)
        if not self.documents:
            raise bad_request("'documents' is empty.", "documents")
        check_texts(self.texts, "documents")
        # Both travel in one message.
        size = sum(len(text.encode()) for text in self.texts) + len(self.query.encode())
        if size > limits.PROMPT_BYTES:
            raise bad_request(
                f"'query' and 'documents' have {size} bytes together; "
                f"at most {limits.PROMPT_BYTES} are taken.",
                "documents",
            )


class Ranked(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One document; `index` is its place in the request."""

    index: int
    relevance_score: float
    document: DocumentShape | None = None


class RerankReply(msgspec.Struct, kw_only=True):
    """Answer of `POST /v1/rerank`: the most relevant first."""

    id: str
    object: str = "list"
    model: str
    results: list[Ranked]
    usage: EmbeddingUsage
    meshslm: RouteInfo | None = None


def check_texts(texts: list[str], name: str) -> None:
    """Raises `RequestFault` where texts are empty, too many or too long."""
    if len(texts) > limits.INPUTS:
        raise bad_request(
            f"'{name}' has {len(texts)} texts; at most {limits.INPUTS} are taken.", name
        )
    for index, text in enumerate(texts):
        if not text:
            raise bad_request(f"'{name}[{index}]' is empty.", f"{name}[{index}]")
    check_together(texts, name)


def _check_token_lists(lists: list[list[int]]) -> None:
    if len(lists) > limits.PROMPTS:
        raise bad_request(
            f"'input' has {len(lists)} lists of tokens; at most {limits.PROMPTS} are taken.",
            "input",
        )
    for index, tokens in enumerate(lists):
        if not tokens:
            raise bad_request(f"'input[{index}]' is empty.", f"input[{index}]")
        if len(tokens) > limits.PACKED_TOKENS:
            raise bad_request(
                f"'input' has {len(tokens)} tokens; at most {limits.PACKED_TOKENS} are taken.",
                "input",
            )
