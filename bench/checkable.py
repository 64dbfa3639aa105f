"""Requests whose answers can be checked without a person: sums, orders, and what a text says.

Written for this purpose, and easy: they are for the smallest models, which get about half of them
right. Each is asked behind two examples, so that the form of the answer is no riddle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

TOKENS: Final = 40
_SUMS: Final = (
    (2, 3), (4, 5), (7, 1), (6, 6), (9, 4), (8, 7), (1, 1), (5, 2), (3, 6), (10, 5), (4, 4),
    (9, 9),
)  # fmt: skip
_ORDERS: Final = (
    ("Anna", "Berlin", 4), ("Kofi", "Accra", 12), ("Mei", "Chengdu", 7), ("Lars", "Oslo", 31),
    ("Priya", "Pune", 2), ("Tomas", "Brno", 19), ("Aisha", "Kano", 8), ("Diego", "Quito", 55),
    ("Nora", "Cork", 3), ("Yuki", "Osaka", 14), ("Omar", "Fez", 27), ("Elena", "Turin", 6),
)  # fmt: skip
_FACTS: Final = (
    ("The train to Lyon leaves at 9:15 from platform 4.", "From which platform?", "4"),
    ("The red box weighs 12 kg and the blue one 8 kg.", "How heavy is the blue box, in kg?", "8"),
    ("Maria paid 30 euros, Jan paid 45.", "How many euros did Jan pay?", "45"),
    ("The meeting is on Tuesday in room 210.", "In which room?", "210"),
    ("A day ticket is 6 dollars, a week ticket 25.", "What is a week ticket, in dollars?", "25"),
    ("The shop opens at 8 and closes at 19.", "At what hour does it close?", "19"),
    ("Of 60 seats 14 are free.", "How many seats are free?", "14"),
    ("The bridge is 320 metres long and 18 wide.", "How many metres wide is it?", "18"),
    ("Flight 77 was delayed by 40 minutes.", "By how many minutes?", "40"),
    ("Peter is 51, his son is 23.", "How old is his son?", "23"),
    ("It was 5 degrees on Monday and 11 on Sunday.", "How many degrees on Monday?", "5"),
    ("The recipe takes 200 g of flour and 90 g of sugar.", "How many grams of sugar?", "90"),
)
_ORDER: Final = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "city": {"type": "string", "maxLength": 20},
        "count": {"type": "integer"},
    },
    "required": ["name", "city", "count"],
    "additionalProperties": False,
}
_AS_JSON: Final = {
    "response_format": {"type": "json_schema", "json_schema": {"name": "order", "schema": _ORDER}}
}


@dataclass(frozen=True, slots=True)
class Checkable:
    """A request, and what a right answer says."""

    kind: str
    messages: tuple[Mapping[str, str], ...]
    right: str | Mapping[str, Any]
    """The last number of the answer, or an object of JSON."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """More of the request's body."""

    def body(self, model: str) -> dict[str, Any]:
        """Of a chat completion; the likeliest tokens are taken."""
        said = {"messages": list(self.messages), "max_tokens": TOKENS, "temperature": 0}
        return {"model": model, **said, **self.fields}

    def holds(self, text: str) -> bool:
        """Whether an answer is right."""
        if isinstance(self.right, str):
            found = re.findall(r"\d+", text)
            return bool(found) and found[-1] == self.right
        try:
            return bool(msgspec.json.decode(text) == self.right)
        except msgspec.DecodeError:
            return False


def _turns(*said: str) -> tuple[Mapping[str, str], ...]:
    roles = ("user", "assistant")
    return tuple({"role": roles[n % 2], "content": text} for n, text in enumerate(said))


def _sum(one: int, other: int) -> Checkable:
    asked = _turns("2 + 2?", "2 + 2 = 4", "5 + 3?", "5 + 3 = 8", f"{one} + {other}?")
    return Checkable("sums", asked, str(one + other))


def _order(name: str, city: str, count: int) -> Checkable:
    before = '{"name": "Paul", "city": "Ghent", "count": 9}'
    asked = _turns(
        "Paul in Ghent orders 9 lamps.", before, f"{name} in {city} orders {count} chairs."
    )
    right = {"name": name, "city": city, "count": count}
    return Checkable("orders as JSON", asked, right, _AS_JSON)


def _fact(text: str, question: str, right: str) -> Checkable:
    asked = _turns(
        "The ship has 3 masts and 26 sails. How many sails?",
        "26",
        "Room 5 costs 80 euros, room 6 costs 95. How many euros is room 5?",
        "80",
        f"{text} {question}",
    )
    return Checkable("questions to a text", asked, right)


def checkable() -> list[Checkable]:
    """All of them, kinds by turns."""
    kinds = (
        [_sum(*numbers) for numbers in _SUMS],
        [_order(*order) for order in _ORDERS],
        [_fact(*fact) for fact in _FACTS],
    )
    return [one for together in zip(*kinds, strict=True) for one in together]
