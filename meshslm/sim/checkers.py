"""Judges outside the cores: what clients, links and operators were promised, and whether it held.

Why outside: a core that is wrong is wrong about itself too. These see only what a client, the
network or `peers()` shows.

Rules:
- A checker reports, it never changes what happens.
- Only the first few violations of a kind are kept in words; all are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from meshslm.core.continuation import TOKEN_BYTES
from meshslm.core.events import EmitChunk, FinishTask, RouteChosen
from meshslm.core.records import outlined
from meshslm.core.views import PeerView
from meshslm.ids import MICROSECONDS_PER_MS, Instant, NodeId, TaskId
from meshslm.sim.node import SECOND, SimNode
from meshslm.sim.world import ClientEffect, World
from meshslm.wire.messages import Chunk, Specialist, TaskRequest

KEPT = 20
"""Violations of one kind that are kept in words."""

_STATES = ("self", "alive", "connecting", "unreachable", "left")


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must never happen, and did."""

    checker: str
    at_ms: float
    detail: str


class Violations:
    """All that went wrong in a run."""

    def __init__(self) -> None:
        self.kept: list[Violation] = []
        self.counts: dict[str, int] = {}

    def note(self, checker: str, now: int, detail: str) -> None:
        """Report one."""
        count = self.counts[checker] = self.counts.get(checker, 0) + 1
        if count <= KEPT:
            self.kept.append(Violation(checker, now / MICROSECONDS_PER_MS, detail))


# --- tasks --------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Part:
    """A part of an answer: where it begins in each choice, and the attempt that made it."""

    starts: tuple[int, ...]
    ended: tuple[str, ...]
    """How choices had ended before it; empty for those that went on."""
    route: RouteChosen


