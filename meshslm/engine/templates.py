"""From a conversation to the prompt's text, by the model's own chat template.

A template comes with the model file, so it is code from a stranger: it runs in a sandbox with
bounds on its time, its memory, its own size and on what it writes.

Rules:
- What a user wrote stays text. Texts of control tokens in it (in roles, names, tools and calls
  too) are replaced before rendering by one private-use character each; the prompt comes out in
  parts, and the parts that stand for such a text are tokenised without control tokens.
- The template sees everything else as it is: templates look into contents and trim them.
- What a template knows of tools is found by rendering: its words for a call that it was shown.
- The date is handed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any, Final

from jinja2 import TemplateError
from jinja2.exceptions import SecurityError

from meshslm.engine.template_sandbox import Overrun, Sandbox, bounded
from meshslm.engine.tool_formats import (
    HERMES,
    LLAMA3,
    ToolFormat,
    arguments_of,
    described,
    in_words,
    one_call_a_turn,
)
from meshslm.errors import FaultCode, OurFault, RequestFault
from meshslm.limits import PROMPT_BYTES
from meshslm.wire.messages import ChatMessage, Tool, ToolCall

TEMPLATE_BYTES: Final = 256 * 1024
"""The longest published templates have 30 KB."""
OUTPUT_CHARACTERS: Final = 2 * PROMPT_BYTES

CHATML: Final = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""For a model without a template of its own: the form most small models were trained on."""

_PROBE: Final = Tool("probe_tool", "A probe described.", '{"type": "object", "properties": {}}')
_PROBE_CALL: Final = ToolCall("call00000", "probe_tool", '{"probe_key": "probe_value"}')
"""Of nine letters and digits: some templates check an id's form."""

_FIRST: Final = 0x100000
_MARKS: Final = 0x10FFFD - _FIRST
"""Private-use characters of the last plane stand for control texts within one rendering."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the prompt; `literal` parts are tokenised without control tokens."""

    text: str
    literal: bool


