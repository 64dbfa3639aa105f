"""What became of tasks, and what they used: the journal and the ledger of one node. Pure.

The journal has each task that entered at this node as a list of events, from its arrival to its
end. It is one entry of the day's document, which grows until the task ends; texts are not in it
unless they are asked for. The ledger adds up what tasks used, by day, tenant and model.

| document | key | value |
|---|---|---|
| `journal/DAY` | id of the task | JSON: a list of events |
| `ledger/DAY` | `TENANT␟MODEL␟BOOT` | JSON: the sums of that life of its author |

Rules:
- A sum only grows. Each life of each node has sums of its own, and readers add them: a node that
  comes back with an old store goes on beside what it counted before.
- What changed is handed out once, as the changes that write it; the caller makes it durable.
- Tasks under way are bounded by the origin. Of ended ones as many are kept as a journal holds, here
  and in its document: the oldest make room.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from meshslm import state_limits
from meshslm.api.history import TaskStep
from meshslm.core.events import FailTask, FinishTask, RouteChosen
from meshslm.core.memory import BEHIND
from meshslm.core.readable import Readable
from meshslm.core.state_events import Change
from meshslm.errors import UNREADABLE
from meshslm.ids import NodeId, TaskId
from meshslm.state.entry import Entry
from meshslm.state.names import DocumentClass, named
from meshslm.wire.messages import TaskRequest

Ending = FinishTask | FailTask
DAY_MS = 86_400_000
TEXT_CHARS = 4_000
"""Of a prompt, where prompts are kept."""


class Sums(msgspec.Struct, omit_defaults=True):
    """What was used; all of it grows only."""

    requests: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    ms: int = 0
    """From arrival to end, over all requests."""

    def add(self, other: Sums) -> None:
        """Count another's, too."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


_events = msgspec.json.Decoder(list[TaskStep])
_sums = msgspec.json.Decoder(Sums)
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class _Task:
    day: str
    tenant: str
    model: str = ""
    events: list[TaskStep] = field(default_factory=list)