@dataclass(slots=True)
class TaskRecord:
    """One task as its client saw it."""

    task: TaskId
    node: SimNode
    request: TaskRequest
    domain: str
    """What the prompt is about."""
    named: str
    """`auto`, `domain` or `model`: what the client said about where it should go."""
    arrived: Instant
    attempts: int = 0
    route: RouteChosen | None = None
    first_chunk: Instant | None = None
    ended: Instant | None = None
    outcome: str = ""
    """`answered`, `failed`, `cancelled` by its client, or `orphaned`: its own node died."""
    code: str = ""
    parts: list[Part] = field(default_factory=list)
    """Who said it, one behind the other."""
    tokens: list[list[int]] = field(default_factory=list)
    texts: list[list[str]] = field(default_factory=list)
    finishes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        choices = range(self.request.choices)
        self.tokens = [[] for _ in choices]
        self.texts = [[] for _ in choices]
        self.finishes = ["" for _ in choices]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node must say to a request: the scripted engine leaves nothing to chance."""

    tokens: tuple[int, ...]
    pieces: tuple[str, ...]
    """The text of each token."""
    finish: str


Expected = Callable[[SimNode, str, TaskRequest, int], Answer]
"""The answer of a node, by a profile, to a request, in one choice."""


class TaskChecker:
    """Every task ends exactly once, with every token of its attempts, in order.

    What one attempt began another may go on with, from the token on that the client waits for.
    """

    def __init__(
        self, violations: Violations, find: Callable[[NodeId], SimNode], expected: Expected
    ) -> None:
        self._violations = violations
        self._find = find
        self._expected = expected
        self.records: dict[TaskId, TaskRecord] = {}
        self._open: dict[TaskId, TaskRecord] = {}

    @property
    def open(self) -> int:
        """Tasks that have not ended."""
        return len(self._open)

    def submitted(self, record: TaskRecord) -> None:
        """A client asked."""
        self.records[record.task] = self._open[record.task] = record

    def dropped(self, task: TaskId, now: Instant) -> bool:
        """The client goes away, unless it has its answer already; true if it does."""
        record = self._open.get(task)
        if record is not None:
            self._end(record, now, "cancelled")
        return record is not None

    def node_died(self, node: SimNode, now: Instant) -> None:
        """Clients of a dead process see their connection break: that is an end too."""
        for record in [r for r in self._open.values() if r.node is node]:
            self._end(record, now, "orphaned")

    def effect(self, node: SimNode, effect: ClientEffect, now: Instant) -> None:
        """The core hands something to a client."""
        record = self.records.get(effect.task)
        if record is None:
            self._wrong(effect.task, now, f"{type(effect).__name__} for a task nobody sent")
        elif record.node is not node:
            self._wrong(effect.task, now, f"{type(effect).__name__} at {node.name}, not its node")
        elif record.outcome:
            self._wrong(effect.task, now, f"{type(effect).__name__} after it was {record.outcome}")
        elif isinstance(effect, RouteChosen):
            self._routed(record, effect, now)
        elif isinstance(effect, EmitChunk):
            self._chunk(record, effect.chunk, now)
        elif isinstance(effect, FinishTask):
            self._finished(record, effect, now)
        else:
            record.code = str(effect.code)
            self._end(record, now, "failed")

    def at_end(self, now: Instant) -> None:
        """The run is over: nothing may be open any more."""
        for record in self._open.values():
            waited = (now - record.arrived) / SECOND
            self._wrong(record.task, now, f"lost: no end after {waited:.1f} s", "task lost")

    def _routed(self, record: TaskRecord, route: RouteChosen, now: Instant) -> None:
        begun = record.first_chunk is not None
        if begun != bool(route.continued):
            how = route.continued or "nothing"
            self._wrong(record.task, now, f"goes on in {how}, and {begun=}")
        starts = tuple(map(len, record.tokens))
        before = [part for part in record.parts if part.starts != starts]
        record.parts = [*before, Part(starts, tuple(record.finishes), route)]
        if route.attempt <= record.attempts:
            self._wrong(record.task, now, f"attempt {route.attempt} after {record.attempts}")
        record.attempts = route.attempt
        record.route = route

    def _chunk(self, record: TaskRecord, chunk: Chunk, now: Instant) -> None:
        if record.route is None:
            self._wrong(record.task, now, "tokens before anybody was chosen")
            return
        if not 0 <= chunk.choice < record.request.choices or record.finishes[chunk.choice]:
            self._wrong(record.task, now, f"tokens of choice {chunk.choice}, which is none or over")
            return
        if record.first_chunk is None:
            record.first_chunk = now
        record.tokens[chunk.choice].extend(chunk.tokens)
        record.texts[chunk.choice].append(chunk.text)
        record.finishes[chunk.choice] = chunk.finish

    def _finished(self, record: TaskRecord, effect: FinishTask, now: Instant) -> None:
        self._end(record, now, "answered")
        route = record.route
        if route is None:
            self._wrong(record.task, now, "finished before anybody was chosen")
            return
        if any(self._find(part.route.node).hostile for part in record.parts):
            return
        for choice in range(record.request.choices):
            self._compare(record, choice, self._due(record, choice), now)
        count = sum(len(tokens) for tokens in record.tokens)
        if effect.usage.completion_tokens != count:
            told = effect.usage.completion_tokens
            self._wrong(record.task, now, f"usage says {told} tokens, {count} came", "tokens")

    def _due(self, record: TaskRecord, choice: int) -> Answer:
        """What the nodes that answered must have said, one behind the other."""
        tokens: tuple[int, ...] = ()
        pieces: tuple[str, ...] = ()
        finish = ""
        for part in record.parts:
            if part.ended[choice]:
                continue
            start = part.starts[choice]
            request = replace(record.request, delivered=bytes(TOKEN_BYTES * start))
            server = self._find(part.route.node)
            said = self._expected(server, part.route.profile, request, choice)
            tokens = (*tokens[:start], *said.tokens[start:])
            pieces = (*pieces[:start], *said.pieces[start:])
            finish = said.finish
        return Answer(tokens, pieces, finish)

    def _compare(self, record: TaskRecord, choice: int, answer: Answer, now: Instant) -> None:
        tokens = tuple(record.tokens[choice])
        if tokens != answer.tokens:
            where = first_difference(tokens, answer.tokens)
            detail = f"{len(tokens)} tokens of {len(answer.tokens)}, different from {where} on"
            self._wrong(record.task, now, f"choice {choice}: {detail}", "tokens")
        elif "".join(record.texts[choice]) != "".join(answer.pieces):
            self._wrong(record.task, now, f"choice {choice}: the text differs", "tokens")
        elif record.finishes[choice] != answer.finish:
            said = record.finishes[choice] or "nothing"
            detail = f"choice {choice}: finished by {said}, not {answer.finish}"
            self._wrong(record.task, now, detail, "tokens")

    def _end(self, record: TaskRecord, now: Instant, outcome: str) -> None:
        record.ended = now
        record.outcome = outcome
        del self._open[record.task]

    def _wrong(self, task: TaskId, now: Instant, detail: str, checker: str = "task") -> None:
        self._violations.note(checker, now, f"task {task[:8]}: {detail}")


def first_difference(one: Sequence[int], other: Sequence[int]) -> int:
    """Where two sequences part, counted from 0; the shorter one's length where it is a prefix."""
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    return min(len(one), len(other))


# --- views --------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Convergence:
    """How long the mesh needed after a change until everybody knew everybody."""

    change: str
    at_ms: float
    took_ms: float | None
    """None: it had not when the next change came, or the run ended."""


