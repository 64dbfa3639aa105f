"""From a conversation to the prompt's text, by the model's own chat template.

A template comes with the model file, so it is code from a stranger: it runs in Jinja's immutable
sandbox with bounds on its own size and on what it writes.

Rules:
- What a user wrote stays text. Texts of control tokens in it (and in roles and names) are replaced
  before rendering by one private-use character each; the prompt comes out in parts, and the parts
  that stand for such a text are tokenised without control tokens.
- The template sees everything else as it is: templates look into contents and trim them.
- The date is handed in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final, NoReturn

from jinja2 import TemplateError
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from meshslm.errors import FaultCode, OurFault, RequestFault
from meshslm.limits import PROMPT_BYTES
from meshslm.wire.messages import ChatMessage

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
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        self._today = date.min
        environment.globals["strftime_now"] = self._strftime
        try:
            self._template = environment.from_string(source or CHATML)
        except (TemplateError, RecursionError) as error:
            raise OurFault(f"the model's chat template is broken: {error}") from error
        self._fixed = {"bos_token": bos, "eos_token": eos, "add_generation_prompt": True}
        longest_first = sorted(control_texts, key=len, reverse=True)
        marks = f"[{chr(_FIRST)}-{chr(_FIRST + _MARKS)}]"
        self._unsafe = re.compile("|".join([marks, *map(re.escape, longest_first)]))
        self._marks = re.compile(f"({marks})")

    def render(self, messages: Sequence[ChatMessage], today: date) -> list[Part]:
        """The prompt of a conversation. Raises `RequestFault` where the template refuses it."""
        replaced: list[str] = []

        def safe(text: str) -> str:
            return self._unsafe.sub(lambda match: _mark(match.group(), replaced), text)

        turns = []
        for message in messages:
            turn = {"role": safe(message.role), "content": safe(message.content)}
            if message.name:
                turn["name"] = safe(message.name)
            turns.append(turn)
        self._today = today
        text = self._run({**self._fixed, "messages": turns})
        return self._parts(text, replaced)

    def _strftime(self, form: str) -> str:
        return self._today.strftime(form)

    def _run(self, context: dict[str, object]) -> str:
        pieces = []
        length = 0
        try:
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
        except SecurityError as error:
            raise OurFault(f"the model's chat template does what it must not: {error}") from error
        except (TemplateError, ArithmeticError, LookupError, RecursionError) as error:
            raise _refusal(error) from error
        except (TypeError, ValueError, AttributeError) as error:
            raise _refusal(error) from error
        return "".join(pieces)

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


def _to_json(value: object, indent: int | None = None, **_: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)
