"""Typed TOML: whatever is wrong is told with file, line, key, expected and got."""

from __future__ import annotations

import tomllib
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from meshslm import limits
from meshslm.errors import OurFault
from meshslm.toml_reference import key_rows, toml_value
from meshslm.toml_text import Key, TomlText, key_lines, nearest


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    count: Annotated[int, Meta(ge=1, description="How many.")]
    level: Literal["low", "high"] = "low"
    letter: Annotated[str, Meta(pattern="^a$", extra={"expected": "the letter a"})] = "a"


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    title: str
    share: float = 0.5
    inner: tuple[Inner, ...] = ()
    ratio: Annotated[float, Meta(le=1)] | None = None


GOOD = 'title = "x"\n'


def test_a_good_text_becomes_values() -> None:
    text = GOOD + "ratio = 1\n[[inner]]\ncount = 2\n"
    assert TomlText("f.toml", text).decode(Outer) == Outer("x", 0.5, (Inner(2),), 1.0)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("share = 1", "f.toml, line 1: title is missing"),
        (GOOD + 'share = "1"', "f.toml, line 2: share: expected a number; got '1'"),
        (
            GOOD + "\n[[inner]]\ncount = 1\n[[inner]]\n\ncount = 0",
            "f.toml, line 7: inner[1].count: expected a whole number >= 1; got 0",
        ),
        (
            GOOD + "inner = [{count = 1},\n  {count = 2, level = 'mid'}]",
            "f.toml, line 3: inner[1].level: expected one of high, low; got 'mid'",
        ),
        (
            GOOD + "[[inner]]\ncount = 1\nletter = 'b'",
            "f.toml, line 4: inner[0].letter: expected the letter a; got 'b'",
        ),
        (
            GOOD + "[[inner]]\ncuont = 1",
            "f.toml, line 3: [inner[0]] has no key 'cuont'; did you mean 'count'?",
        ),
        (
            GOOD + "zzz = 1",
            "f.toml, line 2: the file has no key 'zzz'; known: inner, ratio, share, title",
        ),
        (GOOD + "ratio = 2", "f.toml, line 2: ratio: expected a number <= 1.0; got 2"),
        (GOOD + "inner = 3", "f.toml, line 2: inner: expected a list; got 3"),
        (
            "title = 1979-05-27",
            "f.toml, line 1: title: expected a text; got datetime.date(1979, 5, 27)",
        ),
        ("\n\n title = ", "f.toml, line 3, at the end: not valid TOML: Invalid value"),
        ("\n\n title = ]\n", "f.toml, line 3, column 10: not valid TOML: Invalid value"),
        ("title = 'x'\ntitle = 'y'\n", "f.toml, line 2, column 12: not valid TOML: "),
    ],
)
def test_an_error_names_file_line_key_expected_and_got(text: str, error: str) -> None:
    with pytest.raises(OurFault) as caught:
        TomlText("f.toml", text).decode(Outer)
    assert str(caught.value).startswith(error)


def test_long_values_are_cut_in_errors() -> None:
    with pytest.raises(OurFault) as caught:
        TomlText("f.toml", f'title = "x"\nshare = "{"y" * 5000}"').decode(Outer)
    assert len(str(caught.value)) < 200


def test_a_text_that_is_too_long_is_refused() -> None:
    with pytest.raises(OurFault, match="at most"):
        TomlText("f.toml", "#" * (limits.TOML_BYTES + 1))


def test_deep_nesting_is_refused_and_not_a_crash() -> None:
    with pytest.raises(OurFault, match="nested too deeply"):
        TomlText("f.toml", "a = " + "[" * 100_000)


@given(st.text(max_size=200))
def test_any_text_is_values_or_our_fault(text: str) -> None:
    fault = ""
    try:
        TomlText("f.toml", text).decode(Outer)
    except OurFault as raised:
        fault = str(raised)
    assert fault == "" or fault.startswith("f.toml, line ")


def test_the_nearest_name_is_suggested() -> None:
    assert nearest("prot", ["host", "port"]) == "did you mean 'port'?"
    assert nearest("xyz", ["host", "port"]) == "known: host, port"
    assert nearest("xyz", []) == "none is known"


# --- where the keys are -------------------------------------------------------------------------
def test_lines_of_every_form_of_toml() -> None:
    text = """# a comment = [
plain = 1
"quoted key" = 'literal # no comment'
a.dotted . "k.e.y" = \"\"\"
several = 1
lines \\" \"\"\"\"
[table."with dot".deep] # comment
list = [ # comment ]
  1,
  [ 2, 3 ], '''x
]''',
  { one = 1, two = { three = "}" } },
  1979-05-27 07:32:00,
]
[[many]]
n = 1
[[many]]
n = -inf
[many.sub]
n = 0x10
[[many.sub2]]
n = 0
"""
    assert tomllib.loads(text)
    lines = key_lines(text)
    deep: Key = ("table", "with dot", "deep")
    assert {key: lines[key] for key in lines if key[0] != "table"} == {
        ("plain",): 2,
        ("quoted key",): 3,
        ("a",): 4,
        ("a", "dotted"): 4,
        ("a", "dotted", "k.e.y"): 4,
        ("many",): 15,
        ("many", 0): 15,
        ("many", 0, "n"): 16,
        ("many", 1): 17,
        ("many", 1, "n"): 18,
        ("many", 1, "sub"): 19,
        ("many", 1, "sub", "n"): 20,
        ("many", 1, "sub2"): 21,
        ("many", 1, "sub2", 0): 21,
        ("many", 1, "sub2", 0, "n"): 22,
    }
    assert lines[deep] == 7
    assert lines[(*deep, "list")] == 8
    assert [lines[(*deep, "list", index)] for index in range(5)] == [9, 10, 10, 12, 13]
    assert lines[(*deep, "list", 1, 1)] == 10
    assert lines[(*deep, "list", 3, "two", "three")] == 12


names = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=8
)
scalars = (
    st.integers(-(2**53), 2**53)
    | st.booleans()
    | st.text(st.characters(codec="utf-8"), max_size=20)
    | st.floats(allow_nan=False)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=3),
    max_leaves=12,
)


class Writer:
    """Writes values as TOML in one of many ways, and notes the line on which each begins."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self.text = ""
        self.lines: dict[Key, int] = {}

    def put(self, text: str) -> None:
        self.text += text

    def note(self, key: Key) -> None:
        self.lines[key] = self.text.count("\n") + 1

    def gap(self) -> None:
        self.put(self._draw(st.sampled_from(["", " ", "\n", " # x = [\n", "\n\n"])))

    def pair(self, key: Key, value: Any) -> None:
        self.note(key)
        self.put(f"{toml_value(str(key[-1]))} = ")
        self.value(key, value)

    def value(self, key: Key, value: Any) -> None:
        if isinstance(value, list):
            self.put("[")
            for index, item in enumerate(value):
                self.gap()
                self.note((*key, index))
                self.value((*key, index), item)
                self.gap()
                self.put(",")
            self.gap()
            self.put("]")
        elif isinstance(value, dict):
            self.put("{ ")
            for index, (name, item) in enumerate(value.items()):
                self.put(", " if index else "")
                self.pair((*key, name), item)
            self.put(" }")
        elif isinstance(value, str) and self._draw(st.booleans()):
            self.put('"""' + toml_value(value)[1:-1] + '"""')
        else:
            self.put(toml_value(value))


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[Key, int], dict[str, Any]]:
    writer = Writer(draw)
    data: dict[str, Any] = {}
    for name in draw(st.lists(names, max_size=4, unique=True)):
        writer.gap()
        writer.put("\n")
        match draw(st.sampled_from(["pair", "table", "tables"])) if data else "pair":
            case "table":
                table = draw(st.dictionaries(names, values, max_size=3))
                writer.note((name,))
                writer.put(f"[ {toml_value(name)} ]")
                fill(writer, (name,), table)
                data[name] = table
            case "tables":
                tables = draw(st.lists(st.dictionaries(names, values, max_size=2), min_size=1))
                for index, table in enumerate(tables):
                    writer.put("\n")
                    if index == 0:
                        writer.note((name,))
                    writer.note((name, index))
                    writer.put(f"[[{toml_value(name)}]]")
                    fill(writer, (name, index), table)
                data[name] = tables
            case _:
                if any(isinstance(other, dict | list) for other in data.values()):
                    continue  # it would belong to the table above
                value = draw(scalars)
                writer.pair((name,), value)
                data[name] = value
    return writer.text, writer.lines, data


def fill(writer: Writer, key: Key, table: dict[str, Any]) -> None:
    for name, value in table.items():
        writer.put("\n")
        writer.pair((*key, name), value)


@given(documents())
def test_every_key_of_any_document_is_found(
    document: tuple[str, dict[Key, int], dict[str, Any]],
) -> None:
    text, lines, data = document
    assert tomllib.loads(text) == data, "the test's own writer is wrong"
    assert key_lines(text) == lines
    assert key_lines(text.replace("\n", "\r\n")) == lines


# --- in words -----------------------------------------------------------------------------------
def test_types_in_words() -> None:
    rows = {row.name: row for row in (*key_rows(Outer), *key_rows(Inner))}
    assert rows["title"].kind == "text"
    assert rows["title"].default == ""
    assert rows["share"].default == "0.5"
    assert rows["inner"].kind == "list of table"
    assert rows["ratio"].kind == "number, at most 1"
    assert rows["count"].kind == "whole number from 1"
    assert rows["count"].description == "How many."
    assert rows["level"].kind == "`high` or `low`"
    assert rows["letter"].kind == "the letter a"


def test_bounds_have_all_their_digits_and_lists_are_told_in_english() -> None:
    class Table(msgspec.Struct):
        many: Annotated[int, Meta(ge=0, le=16_777_216)]
        dear: Annotated[float, Meta(ge=0, le=1e9)]
        half: Annotated[float, Meta(ge=0.5)]
        paths: tuple[Annotated[str, Meta(extra={"expected": "a path"})], ...]

    assert [row.kind for row in key_rows(Table)] == [
        "whole number, 0 to 16777216",
        "number, 0 to 1000000000",
        "number from 0.5",
        "list, each a path",
    ]


@given(scalars | st.lists(scalars, max_size=4))
def test_a_value_as_toml_reads_back(value: Any) -> None:
    assert tomllib.loads(f"x = {toml_value(value)}") == {"x": value}
