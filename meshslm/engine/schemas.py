"""JSON schemas of clients, checked before they are compiled.

The compiler tells what it does not support; this file finds what it does not look for: schemas that
are too large, and those that no finite answer satisfies, because an object must contain itself.

Rules:
- What is wrong is a `SchemaFault` whose message is for the client.
- A schema is only called endless when it certainly is; what is not understood counts as finite.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NoReturn
from urllib.parse import unquote

from meshslm.limits import SCHEMA_BYTES

DEPTH: Final = 100
"""Nesting of a schema; those that people write have 5 to 20. The compiler itself takes 128."""
SIBLINGS: Final = 4096
"""Entries of one list or object; keeps compiling a schema below a tenth of a second."""
ROUNDS: Final = 64
"""Times that references between definitions are followed anew: each round settles at least one."""

_COMPOUND: Final = frozenset({"object", "array"})


class SchemaFault(ValueError):
    """A schema that cannot be used; the message is for the client."""


def read_schema(text: str) -> dict[str, Any]:
    """The schema of a JSON text. Raises `SchemaFault`."""
    if len(text.encode()) > SCHEMA_BYTES:
        raise SchemaFault(f"the schema has {len(text.encode())} bytes, at most {SCHEMA_BYTES}")
    try:
        schema = json.loads(text, parse_constant=_no_constant)
    except ValueError as error:
        raise SchemaFault(f"the schema is not JSON: {error}") from error
    except RecursionError as error:
        raise SchemaFault(f"the schema is nested deeper than {DEPTH}") from error
    if schema is True:
        schema = {}
    if not isinstance(schema, dict):
        raise SchemaFault(f"a schema is a JSON object, this is {_kind(schema)}")
    _check_size(schema, DEPTH)
    if not _Finite(schema).holds():
        raise SchemaFault("the schema refers to itself without end: no finite value satisfies it")
    return schema


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _kind(value: object) -> str:
    names = {list: "a list", str: "a string", bool: "false", type(None): "null"}
    return names.get(type(value), "a number")


def _check_size(value: object, room: int) -> None:
    if not isinstance(value, dict | list):
        return
    if room == 0:
        raise SchemaFault(f"the schema is nested deeper than {DEPTH}")
    if len(value) > SIBLINGS:
        raise SchemaFault(
            f"one part of the schema has {len(value)} entries, at most {SIBLINGS} are allowed"
        )
    for part in value.values() if isinstance(value, dict) else value:
        _check_size(part, room - 1)


class _Finite:
    """Whether a schema has a finite value: the least solution over its references."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._known: set[str] = set()
        """References known to be finite."""
        self._open: set[str] = set()
        self._failed: set[str] = set()

    def holds(self) -> bool:
        for _ in range(ROUNDS):
            before = len(self._known)
            self._failed = set()
            try:
                if self._schema(self._root):
                    return True
            except RecursionError as error:
                raise SchemaFault("the schema's references follow one another too far") from error
            if len(self._known) == before:
                return False
        raise SchemaFault("the schema's definitions refer to each other too much")

    def _schema(self, schema: object) -> bool:
        if not isinstance(schema, Mapping):
            return True
        if "const" in schema or "enum" in schema:
            return True
        reference = schema.get("$ref")
        if isinstance(reference, str) and not self._reference(reference):
            return False
        if not all(self._schema(part) for part in _list(schema, "allOf")):
            return False
        for key in ("anyOf", "oneOf"):
            parts = _list(schema, key)
            if parts and not any(self._schema(part) for part in parts):
                return False
        return self._by_type(schema)

    def _by_type(self, schema: Mapping[str, Any]) -> bool:
        given = schema.get("type")
        types = {given} if isinstance(given, str) else set(_strings(given))
        if not types or not types <= _COMPOUND:
            return True
        if "object" in types and self._object(schema):
            return True
        return "array" in types and self._array(schema)

    def _object(self, schema: Mapping[str, Any]) -> bool:
        properties = schema.get("properties")
        if not isinstance(properties, Mapping):
            properties = {}
        others = schema.get("additionalProperties", True)
        required = _strings(schema.get("required"))
        return all(self._schema(properties.get(name, others)) for name in required)

    def _array(self, schema: Mapping[str, Any]) -> bool:
        least = schema.get("minItems", 0)
        least = least if isinstance(least, int) else 0
        first = _list(schema, "prefixItems")
        if not all(self._schema(part) for part in first[:least]):
            return False
        return least <= len(first) or self._schema(schema.get("items", True))

    def _reference(self, reference: str) -> bool:
        if reference in self._known:
            return True
        if reference in self._open or reference in self._failed:
            return False
        found, target = self._resolve(reference)
        if not found:
            return True  # the compiler has a better word for it
        self._open.add(reference)
        finite = self._schema(target)
        self._open.discard(reference)
        (self._known if finite else self._failed).add(reference)
        return finite

    def _resolve(self, reference: str) -> tuple[bool, object]:
        if reference != "#" and not reference.startswith("#/"):
            return False, None
        at: object = self._root
        for part in unquote(reference[1:]).split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(at, Mapping) and name in at:
                at = at[name]
            elif isinstance(at, list) and name.isdecimal() and int(name) < len(at):
                at = at[int(name)]
            else:
                return False, None
        return True, at


def _list(schema: Mapping[str, Any], key: str) -> list[Any]:
    value = schema.get(key)
    return value if isinstance(value, list) else []


def _strings(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
