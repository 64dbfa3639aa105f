"""What a request asks of the form of its answer, checked and made ready before a token is made.

From constraint, tools and thinking come: what the template is told, the grammar that the tokens
must follow, and how the text is read. All of it is a function of the request and the model, so that
a node that takes an answer over makes the same.

Rules:
- Contradictions, and what cannot be kept, are refused with the field's name.
- An answer with a schema is valid against all of it, or the schema is refused. Of a tool's schema
  what the compiler does not know is passed over: a call is better than none.
- Thoughts come before the form: they are free, and the grammar knows where they end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from meshslm.engine import tool_formats
from meshslm.engine.gbnf import GrammarFault, to_lark
from meshslm.engine.grammar import (
    Grammars,
    Matcher,
    check_schema,
    literal,
    together,
    with_options,
)
from meshslm.engine.output import THINK, THOUGHT, Reading, Thinking
from meshslm.engine.schemas import SchemaFault, read_schema
from meshslm.engine.templates import ChatTemplate, Part
from meshslm.engine.tool_formats import HERMES, ToolFormat
from meshslm.errors import FaultCode, RequestFault
from meshslm.wire.messages import Constraint, TaskRequest, Tool

EFFORTS: Final = ("", "low", "medium", "high")
NO_THOUGHTS: Final = f"{THINK}\n\n{THOUGHT}\n\n"
"""Before the answer of a model that shall not think, where its template does not say it."""
END_OF_THOUGHTS: Final = f"\n{THOUGHT}\n\n"

_OPEN: Final = ("auto", "required")
_MORE: Final = frozenset(
    {"additionalProperties", "patternProperties", "allOf", "anyOf", "oneOf", "$ref"}
)
"""Keys by which an object may have more properties than it lists."""
_ANY: Final = r"/(.|\n)*/"
_GAP: Final = r"/[ \n]{0,4}/"


@dataclass(frozen=True, slots=True)
class Form:
    """How one request's answers are bound and read."""

    reading: Reading
    matcher: Matcher | None
    """At its beginning; each choice takes a copy."""
    thinking_tokens: int | None
    """Then thoughts are ended."""


class Forms:
    """Makes forms for one model."""

    def __init__(
        self, template: ChatTemplate, grammars: Grammars, controls: Mapping[str, int]
    ) -> None:
        self._template = template
        self._grammars = grammars
        self._controls = controls

    @property
    def grammars(self) -> Grammars:
        """What compiles."""
        return self._grammars

    @staticmethod
    def check(request: TaskRequest) -> None:
        """Refuse what no model could mean. Raises `RequestFault`."""
        tool_formats.check(request)
        for place, tool in enumerate(request.tools):
            _schema(place, tool)
        _check_thinking(request)

    @staticmethod
    def options(request: TaskRequest) -> dict[str, object]:
        """Variables for the template."""
        options: dict[str, object] = {}
        if request.thinking is not None:
            options["enable_thinking"] = request.thinking
        if request.reasoning_effort:
            options["reasoning_effort"] = request.reasoning_effort
        return options

    def form(self, request: TaskRequest, prompt: list[Part]) -> Form:
        """The form of a request's answers. Raises `RequestFault`.

        `prompt` is its rendering; the end of thoughts may be put behind it.
        """
        thinking = self._thinking(request, prompt)
        tools = tool_formats.in_use(request)
        format_ = (self._template.tool_format or HERMES) if tools else None
        names = tuple(tool.name for tool in tools)
        matcher = self._matcher(request, tools, format_, thinking)
        budget = request.thinking_tokens if thinking is not Thinking.NONE else None
        return Form(Reading(thinking, format_, names), matcher, budget)

    def _thinking(self, request: TaskRequest, prompt: list[Part]) -> Thinking:
        knows = bool(request.messages) and self._template.thinks
        if request.thinking and not knows:
            raise _fault("this model's chat template knows no thinking", "enable_thinking")
        if not knows:
            return Thinking.NONE
        tail = prompt[-1].text if prompt and not prompt[-1].literal else ""
        opened = tail.rfind(THINK) > tail.rfind(THOUGHT)
        closed = tail.rstrip().endswith(THOUGHT)
        if request.thinking is False and not closed:
            prompt.append(Part(END_OF_THOUGHTS if opened else NO_THOUGHTS, literal=False))
            return Thinking.NONE
        if closed:
            return Thinking.NONE
        return Thinking.INSIDE if opened else Thinking.MAYBE

    # --- the grammar ------------------------------------------------------------------------------
    def _matcher(
        self,
        request: TaskRequest,
        tools: Sequence[Tool],
        format_: ToolFormat | None,
        thinking: Thinking,
    ) -> Matcher | None:
        if request.constraint is None and not tools:
            return None
        schemas: dict[str, dict[str, Any]] = {}
        rules: list[str] = []
        answer = ""
        if request.constraint is not None:
            answer = _constraint(request.constraint, rules, schemas)
        if format_ is None:
            body = "answer"
            rules.append(f"answer: {answer}")
        else:
            body = "reply"
            free = request.tool_choice == "auto"
            native = self._template.tool_format is not None
            calls = _Calls(request, tools, format_, self._controls, thinking, native=native)
            rules += calls.rules(schemas, answer if free else None)
        rules += self._beginning(thinking, body)
        grammar = together("\n".join(rules) + "\n", schemas)
        try:
            return self._grammars.matcher(grammar)
        except GrammarFault as fault:
            param = "tools" if request.constraint is None else "response_format"
            raise _fault(f"the form cannot be kept: {fault}", param) from fault

    def _beginning(self, thinking: Thinking, body: str) -> list[str]:
        if thinking is Thinking.NONE:
            return [f"start: {body}"]
        opening, closing = literal(THINK, self._controls), literal(THOUGHT, self._controls)
        if THOUGHT in self._controls:
            rules = [f"thoughts: THOUGHTS {closing}", f"THOUGHTS: {_ANY}"]
        else:
            rules = [r"thoughts[lazy]: /(.|\n)*<\/think>/"]
        rules.append(f"gap: {_GAP}")
        if thinking is Thinking.INSIDE:
            return [*rules, f"start: thoughts gap {body}"]
        return [*rules, f"start: (gap {opening} thoughts gap)? {body}"]


