"""`/mesh/tasks`, `/mesh/tasks/{id}` and `/mesh/usage`: the mesh's journals and its ledger.

Journals stay where they are written: other members are asked for theirs where a task is not known
here, or all are wanted. The ledger is the whole mesh's, as far as it has come here.
"""

from __future__ import annotations

from itertools import islice

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from meshslm import state_limits
from meshslm.api.decode import bad_request
from meshslm.api.history import (
    TASKS,
    USAGE,
    TaskHistory,
    TasksReply,
    TaskStep,
    UsageReply,
    UsageRow,
)
from meshslm.core.chronicle import DAY_MS, day_of, entered_at, history, read_events, tasks, usage
from meshslm.core.state_events import HistoryFound
from meshslm.gateway.memory import SharedState, number_of, shared
from meshslm.gateway.replies import json_reply

SHOWN = 50
"""Tasks in one answer, unless told otherwise."""

TASK_BYTES = 128
"""No task's name is longer."""


class HistoryPages:
    """The routes."""

    def __init__(self, state: SharedState | None) -> None:
        self._state = state

    def routes(self) -> list[Route]:
        """For the application's list."""
        return [
            Route(TASKS, self.tasks, methods=["GET"]),
            Route(TASKS + "/{task}", self.task, methods=["GET"]),
            Route(USAGE, self.usage, methods=["GET"]),
        ]

    async def tasks(self, request: Request) -> Response:
        """The newest tasks; `state` picks those whose last event is of that kind."""
        state = shared(self._state)
        most = number_of(request, "limit") or SHOWN
        if not 1 <= most <= state_limits.MEMORY_PAGE or request.query_params.get("limit") == "0":
            raise bad_request(f"'limit' is 1 to {state_limits.MEMORY_PAGE}.", "limit")
        wanted = request.query_params.get("state", "")
        if len(wanted) > 32:
            raise bad_request("No state has more than 32 characters.", "state")
        documents = state.documents
        here = (
            _history(task, events, entered_at(documents, task) or documents.node)
            for task, events in tasks(documents)
            if not wanted or events[-1].kind == wanted
        )
        found = list(islice(here, most))
        if request.query_params.get("mesh") != "true":
            return json_reply(TasksReply(tasks=found))
        elsewhere = await state.past(limit=min(most, state_limits.HISTORY_TASKS), state=wanted)
        known = {one.task for one in found}
        found += [one for one in _told(elsewhere) if one.task not in known]
        found.sort(key=lambda one: -one.events[0].at_ms)
        return json_reply(TasksReply(tasks=found[:most], silent=list(elsewhere.silent)))

    async def task(self, request: Request) -> Response:
        """One task, wherever in the mesh it entered."""
        name, state = request.path_params["task"], shared(self._state)
        events = history(state.documents, name)
        if events:
            entered = entered_at(state.documents, name) or state.documents.node
            return json_reply(_history(name, events, entered))
        if not name.isprintable() or len(name.encode()) > TASK_BYTES:
            raise HTTPException(404, "That is no name of a task.")
        elsewhere = await state.past(name)
        for found in _told(elsewhere):
            return json_reply(found)
        why = "No member that answers knows such a task; journals are kept for seven days."
        if elsewhere.silent:
            why += f" {len(elsewhere.silent)} did not answer."
        raise HTTPException(404, why)

    async def usage(self, request: Request) -> Response:
        """The ledger of the last `days`, today among them."""
        state = shared(self._state)
        count = number_of(request, "days")
        if count is not None and not 1 <= count <= state_limits.USAGE_DAYS:
            raise bad_request(f"'days' is 1 to {state_limits.USAGE_DAYS}.", "days")
        now = state.now_ms()
        days = [day_of(now - back * DAY_MS) for back in range((count or 1) - 1, -1, -1)]
        rows = [
            UsageRow(
                day=used.day,
                tenant=used.tenant,
                model=used.model,
                node=used.node,
                **{name: getattr(used.sums, name) for name in used.sums.__struct_fields__},
            )
            for used in usage(state.documents, days)
        ]
        return json_reply(UsageReply(days=days, rows=rows))


def _history(task: str, events: list[TaskStep], node: str) -> TaskHistory:
    return TaskHistory(task=task, state=events[-1].kind, events=events, node=node)


def _told(elsewhere: HistoryFound) -> list[TaskHistory]:
    """What other members have told; what does not read as a history is left out."""
    read = ((past, read_events(past.events)) for past in elsewhere.found)
    return [_history(past.task, events, past.node) for past, events in read if events]
