"""What models do beside answering: vectors, scores, tokens, prompts.

Each is a task like any other, of which the chunks are gathered; nothing streams.

Rules:
- What comes back is checked against what was asked for: a vector that is missing, cut or not a
  number is the answering node's fault, told as `internal`, and never passed on.
"""

from __future__ import annotations

import math
import sys
from array import array
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import msgspec

from meshslm import limits
from meshslm.api.decode import bad_request, decode_body
from meshslm.api.embeddings import (
    DocumentShape,
    Embedding,
    EmbeddingReply,
    EmbeddingRequest,
    EmbeddingUsage,
    Ranked,
    RerankReply,
    RerankRequest,
)
from meshslm.api.openai_responses import RouteInfo
from meshslm.api.tokens import (
    DetokenizeReply,
    DetokenizeRequest,
    TemplateReply,
    TemplateRequest,
    TokenizeReply,
    TokenizeRequest,
)
from meshslm.errors import FaultCode, RequestFault
from meshslm.gateway.jobs import Collector, Head, Job
from meshslm.gateway.translate import chat_task, task_of
from meshslm.wire.messages import Chunk, TaskRequest, Usage
from meshslm.wire.tokens import packed

_embedding_requests = msgspec.json.Decoder(EmbeddingRequest)
_rerank_requests = msgspec.json.Decoder(RerankRequest)
_tokenize_requests = msgspec.json.Decoder(TokenizeRequest)
_detokenize_requests = msgspec.json.Decoder(DetokenizeRequest)
_template_requests = msgspec.json.Decoder(TemplateRequest)


def read_embedding(body: bytes, *, deadline_ms: int) -> Job:
    """The job of a `POST /v1/embeddings`; raises `RequestFault` where it makes no sense."""
    asked = decode_body(body, _embedding_requests)
    asked.check()
    task = replace(task_of(asked, deadline_ms), operation="embed")
    lists = asked.token_lists
    if lists:
        requests = tuple(_giving(task, tokens) for tokens in lists)
    else:
        requests = (replace(task, inputs=tuple(asked.texts)),)
    wanted = len(lists) or len(asked.texts)
    return Job(requests, "emb-", partial(Vectors, asked, wanted))


def read_rerank(body: bytes, *, deadline_ms: int) -> Job:
    """The job of a `POST /v1/rerank`; raises `RequestFault` where it makes no sense."""
    asked = decode_body(body, _rerank_requests)
    asked.check()
    request = replace(
        task_of(asked, deadline_ms),
        operation="rerank",
        prompt=asked.query,
        inputs=tuple(asked.texts),
    )
    return Job((request,), "rerank-", partial(Scores, asked))


def read_tokenize(body: bytes, *, deadline_ms: int) -> Job:
    """The job of a `POST /tokenize`; raises `RequestFault` where it makes no sense."""
    asked = decode_body(body, _tokenize_requests)
    asked.check()
    task = task_of(asked, deadline_ms)
    return _simple(replace(task, operation="tokenize", inputs=(asked.content,)), Tokens)


def read_detokenize(body: bytes, *, deadline_ms: int) -> Job:
    """The job of a `POST /detokenize`; raises `RequestFault` where it makes no sense."""
    asked = decode_body(body, _detokenize_requests)
    asked.check()
    task = replace(task_of(asked, deadline_ms), operation="detokenize")
    return _simple(_giving(task, asked.tokens), Content)


def read_template(body: bytes, *, deadline_ms: int) -> Job:
    """The job of a `POST /apply-template`; raises `RequestFault` where it makes no sense."""
    asked = decode_body(body, _template_requests)
    asked.check()
    request = replace(chat_task(asked, deadline_ms), operation="template", choices=1)
    return _simple(request, Prompt)


def _giving(task: TaskRequest, tokens: Sequence[int]) -> TaskRequest:
    if len(tokens) > limits.GIVEN_TOKENS:
        return replace(task, packed=packed(tokens))
    return replace(task, given=tuple(tokens))


def _simple(request: TaskRequest, whole: type[Collector]) -> Job:
    return Job((request,), f"{request.operation}-", whole)


