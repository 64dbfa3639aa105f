"""What commands print with."""

from __future__ import annotations

import re
from contextlib import suppress
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from meshslm.cli.screen import bytes_text, duration_text, print_fields, print_json, print_table
from meshslm.cli.steps import Steps


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (None, "-"),
        (0.2, "0 ms"),
        (999, "999 ms"),
        (1500, "1.5 s"),
        (150_000, "2 min 30 s"),
        (3_725_000, "1 h 02 min"),
    ],
)
def test_durations(milliseconds: float | None, text: str) -> None:
    assert duration_text(milliseconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (145 * 2**20, "145.0 MiB")],
)
def test_sizes(count: int, text: str) -> None:
    assert bytes_text(count) == text


@given(st.integers(0, 2**59))
def test_sizes_stay_short(count: int) -> None:
    assert len(bytes_text(count)) < 16


def test_a_table_in_a_pipe_keeps_long_cells_whole(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("a", "number"), [("x" * 150, 7), ("[bold]", 12)], right=("number",))
    lines = capsys.readouterr().out.splitlines()
    assert "x" * 150 in lines[1]
    assert lines[2].startswith("[bold]")
    assert lines[1].rstrip().endswith(" 7")


HOSTILE = "node\x1b]0;owned\x07\x9b31m\r"


def test_names_of_peers_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name",), [(HOSTILE,)])
    print_fields([("name", HOSTILE)])
    assert capsys.readouterr().out.split("\n") == [
        "name           ",
        "node]0;owned31m",
        "name  node]0;owned31m",
        "",
    ]


def test_fields_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields([("a", 1), ("long", "two")])
    assert capsys.readouterr().out == "a     1\nlong  two\n"


def test_json_keeps_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"text": "Grüße"})
    assert capsys.readouterr().out == '{\n  "text": "Grüße"\n}\n'


def test_steps_in_a_pipe_are_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with Steps() as steps:
        with steps.step("first") as step:
            step.note = "half"
        with suppress(ValueError), steps.step("second") as step:
            step.note = "half, 5 s left"
            raise ValueError
    shown = capsys.readouterr()
    assert shown.out == ""
    first, second = shown.err.splitlines()
    assert first.startswith("ok  first  0.")
    assert first.endswith("  half")
    assert second.startswith("no  second  0.")
    assert second.endswith(" s"), "how far it was is not said of what failed"


def test_steps_on_a_terminal_are_drawn_as_they_go(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = StringIO()
    terminal = Console(file=screen, force_terminal=True, width=80)
    monkeypatch.setattr("meshslm.cli.steps.console", lambda *, err: terminal)
    with Steps() as steps:
        with steps.step("first") as step:
            step.note = "half"
            steps.say("a remark")
        with pytest.raises(ValueError, match="no"), steps.step("second"):
            raise ValueError("no")
    text = Text.from_ansi(screen.getvalue()).plain
    assert "a remark" in text
    first, second = text.rstrip().splitlines()[-2:]
    assert re.fullmatch(r".*ok first +0\.\d s half *", first)
    assert re.fullmatch(r".*no second +0\.\d s *", second)


def test_quiet_steps_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Steps(quiet=True) as steps, steps.step("first"):
        pass
    assert capsys.readouterr().err == ""
