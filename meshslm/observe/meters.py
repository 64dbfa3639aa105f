"""Counts and times of one node, and their Prometheus text.

Two sources: what happens (requests, tasks, tokens) is counted here as it happens; what is (peers,
queues, speeds) is read from the core's views when somebody asks, so it can never disagree with
them.

Rules:
- A registry of its own per node: several nodes live in one process in tests and simulations.
- Label values come from bounded sets: routes, fault codes, this mesh's peers and models.
- `prometheus_client` is imported when meters are made, because the CLI must start without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from meshslm.core.consensus.view import ConsensusView
from meshslm.core.state_views import StateView
from meshslm.core.views import PeerView, StatusView
from meshslm.wire.messages import EngineLoad, Usage

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Seconds. A small model on a CPU answers its first token in 30 ms to some seconds.
_FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3, 6, 12, 30)
_DURATION_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600)

FINISHED = "finished"
"""Outcome of a task that was answered whole; otherwise it is the fault's code."""


class Meters:
    """The meters of one node."""

    def __init__(
        self,
        *,
        version: str,
        status: Callable[[], StatusView],
        peers: Callable[[], tuple[PeerView, ...]],
        consensus: Callable[[], ConsensusView] = ConsensusView,
    ) -> None:
        from prometheus_client import (  # noqa: PLC0415 - see the rules
            CollectorRegistry,
            Counter,
            Histogram,
            Info,
            ProcessCollector,
        )

        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        Info("meshslm_build", "What runs here.", registry=registry).info({"version": version})
        self._requests = Counter(
            "meshslm_http_requests",
            "HTTP requests answered, by route and status.",
            ["route", "status"],
            registry=registry,
        )
        self._tasks = Counter(
            "meshslm_tasks",
            "Tasks of this node's clients, by outcome: finished, or the fault's code.",
            ["outcome"],
            registry=registry,
        )
        self._tokens = Counter(
            "meshslm_tokens",
            "Tokens of finished tasks of this node's clients, by kind; of the completion's some "
            "were guessed, and accepted.",
            ["kind"],
            registry=registry,
        )
        self._cascades = Counter(
            "meshslm_cascades", "Answers made in steps, a small model first.", registry=registry
        )
        self._escalations = Counter(
            "meshslm_escalations",
            "Steps of such answers that were not good enough, so that a larger model was asked.",
            registry=registry,
        )
        self._saved = Counter(
            "meshslm_cascade_saved_tokens",
            "Tokens of prompts and answers that the largest model did not have to compute.",
            registry=registry,
        )
        self._first_token = Histogram(
            "meshslm_time_to_first_token_seconds",
            "From a request's arrival here to its first token here.",
            buckets=_FIRST_TOKEN_BUCKETS,
            registry=registry,
        )
        self._duration = Histogram(
            "meshslm_task_duration_seconds",
            "From a request's arrival here to the end of its task, however it ended.",
            buckets=_DURATION_BUCKETS,
            registry=registry,
        )
        registry.register(_Views(status, peers, consensus))

    def request_answered(self, route: str, status: int) -> None:
        """Count an HTTP request; `route` is its path template."""
        self._requests.labels(route, str(status)).inc()

    def first_token(self, after_ms: float) -> None:
        """Note the time to a task's first token."""
        self._first_token.observe(after_ms / 1000)

    def task_ended(self, outcome: str, duration_ms: float) -> None:
        """Count a task's end: `FINISHED`, or a fault's code."""
        self._tasks.labels(outcome).inc()
        self._duration.observe(duration_ms / 1000)

    def tokens(self, usage: Usage) -> None:
        """Count a finished task's tokens."""
        self._tokens.labels("prompt").inc(usage.prompt_tokens)
        self._tokens.labels("completion").inc(usage.completion_tokens)
        self._tokens.labels("cached").inc(usage.cached_tokens)
        self._tokens.labels("guessed").inc(usage.guessed_tokens)
        self._tokens.labels("accepted").inc(usage.accepted_tokens)

    def cascaded(self, escalations: int, saved_tokens: int) -> None:
        """Count an answer made in steps."""
        self._cascades.inc()
        self._escalations.inc(escalations)
        self._saved.inc(saved_tokens)

    def text(self) -> bytes:
        """All meters in Prometheus' text format."""
        from prometheus_client import generate_latest  # noqa: PLC0415 - see the rules

        return generate_latest(self._registry)


