"""Makes, for each message class, the two functions that turn it into plain values and back.

Presence and token chunks are the hot path, thousands a second in a large mesh, and a loop over
`Field` objects takes several times as long as the straight code that one would write by hand.
So that code is written here, from the schema, once per class when the codec is imported.

What the generated functions look like, for a class with a text (1) and a list of parts (2):

    def encode(message):
        fields = {}
        v = message.name
        if type(v) is not str or len(v) > 128 or not v.isascii() and over(v, 128):
            v = settle(F1, v)
        fields[1] = v
        ...
    def decode(fields):
        if type(fields) is not dict:
            raise not_a_map(fields)
        pop = fields.pop
        f1 = pop(1, None)
        if type(f1) is not str or len(f1) > 128 or not f1.isascii() and over(f1, 128):
            raise refuse(F1, f1)
        ...
        if fields:
            ignore(fields)
        return Example(f1, f2)

Rules:
- Nothing but numbers and names out of our own classes enters the source; never a byte of a peer.
- `encode` raises ValueError (our bug), `decode` raises PeerFault (a peer's).
- Fields are written in ascending order of their numbers, and one that equals its default is left
  out: equal messages are equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from meshslm import limits
from meshslm.errors import PeerFault
from meshslm.wire.schema import Field, classes_of, complaint, fields_of, fits, over

Encode = Callable[[Any], dict[int, Any]]
Decode = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Compiled:
    """The functions of one class, between an instance and a map from field number to value."""

    encode: Encode
    decode: Decode
    source: str
    """What was generated, for people and tests."""


def compile_classes(*roots: type) -> dict[type, Compiled]:
    """Functions for `roots` and all classes nested in them. TypeError for a class with bad tags."""
    compiled: dict[type, Compiled] = {}
    for cls in classes_of(*roots):
        compiled[cls] = _compile(cls, compiled)
    return compiled


def _compile(cls: type, parts: dict[type, Compiled]) -> Compiled:
    names: dict[str, Any] = {
        "make": cls,
        "over": over,
        "settle": _settle,
        "widen": _widen,
        "refuse": _refuse,
        "ignore": _ignore,
        "complain": _complain,
        "not_a_map": _not_a_map,
    }
    for field in fields_of(cls):
        number = field.tag.number
        names[f"F{number}"] = field
        names[f"D{number}"] = field.default
        if field.nested:
            names[f"T{number}"] = field.kind
            names[f"encode{number}"] = parts[field.kind].encode
            names[f"decode{number}"] = parts[field.kind].decode
    source = "\n".join([*_encode_lines(cls), *_decode_lines(cls)]) + "\n"
    exec(compile(source, f"<codec of {cls.__name__}>", "exec"), names)  # noqa: S102 - our own lines
    return Compiled(names["encode"], names["decode"], source)


# --- source -------------------------------------------------------------------------------------
def _misfit(field: Field, value: str) -> str:
    """Expression: `value` is not a proper scalar of `field`. What `schema.fits` says, inlined."""
    wrong = f"type({value}) is not {field.kind.__name__}"
    most = field.tag.most
    if field.kind is bool:
        return wrong
    if field.kind is str:
        # Of ASCII text, and Python knows at once whether it is, characters are bytes.
        too_long = f"len({value}) > {most} or not {value}.isascii() and over({value}, {most})"
        return f"{wrong} or {too_long}"
    if field.kind is bytes:
        return f"{wrong} or len({value}) > {most}"
    return f"{wrong} or not {field.tag.least!r} <= {value} <= {most!r}"


def _encode_lines(cls: type) -> list[str]:
    lines = ["def encode(message):", "    fields = {}"]
    for field in fields_of(cls):
        lines.append(f"    v = message.{field.name}")
        if field.required:
            lines += _indent(_encode_value(field), 1)
            lines.append(f"    fields[{field.tag.number}] = v")
        else:
            absent = "v is not None" if field.optional else f"v != D{field.tag.number}"
            lines.append(f"    if {absent}:")
            lines += _indent(_encode_value(field), 2)
            lines.append(f"        fields[{field.tag.number}] = v")
    return [*lines, "    return fields"]


def _encode_value(field: Field) -> list[str]:
    """Turn `v` from a field's value into a plain one."""
    n = field.tag.number
    if field.many:
        check = [
            f"if type(v) is not tuple or len(v) > {field.tag.items}:",
            f"    raise complain(F{n}, v)",
        ]
        if field.nested:
            return [
                *check,
                "for x in v:",
                f"    if type(x) is not T{n}:",
                f"        raise complain(F{n}, x, item=True)",
                f"v = [encode{n}(x) for x in v]",
            ]
        misfit = _misfit(field, "x")
        return [*check, f"v = [settle(F{n}, x, item=True) if {misfit} else x for x in v]"]
    if field.nested:
        return [f"if type(v) is not T{n}:", f"    raise complain(F{n}, v)", f"v = encode{n}(v)"]
    return [f"if {_misfit(field, 'v')}:", f"    v = settle(F{n}, v)"]


