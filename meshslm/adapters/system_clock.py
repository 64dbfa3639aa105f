"""The machine's monotonic clock, as the `Clock` port."""

from __future__ import annotations

import time

from meshslm.ids import Instant


class SystemClock:
    """Monotonic microseconds since the machine started."""

    def now(self) -> Instant:
        """The present instant."""
        return Instant(time.monotonic_ns() // 1000)
