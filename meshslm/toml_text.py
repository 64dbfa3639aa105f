"""TOML into typed values, with errors that a person can act on: file, line, key, expected, got.

The standard parser says where the syntax breaks but keeps no positions, and the typed decoder
knows no file. `key_lines` walks a valid text once more, and only when something was wrong.

Rules:
- Whatever is wrong with a text is an `OurFault`; nothing else is raised.
- An unknown key is an error, and the nearest known one is suggested.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar

import msgspec
from msgspec import inspect

from meshslm import limits
from meshslm.errors import OurFault

T = TypeVar("T")

Key = tuple[str | int, ...]
"""Where a value is: names of keys, and indices in lists."""


class TomlText:
    """A parsed text that remembers where it came from."""

    def __init__(self, name: str, text: str) -> None:
        """Parse `text`; `name` is what errors call it. Raises `OurFault`."""
        self.name = name
        self._text = text
        if len(text) > limits.TOML_BYTES:
            raise OurFault(
                f"{name} has {len(text)} characters, at most {limits.TOML_BYTES} are read"
            )
        try:
            self.data: Mapping[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            problem, _, place = str(error).rpartition(" (at ")
            where = place.removesuffix(")")
            if where == "end of document":
                where = f"line {text.count(chr(10)) + 1}, at the end"
            raise OurFault(f"{name}, {where}: not valid TOML: {problem}") from None
        except RecursionError:
            raise OurFault(f"{name} is not valid TOML: nested too deeply") from None

    def decode(self, kind: type[T]) -> T:
        """The whole text as a `kind`, which must forbid unknown fields. Raises `OurFault`."""
        try:
            return msgspec.convert(self.data, kind)
        except msgspec.ValidationError as error:
            raise self._fault(kind, error) from None

    def line(self, key: Key) -> int:
        """Line of `key`, counted from 1; of what encloses it where it stands nowhere itself."""
        lines = key_lines(self._text)
        while key and key not in lines:
            key = key[:-1]
        return lines.get(key, 1)

    def fault(self, key: Key, what: str) -> OurFault:
        """The error to raise for the value at `key`."""
        return OurFault(f"{self.name}, line {self.line(key)}: {what}")

    def _fault(self, kind: type, error: msgspec.ValidationError) -> OurFault:
        problem, key = _split(str(error))
        unknown = re.fullmatch(r"Object contains unknown field `(.*)`", problem, re.DOTALL)
        if unknown:
            name = unknown[1]
            holder = _plain(_type_at(inspect.type_info(kind), key, self.data), _dig(self.data, key))
            known = _keys(holder)
            place = f"[{key_text(key)}]" if key else "the file"
            return self.fault((*key, name), f"{place} has no key {name!r}; {nearest(name, known)}")
        missing = re.fullmatch(r"Object missing required field `(.*)`", problem)
        if missing:
            return self.fault(key, f"{key_text((*key, missing[1]))} is missing")
        return self.fault(key, sentence("", kind, self.data, error))


def sentence(what: str, kind: Any, value: object, error: msgspec.ValidationError) -> str:
    """What `error` says of `value`, for a person: which key, what was expected, what was there.

    `what` stands for the key of `value` itself. A type may word its expectation, by
    `extra={"expected": ...}` in its `Meta`.
    """
    problem, key = _split(str(error))
    node = _type_at(inspect.type_info(kind), key, value)
    wording = (node.extra or {}).get("expected") if isinstance(node, inspect.Metadata) else None
    plain = _plain(node)
    if isinstance(plain, inspect.LiteralType):
        wording = "one of " + ", ".join(str(value) for value in plain.values)
    elif tags := _tags(inspect.type_info(kind), key, value):
        wording = "one of " + ", ".join(tags)
    if wording:
        problem = f"expected {wording}"
    else:
        problem = re.sub(r", got `\w+`$", "", problem)
        problem = re.sub(r"`(\w+)`", lambda name: _WORDS.get(name[1], name[1]), problem)
        problem = problem[:1].lower() + problem[1:]
    place = what + key_text(key) if what or key else "the file"
    return f"{place}: {problem}; got {_shown(_dig(value, key))}"


_WORDS: Final = {
    "array": "a list",
    "object": "a table",
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
}


def nearest(name: str, known: Iterable[str]) -> str:
    """Advice about an unknown `name`: the one that was probably meant, or else all of them."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(sorted(names))}" if names else "none is known"


def key_text(key: Key) -> str:
    """A key as it is written: `domains[1].examples`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)
    return "".join(parts).removeprefix(".")


def _split(message: str) -> tuple[str, Key]:
    """A decoder's message, as the problem and the key it is about."""
    problem, found, path = message.rpartition(" - at `$")
    if not found:
        return message, ()
    steps = re.findall(r"\.([^.\[\]`]+)|\[(\d+)\]", path)
    return problem, tuple(name or int(index) for name, index in steps)


def _type_at(node: inspect.Type, key: Key, value: object) -> inspect.Type:
    """The type declared for `key` inside `value`, which is meant to be of type `node`."""
    for part in key:
        plain = _plain(node, value)
        if isinstance(plain, inspect.StructType) and isinstance(part, str):
            fields = {field.encode_name: field.type for field in plain.fields}
            node = fields.get(part, inspect.AnyType())  # the tag of a union is no field
        elif isinstance(plain, inspect.VarTupleType | inspect.ListType):
            node = plain.item_type
        else:
            return inspect.AnyType()
        value = _dig(value, (part,))
    return node