class _Views:
    """Reads the core's views at every scrape."""

    def __init__(
        self,
        status: Callable[[], StatusView],
        peers: Callable[[], tuple[PeerView, ...]],
        consensus: Callable[[], ConsensusView],
    ) -> None:
        self._consensus = consensus
        self._status = status
        self._peers = peers

    def describe(self) -> list[Metric]:
        """Nothing to declare: without this the registry would collect once when it is made."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The gauges as they are now."""
        status, peers = self._status(), self._peers()
        yield _gauge("uptime_seconds", "Since this boot.", [], [((), status.uptime_ms / 1000)])
        yield from _peer_gauges(peers)
        yield from _load_gauges(status.loads)
        yield from _consensus_gauges(self._consensus())
        yield from _state_gauges(status.state)
        counts = status.tasks
        yield _gauge("active_tasks", "Tasks of clients under way.", [], [((), counts.active)])
        yield _gauge("runs_served", "Runs begun here, for any node.", [], [((), counts.served)])
        yield _gauge("runs_refused", "Runs refused here.", [], [((), counts.refused)])
        yield _gauge("tasks_retried", "Attempts after a first.", [], [((), counts.retried)])
        told = "Answers gone on with elsewhere."
        yield _gauge("tasks_continued", told, [], [((), counts.continued)])
        told = "Asked of a second node, as the first was late."
        yield _gauge("tasks_hedged", told, [], [((), counts.hedged)])
        yield _gauge("hedges_won", "Answered by the second.", [], [((), counts.hedges_won)])


def _consensus_gauges(view: ConsensusView) -> Iterator[Metric]:
    """Nothing of a node that is in no group."""
    if not view.group:
        return
    leads, able = view.role == "leader", not view.trouble
    yield _gauge("consensus_leads", "This node leads.", [], [((), float(leads))])
    yield _gauge("consensus_able", "A majority can be reached.", [], [((), float(able))])
    yield _gauge("consensus_term", "Present term.", [], [((), view.term)])
    yield _gauge("consensus_committed", "Last committed entry.", [], [((), view.committed)])
    yield _gauge("consensus_decisions", "Things that are decided.", [], [((), view.decisions)])
    yield _gauge("consensus_unwritten", "Writes not yet on disk.", [], [((), view.unwritten)])


def _state_gauges(view: StateView | None) -> Iterator[Metric]:
    """Nothing of a node that keeps no documents."""
    if view is None:
        return
    able = view.ready and not view.trouble
    told = "Bytes of all documents."
    yield _gauge("state_able", "Documents can be written to.", [], [((), float(able))])
    yield _gauge("state_documents", "Shared documents here.", [], [((), view.count)])
    yield _gauge("state_live_bytes", told, [], [((), view.live_bytes)])
    told = "The same with what was written over."
    yield _gauge("state_full_bytes", told, [], [((), view.full_bytes)])
    told = "Documents that are being mended."
    yield _gauge("state_quarantined", told, [], [((), view.quarantined)])
    told = "Comparisons that found a difference."
    yield _gauge("state_divergences", told, [], [((), view.diverged)])
    yield _gauge("state_writes_waiting", "Writes not yet on disk.", [], [((), view.waiting)])


Samples = list[tuple[tuple[str, ...], float]]


def _peer_gauges(peers: tuple[PeerView, ...]) -> Iterator[Metric]:
    others = [peer for peer in peers if peer.state != "self"]
    states: dict[str, int] = {"alive": 0}
    for peer in others:
        states[peer.state] = states.get(peer.state, 0) + 1
    counts: Samples = [((state,), count) for state, count in states.items()]
    yield _gauge("peers", "Other nodes, by state.", ["state"], counts)
    rtts: Samples = [
        ((peer.node, peer.name), peer.rtt_ms / 1000) for peer in others if peer.rtt_ms is not None
    ]
    yield _gauge("peer_rtt_seconds", "Round trip to a peer.", ["peer", "name"], rtts)


def _load_gauges(loads: tuple[EngineLoad, ...]) -> Iterator[Metric]:
    def of(read: Callable[[EngineLoad], float]) -> Samples:
        return [((load.model,), read(load)) for load in loads]

    per_model = ["model"]
    yield _gauge("engine_ready", "1 where the engine takes runs.", per_model, of(lambda e: e.ready))
    yield _gauge("engine_running", "Runs in the batch.", per_model, of(lambda e: e.running))
    yield _gauge("engine_queued", "Runs waiting.", per_model, of(lambda e: e.queued))
    yield _gauge("engine_free_slots", "Runs that fit in.", per_model, of(lambda e: e.free_slots))
    yield _gauge(
        "engine_prefill_tokens_per_second",
        "Prompt tokens a second, measured; 0 while unmeasured.",
        per_model,
        of(lambda e: e.prefill_tps),
    )
    yield _gauge(
        "engine_decode_tokens_per_second",
        "Tokens a second of one stream, measured; 0 while unmeasured.",
        per_model,
        of(lambda e: e.decode_tps),
    )


def _gauge(name: str, told: str, labels: list[str], samples: Samples) -> GaugeMetricFamily:
    from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415 - see the rules

    family = GaugeMetricFamily(f"meshslm_{name}", told, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
