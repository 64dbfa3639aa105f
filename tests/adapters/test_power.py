"""Power and temperature, as far as the system tells."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from meshslm.adapters.power import with_power
from meshslm.wire.codec import decode, encode
from meshslm.wire.messages import Capability, Hardware


def told(
    monkeypatch: pytest.MonkeyPatch, battery: Callable[[], Any], sensors: Callable[[], Any]
) -> Hardware:
    monkeypatch.setattr(psutil, "sensors_battery", battery, raising=False)
    monkeypatch.setattr(psutil, "sensors_temperatures", sensors, raising=False)
    found = with_power(Hardware(cores=2))
    capability = Capability(1, 1, hardware=found)
    assert decode(encode(capability)) == capability
    assert found.cores == 2
    return found


def battery(percent: float, *, plugged: bool | None) -> Callable[[], Any]:
    return lambda: SimpleNamespace(percent=percent, power_plugged=plugged)


def heat(*degrees: float) -> Callable[[], Any]:
    return lambda: {"coretemp": [SimpleNamespace(current=d) for d in degrees]}


def test_a_machine_on_its_battery_says_how_full_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    found = told(monkeypatch, battery(43.0, plugged=False), heat(61.0, 72.6))
    assert (found.on_battery, found.battery, found.temperature_c) == (True, 0.4, 75.0)


@pytest.mark.parametrize("plugged", [True, None])
def test_one_on_the_mains_has_no_battery_to_spare(
    monkeypatch: pytest.MonkeyPatch, *, plugged: bool | None
) -> None:
    found = told(monkeypatch, battery(43.0, plugged=plugged), dict)
    assert (found.on_battery, found.battery, found.temperature_c) == (False, 1.0, 0.0)


def test_broken_sensors_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    found = told(monkeypatch, battery(-7.0, plugged=False), heat(-300.0, float("nan"), 9e9))
    assert (found.battery, found.temperature_c) == (0.0, 0.0)


def test_a_system_that_tells_nothing_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing() -> Any:
        raise OSError("no such file")

    assert told(monkeypatch, nothing, nothing) == Hardware(cores=2)