def _plain(node: inspect.Type, value: object = None) -> inspect.Type:
    """A type without its annotations and without `| None`; of tagged ones that of `value`."""
    while True:
        if isinstance(node, inspect.Metadata):
            node = node.type
        elif isinstance(node, inspect.UnionType):
            node = _meant(node, value)
        else:
            return node


def _meant(union: inspect.UnionType, value: object) -> inspect.Type:
    options = [option for option in union.types if not isinstance(option, inspect.NoneType)]
    structs = [option for option in options if isinstance(option, inspect.StructType)]
    if isinstance(value, Mapping):
        for option in structs:
            if option.tag_field and value.get(option.tag_field) == option.tag:
                return option
    return options[0]


def _tags(node: inspect.Type, key: Key, value: object) -> list[str]:
    """What may stand at `key`, where it tells which of several tables one is."""
    union = _type_at(node, key[:-1], value)
    while isinstance(union, inspect.Metadata):
        union = union.type
    options = union.types if isinstance(union, inspect.UnionType) else ()
    structs = [option for option in options if isinstance(option, inspect.StructType)]
    return sorted(str(option.tag) for option in structs if key and option.tag_field == key[-1])


def _keys(node: inspect.Type) -> list[str]:
    plain = _plain(node)
    return [f.encode_name for f in plain.fields] if isinstance(plain, inspect.StructType) else []


def _dig(data: object, key: Key) -> object:
    for part in key:
        data = data[part]  # type: ignore[index] # the decoder walked the same path
    return data


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


# --- where the keys are -------------------------------------------------------------------------
_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_TOKEN: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|' + r"'''.*?'{3,5}|" + r'"(?:\\.|[^"\\\n])*"|' + r"'[^'\n]*'|"
    r"[^\s,\[\]{}#\"'=]+(?: \d\d:[^\s,\[\]{}#]+)?",
    re.DOTALL,
)
"""A string of any kind, or a bare value; a date and a time may have a blank between them."""
_KEY: Final = re.compile(
    r"""(?:"(?:\\.|[^"\\\n])*"|'[^'\n]*'|[A-Za-z0-9_-]+|[ \t]*\.[ \t]*)+""", re.DOTALL
)


def key_lines(text: str) -> dict[Key, int]:
    """Line of every key, list item and table header of a valid TOML text, counted from 1."""
    return _Walk(text.replace("\r\n", "\n")).lines


class _Walk:
    """One pass over a valid text; what is not valid is not noticed."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._counted = (0, 1)
        self._tables: dict[Key, int] = {}
        self.lines: dict[Key, int] = {}
        self._document()

    def _document(self) -> None:
        table: Key = ()
        self._skip()
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip()

    def _header(self) -> Key:
        line = self._line()
        many = self._text.startswith("[[", self._at)
        self._at += 2 if many else 1
        self._skip()
        names = self._names()
        self._skip()
        self._at += 2 if many else 1
        key: Key = ()
        for depth, name in enumerate(names):
            key = (*key, name)
            if many and depth == len(names) - 1:
                self._tables[key] = self._tables.get(key, -1) + 1
                self.lines.setdefault(key, line)
            if key in self._tables:
                key = (*key, self._tables[key])
        self._note(key, line)
        return key

    def _pair(self, table: Key) -> None:
        line = self._line()
        key: Key = (*table, *self._names())
        self._note(key, line)
        self._skip()
        self._at += 1  # the equals sign
        self._skip()
        self._value(key)

    def _value(self, key: Key) -> None:
        opening = self._text[self._at]
        if opening == "[":
            for index in self._items("]"):
                self._note((*key, index), self._line())
                self._value((*key, index))
        elif opening == "{":
            for _ in self._items("}"):
                self._pair(key)
        else:
            self._at = self._match(_TOKEN).end()

    def _items(self, closing: str) -> Iterator[int]:
        """Stop at each item of a list or inline table in turn, then step behind its end."""
        self._at += 1
        index = 0
        self._skip()
        while self._text[self._at] != closing:
            yield index
            index += 1
            self._skip()
            if self._text[self._at] == ",":
                self._at += 1
                self._skip()
        self._at += 1

    def _names(self) -> tuple[str, ...]:
        """Read a dotted key; the parser itself resolves quotes and escapes."""
        found = self._match(_KEY)
        self._at = found.end()
        node: object = tomllib.loads(f"{found[0]} = 0")
        names: list[str] = []
        while isinstance(node, dict):
            ((name, node),) = node.items()
            names.append(name)
        return tuple(names)

    def _note(self, key: Key, line: int) -> None:
        for length in range(1, len(key) + 1):
            self.lines.setdefault(key[:length], line)

    def _skip(self) -> None:
        self._at = self._match(_BLANK).end()

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        found = pattern.match(self._text, self._at)
        assert found
        return found

    def _line(self) -> int:
        start, line = self._counted
        line += self._text.count("\n", start, self._at)
        self._counted = (self._at, line)
        return line
