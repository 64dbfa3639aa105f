"""What requests of every family have in common: whom to ask, on whose behalf, how to choose tokens.

Rules:
- A field that nobody knows is ignored, as clients send ever new ones. A known field that would
  change the answer and is not served is refused by name: silence would be a wrong answer.
- Two fields that say the same thing differently are refused, never one of them preferred.
- Bounds of single fields stand in their types; `check_...` methods hold those between fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from meshslm import limits
from meshslm.api.decode import bad_request
from meshslm.api.fields import (
    Bias,
    Penalty,
    Probability,
    check_biases,
    check_bytes,
    check_choice,
    refuse_if_set,
)
from meshslm.api.routing import RoutingShape

INTERACTIVE = "interactive"
BACKGROUND = "background"

# OpenAI's and Anthropic's words. `flex` is slower and cheaper there, which is what background is.
_TIERS = {
    "auto": None,
    "default": None,
    "priority": INTERACTIVE,
    "fast": INTERACTIVE,
    "scale": None,
    "standard_only": None,
    "flex": BACKGROUND,
}

EFFORTS = {
    "none": "",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}
"""`reasoning_effort`, and what templates that know one are told."""


class Wanted(msgspec.Struct, kw_only=True):
    """Whom to ask, on whose behalf, and how long it may take."""

    model: str
    deadline_ms: Annotated[int, Meta(ge=1, le=limits.DEADLINE_MS)] | None = None
    priority: str | None = None
    service_tier: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    routing: RoutingShape | None = None

    @property
    def urgency(self) -> str:
        """`interactive` or `background`."""
        return self.priority or _TIERS.get(self.service_tier or "auto") or INTERACTIVE

    @property
    def behalf(self) -> str:
        """Whom the client asks for; empty where it does not say."""
        return self.user or self.safety_identifier or ""

    def check_wanted(self) -> None:
        """Raises `RequestFault` where these fields do not make sense."""
        check_bytes(self.model, "model", 2 * limits.NAME_BYTES)
        if not self.model:
            raise bad_request("'model' is empty; 'auto' lets the mesh choose.", "model")
        check_choice(self.priority, "priority", (INTERACTIVE, BACKGROUND))
        check_choice(self.service_tier, "service_tier", _TIERS)
        if self.routing is not None:
            self.routing.check()
        meant = _TIERS[self.service_tier or "auto"]
        if self.priority and meant and self.priority != meant:
            raise bad_request(
                f"'priority' ({self.priority}) and 'service_tier' ({self.service_tier}) disagree; "
                "give one of them.",
                "priority",
            )


class TemplateOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Variables for the chat template, as other servers of open models take them."""

    enable_thinking: bool | None = None


@dataclass(frozen=True, slots=True)
class Thinking:
    """Whether, how hard and how long to think. `None` and empty leave it to the template."""

    on: bool | None = None
    effort: str = ""
    tokens: int | None = None


class Asked(Wanted, kw_only=True):
    """How tokens are chosen. Beside OpenAI's fields those that servers of open models take."""

    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31)] | None = None
    min_p: Probability | None = None
    repeat_penalty: Annotated[float, Meta(gt=0.0, le=10.0)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    logit_bias: dict[str, Bias] | None = None
    grammar: str | None = None
    """GBNF, llama.cpp's notation."""
    adapter: str | None = None
    lora: Any = None
    # Of conversations with models that can think and call functions.
    chat_template_kwargs: TemplateOptions | None = None
    enable_thinking: bool | None = None
    thinking_budget: Annotated[int, Meta(ge=0, le=limits.MAX_TOKENS)] | None = None
    parallel_tool_calls: bool | None = None

    @property
    def biases(self) -> tuple[tuple[int, float], ...]:
        """`logit_bias` with its keys as the token ids they stand for."""
        return tuple((int(token), bias) for token, bias in (self.logit_bias or {}).items())

    def check_asked(self) -> None:
        """Raises `RequestFault` where these fields do not make sense."""
        self.check_wanted()
        check_biases(self.logit_bias or {})
        check_bytes(self.grammar or "", "grammar", limits.SCHEMA_BYTES)
        check_bytes(self.adapter or "", "adapter", limits.NAME_BYTES)
        if self.lora not in (None, []):
            raise bad_request("'lora' is not served; name the one adapter in 'adapter'.", "lora")

    def thought(self, effort: str | None, name: str) -> Thinking:
        """How to think; `effort` stands in the request's field `name`.

        Raises `RequestFault` where the fields contradict each other.
        """
        check_choice(effort, name, EFFORTS)
        options = self.chat_template_kwargs or TemplateOptions()
        told = {
            "enable_thinking": self.enable_thinking,
            "chat_template_kwargs.enable_thinking": options.enable_thinking,
            name: None if effort is None else effort != "none",
            "thinking_budget": None if self.thinking_budget is None else self.thinking_budget > 0,
        }
        said = {field: on for field, on in told.items() if on is not None}
        if len(set(said.values())) > 1:
            off = next(field for field, on in said.items() if not on)
            on = next(field for field, on in said.items() if on)
            raise bad_request(f"'{off}' says not to think, and '{on}' says how.", off)
        # How hard and how long do not say whether: a model that cannot think may ignore them.
        whether = next((on for field, on in said.items() if not on or "enable" in field), None)
        return Thinking(whether, EFFORTS.get(effort or "none", ""), self.thinking_budget)


def refuse_unserved(asked: object, names: tuple[str, ...]) -> None:
    """Raises `RequestFault` where one of these fields asks for something."""
    for name in names:
        refuse_if_set(name, getattr(asked, name))


def check_budget(*, answers: int, most: int | None, name: str) -> None:
    """Raises `RequestFault` where all answers of a request may have too many tokens together."""
    if most is not None and answers * most > limits.REQUEST_TOKENS:
        raise bad_request(
            f"{answers} answers of up to {most} tokens are {answers * most} tokens; "
            f"one request may ask for {limits.REQUEST_TOKENS}.",
            name,
        )
