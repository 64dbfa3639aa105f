"""Schemas that clients send: what can be kept to, and what is refused with its reason.

Values of those that can be kept are bounded, so that a small model comes to an end.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Case:
    """A schema; `refused` is a part of the reason, empty where it can be kept."""

    name: str
    schema: Any
    refused: str = ""
    endless: bool = False
    """Some valid answers are longer than a test is patient."""

    @property
    def text(self) -> str:
        return self.schema if isinstance(self.schema, str) else json.dumps(self.schema)


def closed(**properties: Any) -> dict[str, Any]:
    """An object of exactly these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


SHORT = {"type": "string", "maxLength": 12}
INT = {"type": "integer", "minimum": 0, "maximum": 999}
TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": closed(
            value=INT,
            next={"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]},
        )
    },
}

SUPPORTED = (
    Case("boolean", {"type": "boolean"}),
    Case("null", {"type": "null"}),
    Case("integer", INT),
    Case("negative integer", {"type": "integer", "minimum": -20, "maximum": -3}),
    Case("number with bounds", {"type": "number", "minimum": 0, "maximum": 1}, endless=True),
    Case(
        "open interval",
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 10},
        endless=True,
    ),
    Case("multiple", {"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 50}),
    Case("short text", {"type": "string", "minLength": 2, "maxLength": 8}),
    Case("pattern", {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{2,4}$"}),
    Case("pattern in the middle", {"type": "string", "pattern": "[0-9]{3}", "maxLength": 12}),
    Case("date", {"type": "string", "format": "date"}),
    Case("time", {"type": "string", "format": "time"}, endless=True),
    Case("date-time", {"type": "string", "format": "date-time"}, endless=True),
    Case("uuid", {"type": "string", "format": "uuid"}),
    Case("ipv4", {"type": "string", "format": "ipv4"}),
    Case("email", {"type": "string", "format": "email", "maxLength": 40}),
    Case("constant", {"const": {"a": [1, "é", None]}}),
    Case("choice of texts", {"enum": ["red", "green", "blue", "dark blue"]}),
    Case("choice of anything", {"enum": ["a", 1, None, True, {"x": [1]}, 1.5]}),
    Case("flat object", closed(name=SHORT, age=INT)),
    Case("optional property", {**closed(a=INT), "properties": {"a": INT, "b": SHORT}}),
    Case("nested objects", closed(a=closed(b=closed(c=closed(d=INT))))),
    Case("list with bounds", {"type": "array", "items": INT, "minItems": 2, "maxItems": 4}),
    Case(
        "list of objects",
        {"type": "array", "items": closed(x=INT, y=INT), "minItems": 1, "maxItems": 2},
    ),
    Case("empty list", {"type": "array", "maxItems": 0}),
    Case(
        "tuple",
        {
            "type": "array",
            "prefixItems": [INT, SHORT, {"type": "boolean"}],
            "items": False,
            "minItems": 3,
        },
    ),
    Case("several types", {"type": ["integer", "null", "boolean"], "minimum": 0, "maximum": 9}),
    Case("anyOf", {"anyOf": [INT, {"type": "boolean"}, closed(a=INT)]}),
    Case(
        "oneOf told apart by a constant",
        {
            "oneOf": [
                closed(kind={"const": "circle"}, radius=INT),
                closed(kind={"const": "square"}, side=INT),
            ]
        },
    ),
    Case("oneOf of types", {"oneOf": [INT, {"type": "null"}]}),
    Case("allOf", {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 9}]}),
    Case(
        "definitions",
        {"$ref": "#/$defs/a", "$defs": {"a": closed(b={"$ref": "#/$defs/b"}), "b": INT}},
    ),
    Case("old definitions", {"$ref": "#/definitions/a", "definitions": {"a": INT}}),
    Case("pointer with escapes", {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "boolean"}}}),
    Case("recursive with an end", TREE, endless=True),
    Case(
        "recursive from the root",
        closed(n={"anyOf": [{"type": "null"}, {"$ref": "#"}]}),
        endless=True,
    ),
    Case(
        "recursive by optional property",
        {"type": "object", "properties": {"child": {"$ref": "#"}}, "additionalProperties": False},
        endless=True,
    ),
    Case(
        "additional properties of a type",
        {"type": "object", "additionalProperties": INT, "maxProperties": 2},
        endless=True,
    ),
    Case(
        "names by pattern",
        {
            "type": "object",
            "patternProperties": {"^x_[a-c]$": INT},
            "additionalProperties": False,
            "maxProperties": 2,
        },
    ),
    Case("names in other scripts", closed(**{"größe": INT, "名前": SHORT, "😀": {"type": "null"}})),
    Case("names that need escapes", closed(**{'say "hi"': INT, "b\\s": INT, "new\nline": INT})),
    Case("notes for people", {"title": "t", "description": "d", "examples": [2], **INT}),
    Case("its own dialect", {"$schema": "https://json-schema.org/draft/2020-12/schema", **INT}),
    Case("many properties", closed(**{f"property_{n}": {"type": "boolean"} for n in range(12)})),
    Case("deep", {"type": "array", "minItems": 1, "maxItems": 1, "items": {
        "type": "array", "minItems": 1, "maxItems": 1, "items": {
            "type": "array", "minItems": 1, "maxItems": 1, "items": INT}}}),
    Case("lenient asked for by the client", {"x-guidance": {"lenient": True}, **INT}),
)  # fmt: skip

