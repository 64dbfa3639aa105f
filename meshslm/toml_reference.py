"""What a typed TOML table may hold, in words: the part of the manual that types can write.

Rules:
- A bound appears because the type has it, never because somebody wrote it down again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import NODEFAULT, inspect


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One key of a table."""

    name: str
    kind: str
    """Type and bounds, in words."""
    default: str
    """As TOML; empty where the key must be given."""
    description: str


def key_rows(kind: type[msgspec.Struct]) -> tuple[KeyRow, ...]:
    """Every key of a table, in the order of its declaration."""
    node = inspect.type_info(kind)
    if not isinstance(node, inspect.StructType):
        raise TypeError(f"{kind} is no table")
    return tuple(
        KeyRow(
            field.encode_name,
            _words(field.type),
            "" if field.default is NODEFAULT else toml_value(field.default),
            _description(field.type),
        )
        for field in node.fields
    )


def toml_value(value: Any) -> str:
    """A value as TOML; empty where it stands for a table that is left out, or for nothing."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's too, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple | list):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return "" if value is None or isinstance(value, msgspec.Struct) else str(value)


def _description(node: inspect.Type) -> str:
    match node:
        case inspect.Metadata():
            written = (node.extra_json_schema or {}).get("description")
            return str(written) if written else _description(node.type)
        case inspect.UnionType():
            return "".join(map(_description, node.types))
        case _:
            return ""


def _words(node: inspect.Type) -> str:
    """A type, as a person would say it."""
    match node:
        case inspect.Metadata():
            expected = (node.extra or {}).get("expected")
            return str(expected) if expected else _words(node.type)
        case inspect.UnionType():
            return " or ".join(
                _words(item) for item in node.types if not isinstance(item, inspect.NoneType)
            )
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return f"whole number{_span(node.ge, node.le)}"
        case inspect.FloatType():
            return f"number{_span(node.ge, node.le)}"
        case inspect.LiteralType():
            return " or ".join(f"`{value}`" for value in node.values)
        case inspect.VarTupleType():
            item = _words(node.item_type)
            return f"list, each {item}" if item.startswith(("a ", "an ")) else f"list of {item}"
        case inspect.StructType():
            return "table"
        case _:
            return "text"


def _span(least: float | None, most: float | None) -> str:
    if least is None:
        return "" if most is None else f", at most {_digits(most)}"
    return f" from {_digits(least)}" if most is None else f", {_digits(least)} to {_digits(most)}"


def _digits(bound: float) -> str:
    """A bound with all its digits: nobody reads 1.67772e+07."""
    return str(int(bound)) if float(bound).is_integer() else str(bound)
