"""What an origin says to the nodes that serve it, and to this node's own serving without the link.

Rules:
- Own runs are asked for and cancelled by a call: nothing of them is encoded, lost or resent.
- A stream nobody here follows is cancelled where it comes from, and forgotten where it has ended.
"""

from __future__ import annotations

from meshslm.core.events import Lane
from meshslm.core.outbox import Outbox
from meshslm.core.serving import Reply, Serving
from meshslm.ids import Instant, NodeId, TaskId
from meshslm.wire.messages import (
    TaskAccepted,
    TaskCancel,
    TaskChunk,
    TaskDone,
    TaskRefused,
    TaskResend,
    TaskSubmit,
)


class Calls:
    """The origin's side of every stream."""

    __slots__ = ("_node", "_out", "_serving")

    def __init__(self, node: NodeId, serving: Serving, out: Outbox) -> None:
        self._node = node
        self._serving = serving
        self._out = out

    def submit(self, to: NodeId, submit: TaskSubmit, now: Instant) -> None:
        """Ask for a run."""
        if to == self._node:
            self._serving.submit(to, submit, now)
        else:
            self._out.send(to, Lane.INTERACTIVE, submit)

    def cancel(self, to: NodeId, task: TaskId, attempt: int, now: Instant) -> None:
        """The answer is not wanted any more."""
        cancel = TaskCancel(task, attempt)
        if to == self._node:
            self._serving.cancel(to, cancel, now)
        else:
            self._out.send(to, Lane.INTERACTIVE, cancel)

    def done(self, to: NodeId, task: TaskId, attempt: int) -> None:
        """Everything is here."""
        if to != self._node:
            self._out.send(to, Lane.INTERACTIVE, TaskDone(task, attempt))

    def ask_again(self, to: NodeId, task: TaskId, attempt: int, seq: int) -> None:
        """Items from `seq` are missing, or nothing came for a while."""
        if to != self._node:
            self._out.send(to, Lane.INTERACTIVE, TaskResend(task, attempt, seq))

    def stale(self, node: NodeId, reply: Reply, now: Instant) -> None:
        """Somebody still works on what nobody here waits for."""
        if node == self._node:
            return
        if isinstance(reply, TaskAccepted | TaskChunk):
            self.cancel(node, reply.task, reply.attempt, now)
        elif not isinstance(reply, TaskRefused):
            self.done(node, reply.task, reply.attempt)