REFUSED = (
    Case("no JSON", "{", "not JSON"),
    Case("no number", '{"minimum": NaN}', "NaN is no JSON number"),
    Case("a list", [], "a list"),
    Case("false", False, "false"),
    Case("unknown type", {"type": "strin"}, "strin"),
    Case("type of no kind", {"type": 3}, "type"),
    Case("properties of no kind", {"type": "object", "properties": []}, "properties"),
    Case("not", {"not": {"type": "string"}}, "not"),
    Case("unique items", {"type": "array", "items": INT, "uniqueItems": True}, "uniqueItems"),
    Case("contains", {"type": "array", "contains": INT}, "contains"),
    Case("conditions", {"if": INT, "then": INT}, "if"),
    Case("dependent", {"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
    Case("property names", {"type": "object", "propertyNames": {"pattern": "a"}}, "propertyNames"),
    Case("overlapping oneOf", {"oneOf": [INT, {"type": "number"}]}, "oneOf"),
    Case("unknown format", {"type": "string", "format": "color"}, "color"),
    Case("look-ahead", {"type": "string", "pattern": "^(?=.*[A-Z]).+$"}, "look"),
    Case("back-reference", {"type": "string", "pattern": "^(a)\\1$"}, "backreference"),
    Case("broken pattern", {"type": "string", "pattern": "[a"}, "regex"),
    Case("empty range", {"type": "integer", "minimum": 5, "maximum": 3}, "5"),
    Case("no whole number", {"type": "integer", "minimum": 1.2, "maximum": 1.8}, "no integer"),
    Case("empty choice", {"enum": []}, "empty"),
    Case("impossible length", {"type": "string", "minLength": 5, "maxLength": 4}, "minLength"),
    Case("missing definition", {"$ref": "#/$defs/none"}, "does not exist"),
    Case("a schema elsewhere", {"$ref": "https://example.com/s.json"}, "example.com"),
    Case(
        "required but forbidden",
        {"type": "object", "required": ["z"], "additionalProperties": False},
        "'z'",
    ),
    Case("itself", {"$ref": "#"}, "without end"),
    Case("itself in itself", closed(child={"$ref": "#"}), "without end"),
    Case(
        "itself in a list",
        {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
        "without end",
    ),
    Case(
        "a circle of definitions",
        {"$ref": "#/$defs/a", "$defs": {"a": closed(b={"$ref": "#/$defs/b"}),
                                        "b": closed(a={"$ref": "#/$defs/a"})}},
        "without end",
    ),
    Case(
        "a circle in every branch",
        {"anyOf": [closed(x={"$ref": "#"}), {"allOf": [{"$ref": "#"}, INT]}]},
        "without end",
    ),
    Case("nested too deep", '{"items":' * 300 + "{}" + "}" * 300, "deeper than"),
    Case("nested beyond reading", '{"items":' * 5000 + "{}" + "}" * 5000, "deeper than"),
    Case("huge", {"enum": ["x" * 100 for _ in range(700)]}, "bytes"),
    Case("wide", {"enum": list(range(5000))}, "entries"),
    Case(
        "a product of alternatives",
        {"allOf": [{"anyOf": [{"type": "object", "properties": {f"p{i}{j}": INT}}
                              for j in range(10)]} for i in range(5)]},
        "too large",
    ),
)  # fmt: skip
