"""Puts what memory holds into a chat request, and keeps its conversation there.

Rules:
- Nothing that fails here fails a request that could be answered without it, but for a namespace or
  a conversation that cannot be: without embeddings words alone decide, within `EMBED_S`.
- A conversation's turns are written when its answer is whole; one that broke off leaves none.
- What was put in is told with the answer, by key and revision.
"""

from __future__ import annotations

import logging
from array import array
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import islice

import msgspec
import trio

from meshslm import limits, state_limits
from meshslm.api.recall import Citation, RecallShape
from meshslm.core import recall
from meshslm.core.events import EmitChunk, FinishTask
from meshslm.core.memory import Found, Memory, item_change, item_name
from meshslm.core.recall import Note
from meshslm.errors import UNREADABLE, RequestFault
from meshslm.gateway.jobs import Job
from meshslm.gateway.memory import SharedState, shared
from meshslm.gateway.service import NodeService, Submitting, TaskItem, TaskStream
from meshslm.gateway.translate import tenant
from meshslm.ids import TaskId
from meshslm.wire.messages import ChatMessage, TaskRequest

_log = logging.getLogger("meshslm.gateway")

CONVERSATIONS = "conversations"
"""The namespace of conversations; each is a list."""
EMBED_S = 2.0
CANDIDATES = 64
"""Entries whose meaning is compared: the best by words, and the newest."""
VECTORS = 4_096
"""Embeddings that are remembered: of 384 numbers each 6 MiB."""
ENTRIES = 4_096
"""Entries of a namespace that are looked at, in the order of keys."""
ASSUMED_CONTEXT = 2_048


class _Turn(msgspec.Struct, omit_defaults=True):
    """A turn as it is kept."""

    role: str
    content: str
    name: str = ""
    private: bool = False
    """It was said in a request that was not to leave the mesh: no later one with it may either."""


_turns = msgspec.json.Decoder(_Turn)


@dataclass
class Prepared:
    """A job with what memory added to it."""

    job: Job
    citations: list[Citation] = field(default_factory=list)
    said: tuple[ChatMessage, ...] = ()
    """New turns of a conversation."""