class _Calls:
    """Rules for answers that call tools."""

    def __init__(
        self,
        request: TaskRequest,
        tools: Sequence[Tool],
        format_: ToolFormat,
        controls: Mapping[str, int],
        thinking: Thinking,
        *,
        native: bool,
    ) -> None:
        self._tools = tools
        self._format = format_
        self._controls = controls
        self._thinking = thinking
        # A model that was not trained on tools does not know when to stop calling them.
        self._several = request.parallel_calls and native and request.tool_choice in _OPEN

    def rules(self, schemas: dict[str, dict[str, Any]], answer: str | None) -> list[str]:
        """The rule `reply` and those it needs.

        `answer` None: it must be a call; empty: any text; else the right side of a rule that it
        must follow where it is no call.
        """
        for place, tool in enumerate(self._tools):
            schemas[f"a{place}"] = _arguments(place, tool)
        rules = self._tagged(answer) if self._format.open else self._bare(answer)
        named = [f"call_{place}" for place in range(len(self._tools))]
        return [*rules, "call: " + " | ".join(named)]

    def _repeated(self, separator: str) -> str:
        return f" ({separator} call)*" if self._several else ""

    def _tagged(self, answer: str | None) -> list[str]:
        form = self._format
        again = literal(form.between + form.open, self._controls)
        calls = "call" + self._repeated(again)
        opening = literal(form.open, self._controls)
        rules = []
        for place, tool in enumerate(self._tools):
            head = literal(f'\n{{"name": "{tool.name}", "{form.key}": ', self._controls)
            tail = literal(f"}}\n{form.close}", self._controls)
            rules.append(f"call_{place}: {head} @a{place} {tail}")
        if answer is None:
            return [*rules, f"reply: {opening} {calls}"]
        if answer:
            return [*rules, f"answer: {answer}", f"reply: answer | {opening} {calls}"]
        if form.open in self._controls:
            return [*rules, f"TEXT: {self._text()}", f"reply: TEXT ({opening} {calls})?"]
        return [
            *rules,
            f"TEXT: {self._text()}",
            f"opening[lazy]: TEXT {opening}",
            f"reply: TEXT | opening {calls}",
        ]

    def _bare(self, answer: str | None) -> list[str]:
        form = self._format
        space = r"[ \n]{0,4}"
        calls = "call" + self._repeated(r"/;[ \n]{0,4}/")
        if form.marker in self._controls:
            calls = f"(<[{self._controls[form.marker]}]>)? {calls}"
        rules = []
        for place, tool in enumerate(self._tools):
            name = tool.name.replace("/", r"\/").replace(".", r"\.")
            head = ("{", '"name"', ":", f'"{name}"', ",", f'"{form.key}"', ":")
            pattern = space.join(part if part != "{" else r"\{" for part in head) + space
            rules.append(f"call_{place}: /{pattern}/ @a{place} /{space}\\}}/")
        if answer is None:
            return [*rules, f"reply: {calls}"]
        if answer:
            return [*rules, f"answer: {answer}", f"reply: answer | {calls}"]
        names = "|".join(re.escape(tool.name).replace("/", r"\/") for tool in self._tools)
        space = r"[ \n]*"
        head = (r"\{", '"name"', ":", f'"({names})"', ",", f'"{form.key}"', ":")
        looks = rf"~/{space}{space.join(head)}(.|\n)*/"
        return [*rules, f"TEXT: {self._text()} & {looks}", f"reply: TEXT | {calls}"]

    def _text(self) -> str:
        """Any text, but no thoughts where these have a rule of their own."""
        if self._thinking is Thinking.MAYBE:
            return rf"{_ANY} & ~/[ \n]*<think>(.|\n)*/"
        return _ANY


