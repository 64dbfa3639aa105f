"""How hard a request is, as an estimate in 0..1 with its reasons.

It adds up signs that can be seen without a model: how much there is to read and to write, how many
things are asked for, words of those who want a proof, a design or a comparison, and what form the
answer must have. The weights are a judgement, set on the labelled requests of the benchmark; a
threshold decides what follows from the estimate (`core.route_facts`).

Rules:
- Head and tail of a text are looked at, so a huge one costs no more than a long one.
- Each sign counts once and says why in a few words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from meshslm.core.classify import sample
from meshslm.wire.messages import TaskRequest

DEEP: Final = re.compile(
    r"\b(prove|proof|deriv|demonstrate that|design|architect|refactor|optimi[sz]|trade-?offs?|"
    r"analy[sz]|critique|evaluat|algorithm|theorem|differential|concurren|root cause|post-mortem|"
    r"strategy|step[- ]by[- ]step|in depth|thorough|rigorous|"
    r"beweis|herleit|entwirf|entwerf|analysier|optimier|schritt für schritt|ausführlich|"
    r"démontr|prouv|conç|concev|analys|approfondi|étape par étape|"
    r"demuestr|demostr|diseñ|analiza|paso a paso|dimostr|progett|passo passo|projet|prove que|"
    r"докаж|доказ|спроектир|проанализир|пошагов)|证明|推导|设计|分析|详细|証明|設計|分析して|詳しく",
    re.IGNORECASE,
)
WEIGH: Final = re.compile(
    r"\b(why|how (?:does|do|can|would|should)|compar|difference|explain|plan|consequence|which of|"
    r"pros and cons|instead of|depends?|warum|wieso|vergleich|unterschied|erklär|plane|abwäg|"
    r"pourquoi|différence|expliqu|compare|por qué|diferencia|explica|perché|spiega|differenz|"
    r"por que|diferença|почему|сравн|объясн|разниц)|为什么|区别|比较|解释|なぜ|違い|説明",
    re.IGNORECASE,
)
ITEMS: Final = re.compile(
    r"[?;\uff1f\uff1b]|\n\s*(?:[-*•]|\d+[.)])\s|,? (?:and|und|et|y|e) (?=how|wh|in|qu|c)"
)
CODE: Final = re.compile(
    r"```|[{};]\s*(?:\n|$)|\b(?:def|class|function|public|SELECT|import)\b .*[({:=]"
)
MATHS: Final = re.compile(r"[∫∑∂√≤≥≠∞]|\^\s*\d|\b\d+\s*[-+*/=]\s*\d|\\frac")

READ_CHARACTERS: Final = 1024
"""Looked at for words, half from the head and half from the tail."""
LONG_CHARACTERS: Final = 1200
"""From here on a prompt's length counts in full: some 300 tokens."""
LONG_ANSWER_TOKENS: Final = 2000


@dataclass(frozen=True, slots=True)
class Complexity:
    """An estimate, and the signs that it is the sum of, the weightiest first."""

    value: float
    """In 0..1."""
    reasons: tuple[tuple[str, float], ...]


def complexity_of(request: TaskRequest) -> Complexity:
    """How hard a request is."""
    turns = [turn.content for turn in request.messages if turn.role == "user"]
    whole = turns[-1] if turns else request.prompt
    text = sample(whole, READ_CHARACTERS)
    deep = len(dict.fromkeys(word.casefold() for word in DEEP.findall(text)))
    items = len(ITEMS.findall(text))
    signs = {
        "a long prompt": 0.22 * min(1.0, len(whole) / LONG_CHARACTERS),
        "asks for reasoning": min(0.45, 0.3 * min(deep, 1) + 0.08 * max(0, deep - 1)),
        "asks for an explanation or a choice": 0.12 if WEIGH.search(text) else 0.0,
        "asks for several things": min(0.24, 0.06 * max(0, items - 1)),
        "has code in it": 0.1 if CODE.search(text) else 0.0,
        "has formulas in it": 0.08 if MATHS.search(text) else 0.0,
        "a long answer is allowed for": 0.06 * min(1.0, request.max_tokens / LONG_ANSWER_TOKENS),
        "a schema or grammar": 0.08 if request.constraint is not None else 0.0,
        "tools to call": 0.15 if request.tools and request.tool_choice != "none" else 0.0,
        "a conversation of many turns": 0.1 * min(1.0, max(0, len(turns) - 2) / 8),
        "effort asked for": {"medium": 0.2, "high": 0.5}.get(request.reasoning_effort, 0.0),
    }
    counted = [(why, weight) for why, weight in signs.items() if weight >= 0.005]
    counted.sort(key=lambda entry: -entry[1])
    return Complexity(min(1.0, sum(weight for _, weight in counted)), tuple(counted))