def _decode_lines(cls: type) -> list[str]:
    lines = [
        "def decode(fields):",
        "    if type(fields) is not dict:",
        f"        raise not_a_map({cls.__name__!r}, fields)",
        "    pop = fields.pop",
    ]
    for field in fields_of(cls):
        n = field.tag.number
        value = _decode_value(field, f"f{n}")
        default = "None" if field.required else f"D{n}"
        lines.append(f"    f{n} = pop({n}, {default})")
        if field.required:
            lines += _indent(value, 1)
        else:
            lines.append(f"    if f{n} is not {default}:")
            lines += _indent(value, 2)
    numbers = {field.name: field.tag.number for field in fields_of(cls)}
    arguments = ", ".join(f"f{numbers[entry.name]}" for entry in fields(cls))
    lines += ["    if fields:", f"        ignore({cls.__name__!r}, fields)"]
    return [*lines, f"    return make({arguments})"]


def _decode_value(field: Field, v: str) -> list[str]:
    """Check the plain value `v` and turn it into a field's."""
    n = field.tag.number
    if field.many:
        check = [
            f"if type({v}) is not tuple or len({v}) > {field.tag.items}:",
            f"    raise refuse(F{n}, {v})",
        ]
        if field.nested:
            return [*check, f"{v} = tuple([decode{n}(x) for x in {v}])"]
        misfit = _misfit(field, "x")
        if field.kind is float:
            return [*check, f"{v} = tuple([widen(F{n}, x) if {misfit} else x for x in {v}])"]
        return [
            *check,
            f"for x in {v}:",
            f"    if {misfit}:",
            f"        raise refuse(F{n}, x, item=True)",
        ]
    if field.nested:
        missing = [f"if {v} is None:", f"    raise refuse(F{n}, {v})"] if field.required else []
        return [*missing, f"{v} = decode{n}({v})"]
    misfit = _misfit(field, v)
    if field.kind is float:
        return [f"if {misfit}:", f"    {v} = widen(F{n}, {v})"]
    return [f"if {misfit}:", f"    raise refuse(F{n}, {v})"]


def _indent(lines: list[str], levels: int) -> list[str]:
    return ["    " * levels + line for line in lines]


# --- called by the generated code, off its usual path -------------------------------------------
def _settle(field: Field, value: object, *, item: bool = False) -> object:
    """A value that is proper but of a subclass, as its plain type; else ValueError."""
    plain: object = value
    if field.kind is float and type(value) is int:
        plain = float(value)
    elif isinstance(value, str):
        plain = str.__str__(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        plain = int(value)
    if not fits(field, plain):
        raise _complain(field, plain, item=item)
    return plain


def _complain(field: Field, value: object, *, item: bool = False) -> ValueError:
    return ValueError(complaint(field, value, item=item))


def _widen(field: Field, value: object) -> float:
    """A whole number that a peer wrote where a float is meant; else PeerFault."""
    if type(value) is int:
        number = float(value)
        if fits(field, number):
            return number
    raise _refuse(field, value, item=field.many)


def _refuse(field: Field, value: object, *, item: bool = False) -> PeerFault:
    return PeerFault(complaint(field, value, item=item))


def _not_a_map(name: str, value: object) -> PeerFault:
    return PeerFault(f"{name} must be a map of fields, not {type(value).__name__}")


def _ignore(name: str, unknown: dict[object, object]) -> None:
    """Let fields of a later version pass, unless they are too deep to be honest."""
    for number, value in unknown.items():
        if _depth_exceeds(value, limits.MESSAGE_DEPTH):
            raise PeerFault(f"{name}, unknown field {number!r}, is nested too deep")


def _depth_exceeds(value: object, most: int) -> bool:
    if isinstance(value, dict):
        inner = list(value.values())
    elif isinstance(value, tuple):
        inner = list(value)
    else:
        return False
    return most == 0 or any(_depth_exceeds(one, most - 1) for one in inner)
