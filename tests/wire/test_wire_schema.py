"""A message class that breaks a rule fails when it is read, not when a peer sends it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, NewType

import pytest

from meshslm.wire.compiler import compile_classes
from meshslm.wire.messages import Message, Presence, Sampling, TaskSubmit, TokenBias
from meshslm.wire.schema import Tag, classes_of, fields_of

Mark = NewType("Mark", str)


@dataclass(frozen=True, slots=True)
class Sound:
    second: Annotated[tuple[float, ...], Tag(2, most=1.0, items=2)] = ()
    first: Annotated[Mark | None, Tag(1, most=4)] = None


@dataclass(frozen=True)
class SameNumber:
    one: Annotated[bool, Tag(1)]
    other: Annotated[bool, Tag(1)]


@dataclass(frozen=True)
class NoTag:
    one: bool


@dataclass(frozen=True)
class NoBound:
    one: Annotated[int, Tag(1)]


@dataclass(frozen=True)
class NeedlessBound:
    one: Annotated[bool, Tag(1, most=1)]


@dataclass(frozen=True)
class NoItems:
    one: Annotated[tuple[bool, ...], Tag(1)]


@dataclass(frozen=True)
class ItemsOfNothing:
    one: Annotated[bool, Tag(1, items=2)]


@dataclass(frozen=True)
class TooManyItems:
    one: Annotated[tuple[bool, ...], Tag(1, items=1025)]


@dataclass(frozen=True)
class PairOfTwo:
    one: Annotated[tuple[bool, bool], Tag(1, items=2)]


@dataclass(frozen=True)
class ListOfLists:
    one: Annotated[tuple[tuple[bool, ...], ...], Tag(1, items=2)]


@dataclass(frozen=True)
class EitherOr:
    one: Annotated[int | str | None, Tag(1, most=2)] = None


@dataclass(frozen=True)
class OptionalWithoutDefault:
    one: Annotated[int | None, Tag(1, most=2)]


@dataclass(frozen=True)
class Mapping:
    one: Annotated[dict[str, str], Tag(1)]


@dataclass(frozen=True)
class Factory:
    one: Annotated[tuple[bool, ...], Tag(1, items=2)] = field(default_factory=tuple)


@dataclass(frozen=True)
class NumberTooHigh:
    one: Annotated[bool, Tag(128)]


@dataclass(frozen=True)
class TooWide:
    one: Annotated[int, Tag(1, most=2**64)]


class Plain:
    pass


@pytest.mark.parametrize(
    "cls",
    [
        SameNumber, NoTag, NoBound, NeedlessBound, NoItems, ItemsOfNothing, TooManyItems, PairOfTwo,
        ListOfLists, EitherOr, OptionalWithoutDefault, Mapping, Factory, NumberTooHigh, TooWide,
        Plain,
    ],
)  # fmt: skip
def test_a_class_that_breaks_a_rule_is_refused(cls: type) -> None:
    with pytest.raises(TypeError, match=cls.__name__):
        compile_classes(cls)


def test_fields_come_in_the_order_of_their_numbers() -> None:
    first, second = fields_of(Sound)
    assert (first.name, first.kind, first.optional, first.many) == ("first", str, True, False)
    assert (second.name, second.kind, second.optional, second.many) == (
        "second", float, False, True,
    )  # fmt: skip


def test_lists_of_floats_take_whole_numbers_and_keep_the_declared_order() -> None:
    compiled = compile_classes(Sound)[Sound]
    assert compiled.decode({1: "ab", 2: (1, 0.5)}) == Sound((1.0, 0.5), Mark("ab"))
    assert compiled.encode(Sound((1, 0.5), Mark("ab"))) == {1: "ab", 2: [1.0, 0.5]}


def test_parts_come_before_wholes_and_each_once() -> None:
    order = classes_of(TaskSubmit, Presence)
    assert len(order) == len(set(order))
    assert order.index(TokenBias) < order.index(Sampling) < order.index(TaskSubmit)


def test_numbers_of_kinds_are_small_and_unique() -> None:
    kinds = [cls.KIND for cls in Message.__args__]
    assert len(set(kinds)) == len(kinds)
    assert all(1 <= kind < 128 for kind in kinds)
