"""The form that an answer must have, and the functions that a model may call.

Every family of requests writes them differently; here is what they have in common, and the checks.
What a schema may contain is the engine's knowledge: here it is only bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from meshslm import limits
from meshslm.api.decode import bad_request, clipped
from meshslm.api.fields import check_bytes, check_choice, check_tool_name, json_text

TOOL_MODES = ("auto", "none", "required")


@dataclass(frozen=True, slots=True)
class Form:
    """What form the answer must have."""

    kind: Literal["json_object", "json_schema", "gbnf"]
    text: str = ""
    """The schema or the grammar."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function that the model may ask to be called; `parameters` is a JSON schema or empty."""

    name: str
    description: str
    parameters: str


@dataclass(frozen=True, slots=True)
class Tools:
    """The functions, and which of them are to be called."""

    functions: tuple[Function, ...] = ()
    choice: str = "auto"
    """`auto`, `none`, `required`, or a name."""


class JsonSchema(msgspec.Struct, kw_only=True):
    """A named schema."""

    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, kw_only=True):
    """`response_format` of a chat completion."""

    type: str
    json_schema: JsonSchema | None = None


class FunctionShape(msgspec.Struct, kw_only=True):
    """A function, as chat completions write it."""

    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolShape(msgspec.Struct, kw_only=True):
    """One of `tools` of a chat completion."""

    type: str
    function: FunctionShape | None = None


def form_of(
    kind: str | None, schema: JsonSchema | None, grammar: str | None, name: str
) -> Form | None:
    """The form that an answer must have, if any; `name` is the field that has `kind`.

    Raises `RequestFault` where the fields are incomplete or contradict each other.
    """
    check_choice(kind, f"{name}.type", ("text", "json_object", "json_schema"))
    if grammar and kind not in (None, "text"):
        raise bad_request(f"'grammar' and '{name}' both say what form the answer has.", "grammar")
    if grammar:
        return Form("gbnf", grammar)
    if kind == "json_object":
        return Form("json_object")
    if kind != "json_schema":
        return None
    where = f"{name}.json_schema" if name == "response_format" else name
    if schema is None:
        raise bad_request(f"'{where}' is missing.", where)
    check_tool_name(schema.name, f"{where}.name")
    if schema.schema is None:
        raise bad_request(f"'{where}.schema' is missing.", f"{where}.schema")
    return Form("json_schema", json_text(schema.schema, f"{where}.schema"))


def functions_of(shapes: Sequence[tuple[str, FunctionShape]]) -> tuple[Function, ...]:
    """Checked functions; each shape comes with where it stands in the request."""
    if len(shapes) > limits.TOOLS:
        raise bad_request(
            f"'tools' has {len(shapes)} tools; at most {limits.TOOLS} are taken.", "tools"
        )
    functions: dict[str, Function] = {}
    size = 0
    for where, shape in shapes:
        name = check_tool_name(shape.name, f"{where}.name")
        if name in functions:
            raise bad_request(f"Two tools are called '{name}'.", f"{where}.name")
        if name in TOOL_MODES:
            raise bad_request(
                f"A tool cannot be called '{name}': 'tool_choice' has another meaning for it.",
                f"{where}.name",
            )
        check_bytes(shape.description or "", f"{where}.description", limits.SCHEMA_BYTES)
        parameters = shape.parameters
        text = "" if parameters is None else json_text(parameters, f"{where}.parameters")
        functions[name] = Function(name, shape.description or "", text)
        size += len(text.encode()) + len((shape.description or "").encode())
    if size > limits.TOOLS_BYTES:
        raise bad_request(
            f"'tools' take {size} bytes together; at most {limits.TOOLS_BYTES} are taken.", "tools"
        )
    return tuple(functions.values())


def tools_of(
    functions: tuple[Function, ...], choice: str, form: Form | None, *, where: str = "tool_choice"
) -> Tools:
    """Functions and the choice among them.

    Raises `RequestFault` where a call is asked for that cannot be made, or cannot have the form.
    """
    if choice not in TOOL_MODES and all(choice != function.name for function in functions):
        raise bad_request(f"'{where}' names '{clipped(choice)}', which is none of 'tools'.", where)
    if choice == "required" and not functions:
        raise bad_request(f"'{where}' is 'required', and there are no 'tools'.", where)
    if form is not None and functions and choice != "none":
        if choice != "auto":
            raise bad_request(
                "The answer cannot be a call and have another form: "
                f"'{where}' and the form of the answer contradict each other.",
                where,
            )
        if form.kind == "gbnf":
            raise bad_request("'grammar' leaves no room for calls of 'tools'.", "grammar")
    return Tools(functions, choice)
