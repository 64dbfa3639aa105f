"""Lengths of time as people write them: `90s`, `15m`, `24h`, `30d`, `1h30m`."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final

import click

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_FORM: Final = re.compile(r"(?:\d{1,6}[smhdw])+")
_PART: Final = re.compile(r"(\d+)([smhdw])")

LONGEST_S: Final = 10 * 366 * 86_400
"""Ten years: what is to hold for longer should be renewed."""


class Duration(click.ParamType[int]):
    """A length of time, in seconds."""

    name = "duration"

    def __init__(self, least_s: int = 1) -> None:
        self._least = least_s

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int:
        """Read it, or say how it is written."""
        if isinstance(value, int):
            return value
        text = str(value).strip().lower()
        if not _FORM.fullmatch(text):
            self.fail(f"{value!r} is no duration: write 90s, 15m, 24h, 30d or 1h30m", param, ctx)
        seconds = sum(int(count) * _UNITS[unit] for count, unit in _PART.findall(text))
        if not self._least <= seconds <= LONGEST_S:
            self.fail(f"{value!r} is not between {self._least} s and ten years", param, ctx)
        return seconds


def moment_text(unix_s: float) -> str:
    """A point in time, in UTC."""
    return datetime.fromtimestamp(unix_s, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")
