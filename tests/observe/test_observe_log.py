"""Log lines, for people and for machines."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from meshslm.observe.log import LEVELS, set_up_logging


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where logging goes; the set-up of before is restored."""
    root, ours = logging.getLogger(), logging.getLogger("meshslm")
    before = (root.handlers[:], root.level, ours.level)
    yield io.StringIO()
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def test_a_line_for_a_person(stream: io.StringIO) -> None:
    set_up_logging("info", "text", stream)
    logging.getLogger("meshslm.gateway").info("answered", extra={"facts": {"ms": 12, "id": "r1"}})
    line = stream.getvalue()
    assert line.endswith(" INFO    gateway: answered (ms=12 id=r1)\n")


def test_a_line_for_a_machine(stream: io.StringIO) -> None:
    set_up_logging("info", "json", stream)
    logging.getLogger("meshslm.core").warning("é %d", 5, extra={"facts": {"peer": "x"}})
    line = json.loads(stream.getvalue())
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "warning",
        "logger": "meshslm.core",
        "message": "é 5",
        "facts": {"peer": "x"},
    }


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_name_cannot_forge_a_line(stream: io.StringIO, style: str) -> None:
    set_up_logging("info", style, stream)
    evil = "a\n2025 INFO gateway: all is well\x1b[2J"
    logging.getLogger("meshslm.link").info("peer %s", evil, extra={"facts": {"name": evil}})
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_trace_is_kept(stream: io.StringIO, style: str) -> None:
    set_up_logging("info", style, stream)
    try:
        raise ZeroDivisionError("the reason")
    except ZeroDivisionError:
        logging.getLogger("meshslm.pump").exception("broke")
    assert "ZeroDivisionError: the reason" in stream.getvalue()
    if style == "json":
        assert "Traceback" in json.loads(stream.getvalue())["traceback"]


def test_levels(stream: io.StringIO) -> None:
    for level in LEVELS:
        set_up_logging(level, "text", stream)
        logger = logging.getLogger("meshslm.any")
        assert logger.isEnabledFor(getattr(logging, level.upper()))
        assert logger.isEnabledFor(logging.DEBUG) == (level == "debug")


def test_libraries_are_quiet_and_lines_come_once(stream: io.StringIO) -> None:
    for _ in range(2):
        set_up_logging("debug", "text", stream)
    logging.getLogger("libp2p.host").info("chatter")
    logging.getLogger("libp2p.host").warning("trouble")
    assert stream.getvalue().count("\n") == 1
    assert "trouble" in stream.getvalue()
