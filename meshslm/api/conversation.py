"""A conversation as every family of requests means it, and what must hold of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from meshslm import limits
from meshslm.api.decode import bad_request, clipped, not_json
from meshslm.api.fields import check_bytes, check_id, check_together, check_tool_name


@dataclass(frozen=True, slots=True)
class Call:
    """A call that the model asked for in an earlier turn. `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn. Roles are `system`, `user`, `assistant` and `tool`."""

    role: str
    content: str
    name: str = ""
    calls: tuple[Call, ...] = ()
    call_id: str = ""
    """Of a tool's turn: the call that it answers."""
    reasoning: str = ""

    def texts(self) -> Iterator[str]:
        """Everything in it that a client can make long."""
        yield self.content
        yield self.reasoning
        for call in self.calls:
            yield call.arguments


def checked_call(call_id: str | None, name: str | None, arguments: str | None, at: str) -> Call:
    """A call of an earlier turn, whose function stands at `at`; raises `RequestFault`."""
    check_tool_name(name, f"{at}.name")
    check_arguments(arguments or "", f"{at}.arguments")
    return Call(check_id(call_id, f"{at}.id"), name or "", arguments or "{}")


def check_arguments(text: str, where: str) -> None:
    """Raises `RequestFault` where the arguments of a call are no JSON object."""
    check_bytes(text, where, limits.PROMPT_BYTES)
    encoded = text.encode() or b"{}"
    try:
        arguments = msgspec.json.decode(encoded)
    except RecursionError:
        raise bad_request(f"'{where}' is nested too deeply.", where) from None
    except msgspec.DecodeError as error:
        why = not_json(encoded, str(error))
        raise bad_request(f"'{where}' is not valid JSON: {why}.", where) from None
    if not isinstance(arguments, dict):
        raise bad_request(f"'{where}' is not a JSON object.", where)


def check_conversation(turns: Sequence[Turn], name: str) -> None:
    """Raises `RequestFault` where the turns, which stand in the field `name`, make no sense."""
    if not turns:
        raise bad_request(f"'{name}' is empty; at least one message is needed.", name)
    if len(turns) > limits.MESSAGES_PER_REQUEST:
        raise bad_request(
            f"'{name}' has {len(turns)} messages; at most {limits.MESSAGES_PER_REQUEST} are taken.",
            name,
        )
    asked_for: set[str] = set()
    for index, turn in enumerate(turns):
        if len(turn.calls) > limits.TOOL_CALLS:
            raise bad_request(
                f"A turn has {len(turn.calls)} calls; at most {limits.TOOL_CALLS} are taken.",
                f"{name}[{index}]",
            )
        asked_for.update(call.id for call in turn.calls)
        if turn.role == "tool" and turn.call_id not in asked_for:
            raise bad_request(
                f"The result of the call '{clipped(turn.call_id)}' follows no turn that asked "
                "for it.",
                f"{name}[{index}]",
            )
    check_together((text for turn in turns for text in turn.texts()), name)
