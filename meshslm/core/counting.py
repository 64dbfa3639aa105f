"""What became of this node's tasks and runs, in numbers that can be seen."""

from __future__ import annotations

from meshslm.core.origin import Origin
from meshslm.core.serving import Serving
from meshslm.core.views import TaskCounts


def task_counts(origin: Origin, serving: Serving) -> TaskCounts:
    """All of it, since this node's start."""
    counts = origin.counts
    return TaskCounts(
        arrived=counts.arrived,
        finished=counts.finished,
        failed=counts.failed,
        cancelled=counts.cancelled,
        active=origin.active,
        retried=counts.retried,
        continued=counts.continued,
        hedged=counts.hedged,
        hedges_won=counts.hedges_won,
        served=serving.served,
        refused=serving.refused,
    )