class Vectors:
    """Gathers embeddings."""

    def __init__(self, asked: EmbeddingRequest, wanted: int) -> None:
        self._asked = asked
        self._wanted = wanted
        self._vectors: dict[int, bytes] = {}

    def add(self, chunk: Chunk) -> None:
        """Add a chunk; one task has all texts, or there is one for each list of tokens."""
        if chunk.vector:
            self._vectors[chunk.choice + chunk.item] = chunk.vector

    def body(self, head: Head, usage: Usage, info: RouteInfo | None) -> EmbeddingReply:
        """The vectors, as they were asked for."""
        dimensions, as_text = self._asked.dimensions, self._asked.encoding_format == "base64"
        data = []
        for index in range(self._wanted):
            vector = _floats(self._vectors.get(index, b""))
            if dimensions is not None:
                vector = shortened(vector, dimensions)
            shape = b64encode(_little(vector)).decode() if as_text else vector.tolist()
            data.append(Embedding(index=index, embedding=shape))
        return EmbeddingReply(data=data, model=head.model, usage=_usage(usage), meshslm=info)


class Scores:
    """Gathers scores."""

    def __init__(self, asked: RerankRequest) -> None:
        self._asked = asked
        self._scores: dict[int, float] = {}

    def add(self, chunk: Chunk) -> None:
        """Add a chunk."""
        self._scores[chunk.item] = chunk.score

    def body(self, head: Head, usage: Usage, info: RouteInfo | None) -> RerankReply:
        """The documents, the most relevant first, equals in the order they came."""
        texts = self._asked.texts
        scores = [self._scores.get(index, math.nan) for index in range(len(texts))]
        if not all(map(math.isfinite, scores)):
            raise _unusable("a score is missing, or not a number")
        order = sorted(range(len(texts)), key=lambda index: -scores[index])
        shown = self._asked.return_documents
        return RerankReply(
            id=head.id,
            model=head.model,
            results=[
                Ranked(
                    index=index,
                    relevance_score=scores[index],
                    document=DocumentShape(text=texts[index]) if shown else None,
                )
                for index in order[: self._asked.top_n]
            ],
            usage=_usage(usage),
            meshslm=info,
        )


class Tokens:
    """Gathers tokens."""

    def __init__(self) -> None:
        self._tokens: list[int] = []

    def add(self, chunk: Chunk) -> None:
        """Add a chunk."""
        self._tokens.extend(chunk.tokens)

    def body(self, _head: Head, _usage: Usage, _info: RouteInfo | None) -> TokenizeReply:
        """All of them."""
        return TokenizeReply(tokens=self._tokens)


class Content:
    """Gathers text."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def add(self, chunk: Chunk) -> None:
        """Add a chunk."""
        self._texts.append(chunk.text)

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self._texts)

    def body(self, _head: Head, _usage: Usage, _info: RouteInfo | None) -> object:
        """All of it."""
        return DetokenizeReply(content=self.text)


class Prompt(Content):
    """Gathers the text of a prompt."""

    def body(self, _head: Head, _usage: Usage, _info: RouteInfo | None) -> object:
        """All of it."""
        return TemplateReply(prompt=self.text)


def shortened(vector: Sequence[float], dimensions: int) -> array[float]:
    """The first numbers of a vector, brought back to length one.

    Models made for it (Matryoshka) put what matters most in front.
    """
    if dimensions > len(vector):
        raise bad_request(
            f"'dimensions' is {dimensions}, but this model's vectors have {len(vector)}.",
            "dimensions",
        )
    kept = vector[:dimensions]
    length = math.hypot(*kept)
    return array("f", (number / length for number in kept) if length else kept)


def _floats(raw: bytes) -> array[float]:
    """A vector from the wire; raises `RequestFault` where it is none."""
    if not raw or len(raw) % 4:
        raise _unusable(f"a vector of {len(raw)} bytes")
    vector = array("f", raw)
    if sys.byteorder == "big":
        vector.byteswap()
    if not all(map(math.isfinite, vector)):
        raise _unusable("a vector with something that is not a number")
    return vector


def _little(vector: array[float]) -> bytes:
    if sys.byteorder == "big":
        vector = vector[:]
        vector.byteswap()
    return vector.tobytes()


def _usage(usage: Usage) -> EmbeddingUsage:
    return EmbeddingUsage(prompt_tokens=usage.prompt_tokens, total_tokens=usage.prompt_tokens)


def _unusable(what: str) -> RequestFault:
    return RequestFault(FaultCode.INTERNAL, f"The answering node sent {what}.")