def _constraint(
    constraint: Constraint, rules: list[str], schemas: dict[str, dict[str, Any]]
) -> str:
    """The right side of the answer's rule; adds what it refers to."""
    try:
        match constraint.kind:
            case "json_object":
                if constraint.text:
                    raise _fault("`json_object` takes no schema; use `json_schema`", _FORMAT)
                schema = with_options({"type": "object"})
            case "json_schema":
                if not constraint.text:
                    raise _fault("`json_schema` without a schema", _FORMAT)
                schema = with_options(read_schema(constraint.text))
            case "gbnf":
                rules.append(to_lark(constraint.text, "given"))
                return "given"
            case other:
                raise _fault(f"{other!r} is no form of an answer", _FORMAT)
    except (SchemaFault, GrammarFault) as fault:
        raise _fault(str(fault), _FORMAT) from fault
    refusal = check_schema(schema)
    if refusal:
        raise _fault(f"the schema cannot be kept: {refusal}", _FORMAT)
    schemas["schema"] = schema
    return "@schema"


_FORMAT: Final = "response_format"


def _schema(place: int, tool: Tool) -> dict[str, Any]:
    """The schema of a tool's arguments."""
    try:
        schema = read_schema(tool.parameters) if tool.parameters else {}
    except SchemaFault as fault:
        raise _fault(f"tool {place}, {tool.name!r}: {fault}", "tools") from fault
    if schema.get("type", "object") != "object":
        raise _fault(
            f"tool {place}, {tool.name!r}: arguments are an object, not {schema['type']!r}", "tools"
        )
    schema = {**schema, "type": "object"}
    if "properties" in schema and not _MORE & schema.keys():
        # What is allowed but not described only leads small models astray.
        schema["additionalProperties"] = False
    return schema


def _arguments(place: int, tool: Tool) -> dict[str, Any]:
    """The schema of a tool's arguments, with options."""
    schema = _schema(place, tool)
    exact = with_options(schema)
    refusal = check_schema(exact)
    if not refusal:
        return exact
    about = with_options(schema, lenient=True)
    if check_schema(about):
        raise _fault(f"tool {place}, {tool.name!r}: {refusal}", "tools")
    return about


def _check_thinking(request: TaskRequest) -> None:
    if request.reasoning_effort not in EFFORTS:
        raise _fault(
            f"{request.reasoning_effort!r} is no reasoning effort: low, medium or high",
            "reasoning_effort",
        )
    if request.thinking is False and request.reasoning_effort:
        raise _fault("an effort of reasoning, and no thinking", "reasoning_effort")
    if request.thinking is False and request.thinking_tokens:
        raise _fault(
            f"{request.thinking_tokens} tokens of thinking, and no thinking", "thinking_budget"
        )
    if request.thinking and request.thinking_tokens == 0:
        raise _fault("thinking, in no token", "thinking_budget")
    if request.thinking and not request.messages:
        raise _fault("thinking needs a conversation, not a bare prompt", "enable_thinking")


def _fault(detail: str, param: str) -> RequestFault:
    return RequestFault(FaultCode.BAD_REQUEST, detail, param=param)
