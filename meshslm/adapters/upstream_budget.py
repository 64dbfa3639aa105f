"""What an upstream may still be asked for: requests a minute, and money a day.

Rules:
- Money is set aside before a request is sent, for the longest answer that it allows, and given back
  as far as it was not spent: the day's bound holds whatever comes back.
- What was spent is in a file, so that a restart does not begin the day anew. A file that cannot be
  read is an error, never a fresh day; while it cannot be written, nothing more is spent.
- Days are those of UTC.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from meshslm.errors import UNREADABLE, OurFault

MINUTE_S: Final = 60.0
DAY_S: Final = 86_400


class _Spent(msgspec.Struct, forbid_unknown_fields=True):
    """The file."""

    day: int
    """Days since 1970."""
    spent: float


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may be asked for; 0: without bound."""

    requests_per_minute: int = 0
    spend_per_day: float = 0.0


class UpstreamBudget:
    """The account of one upstream."""

    def __init__(
        self, bounds: Bounds, file: Path, wall_clock: Callable[[], float] = time.time
    ) -> None:
        """Raises `OurFault` where `file` is there and cannot be read."""
        self._bounds = bounds
        self._file = file
        self._clock = wall_clock
        self._sent: deque[float] = deque()
        self._aside = 0.0
        self._unwritten = ""
        """Why the file does not say what was spent."""
        self._spent = self._read()

    def _read(self) -> _Spent:
        try:
            text = self._file.read_bytes()
        except FileNotFoundError:
            return _Spent(self._today(), 0.0)
        except OSError as error:
            raise OurFault(f"cannot read {self._file}: {error.strerror}") from None
        try:
            return msgspec.json.decode(text, type=_Spent)
        except UNREADABLE as error:
            raise OurFault(
                f"{self._file} does not say what was spent on the upstream ({error}); remove it to "
                "begin this day at nothing"
            ) from None

    def refusal(self, cost: float) -> str:
        """Why a request of that cost at most cannot be sent now; empty where it can."""
        now = self._clock()
        while self._sent and self._sent[0] <= now - MINUTE_S:
            self._sent.popleft()
        most = self._bounds.requests_per_minute
        if most and len(self._sent) >= most:
            return f"{most} requests a minute are allowed to the upstream, and were sent"
        self._turn_day()
        if self._unwritten:
            self._write()
        if self._unwritten:
            return f"what is spent on the upstream cannot be written: {self._unwritten}"
        money = self._bounds.spend_per_day
        if money and self._spent.spent + self._aside + cost > money:
            return (
                f"the upstream may cost {money:g} a day; {self._spent.spent:g} is spent, and this "
                f"could cost {cost:g}"
            )
        return ""

    def set_aside(self, cost: float) -> None:
        """A request is sent."""
        self._sent.append(self._clock())
        self._aside += cost

    def settle(self, aside: float, cost: float) -> None:
        """It is over, and cost so much."""
        self._aside = max(0.0, self._aside - aside)
        self._turn_day()
        self._spent.spent += cost
        self._write()

    def _write(self) -> None:
        if not self._bounds.spend_per_day:
            return
        part = self._file.with_suffix(".part")
        try:
            part.write_bytes(msgspec.json.encode(self._spent))
            part.replace(self._file)
        except OSError as error:
            self._unwritten = error.strerror or type(error).__name__
        else:
            self._unwritten = ""

    def retry_after_ms(self, cost: float) -> int:
        """Until a request of that cost at most may be sent; 0 where it may now, or never may.

        Money that is set aside may come back sooner than the day ends.
        """
        if not self.refusal(cost):
            return 0
        now, most, money = (
            self._clock(),
            self._bounds.requests_per_minute,
            self._bounds.spend_per_day,
        )
        if money and cost > money:
            return 0
        if self._unwritten:
            return int(MINUTE_S * 1000)
        if money and self._spent.spent + self._aside + cost > money:
            return int((DAY_S - now % DAY_S) * 1000)
        return int((self._sent[len(self._sent) - most] + MINUTE_S - now) * 1000)

    def _turn_day(self) -> None:
        today = self._today()
        if self._spent.day != today:
            self._spent = _Spent(today, 0.0)

    def _today(self) -> int:
        return int(self._clock() // DAY_S)