class Chronicle:
    """What is to be written about the tasks of one life of a node."""

    def __init__(self, boot: int, *, texts: bool = False) -> None:
        """`texts`: prompts are kept in the journal."""
        self._boot = boot
        self._texts = texts
        self._tasks: dict[TaskId, _Task] = {}
        self._changed: dict[TaskId, _Task] = {}
        self._ledger: dict[tuple[str, str, str], Sums] = {}
        self._owed: dict[tuple[str, str, str], Sums] = {}
        self._kept: dict[str, dict[str, None]] = {}
        """Tasks in the journal of each day, in the order they came."""

    @property
    def waiting(self) -> bool:
        """There is something to write."""
        return bool(self._changed or self._owed)

    def knows(self, day: str, tasks: Iterable[str]) -> None:
        """An earlier life wrote these into the journal of a day, in this order."""
        self._kept[day] = {**dict.fromkeys(tasks), **self._kept.get(day, {})}

    def arrived(self, task: TaskId, request: TaskRequest, unix_ms: int) -> None:
        """A task entered here."""
        event = TaskStep(
            unix_ms,
            "admitted",
            selector=request.selector,
            operation=request.operation,
            priority=request.priority,
            tenant=request.tenant,
            text=_text(request) if self._texts else "",
        )
        self._tasks[task] = _Task(day_of(unix_ms), request.tenant)
        self._note(task, event)

    def routed(self, route: RouteChosen, unix_ms: int) -> None:
        """Somebody was chosen, or another instead."""
        known = self._tasks.get(route.task)
        if known is None:
            return
        moved = any(event.kind in ("routed", "moved", "continued") for event in known.events)
        kind = "continued" if route.continued else "moved" if moved else "routed"
        known.model = route.model
        event = TaskStep(
            unix_ms,
            kind,
            node=route.node,
            node_name=route.node_name,
            profile=route.profile,
            model=route.model,
            attempt=route.attempt,
            reason=route.reason,
        )
        self._note(route.task, event)

    def ended(self, ending: Ending, unix_ms: int) -> None:
        """A task ended, with its answer or without."""
        if isinstance(ending, FinishTask):
            usage = ending.usage
            used = (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)
            event = TaskStep(
                unix_ms,
                "finished",
                prompt_tokens=used[0],
                completion_tokens=used[1],
                cached_tokens=used[2],
            )
            self._end(ending.task, event, Sums(1, 0, *used))
        else:
            event = TaskStep(unix_ms, "failed", code=ending.code.value, reason=ending.detail[:500])
            self._end(ending.task, event, Sums(1, 1))

    def dropped(self, task: TaskId, unix_ms: int) -> None:
        """Its client left."""
        self._end(task, TaskStep(unix_ms, "dropped"), Sums(1, 1))

    def _end(self, task: TaskId, event: TaskStep, sums: Sums) -> None:
        known = self._tasks.get(task)
        if known is None:
            return
        self._note(task, event)
        del self._tasks[task]
        sums.ms = max(0, event.at_ms - known.events[0].at_ms)
        key = (day_of(event.at_ms), known.tenant, known.model)
        if key not in self._ledger:
            self._forget_before(key[0])
            self._ledger[key] = Sums()
        self._ledger[key].add(sums)
        self._owed[key] = self._ledger[key]

    def _note(self, task: TaskId, event: TaskStep) -> None:
        known = self._tasks[task]
        if len(known.events) >= state_limits.TASK_EVENTS:
            del known.events[1]  # how it arrived is kept, and its last steps
        known.events.append(event)
        if task not in self._changed and len(self._changed) >= state_limits.JOURNAL_TASKS:
            del self._changed[next(iter(self._changed))]  # nothing could be written for long
        self._changed[task] = known

    def _forget_before(self, day: str) -> None:
        """Days that are over are not counted any more; their sums are written."""
        self._ledger = {
            key: sums for key, sums in self._ledger.items() if key[0] >= day or key in self._owed
        }
        self._kept = {known: tasks for known, tasks in self._kept.items() if known >= day}

    def take(self) -> dict[str, tuple[Change, ...]]:
        """What is to be written now, by document, as far as one write can hold."""
        changes: dict[str, list[Change]] = defaultdict(list)
        room = state_limits.UPDATE_BYTES // 2
        changed = list(self._changed.items())[: state_limits.UPDATE_CHANGES // 4]
        for task, known in changed:
            value = _encode(known.events)
            room -= len(value) + 100
            if room < 0 and changes:
                break
            journal = changes[named(DocumentClass.JOURNAL, known.day)]
            journal.append(Change(task, value))
            del self._changed[task]
            kept = self._kept.setdefault(known.day, {})
            kept[task] = None
            if len(kept) > state_limits.JOURNAL_TASKS:
                oldest = next(iter(kept))
                del kept[oldest]
                journal.append(Change(oldest, None))
        for key, sums in list(self._owed.items())[: state_limits.UPDATE_CHANGES // 4]:
            day, tenant, model = key
            name = BEHIND.join((tenant, model[:96], str(self._boot)))
            changes[named(DocumentClass.LEDGER, day)].append(Change(name, _encode(sums)))
            del self._owed[key]
        return {document: tuple(each) for document, each in changes.items()}


# --- reading ------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Used:
    """What one tenant used of one model on one day, through one node."""

    day: str
    tenant: str
    model: str
    node: NodeId
    sums: Sums


def usage(documents: Readable, days: Iterable[str]) -> Iterator[Used]:
    """The ledger of these days; sums of several lives of a node are added."""
    for day in days:
        document = named(DocumentClass.LEDGER, day)
        found: dict[tuple[str, str, NodeId], Sums] = {}
        for key in tuple(documents.keys(document)):
            parts = key.split(BEHIND)
            if len(parts) != 3:
                continue
            for author, entry in documents.each(document, key):
                sums = _read_sums(entry)
                if sums is not None:
                    found.setdefault((parts[0], parts[1], author), Sums()).add(sums)
        for (tenant, model, node), sums in sorted(found.items(), key=lambda item: item[0]):
            yield Used(day, tenant, model, node, sums)


def history(documents: Readable, task: str, node: NodeId | None = None) -> list[TaskStep]:
    """The events of one task, if it entered at `node` where that is given; none: not known."""
    for name in reversed(documents.names(f"{DocumentClass.JOURNAL}/")):
        entry = documents.read(name, task)
        if entry is not None and node in (None, documents.author(name, task)):
            return read_events(entry.value)
    return []


def entered_at(documents: Readable, task: str) -> NodeId | None:
    """Whose journal has a task; of a node that keeps others' journals too that may be another's."""
    names = reversed(documents.names(f"{DocumentClass.JOURNAL}/"))
    return next((node for name in names if (node := documents.author(name, task))), None)


def latest(
    documents: Readable, node: NodeId, most: int, state: str = ""
) -> list[tuple[str, list[TaskStep]]]:
    """The newest tasks that entered at `node`, by when they were written; bounded work each."""
    found: list[tuple[str, list[TaskStep]]] = []
    for name in reversed(documents.names(f"{DocumentClass.JOURNAL}/")):
        entries = ((key, documents.read(name, key)) for key in documents.keys(name))
        written = ((e.written_ms, key, e.value) for key, e in entries if e is not None)
        for _, key, value in sorted(written, reverse=True):
            if documents.author(name, key) != node:
                continue
            events = read_events(value)
            if events and state in ("", events[-1].kind):
                found.append((key, events))
            if len(found) >= most:
                return found
    return found


def without_text(events: list[TaskStep]) -> bytes:
    """Events as they are kept, without what was asked."""
    return _encode([msgspec.structs.replace(event, text="") for event in events])


def tasks(documents: Readable) -> Iterator[tuple[str, list[TaskStep]]]:
    """Tasks that entered at this node, those of the newest day first."""
    for name in reversed(documents.names(f"{DocumentClass.JOURNAL}/")):
        found = []
        for key in documents.keys(name):
            entry = documents.read(name, key)
            events = read_events(entry.value) if entry is not None else []
            if events:
                found.append((key, events))
        yield from sorted(found, key=lambda item: -item[1][0].at_ms)


def read_events(value: bytes) -> list[TaskStep]:
    """Events as they are kept; none where the entry is of another make."""
    try:
        return _events.decode(value)
    except UNREADABLE:
        return []


def _read_sums(entry: Entry) -> Sums | None:
    if entry.deleted:
        return None
    try:
        sums = _sums.decode(entry.value)
    except UNREADABLE:
        return None
    sound = all(0 <= getattr(sums, name) < 2**53 for name in sums.__struct_fields__)
    return sums if sound else None


def _text(request: TaskRequest) -> str:
    said: list[Any] = [turn.content for turn in request.messages] or [request.prompt]
    return "\n".join(said)[-TEXT_CHARS:]


# --- days ---------------------------------------------------------------------------------------
def day_of(unix_ms: int) -> str:
    """The day in UTC, such as 2026-11-22. From Hinnant's days-from-civil, without a clock."""
    days = unix_ms // DAY_MS + 719_468
    era, of_era = divmod(days, 146_097)
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    return f"{year + era * 400 + (month <= 2):04d}-{month:02d}-{day:02d}"


def day_ms(day: str) -> int:
    """When a day began, in milliseconds since 1970. `ValueError` where it is none."""
    year, month, of_month = (int(part) for part in day.split("-"))
    if not (1 <= month <= 12 and 1 <= of_month <= 31 and 1970 <= year <= 9999):
        raise ValueError(f"{day!r} is no day")
    year -= month <= 2
    era, of_era = divmod(year, 400)
    of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + of_month - 1
    days = era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
    return days * DAY_MS
