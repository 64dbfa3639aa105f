"""What a message class says about its own shape, read once.

A message is a frozen dataclass whose fields carry a `Tag`: a number for the wire and bounds.
This module turns such a class into a tuple of `Field`; the codec, the protocol table in the
documentation and the tests are all made from that, so they cannot disagree.

Rules:
- A field is a bool, int, float, str, bytes or tagged dataclass (or a `NewType` of one), perhaps
  optional (`T | None`, default None), or a tuple of one of them (`tuple[T, ...]`).
- Every number, text and tuple states its bound. A class that breaks a rule fails with TypeError
  when it is read, which is when the codec is imported.
- A default is part of the protocol, because a field that equals it is not sent.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, MISSING, dataclass, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Final, Union, get_args, get_origin, get_type_hints

SCALARS: Final = (bool, int, float, str, bytes)
HIGHEST_NUMBER: Final = 127
"""Field numbers are one byte on the wire."""

MOST_ITEMS: Final = 1024
"""Longest list in any version, so that a reader can refuse a longer one before it allocates."""


@dataclass(frozen=True, slots=True)
class Tag:
    """Number and bounds of a field."""

    number: int
    """On the wire, from 1; never changes its meaning and is never used again."""
    _: KW_ONLY
    most: int | float | None = None
    """Largest value of a number; longest text or bytes, in bytes of UTF-8. Of a tuple's items."""
    least: int | float = 0
    """Smallest value of a number."""
    items: int | None = None
    """Most items of a tuple."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message class."""

    owner: str
    name: str
    tag: Tag
    kind: type
    """Innermost type: one of `SCALARS` or a tagged dataclass."""
    many: bool
    optional: bool
    required: bool
    default: object

    @property
    def nested(self) -> bool:
        """The field holds one or more tagged dataclasses."""
        return self.kind not in SCALARS

    @property
    def label(self) -> str:
        """How an error names the field."""
        return f"{self.owner}.{self.name} (field {self.tag.number})"


def fields_of(cls: type) -> tuple[Field, ...]:
    """The fields of a message class in ascending order of their numbers."""
    return _read_class(cls)


@cache
def _read_class(cls: type) -> tuple[Field, ...]:
    if not is_dataclass(cls):
        raise TypeError(f"{cls.__name__} is not a dataclass")
    hints = get_type_hints(cls, include_extras=True)
    found: dict[int, Field] = {}
    for entry in fields(cls):
        if entry.default_factory is not MISSING:
            raise TypeError(f"{cls.__name__}.{entry.name}: a default must be a plain value")
        field = _read_field(cls.__name__, entry.name, hints[entry.name], entry.default)
        other = found.setdefault(field.tag.number, field)
        if other is not field:
            raise TypeError(f"{field.label} has the number of {other.label}")
    return tuple(found[number] for number in sorted(found))


def classes_of(*roots: type) -> tuple[type, ...]:
    """`roots` and every class nested in them, each once, parts before wholes."""
    found: dict[type, None] = {}

    def visit(cls: type) -> None:
        for field in fields_of(cls):
            if field.nested and field.kind not in found:
                visit(field.kind)
        found.setdefault(cls)

    for root in roots:
        visit(root)
    return tuple(found)


def _read_field(owner: str, name: str, hint: object, default: object) -> Field:
    """Check one annotation; TypeError says which rule it breaks."""
    where = f"{owner}.{name}"
    tag = next((extra for extra in get_args(hint)[1:] if isinstance(extra, Tag)), None)
    if get_origin(hint) is not Annotated or tag is None:
        raise TypeError(f"{where} has no Tag")
    if not 1 <= tag.number <= HIGHEST_NUMBER:
        raise TypeError(f"{where}: number {tag.number} is not from 1 to {HIGHEST_NUMBER}")
    inner, optional, many = get_args(hint)[0], False, False
    if get_origin(inner) in (Union, UnionType):
        inner, optional = _unwrap_optional(where, inner), True
        if default is not None:
            raise TypeError(f"{where}: an optional field must default to None")
    elif get_origin(inner) is tuple:
        if len(get_args(inner)) != 2 or get_args(inner)[1] is not Ellipsis:
            raise TypeError(f"{where}: only tuple[T, ...] is supported")
        inner, many = get_args(inner)[0], True
    kind = getattr(inner, "__supertype__", inner)
    if not isinstance(kind, type) or (kind not in SCALARS and not is_dataclass(kind)):
        raise TypeError(f"{where}: {kind!r} is not a supported type")
    if many is (tag.items is None):
        raise TypeError(f"{where}: `items` goes with tuples, and only with them")
    if many and not 1 <= (tag.items or 0) <= MOST_ITEMS:
        raise TypeError(f"{where}: `items` must be from 1 to {MOST_ITEMS}")
    if (kind in (int, float, str, bytes)) is (tag.most is None):
        raise TypeError(f"{where}: `most` goes with numbers, text and bytes, and only with them")
    if kind is int and not -(2**63) <= tag.least <= (tag.most or 0) < 2**64:
        raise TypeError(f"{where}: bounds must be within 64 bits")
    required = default is MISSING
    return Field(owner, name, tag, kind, many, optional, required, None if required else default)


def _unwrap_optional(where: str, union: object) -> object:
    options = [option for option in get_args(union) if option is not NoneType]
    if len(options) != 1 or get_origin(options[0]) is tuple:
        raise TypeError(f"{where}: the only union supported is `T | None`, T not a tuple")
    return options[0]


def over(text: str, most: int) -> bool:
    """Whether `text` is longer than `most` bytes of UTF-8."""
    return len(text) > most or len(text.encode()) > most


def fits(field: Field, value: object) -> bool:
    """Whether one item of `field`, of a scalar type, has exactly its type and keeps its bounds."""
    if type(value) is not field.kind:
        return False
    if isinstance(value, bool) or field.tag.most is None:
        return True
    if isinstance(value, str):
        return not over(value, int(field.tag.most))
    if isinstance(value, bytes):
        return len(value) <= field.tag.most
    return isinstance(value, int | float) and field.tag.least <= value <= field.tag.most


def complaint(field: Field, value: object, *, item: bool = False) -> str:
    """Why `value` is no value (with `item`: no item) of `field`. Never quotes what is long."""
    if value is None and field.required and not item:
        return f"{field.label} is missing"
    if field.many and not item:
        if isinstance(value, tuple):
            return f"{field.label} has {len(value)} items, at most {field.tag.items} are allowed"
        return f"{field.label} must be a list, not {type(value).__name__}"
    if type(value) is not field.kind:
        return f"{field.label} must be {field.kind.__name__}, not {type(value).__name__}"
    if isinstance(value, str):
        size = len(value.encode(errors="replace"))
        return f"{field.label} is {size} bytes long, at most {field.tag.most} are allowed"
    if isinstance(value, bytes):
        return f"{field.label} is {len(value)} bytes long, at most {field.tag.most} are allowed"
    return f"{field.label} is {value!r}, must be from {field.tag.least} to {field.tag.most}"
