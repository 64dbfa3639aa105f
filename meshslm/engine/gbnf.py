"""GBNF, the grammar notation of llama.cpp, read and written anew for the constraint engine.

GBNF describes characters, the engine's notation describes lexemes that it matches greedily. A
grammar that is not recursive becomes one lexeme, a regular expression, which is exact and fast. In
any other every lexeme is one character, which is exact too, and costs more at each token.

Rules:
- What is wrong is a `GrammarFault` with the line, for the client.
- A grammar that has no finite text is refused, as are rules that are missing.

Notation: https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from meshslm.limits import SCHEMA_BYTES

NESTING: Final = 64
"""Brackets in brackets of one rule."""
REPEATS: Final = 10_000
"""Largest number in a repetition."""
RULES: Final = 2_000

_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
_NUMBERS: Final = re.compile(r"\{\s*(\d+)\s*(,\s*(\d*)\s*)?\}")
_HEX: Final = {"x": 2, "u": 4, "U": 8}
_PLAIN: Final = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "[": "[", "]": "]"}
_LAST: Final = 0x10FFFF
_SURROGATES: Final = range(0xD800, 0xE000)


class GrammarFault(ValueError):
    """A grammar that cannot be used; the message is for the client."""


@dataclass(frozen=True, slots=True)
class Characters:
    """One character: a regular expression's class."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Reference:
    """What another rule describes."""

    name: str
    line: int


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of them."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """So many times; `most` None: without end."""

    part: Node
    least: int
    most: int | None


Node = Characters | Reference | Sequence | Choice | Repeat


def to_lark(text: str, start: str, prefix: str = "g_") -> str:
    """The rules of a GBNF grammar in the engine's notation, its `root` as the rule `start`.

    All other names begin with `prefix`. Raises `GrammarFault`.
    """
    if len(text.encode()) > SCHEMA_BYTES:
        raise GrammarFault(f"the grammar has {len(text.encode())} bytes, at most {SCHEMA_BYTES}")
    rules = _Reader(text).rules()
    if "root" not in rules:
        raise GrammarFault("the grammar has no rule `root`")
    for node in rules.values():
        for reference in _references(node):
            if reference.name not in rules:
                raise GrammarFault(f"line {reference.line}: there is no rule `{reference.name}`")
    if "root" not in _finite(rules):
        raise GrammarFault("the grammar has no finite text: `root` never comes to an end")
    return _written(_reachable(rules), start, prefix)


def _written(rules: dict[str, Node], start: str, prefix: str) -> str:
    lexemes = _not_recursive(rules)
    if "root" not in lexemes:
        lexemes = set()
    names = {
        name: f"{prefix}{place}".upper() if name in lexemes else f"{prefix}{place}"
        for place, name in enumerate(rules)
    }
    lines = [f"{start}: {names['root']}"]
    lines += [f"{names[name]}: {_text(node, names)}" for name, node in rules.items()]
    return "\n".join(lines) + "\n"


def _text(node: Node, names: dict[str, str]) -> str:
    match node:
        case Characters(pattern):
            return f"/{pattern}/"
        case Reference(name):
            return names[name]
        case Sequence(parts):
            return " ".join(_text(part, names) for part in parts) or '""'
        case Choice(parts):
            return "(" + " | ".join(_text(part, names) for part in parts) + ")"
        case Repeat(part, least, most):
            inner = f"({_text(part, names)})"
            if most is None and least < 2:
                return inner + "*+"[least]
            if (least, most) == (0, 1):
                return f"{inner}?"
            return f"{inner}{{{least},{'' if most is None else most}}}"


# --- what rules say of each other ---------------------------------------------------------------
def _references(node: Node) -> Iterator[Reference]:
    match node:
        case Reference():
            yield node
        case Sequence(parts) | Choice(parts):
            for part in parts:
                yield from _references(part)
        case Repeat(part):
            yield from _references(part)
        case Characters():
            pass


def _reachable(rules: dict[str, Node]) -> dict[str, Node]:
    found = {"root": rules["root"]}
    ahead = ["root"]
    while ahead:
        for reference in _references(rules[ahead.pop()]):
            if reference.name not in found:
                found[reference.name] = rules[reference.name]
                ahead.append(reference.name)
    return found


def _not_recursive(rules: dict[str, Node]) -> set[str]:
    """Rules whose references lead nowhere but to such rules."""
    return _settled({name: {ref.name for ref in _references(node)} for name, node in rules.items()})


def _settled(needs: dict[str, set[str]]) -> set[str]:
    """Names all of whose needs are settled."""
    users: dict[str, list[str]] = {name: [] for name in needs}
    for name, needed in needs.items():
        for other in needed:
            users[other].append(name)
    missing = {name: len(needed) for name, needed in needs.items()}
    ready = [name for name, count in missing.items() if count == 0]
    settled: set[str] = set()
    while ready:
        name = ready.pop()
        settled.add(name)
        for user in users[name]:
            missing[user] -= 1
            if missing[user] == 0:
                ready.append(user)
    return settled


def _finite(rules: dict[str, Node]) -> set[str]:
    """Rules that have a finite text: the least solution."""
    finite: set[str] = set()
    users: dict[str, set[str]] = {name: set() for name in rules}
    for name, node in rules.items():
        for reference in _references(node):
            users[reference.name].add(name)
    ahead = list(rules)
    while ahead:
        name = ahead.pop()
        if name not in finite and _ends(rules[name], finite):
            finite.add(name)
            ahead += users[name] - finite
    return finite


def _ends(node: Node, finite: set[str]) -> bool:
    match node:
        case Characters():
            return True
        case Reference(name):
            return name in finite
        case Sequence(parts):
            return all(_ends(part, finite) for part in parts)
        case Choice(parts):
            return any(_ends(part, finite) for part in parts)
        case Repeat(part, least):
            return least == 0 or _ends(part, finite)


# --- reading ------------------------------------------------------------------------------------
class _Reader:
    """Reads a grammar's text once, from the front."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def _fault(self, what: str) -> GrammarFault:
        return GrammarFault(f"line {self._line()}: {what}")

    def _line(self) -> int:
        return self._text.count("\n", 0, self._at) + 1

    def rules(self) -> dict[str, Node]:
        found: dict[str, Node] = {}
        self._space(lines=True)
        while self._at < len(self._text):
            name = self._name()
            self._space(lines=False)
            if not self._text.startswith("::=", self._at):
                raise self._fault(f"expected `::=` after `{name}`")
            self._at += 3
            self._space(lines=True)
            if name in found:
                raise self._fault(f"there are two rules `{name}`")
            if len(found) == RULES:
                raise self._fault(f"more than {RULES} rules")
            found[name] = self._choice(NESTING)
            if self._at < len(self._text) and self._here() not in "\r\n":
                raise self._fault(f"{self._here()!r} is not expected here")
            self._space(lines=True)
        return found

    def _here(self) -> str:
        return self._text[self._at : self._at + 1]

    def _space(self, *, lines: bool) -> None:
        while here := self._here():
            if here == "#":
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            elif here in (" \t\r\n" if lines else " \t"):
                self._at += 1
            else:
                return

    def _name(self) -> str:
        match = _NAME.match(self._text, self._at)
        if match is None:
            raise self._fault(f"expected a rule's name, found {self._here()!r}")
        self._at = match.end()
        return match.group()

    def _choice(self, room: int) -> Node:
        if room == 0:
            raise self._fault(f"more than {NESTING} brackets in brackets")
        parts = [self._sequence(room)]
        while self._here() == "|":
            self._at += 1
            self._space(lines=True)
            parts.append(self._sequence(room))
        return parts[0] if len(parts) == 1 else Choice(tuple(parts))

    def _sequence(self, room: int) -> Node:
        nested = room < NESTING
        parts: list[Node] = []
        while (here := self._here()) and here not in "|)" and (nested or here not in "\r\n"):
            first = len(parts)
            parts += self._item(here, room)
            self._space(lines=nested)
            self._repeat(parts, first)
            self._space(lines=nested)
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _item(self, here: str, room: int) -> list[Node]:
        if here == '"':
            return self._literal()
        if here == "[":
            return [self._class()]
        if here == ".":
            self._at += 1
            return [Characters(rf"[\x{{0}}-\x{{{_LAST:X}}}]")]
        if here == "(":
            self._at += 1
            self._space(lines=True)
            inner = self._choice(room - 1)
            if self._here() != ")":
                raise self._fault("a bracket is not closed")
            self._at += 1
            return [inner]
        if here in "<!":
            raise self._fault("tokens by name or number are not supported in grammars")
        line = self._line()
        return [Reference(self._name(), line)]

    def _repeat(self, parts: list[Node], first: int) -> None:
        """Apply `*`, `+`, `?` or `{m,n}` to the last item, of which a literal's is its whole."""
        here = self._here()
        if not here or here not in "*+?{":
            return
        least, most = self._bounds(here)
        item = Sequence(tuple(parts[first:]))
        del parts[first:]
        parts.append(Repeat(item.parts[0] if len(item.parts) == 1 else item, least, most))

    def _bounds(self, here: str) -> tuple[int, int | None]:
        if here != "{":
            self._at += 1
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[here]
        match = _NUMBERS.match(self._text, self._at)
        if match is None:
            raise self._fault("expected `{m}`, `{m,}` or `{m,n}`")
        least = int(match[1])
        most = least if match[2] is None else int(match[3]) if match[3] else None
        if max(least, most or 0) > REPEATS:
            raise self._fault(f"a repetition of more than {REPEATS} times")
        if most is not None and most < least:
            raise self._fault(f"a repetition of at least {least} and at most {most} times")
        self._at = match.end()
        return least, most

    def _literal(self) -> list[Node]:
        self._at += 1
        found: list[Node] = []
        while (here := self._here()) != '"':
            if not here or here in "\r\n":
                raise self._fault("a text is not closed")
            found.append(Characters(_code(self._character())))
        self._at += 1
        return found or [Sequence(())]

    def _class(self) -> Node:
        self._at += 1
        inverted = self._here() == "^"
        self._at += inverted
        ranges: list[str] = []
        while (here := self._here()) != "]":
            if not here or here in "\r\n":
                raise self._fault("a class of characters is not closed")
            low = high = self._character()
            if self._here() == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                high = self._character()
            if high < low:
                raise self._fault(f"a range from {low!r} down to {high!r}")
            ranges.append(_code(low) if low == high else f"{_code(low)}-{_code(high)}")
        self._at += 1
        if not ranges:
            raise self._fault("an empty class of characters")
        return Characters(f"[{'^' if inverted else ''}{''.join(ranges)}]")

    def _character(self) -> str:
        here = self._here()
        self._at += 1
        if here != "\\":
            return here
        kind = self._here()
        self._at += 1
        if kind in _PLAIN:
            return _PLAIN[kind]
        digits = self._text[self._at : self._at + _HEX.get(kind, 0)]
        if not digits or len(digits) != _HEX[kind] or not re.fullmatch(r"[0-9A-Fa-f]+", digits):
            raise self._fault(f"`\\{kind}{digits}` is no escape")
        self._at += len(digits)
        code = int(digits, 16)
        if code > _LAST or code in _SURROGATES:
            raise self._fault(f"`\\{kind}{digits}` is no character")
        return chr(code)


def _code(character: str) -> str:
    return rf"\x{{{ord(character):X}}}"
