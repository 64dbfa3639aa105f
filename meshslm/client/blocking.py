"""The client for programs without an event loop."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
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
from meshslm.client.memory import Memory
from meshslm.client.routes import routing
from meshslm.client.transport import body_of, refusal, sending, settings_for, told_plainly
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


class Client:
    """A connection to one node, and through it to its mesh. Safe to share between threads.

    Every method raises `RequestFault` where the mesh says no, and `OurFault` where no node can be
    reached.
    """

    def __init__(self, url: str = DEFAULT_URL) -> None:
        """`url` is a node's address, such as `http://127.0.0.1:7416`."""
        import httpx  # noqa: PLC0415 - see `client.transport`

        self._http = httpx.Client(**settings_for(url))

    def ask(
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
        return whole_answer(self._fetch(asked))

    def stream(
        self,
        prompt: str | Sequence[Message],
        *,
        model: str = "auto",
        **options: Unpack[Options],
    ) -> TextStream:
        """The same, piece by piece; use it in a `with` block.

        Leaving the block early ends the generation on whatever node it runs.
        """
        return TextStream(self._http, asking(prompt, model, options, stream=True))

    def embed(
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
        return embeddings(self._fetch(asked))

    def rerank(
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
        return ranking(self._fetch(asked), documents)

    def route(
        self,
        prompt: str | Sequence[Message],
        *,
        model: str = "auto",
        **options: Unpack[RouteOptions],
    ) -> RouteReply:
        """Who would be asked `prompt` now, and why: candidates, costs, verdict. Nothing is run."""
        return read(self._fetch(routing(prompt, model, options)), RouteReply)

    def peers(self) -> list[PeerInfo]:
        """The nodes that the asked node knows, itself among them."""
        return read(self._fetch(PEERS), PeersReply).peers

    def registry(self) -> list[MemberInfo]:
        """What members are and have, those among them that are away since at most a week."""
        return read(self._fetch(MEMBERS), RegistryReply).members

    def status(self) -> StatusReply:
        """The asked node about itself."""
        return read(self._fetch(STATUS), StatusReply)

    def load_model(self, name: str) -> ModelStatus:
        """Have the asked node load a model of its own; `status` tells how far it is."""
        return read(self._fetch(ordering(name, "load")), ModelStatus)

    def unload_model(self, name: str, *, now: bool = False) -> ModelStatus:
        """Have it unloaded, once nothing runs on it any more; `now`: hand back what runs."""
        return read(self._fetch(ordering(name, "unload", now=now)), ModelStatus)

    def pin_model(self, name: str) -> ModelStatus:
        """Have it loaded, and unloaded for nobody as long as that node lives."""
        return read(self._fetch(ordering(name, "pin")), ModelStatus)

    def unpin_model(self, name: str) -> ModelStatus:
        """Take a pin back, as far as it is not one of a profile."""
        return read(self._fetch(ordering(name, "unpin")), ModelStatus)

    def drain(self, *, limit_s: float = 60.0) -> DrainInfo:
        """Have the asked node finish its work, hand the rest to others, and leave.

        It is gone after `limit_s` seconds, whatever is left; `status` tells how much that is.
        """
        return read(self._fetch(draining(limit_s)), DrainInfo)

    def consensus(self) -> ConsensusReply:
        """The group of coordinators, seen from the asked node."""
        return read(self._fetch(CONSENSUS), ConsensusReply)

    def decide(self, act: str, subject: str, **fields: Any) -> DecisionReply:
        """Have the coordinators decide: `rollout.begin`, `quota.grant`, `revoke`, and others.

        `fields` are `holder`, `value`, `amount` and `expected`, as the act needs them. Raises
        `RequestFault`: a conflict with what is decided, or not ready, where there is no majority.
        """
        return read(self._fetch(deciding(act, subject, fields)), DecisionReply)

    def decisions(self, kind: str = "", subject: str = "") -> list[DecisionInfo]:
        """What is decided, as of now, of a kind and about a subject where these are given."""
        return read(self._fetch(decided(kind, subject)), DecisionReply).decisions

    def forget(self, document: str, author: str, *, force: bool = False) -> ForgetReply:
        """Have it decided that what a node wrote to a document is given up for ever.

        For nodes that are gone; `force`: although it is there. Raises `RequestFault` where nothing
        is known of it at the asked node, or nothing can be decided now.
        """
        return read(self._fetch(forgetting(document, author, force=force)), ForgetReply)

    def seat(self, order: str, node: str = "") -> None:
        """Found the group at the asked node, or `add`, `remove` or `transfer` to a node."""
        self._fetch(deciding_who(order, node))

    def memory(self, namespace: str) -> Memory:
        """What every node of the mesh has under this name: values, lists, counters."""
        return Memory(self._http, namespace)

    def tasks(self, *, limit: int = 50, state: str = "", mesh: bool = False) -> list[TaskHistory]:
        """The newest tasks that entered at the asked node; `state` is that of their last event.

        `mesh`: at any member that answers in time; of each at most a hundred.
        """
        asked = past_tasks(limit, state, mesh=mesh)
        return read(self._fetch(asked), TasksReply).tasks

    def task(self, name: str) -> TaskHistory:
        """What became of one task, wherever in the mesh it entered."""
        return read(self._fetch(past_task(name)), TaskHistory)

    def usage(self, *, days: int = 1) -> list[UsageRow]:
        """What the mesh was used for, by day, tenant, model and node."""
        return read(self._fetch(used(days)), UsageReply).rows

    def models(self) -> list[Model]:
        """Everything that `model` may name now, with who answers for it."""
        return read(self._fetch(MODELS), ModelList).data

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _fetch(self, asked: Asking) -> bytes:
        with told_plainly(self._http.base_url):
            response = self._http.request(**sending(asked))
        return body_of(response)


class TextStream(AnswerUnderWay):
    """An answer under way: iterate over it for its text, then look at `answer`."""

    def __init__(self, http: httpx.Client, asked: Asking) -> None:
        self._http = http
        self._asked = asked
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            with told_plainly(self._http.base_url):
                response = opening.enter_context(self._http.stream(**sending(self._asked)))
                if not response.is_success:
                    response.read()
                    raise refusal(response)
            self._reader = StreamReader(response.headers)
            self._received = response.iter_raw()
            self._open = opening.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        reader = self._opened()
        while (piece := reader.next_piece()) is None:
            with told_plainly(self._http.base_url):
                received = next(self._received, None)
            if received is None:
                reader.end()
                raise StopIteration
            reader.feed(received)
        return piece