class ChatTemplate:
    """One model's template."""

    def __init__(
        self, source: str, *, bos: str = "", eos: str = "", control_texts: Sequence[str] = ()
    ) -> None:
        """Compile it. Raises `OurFault` where it is broken."""
        if len(source.encode()) > TEMPLATE_BYTES:
            raise OurFault(
                f"the model's chat template has {len(source.encode())} bytes, at most "
                f"{TEMPLATE_BYTES}"
            )
        sandbox = Sandbox()
        self._today = date.min
        sandbox.globals["strftime_now"] = self._strftime
        try:
            self._template = sandbox.compiled(source or CHATML)
        except (TemplateError, Overrun) as error:
            raise OurFault(f"the model's chat template is broken: {error}") from error
        self._source = source
        self._fixed = {"bos_token": bos, "eos_token": eos, "add_generation_prompt": True}
        longest_first = sorted(control_texts, key=len, reverse=True)
        marks = f"[{chr(_FIRST)}-{chr(_FIRST + _MARKS)}]"
        self._unsafe = re.compile("|".join([marks, *map(re.escape, longest_first)]))
        self._marks = re.compile(f"({marks})")

    @cached_property
    def thinks(self) -> bool:
        """It knows of thinking between `<think>` tags."""
        return "<think>" in self._source or "</think>" in self._source

    @cached_property
    def tool_format(self) -> ToolFormat | None:
        """The notation of calls that it writes; None where it knows no tools, or another one."""
        asked = ChatMessage("user", "Probe.")
        answered = (
            ChatMessage("assistant", "", calls=(_PROBE_CALL,)),
            ChatMessage("tool", "Probed.", name="probe_tool", call_id=_PROBE_CALL.id),
            asked,
        )
        try:
            told = self._text((asked,), (_PROBE,), {})
            called = self._text((asked, *answered), (), {})
        except (RequestFault, OurFault):
            return None
        if "A probe described." not in told or "probe_value" not in called:
            return None
        if re.search(r"<tool_call>\s*\{[^<]*probe_tool[^<]*</tool_call>", called):
            return HERMES
        if re.search(r'\{\s*"name":\s*"probe_tool",\s*"parameters":', called):
            return LLAMA3
        return None

    def render(
        self,
        messages: Sequence[ChatMessage],
        today: date,
        *,
        tools: Sequence[Tool] = (),
        options: Mapping[str, object] | None = None,
    ) -> list[Part]:
        """The prompt of a conversation; `options` are variables that some templates know.

        Raises `RequestFault` where the template refuses it.
        """
        replaced: list[str] = []

        def safe(text: str) -> str:
            return self._unsafe.sub(lambda match: _mark(match.group(), replaced), text)

        self._today = today
        try:
            if tools or any(message.calls or message.role == "tool" for message in messages):
                if self.tool_format is None:
                    messages, tools = in_words(messages, tools), ()
                elif self.tool_format is LLAMA3:
                    messages = one_call_a_turn(messages)
            return self._parts(self._text(messages, tools, options or {}, safe), replaced)
        except RecursionError as error:
            raise _refusal(error) from error

    def _text(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[Tool],
        options: Mapping[str, object],
        safe: Callable[[str], str] = str,
    ) -> str:
        context: dict[str, object] = {**options, **self._fixed}
        context["messages"] = [_turn(message, safe) for message in messages]
        if tools:
            context["tools"] = [_safe(described(tool), safe) for tool in tools]
        return self._run(context)

    def _strftime(self, form: str) -> str:
        return self._today.strftime(form)

    def _run(self, context: dict[str, object]) -> str:
        pieces = []
        length = 0
        try:
            with bounded():
                for piece in self._template.generate(context):
                    pieces.append(piece)
                    length += len(piece)
                    if length > OUTPUT_CHARACTERS:
                        raise RequestFault(
                            FaultCode.BAD_REQUEST,
                            f"the model's chat template writes more than {OUTPUT_CHARACTERS} "
                            "characters for this conversation",
                            param="messages",
                        )
                return "".join(pieces)
        except SecurityError as error:
            raise OurFault(f"the model's chat template does what it must not: {error}") from error
        except Overrun as error:
            raise OurFault(f"the model's chat template takes too much: {error}") from error
        except (TemplateError, ArithmeticError, LookupError, RecursionError) as error:
            raise _refusal(error) from error
        except (TypeError, ValueError, AttributeError) as error:
            raise _refusal(error) from error

    def _parts(self, text: str, replaced: Sequence[str]) -> list[Part]:
        parts = []
        for number, piece in enumerate(self._marks.split(text)):
            if not piece:
                continue
            place = ord(piece) - _FIRST if number % 2 else -1
            if 0 <= place < len(replaced):
                parts.append(Part(replaced[place], literal=True))
            else:
                parts.append(Part(piece, literal=False))
        return parts


def _refusal(error: Exception) -> RequestFault:
    return RequestFault(
        FaultCode.BAD_REQUEST,
        f"the model's chat template refuses this conversation: {error}",
        param="messages",
    )


def _mark(text: str, replaced: list[str]) -> str:
    if len(replaced) >= _MARKS:
        raise RequestFault(
            FaultCode.BAD_REQUEST,
            f"more than {_MARKS} texts of control tokens in one conversation",
            param="messages",
        )
    replaced.append(text)
    return chr(_FIRST + len(replaced) - 1)


def _turn(message: ChatMessage, safe: Callable[[str], str]) -> dict[str, Any]:
    """A turn, as templates want it."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name:
        turn["name"] = message.name
    if message.reasoning:
        turn["reasoning_content"] = message.reasoning
    if message.call_id and message.role == "tool":
        turn["tool_call_id"] = message.call_id
    if message.calls:
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": arguments_of(call)},
            }
            for call in message.calls
        ]
    made: dict[str, Any] = _safe(turn, safe)
    return made


def _safe(value: Any, safe: Callable[[str], str]) -> Any:
    """`value` with all its texts made safe."""
    if isinstance(value, str):
        return safe(value)
    if isinstance(value, dict):
        return {safe(key): _safe(part, safe) for key, part in value.items()}
    if isinstance(value, list):
        return [_safe(part, safe) for part in value]
    return value