class Recalling:
    """Memory in requests of one node."""

    def __init__(self, service: NodeService, state: SharedState | None) -> None:
        self._service = service
        self._state = state
        self._vectors: OrderedDict[tuple[str, str, int], array[float]] = OrderedDict()
        self._items = 0

    async def prepare(self, job: Job) -> Prepared:
        """What the job becomes. Raises `RequestFault` where memory cannot be what it names."""
        prepared = Prepared(job)
        if not job.conversation and job.recall is None:
            return prepared
        shared(self._state)
        request = job.requests[0]
        if job.recall is not None:
            notes = await self._notes(job.recall, request)
            prepared.citations = [_citation(job.recall, note) for note in notes]
            if notes:
                request = with_system(request, recall.told(notes))
        if job.conversation:
            prepared.said = tuple(job.requests[0].messages)
            request = self._continued(request, job.conversation)
        prepared.job = replace(job, requests=(request, *job.requests[1:]))
        return prepared

    def submitting(self, prepared: Prepared, service: Submitting) -> Submitting:
        """What gives a prepared job's tasks to `service`, and keeps its conversation when whole."""
        return _Keeping(service, self, prepared) if prepared.said else service

    # --- conversations --------------------------------------------------------------------------
    def _continued(self, request: TaskRequest, name: str) -> TaskRequest:
        """The request behind the turns that were kept, as far as they fit."""
        state = shared(self._state)
        items = Memory(state.documents, CONVERSATIONS).items(name, state.now_ms())
        found = [turn for turn in map(_read_turn, items) if turn is not None]
        said = [_message(turn) for turn in found]
        system = [turn for turn in (*said, *request.messages) if turn.role == "system"][-1:]
        new = [turn for turn in request.messages if turn.role != "system"]
        room = self._context() // 2 - sum(
            recall.tokens_of(turn.content) for turn in (*system, *new)
        )
        before: list[ChatMessage] = []
        for turn in reversed([turn for turn in said if turn.role != "system"]):
            room -= recall.tokens_of(turn.content)
            if room < 0:
                break
            before.insert(0, turn)
        routing = request.routing
        if not routing.conversation:
            routing = replace(routing, conversation=tenant(name))
        if any(turn.private for turn in found):
            routing = replace(routing, private=True)
        return replace(request, messages=(*system, *before, *new), routing=routing)

    def _context(self) -> int:
        """Tokens of the largest context that anybody has for answers."""
        found = (
            specialist.context
            for peer in self._service.peers()
            for specialist in peer.specialists
            if "generate" in specialist.operations
        )
        return max(found, default=ASSUMED_CONTEXT)

    async def keep(self, prepared: Prepared, answer: str) -> None:
        """Write the new turns of a conversation, and the answer."""
        state = shared(self._state)
        memory, now = Memory(state.documents, CONVERSATIONS), state.now_ms()
        turns = [*prepared.said, ChatMessage("assistant", answer)]
        items = memory.items(prepared.job.conversation, now)
        kept = [_message(turn) for turn in map(_read_turn, items) if turn is not None]
        private = prepared.job.requests[0].routing.private
        known = next((turn for turn in reversed(kept) if turn.role == "system"), None)
        turns = [turn for turn in turns if turn != known]  # it is sent with every request
        changes = []
        for turn in turns:
            self._items += 1
            item = item_name(now, self._items, state.documents.node)
            value = msgspec.json.encode(_Turn(turn.role, turn.content, turn.name, private))
            changes.append(
                item_change(
                    prepared.job.conversation,
                    item,
                    value,
                    expires_ms=now + state_limits.CONVERSATION_MS,
                )
            )
        await state.write(memory.document, tuple(changes))

    # --- notes ----------------------------------------------------------------------------------
    async def _notes(self, wanted: RecallShape, request: TaskRequest) -> list[Note]:
        """The entries that fit a query best, within its budget."""
        state = shared(self._state)
        memory = Memory(state.documents, wanted.namespace)
        if not state.documents.wanted(memory.document):
            state.documents.want(memory.document)
        found = islice(memory.values(state.now_ms()), ENTRIES)
        notes = [Note(one, _text(one)) for one in found]
        query = wanted.query or next(
            (turn.content for turn in reversed(request.messages) if turn.role == "user"), ""
        )
        if not notes or not query:
            return []
        by_words = recall.by_words(query, notes)
        orders = [by_words]
        meant = await self._by_meaning(memory.document, query, notes, by_words, request)
        orders += [meant] if meant else []
        return recall.fitting(notes, recall.joined(orders), wanted.budget_tokens)

    async def _by_meaning(
        self,
        document: str,
        query: str,
        notes: Sequence[Note],
        by_words: Sequence[int],
        request: TaskRequest,
    ) -> list[int]:
        """Places of notes by what they mean; none where nobody makes embeddings in time."""
        if not any("embed" in s.operations for p in self._service.peers() for s in p.specialists):
            return []
        newest = sorted(range(len(notes)), key=lambda place: -notes[place].found.written_ms)
        places = list(dict.fromkeys((*by_words[: CANDIDATES // 2], *newest)))[:CANDIDATES]
        names = {p: (document, notes[p].found.key, notes[p].found.revision) for p in places}
        missing = [place for place in places if names[place] not in self._vectors]
        texts = [query, *(notes[place].text for place in missing)]
        vectors: list[array[float]] | None = None
        with trio.move_on_after(EMBED_S):
            vectors = await self._embedded(texts, request)
        if vectors is None:
            return []
        for place, vector in zip(missing, vectors[1:], strict=True):
            self._vectors[names[place]] = vector
        known = [
            self._vectors.get(names[place]) if place in names else None
            for place in range(len(notes))
        ]
        while len(self._vectors) > VECTORS:
            self._vectors.popitem(last=False)
        return recall.by_meaning(vectors[0], known)

    async def _embedded(self, texts: Iterable[str], like: TaskRequest) -> list[array[float]] | None:
        """Vectors of texts; None where nobody makes them now."""
        inputs = tuple(text[: limits.CLASSIFY_BYTES] or " " for text in texts)
        asked = TaskRequest(
            "auto",
            operation="embed",
            inputs=inputs,
            tenant=like.tenant,
            priority=like.priority,
            deadline_ms=int(EMBED_S * 1000),
            routing=replace(like.routing, conversation=""),
        )
        vectors: dict[int, array[float]] = {}
        try:
            async with self._service.submit(asked) as stream:
                async for item in stream:
                    if isinstance(item, EmitChunk) and item.chunk.vector:
                        vectors[item.chunk.item] = array("f", item.chunk.vector)
        except RequestFault:
            return None
        if len(vectors) < len(inputs):
            return None
        return [vectors[place] for place in range(len(inputs))]


@dataclass(frozen=True, slots=True)
class _Keeping:
    """Takes the task of a conversation."""

    service: Submitting
    recalling: Recalling
    prepared: Prepared

    @asynccontextmanager
    async def submit(self, request: TaskRequest) -> AsyncIterator[TaskStream]:
        """Begin it."""
        async with self.service.submit(request) as stream:
            yield _Kept(stream, self.recalling, self.prepared)


class _Kept:
    """A task's stream, of which the answer's text is kept."""

    def __init__(self, stream: TaskStream, recalling: Recalling, prepared: Prepared) -> None:
        self._stream = stream
        self._recalling = recalling
        self._prepared = prepared
        self._text: list[str] = []
        self._ended = False

    @property
    def task(self) -> TaskId:
        """The task's id."""
        return self._stream.task

    def __aiter__(self) -> TaskStream:
        return self

    async def __anext__(self) -> TaskItem:
        """The next item; the last one when the conversation is written."""
        item = await anext(self._stream)
        self._note(item)
        if isinstance(item, FinishTask):
            try:
                await self._recalling.keep(self._prepared, "".join(self._text))
            except RequestFault as fault:  # the answer is whole all the same
                _log.warning("a conversation was not kept: %s", fault.detail)
        return item

    def take_nowait(self) -> TaskItem | None:
        """None: each item is seen first."""
        return None

    def _note(self, item: TaskItem) -> None:
        if isinstance(item, EmitChunk):
            self._text.append(item.chunk.text)


def with_system(request: TaskRequest, text: str) -> TaskRequest:
    """A request whose system message has this, too."""
    first = request.messages[:1]
    if first and first[0].role == "system":
        joined = replace(first[0], content=f"{first[0].content}\n\n{text}")
        return replace(request, messages=(joined, *request.messages[1:]))
    return replace(request, messages=(ChatMessage("system", text), *request.messages))


def _text(found: Found) -> str:
    """A value as text: itself where it is one, else its JSON."""
    if found.json[:1] == b'"':
        try:
            return msgspec.json.decode(found.json, type=str)
        except UNREADABLE:
            pass  # another node may write what is no JSON
    return found.json.decode(errors="replace")


def _read_turn(found: Found) -> _Turn | None:
    """A kept turn; None for what is none, as other programs may write there too."""
    try:
        turn = _turns.decode(found.json)
    except UNREADABLE:
        return None
    if turn.role not in ("system", "user", "assistant"):
        return None
    return turn


def _message(turn: _Turn) -> ChatMessage:
    return ChatMessage(turn.role, turn.content, turn.name[: limits.NAME_BYTES])


def _citation(wanted: RecallShape, note: Note) -> Citation:
    return Citation(namespace=wanted.namespace, key=note.found.key, revision=note.found.revision)
