"""The client for asyncio and trio: the same methods as `Client`, to be awaited.

It brings no event loop of its own; httpx finds out which one runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Unpack

from meshslm.api.admin import (
    DEFAULT_URL,
    DrainInfo,
    ModelStatus,
    PeerInfo,
    PeersReply,
    StatusReply,
)
from meshslm.api.consensus import ConsensusReply, DecisionInfo, DecisionReply
from meshslm.api.history import TaskHistory, TasksReply, UsageReply, UsageRow
from meshslm.api.openai_responses import Model, ModelList
from meshslm.api.registry import MemberInfo, RegistryReply
from meshslm.api.routing import RouteReply
from meshslm.api.state import ForgetReply
from meshslm.client.answer import Answer, AnswerUnderWay, StreamReader, read, whole_answer
from meshslm.client.asking import (
    CONSENSUS,
    MEMBERS,
    MODELS,
    PEERS,
    STATUS,
    Asking,
    Message,
    Options,
    RouteOptions,
    Urgency,
    asking,
    decided,
    deciding,
    deciding_who,
    draining,
    forgetting,
    ordering,
    past_task,
    past_tasks,
    used,
)
from meshslm.client.memory import AsyncMemory
from meshslm.client.routes import routing
from meshslm.client.transport import body_of, refusal, run_out, sending, settings_for, told_plainly
from meshslm.client.vectors import (
    Embeddings,
    Ranking,
    embedding,
    embeddings,
    ranking,
    reranking,
)

if TYPE_CHECKING:
    from typing import Self

    import httpx


class AsyncClient:
    """A connection to one node, and through it to its mesh; for tasks of one event loop.

    Every method raises `RequestFault` where the mesh says no, and `OurFault` where no node can be
    reached.
    """

    def __init__(self, url: str = DEFAULT_URL) -> None:
        """`url` is a node's address, such as `http://127.0.0.1:7416`."""
        import httpx  # noqa: PLC0415 - see `client.transport`

        self._http = httpx.AsyncClient(**settings_for(url))

    async def ask(
        self,
        prompt: str | Sequence[Message],
        *,
        model: str = "auto",
        **options: Unpack[Options],
    ) -> Answer:
        """The mesh's answer to `prompt`, a text or the messages of a conversation.

        `model` is `auto`, `domain:NAME`, or a model's or profile's name, each with `@NODE` behind
        it where one node is to answer.
        """
        asked = asking(prompt, model, options, stream=False)
        return whole_answer(await self._fetch(asked))

    def stream(
        self,
        prompt: str | Sequence[Message],
        *,
        model: str = "auto",
        **options: Unpack[Options],
    ) -> AsyncTextStream:
        """The same, piece by piece; use it in an `async with` block.

        Leaving the block early ends the generation on whatever node it runs.
        """
        return AsyncTextStream(self._http, asking(prompt, model, options, stream=True))

    async def embed(
        self,
        texts: str | Sequence[str],
        *,
        model: str = "auto",
        dimensions: int | None = None,
        **options: Unpack[Urgency],
    ) -> Embeddings:
        """Vectors of texts, which are near each other where the texts mean the same.

        `dimensions` keeps so many numbers of each vector; not every model is made for it.
        """
        asked = embedding(texts, model, dimensions, options)
        return embeddings(await self._fetch(asked))

    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        model: str = "auto",
        top_n: int | None = None,
        **options: Unpack[Urgency],
    ) -> Ranking:
        """Documents by how well they fit `query`: all, or the best `top_n`."""
        asked = reranking(query, documents, model, top_n, options)
        return ranking(await self._fetch(asked), documents)

    async def route(
        self,
        prompt: str | Sequence[Message],
        *,
        model: str = "auto",
        **options: Unpack[RouteOptions],
    ) -> RouteReply:
        """Who would be asked `prompt` now, and why: candidates, costs, verdict. Nothing is run."""
        return read(await self._fetch(routing(prompt, model, options)), RouteReply)

    async def peers(self) -> list[PeerInfo]:
        """The nodes that the asked node knows, itself among them."""
        return read(await self._fetch(PEERS), PeersReply).peers

    async def registry(self) -> list[MemberInfo]:
        """What members are and have, those among them that are away since at most a week."""
        return read(await self._fetch(MEMBERS), RegistryReply).members

    async def status(self) -> StatusReply:
        """The asked node about itself."""
        return read(await self._fetch(STATUS), StatusReply)

    async def load_model(self, name: str) -> ModelStatus:
        """Have the asked node load a model of its own; `status` tells how far it is."""
        return read(await self._fetch(ordering(name, "load")), ModelStatus)

    async def unload_model(self, name: str, *, now: bool = False) -> ModelStatus:
        """Have it unloaded, once nothing runs on it any more; `now`: hand back what runs."""
        return read(await self._fetch(ordering(name, "unload", now=now)), ModelStatus)

    async def pin_model(self, name: str) -> ModelStatus:
        """Have it loaded, and unloaded for nobody as long as that node lives."""
        return read(await self._fetch(ordering(name, "pin")), ModelStatus)

    async def unpin_model(self, name: str) -> ModelStatus:
        """Take a pin back, as far as it is not one of a profile."""
        return read(await self._fetch(ordering(name, "unpin")), ModelStatus)

    async def drain(self, *, limit_s: float = 60.0) -> DrainInfo:
        """Have the asked node finish its work, hand the rest to others, and leave.

        It is gone after `limit_s` seconds, whatever is left; `status` tells how much that is.
        """
        return read(await self._fetch(draining(limit_s)), DrainInfo)

    async def consensus(self) -> ConsensusReply:
        """The group of coordinators, seen from the asked node."""
        return read(await self._fetch(CONSENSUS), ConsensusReply)

    async def decide(self, act: str, subject: str, **fields: Any) -> DecisionReply:
        """Have the coordinators decide: `rollout.begin`, `quota.grant`, `revoke`, and others.

        `fields` are `holder`, `value`, `amount` and `expected`, as the act needs them. Raises
        `RequestFault`: a conflict with what is decided, or not ready, where there is no majority.
        """
        return read(await self._fetch(deciding(act, subject, fields)), DecisionReply)

    async def decisions(self, kind: str = "", subject: str = "") -> list[DecisionInfo]:
        """What is decided, as of now, of a kind and about a subject where these are given."""
        return read(await self._fetch(decided(kind, subject)), DecisionReply).decisions

    async def forget(self, document: str, author: str, *, force: bool = False) -> ForgetReply:
        """Have it decided that what a node wrote to a document is given up for ever.

        For nodes that are gone; `force`: although it is there. Raises `RequestFault` where nothing
        is known of it at the asked node, or nothing can be decided now.
        """
        return read(await self._fetch(forgetting(document, author, force=force)), ForgetReply)

    async def seat(self, order: str, node: str = "") -> None:
        """Found the group at the asked node, or `add`, `remove` or `transfer` to a node."""
        await self._fetch(deciding_who(order, node))

    def memory(self, namespace: str) -> AsyncMemory:
        """What every node of the mesh has under this name: values, lists, counters."""
        return AsyncMemory(self._http, namespace)

    async def tasks(
        self, *, limit: int = 50, state: str = "", mesh: bool = False
    ) -> list[TaskHistory]:
        """The newest tasks that entered at the asked node; `state` is that of their last event.

        `mesh`: at any member that answers in time; of each at most a hundred.
        """
        asked = past_tasks(limit, state, mesh=mesh)
        return read(await self._fetch(asked), TasksReply).tasks

    async def task(self, name: str) -> TaskHistory:
        """What became of one task, wherever in the mesh it entered."""
        return read(await self._fetch(past_task(name)), TaskHistory)

    async def usage(self, *, days: int = 1) -> list[UsageRow]:
        """What the mesh was used for, by day, tenant, model and node."""
        return read(await self._fetch(used(days)), UsageReply).rows

    async def models(self) -> list[Model]:
        """Everything that `model` may name now, with who answers for it."""
        return read(await self._fetch(MODELS), ModelList).data

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _fetch(self, asked: Asking) -> bytes:
        with told_plainly(self._http.base_url):
            response = await self._http.request(**sending(asked))
        return body_of(response)


class AsyncTextStream(AnswerUnderWay):
    """An answer under way: iterate over it for its text, then look at `answer`."""

    def __init__(self, http: httpx.AsyncClient, asked: Asking) -> None:
        self._http = http
        self._asked = asked
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opening:
            with told_plainly(self._http.base_url):
                response = await opening.enter_async_context(
                    self._http.stream(**sending(self._asked))
                )
                if not response.is_success:
                    await response.aread()
                    raise refusal(response)
            self._reader = StreamReader(response.headers)
            self._received = response.aiter_raw()
            self._open = opening.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._open.aclose()
        await run_out(self._received)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        reader = self._opened()
        while (piece := reader.next_piece()) is None:
            with told_plainly(self._http.base_url):
                received = await anext(self._received, None)
            if received is None:
                reader.end()
                raise StopAsyncIteration
            reader.feed(received)
        return piece
