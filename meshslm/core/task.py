"""A task that entered at this node: the client's question, and how far its answer is."""

from __future__ import annotations

from dataclasses import dataclass, field

from meshslm import limits
from meshslm.core.candidates import Candidate, Verdict
from meshslm.core.continuation import Delivered, Pace
from meshslm.core.events import RouteChosen
from meshslm.core.serving import Item
from meshslm.errors import FaultCode
from meshslm.ids import Instant, NodeId, TaskId, ms_between
from meshslm.wire.messages import TaskFailed, TaskRefused, TaskRequest, TaskSubmit


@dataclass(slots=True)
class Fault:
    """The newest reason why a task has no answer yet."""

    code: FaultCode
    detail: str
    retry_after_ms: int = 0
    param: str = ""
    wait_ms: float = 0.0
    """The node is well, and sent the task on as it would wait there for so long."""


@dataclass(frozen=True, slots=True)
class Hedge:
    """A second node that was asked because the first is late."""

    candidate: Candidate
    submit: TaskSubmit
    reason: str


@dataclass(slots=True)
class Task:
    """One question of a local client."""

    task: TaskId
    request: TaskRequest
    deadline: Instant
    attempt: int = 0
    numbers: int = 0
    """Highest number that a second node's attempt took."""
    hedge: Hedge | None = None
    asked: Instant | None = None
    """When its first node was asked, while it is of interest how long that takes."""
    node: NodeId | None = None
    former: Candidate | None = None
    """Whom the present or last attempt went to."""
    submit: TaskSubmit | None = None
    heard: Instant = Instant(0)
    flowed: Instant = Instant(0)
    """When the last item came."""
    accepted: bool = False
    next_seq: int = 0
    known_items: int = 0
    """Items that the stream is known to have."""
    asked_to: int = 0
    """Items before this one were asked for again."""
    filled: Instant = Instant(0)
    """When the last item came that was missing, or was here already."""
    held: dict[int, Item] = field(default_factory=dict)
    tried: list[NodeId] = field(default_factory=list)
    sent_on: list[NodeId] = field(default_factory=list)
    """By whom, as it would have waited there."""
    rounds: int = 0
    fault: Fault | None = None
    begun: bool = False
    """The client has something already."""
    pace: Pace = field(default_factory=Pace)
    delivered: Delivered = field(init=False)

    def __post_init__(self) -> None:
        self.delivered = Delivered(self.request)

    def reason(self, fault: Fault) -> Fault:
        """Why it has no answer yet: an attempt's fault, or what broke off an answer before that.

        A node that has no room for what was delivered says nothing of others, nor of the request,
        which the first one took.
        """
        no_room = fault.code is FaultCode.CONTEXT_OVERFLOW or fault.param == "delivered"
        was_to_go_on = self.begun and not self.next_seq
        return self.fault if no_room and was_to_go_on and self.fault is not None else fault

    def in_vain(self, fault: Fault) -> bool:
        """Whether asking the same once more would not help.

        A stream that was sent away is not to come back to its node. An upstream that refuses does
        so again, and one that breaks off may be paid for each time.
        """
        if self.former is not None and self.former.upstream:
            return fault.code is FaultCode.NOT_READY or self.rounds >= limits.UPSTREAM_ROUNDS
        return self.begun and fault.code is FaultCode.NOT_READY

    @property
    def probe_ms(self) -> int:
        """How long its stream may be silent until it is asked for more."""
        flows = self.next_seq and self.delivered.ways
        return limits.STREAM_PROBE_MS if flows else limits.STALL_PROBE_MS

    def fills(self, seq: int, now: Instant) -> bool:
        """Whether an item that came is the one that is next."""
        if seq <= self.next_seq:
            self.filled = now
        return seq == self.next_seq

    def comes(self, now: Instant) -> bool:
        """What was asked for again is coming in, so that to ask once more would only fill a wire.

        A slow one would soon carry the same items again and again, and nothing else.
        """
        return self.next_seq < self.asked_to and ms_between(self.filled, now) < limits.GAP_MS

    def turn_to(self, candidate: Candidate, submit: TaskSubmit, now: Instant) -> None:
        """Its answer comes from this candidate from now on: of its stream there is nothing yet."""
        self.former, self.node = candidate, candidate.node
        self.submit, self.attempt = submit, submit.attempt
        self.accepted = False
        self.next_seq = self.known_items = self.asked_to = 0
        self.held = {}
        self.heard = self.flowed = now
        self.pace = Pace()


def submission(
    task: Task, verdict: Verdict, request: TaskRequest, now: Instant, *, fresh: bool
) -> TaskSubmit:
    """What to ask the node of a verdict for; `fresh`: the answer has not begun yet."""
    patient = fresh and task.attempt <= limits.PATIENT_ATTEMPTS
    return TaskSubmit(
        task.task,
        task.attempt,
        verdict.candidate.specialist.profile,
        request,
        max(1, int(ms_between(now, task.deadline))),
        min(limits.DEADLINE_MS, int(verdict.patience_ms)) if patient else 0,
    )


def route_chosen(
    candidate: Candidate, submit: TaskSubmit, reason: str, continued: str = ""
) -> RouteChosen:
    """What the client hears of who answers now."""
    specialist = candidate.specialist
    return RouteChosen(
        submit.task,
        candidate.node,
        candidate.node_name,
        specialist.profile,
        specialist.model,
        specialist.digest,
        reason,
        submit.attempt,
        continued,
    )


@dataclass(slots=True)
class Counts:
    """What became of the tasks so far."""

    arrived: int = 0
    finished: int = 0
    failed: int = 0
    cancelled: int = 0
    retried: int = 0
    continued: int = 0
    """Went on elsewhere after their first token."""
    hedged: int = 0
    """Asked of a second node too, as the first was late."""
    hedges_won: int = 0
    """Answered by that one."""


def fault_of(told: TaskRefused | TaskFailed) -> Fault:
    """A fault from the wire; a code from a later version counts as a bug over there."""
    param, wait_ms = "", 0.0
    if isinstance(told, TaskFailed):
        param = told.param
    else:
        wait_ms = told.wait_ms
    try:
        return Fault(FaultCode(told.code), told.detail, told.retry_after_ms, param, wait_ms)
    except ValueError:
        return Fault(FaultCode.INTERNAL, f"{told.code}: {told.detail}", told.retry_after_ms)