class ViewChecker:
    """After every change all living nodes come to see exactly the living nodes."""

    def __init__(
        self,
        violations: Violations,
        world: World,
        hosted: Callable[[SimNode], tuple[Specialist, ...]],
    ) -> None:
        self._violations = violations
        self._world = world
        self._nodes = world.nodes
        self._hosted = hosted
        self._outlines: dict[int, tuple[tuple[Specialist, ...], tuple[Specialist, ...]]] = {}
        """Of what a node hosts, and its outline, by the former's identity."""
        self._hostile = any(node.hostile for node in world.nodes)
        self._suspect = 0
        self._change: tuple[str, Instant] | None = None
        self.history: list[Convergence] = []

    @property
    def converged(self) -> bool:
        """Whether nothing has changed since everybody knew everybody."""
        return self._change is None

    def changed(self, what: str, now: Instant) -> None:
        """Somebody came or went, or the network changed: wait for convergence from now on."""
        if self._change is not None:
            change, at = self._change
            self.history.append(Convergence(change, at / MICROSECONDS_PER_MS, None))
        self._change = (what, now)

    def poll(self, now: Instant) -> None:
        """Look whether everybody knows everybody now; cheap while somebody does not."""
        if self._change is None or self._difference(now) is not None:
            return
        change, at = self._change
        took = (now - at) / MICROSECONDS_PER_MS
        self.history.append(Convergence(change, at / MICROSECONDS_PER_MS, took))
        self._change = None

    def confirm(self, now: Instant) -> None:
        """The plan is over: if somebody was taken for dead since, give it time to come back."""
        if self.converged and self._difference(now) is not None:
            self.changed("false alarm", now)

    def at_end(self, now: Instant, allowed_ms: float) -> None:
        """The run is over: the last change must have been overcome in time."""
        if self._change is not None:
            change, at = self._change
            self.history.append(Convergence(change, at / MICROSECONDS_PER_MS, None))
            took_s = (now - at) / SECOND
            detail = f"{took_s:.1f} s after {change}: {self._difference(now)}"
            self._violations.note("convergence", now, detail)
        elif self.history:
            last = self.history[-1]
            took = last.took_ms or 0.0
            if took > allowed_ms:
                most = allowed_ms / 1000
                detail = f"{took / 1000:.1f} s after {last.change}, at most {most:g} s allowed"
                self._violations.note("convergence", now, detail)

    def consistent(self, node: SimNode, now: Instant) -> None:
        """What a node says about the mesh must make sense, whether it is right or not."""
        assert node.core is not None, "only nodes that were booted are asked"
        views: Sequence[PeerView] = node.core.peers(node.clock.read(now))
        if self._hostile:  # whom liars made up may be known of, but never as being there
            known = dict.fromkeys(self._world.identities)
            views = [v for v in views if v.node in known or v.state == "alive"]
        problem = inconsistency(node.id, views, self._world.identities)
        if problem:
            self._violations.note("peers()", now, f"at {node.name}: {problem}")

    def _difference(self, now: Instant) -> str | None:
        """What one node sees wrongly; asks the node first that was wrong the last time."""
        living = [node for node in self._nodes if node.living]
        alive = {node.id: node for node in living if not node.leaving and not node.hostile}
        for step in range(len(living)):
            place = (self._suspect + step) % len(living)
            node = living[place]
            if node.leaving or node.hostile:
                continue
            problem = self._misjudged(node, alive, now)
            if problem:
                self._suspect = place
                return f"{node.name} {problem}"
        return None

    def _outlined(self, hosted: tuple[Specialist, ...]) -> tuple[Specialist, ...]:
        known = self._outlines.get(id(hosted))
        if known is None:
            known = self._outlines[id(hosted)] = (hosted, outlined(hosted))
        return known[1]

    def _misjudged(self, node: SimNode, alive: dict[NodeId, SimNode], now: Instant) -> str | None:
        assert node.core is not None, "only living nodes are asked"
        seen, meet, flat = 0, self._world.network.meet, self._world.network.flat
        for view in node.core.peers(node.clock.read(now)):
            if view.state == "self":
                continue
            if self._hostile and self._world.node(view.node).hostile:
                continue
            peer = alive.get(view.node)
            if view.state == "alive":
                if peer is None:
                    return f"sees {view.name}, which is gone"
                hosted = self._hosted(peer)
                if view.specialists not in (hosted, self._outlined(hosted)):
                    return f"does not know what {peer.name} hosts"
                seen += flat or meet(node, peer)
        others = [peer for peer in alive.values() if peer is not node]
        due = len(others) if flat else sum(meet(node, peer) for peer in others)
        return None if seen == due else f"sees {seen} of {due}"


def inconsistency(
    node: NodeId, views: Sequence[PeerView], everybody: Iterable[NodeId]
) -> str | None:
    """What makes no sense in a node's `peers()`, if anything does."""
    ids = [view.node for view in views]
    if len(dict.fromkeys(ids)) != len(ids):
        return "a node is listed twice"
    if [view.node for view in views if view.state == "self"] != [node]:
        return "it does not list itself exactly once"
    known = dict.fromkeys(everybody)
    for view in views:
        if view.node not in known:
            return f"{view.node} exists nowhere"
        if view.state not in _STATES:
            return f"state {view.state!r}"
        if view.heard_ms is not None and view.heard_ms < 0:
            return f"{view.name} was heard in the future"
        if view.rtt_ms is not None and view.rtt_ms < 0:
            return f"{view.name} answers before it is asked"
    return None
