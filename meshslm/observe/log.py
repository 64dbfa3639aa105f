"""Logging, set up once: lines for people, or JSON lines for machines.

Rules:
- Nothing that a client wrote or a model answered is ever logged; counts, names and ids are.
- Facts beside the message go in `extra={"facts": {...}}`, so that both styles can show them.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TextIO

LEVELS = ("debug", "info", "warning", "error")
STYLES = ("text", "json")

# Libraries that tell at INFO or DEBUG what only their authors need.
_CHATTY = ("libp2p", "zeroconf", "httpx", "httpcore", "hypercorn", "asyncio", "multiaddr")


class TextLines(logging.Formatter):
    """`2025-01-31 12:00:00.123 INFO    gateway: answered (status=200 ms=12)`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback follows on its own lines."""
        when = datetime.fromtimestamp(record.created, UTC).astimezone()
        name = record.name.removeprefix("meshslm.")
        line = (
            f"{when:%Y-%m-%d %H:%M:%S}.{int(record.msecs):03d} {record.levelname:<7} "
            f"{name}: {_one_line(record.getMessage())}"
        )
        facts = _facts(record)
        if facts:
            line += " (" + " ".join(f"{key}={_one_line(str(facts[key]))}" for key in facts) + ")"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Time in UTC with microseconds; facts beside the fixed fields."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        facts = _facts(record)
        if facts:
            line["facts"] = facts
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up_logging(level: str, style: str, stream: TextIO) -> None:
    """Send every log line at `level` and above to `stream` in `style`.

    `level` is one of `LEVELS`, `style` one of `STYLES`. Replaces an earlier set-up.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines() if style == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("meshslm").setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


def _facts(record: logging.LogRecord) -> dict[str, object]:
    facts = getattr(record, "facts", None)
    return facts if isinstance(facts, dict) else {}


def _one_line(text: str) -> str:
    # A peer's words may be in it: no line of the log may be forged with a line feed in a name.
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
