"""What is known of a task while a client waits for it: who answers, and the times so far.

Header values are made here, because names in them come from peers: whatever they contain, a header
stays one line of printable ASCII.
"""

from __future__ import annotations

from urllib.parse import quote

from meshslm.api.openai_responses import (
    CascadeInfo,
    CompletionTokensDetails,
    CompletionUsage,
    PromptTokensDetails,
    RouteInfo,
)
from meshslm.api.recall import Citation
from meshslm.core.events import RouteChosen
from meshslm.wire.messages import Timings, Usage

# Printable ASCII stands for itself, except what would start a percent escape.
_AS_IT_IS = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


class Told:
    """The route and the times of one request. `arrived_s` is in seconds of the loop's clock.

    Where a request is several tasks, the first that has a route stands for all.
    """

    def __init__(self, arrived_s: float) -> None:
        self.arrived_s = arrived_s
        self.route: RouteChosen | None = None
        self.ttft_ms: float | None = None
        self.queue_ms: float | None = None
        self._routes = 0
        self.citations: list[Citation] = []
        self.cascade: CascadeInfo | None = None

    def chosen(self, route: RouteChosen) -> None:
        """Note who is going to answer."""
        if self.route is not None and self.route.task != route.task:
            return
        self.route = route
        self._routes += 1

    def first_token(self, now_s: float, queue_ms: float) -> float:
        """Note that the first token is here; the time it took, in milliseconds.

        `queue_ms` is the part of it that the serving node was busy with others.
        """
        self.ttft_ms = (now_s - self.arrived_s) * 1000
        self.queue_ms = queue_ms
        return self.ttft_ms

    @property
    def model(self) -> str:
        """The base model that answers; empty before there is a route."""
        return self.route.model if self.route else ""

    @property
    def fingerprint(self) -> str | None:
        """Names the file that the tokens come from: the same one gives the same tokens."""
        return f"fp_{self.route.digest[:12]}" if self.route and self.route.digest else None

    def info(self, timings: Timings) -> RouteInfo | None:
        """All of it, for the body."""
        if self.route is None:
            return None
        return RouteInfo(
            node=self.route.node,
            node_name=self.route.node_name,
            model=self.route.model,
            profile=self.route.profile,
            route=self.route.reason,
            attempts=self._attempts,
            continued=self.route.continued,
            ttft_ms=None if self.ttft_ms is None else round(self.ttft_ms, 3),
            queue_ms=round(timings.queue_ms, 3),
            prefill_ms=round(timings.prefill_ms, 3),
            decode_ms=round(timings.decode_ms, 3),
            memory=self.citations,
            cascade=self.cascade,
        )

    def headers(self) -> dict[str, str]:
        """Response headers, with what is known so far."""
        headers: dict[str, str] = {}
        if self.route is not None:
            headers["x-meshslm-node"] = printable(self.route.node)
            headers["x-meshslm-node-name"] = printable(self.route.node_name)
            headers["x-meshslm-model"] = printable(self.route.model)
            headers["x-meshslm-profile"] = printable(self.route.profile)
            headers["x-meshslm-route"] = printable(self.route.reason)
            headers["x-meshslm-attempts"] = str(self._attempts)
            if self.route.continued:
                headers["x-meshslm-continued"] = self.route.continued
        if self.cascade is not None:
            headers["x-meshslm-cascade"] = printable(_steps(self.cascade))
        if self.ttft_ms is not None:
            headers["x-meshslm-ttft-ms"] = f"{self.ttft_ms:.1f}"
        if self.queue_ms is not None:
            headers["x-meshslm-queue-ms"] = f"{self.queue_ms:.1f}"
        return headers

    @property
    def _attempts(self) -> int:
        # An attempt that was refused before its route was told still counts in the number.
        return max(self._routes, self.route.attempt if self.route else 0)


def _steps(cascade: CascadeInfo) -> str:
    """Who was asked one after the other, and how sure each was."""
    told = []
    for step in cascade.steps:
        sure = "" if step.confidence is None else f" {step.confidence:.2f}"
        told.append(f"{step.profile}{sure}" + (f" ({step.why_not[:80]})" if step.why_not else ""))
    return " > ".join(told)


def printable(value: str) -> str:
    """`value` as a header value: anything but printable ASCII percent-encoded."""
    return quote(value, safe=_AS_IT_IS).strip()


def usage_shape(usage: Usage, reasoning_tokens: int = 0) -> CompletionUsage:
    """Token counts in OpenAI's shape."""
    return CompletionUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.cached_tokens),
        completion_tokens_details=CompletionTokensDetails(
            reasoning_tokens=reasoning_tokens,
            accepted_prediction_tokens=usage.accepted_tokens,
            rejected_prediction_tokens=max(0, usage.guessed_tokens - usage.accepted_tokens),
        ),
    )
