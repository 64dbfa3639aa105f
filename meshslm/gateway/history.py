"""`/mesh/tasks`, `/mesh/tasks/{id}` and `/mesh/usage`: this node's journal, and the mesh's ledger.

Tasks are those that entered at this node: journals stay where they are written. The ledger is the
whole mesh's, as far as it has come here.
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
from meshslm.core.chronicle import DAY_MS, day_of, history, tasks, usage
from meshslm.gateway.memory import SharedState, number_of, shared
from meshslm.gateway.replies import json_reply

SHOWN = 50
"""Tasks in one answer, unless told otherwise."""


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
        most = number_of(request, "limit")
        if most is not None and not 1 <= most <= state_limits.MEMORY_PAGE:
            raise bad_request(f"'limit' is 1 to {state_limits.MEMORY_PAGE}.", "limit")
        wanted = request.query_params.get("state", "")
        found = (
            _history(task, events)
            for task, events in tasks(shared(self._state).documents)
            if not wanted or events[-1].kind == wanted
        )
        return json_reply(TasksReply(tasks=list(islice(found, most or SHOWN))))

    async def task(self, request: Request) -> Response:
        """One task."""
        name = request.path_params["task"]
        events = history(shared(self._state).documents, name)
        if not events:
            raise HTTPException(
                404, "This node knows no such task; ask the node at which it entered."
            )
        return json_reply(_history(name, events))

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


def _history(task: str, events: list[TaskStep]) -> TaskHistory:
    return TaskHistory(task=task, state=events[-1].kind, events=events)
