"""Texts as vectors, and texts by how well they fit a query: what is asked and what comes back.

No I/O: both clients send what is made here and read the answers with it.
"""

from __future__ import annotations

from array import array
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from meshslm.api.embeddings import Embedding, EmbeddingReply, RerankReply
from meshslm.client.answer import nobody, read
from meshslm.client.asking import Asking, posting
from meshslm.errors import OurFault


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors of texts, in their order, and who made them. Each vector has length one."""

    vectors: list[array[float]]
    """32-bit floats; numpy takes them as they are."""
    model: str
    node_name: str
    profile: str
    tokens: int
    """Of all texts together."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A document and how well it fits the query; larger is better, within one model."""

    index: int
    """Its place among the documents that were given."""
    score: float
    text: str


@dataclass(frozen=True, slots=True)
class Ranking:
    """Documents, the best first, and who ranked them."""

    documents: list[Scored]
    model: str
    node_name: str
    profile: str


def embedding(
    texts: str | Sequence[str], model: str, dimensions: int | None, more: Mapping[str, object]
) -> Asking:
    """The request for vectors of texts."""
    chosen = {"dimensions": dimensions} if dimensions is not None else {}
    given = texts if isinstance(texts, str) else list(texts)
    # Base64 is a fifth of the bytes of numbers in JSON, and exact.
    body = {"model": model, "input": given, "encoding_format": "base64", **chosen, **more}
    return posting("/v1/embeddings", body)


def embeddings(body: bytes) -> Embeddings:
    """What came back. Raises `OurFault` where it is no list of vectors."""
    reply = read(body, EmbeddingReply)
    route = reply.meshslm or nobody(reply.model)
    return Embeddings(
        vectors=[_vector(item) for item in sorted(reply.data, key=lambda item: item.index)],
        model=route.model,
        node_name=route.node_name,
        profile=route.profile,
        tokens=reply.usage.prompt_tokens,
    )


def reranking(
    query: str,
    documents: Sequence[str],
    model: str,
    top_n: int | None,
    more: Mapping[str, object],
) -> Asking:
    """The request for a ranking of documents."""
    chosen = {"top_n": top_n} if top_n is not None else {}
    body = {"model": model, "query": query, "documents": list(documents), **chosen, **more}
    return posting("/v1/rerank", body)


def ranking(body: bytes, documents: Sequence[str]) -> Ranking:
    """What came back. Raises `OurFault` where it names documents that were not given."""
    reply = read(body, RerankReply)
    route = reply.meshslm or nobody(reply.model)
    if any(not 0 <= result.index < len(documents) for result in reply.results):
        raise OurFault("what answers at this address ranks documents that were not given")
    return Ranking(
        documents=[
            Scored(result.index, result.relevance_score, documents[result.index])
            for result in reply.results
        ],
        model=route.model,
        node_name=route.node_name,
        profile=route.profile,
    )


def _vector(item: Embedding) -> array[float]:
    if not isinstance(item.embedding, str):
        return array("f", item.embedding)
    try:
        vector = array("f", b64decode(item.embedding, validate=True))
    except ValueError as error:
        raise OurFault(f"what answers at this address sends no vectors: {error}") from None
    if _BIG_ENDIAN:
        vector.byteswap()
    return vector


_BIG_ENDIAN = array("H", [1]).tobytes() == b"\x00\x01"
