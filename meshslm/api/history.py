"""What became of tasks and what they used, over HTTP: `/mesh/tasks` and `/mesh/usage`."""

from __future__ import annotations

import msgspec

TASKS = "/mesh/tasks"
USAGE = "/mesh/usage"


class TaskStep(msgspec.Struct, omit_defaults=True, frozen=True):
    """Something that happened to a task; `kind` says what the other fields are about."""

    at_ms: int
    """Milliseconds since 1970, by the clock of the node where it entered."""
    kind: str
    """`admitted`, `routed`, `moved` (another attempt), `continued` (behind its first text),
    `finished`, `failed` or `dropped` (its client left)."""
    selector: str = ""
    operation: str = ""
    priority: str = ""
    tenant: str = ""
    text: str = ""
    node: str = ""
    node_name: str = ""
    profile: str = ""
    model: str = ""
    attempt: int = 0
    reason: str = ""
    """Why it was routed there, or why it failed."""
    code: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


class TaskHistory(msgspec.Struct, kw_only=True):
    """One task, from its arrival on."""

    task: str
    state: str
    """The kind of its last event."""
    events: list[TaskStep]
    node: str = ""
    """Id of the member at which it entered."""


class TasksReply(msgspec.Struct, kw_only=True):
    """Tasks that entered at the asked node, or anywhere in its mesh, the newest first."""

    tasks: list[TaskHistory]
    silent: list[str] = []
    """Of the whole mesh: members that did not say in time what entered at them."""


class UsageRow(msgspec.Struct, kw_only=True):
    """What one tenant used of one model on one day, through one node."""

    day: str
    tenant: str
    """A hash; empty where requests named nobody."""
    model: str
    node: str
    requests: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    ms: int


class UsageReply(msgspec.Struct, kw_only=True):
    """The ledger of some days, as far as the asked node has it."""

    days: list[str]
    rows: list[UsageRow]
