"""What this machine's power supply and temperature are, as far as others need to know.

Rules:
- What the system does not tell is left out; nothing here raises.
- Figures are told in coarse steps, so that a node has news a few times an hour, not a second.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import psutil

from meshslm.wire.messages import Hardware

BATTERY_STEPS: Final = 10
"""A tenth of a battery at a time."""
TEMPERATURE_STEP_C: Final = 5.0
HOTTEST_C: Final = 150.0
"""Above it a sensor is broken."""
PROCESSORS: Final = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "soc_thermal", "acpitz")
"""Sensors of processors as Linux names them, the most telling first."""


def with_power(hardware: Hardware) -> Hardware:
    """`hardware` with how it is powered, and how hot, just now."""
    charge = _battery()
    return replace(
        hardware,
        on_battery=charge is not None,
        battery=1.0 if charge is None else charge,
        temperature_c=_temperature(),
    )


def _battery() -> float | None:
    """How full the battery is that this machine runs on; None where it runs on none."""
    try:
        told = psutil.sensors_battery()
    except (AttributeError, OSError, ValueError):
        return None  # not on this system, or not in this container
    if told is None or told.power_plugged is not False:
        return None
    share = min(100.0, max(0.0, float(told.percent))) / 100.0
    return round(share * BATTERY_STEPS) / BATTERY_STEPS


def _temperature() -> float:
    """Of the processor; 0 where nothing tells."""
    try:
        told: dict[str, list[Any]] = psutil.sensors_temperatures()
    except (AttributeError, OSError, ValueError):
        return 0.0
    for name in PROCESSORS:
        found = [s.current for s in told.get(name, ()) if 0.0 < s.current < HOTTEST_C]
        if found:
            return float(TEMPERATURE_STEP_C * round(max(found) / TEMPERATURE_STEP_C))
    return 0.0
