"""What is left of memory, and what is refused when there is too little."""

from __future__ import annotations

import math
import resource
from pathlib import Path

import pytest

from meshslm.engine import spare
from meshslm.errors import FaultCode, RequestFault
from meshslm.limits import MIB


def proc(folder: Path, available: str, taken: str = "1024 kB") -> Path:
    (folder / "self").mkdir()
    (folder / "meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable: {available}\n")
    (folder / "self/status").write_text(f"Name: x\nVmData:\t {taken}\n")
    return folder


@pytest.mark.parametrize(
    ("available", "limit_mib", "left"),
    [
        ("204800 kB", None, 200.0),
        ("204800 kB", 101, 100.0),
        ("204800 kB", 1, 0.0),
        ("much", None, math.inf),
        ("", 11, 10.0),
    ],
)
def test_the_least_of_what_is_known_is_left(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    available: str,
    limit_mib: int | None,
    left: float,
) -> None:
    limit = resource.RLIM_INFINITY if limit_mib is None else limit_mib * MIB
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert spare.spare_mib(proc(tmp_path, available)) == left


def test_a_system_that_says_nothing_refuses_nothing(tmp_path: Path) -> None:
    assert spare.spare_mib(tmp_path) == math.inf


def test_what_does_not_fit_is_refused_with_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spare, "spare_mib", lambda: 164.0)
    spare.require("this", 100)
    with pytest.raises(RequestFault, match=r"that needs 101 MiB .* 64, .* 164 MiB left") as refused:
        spare.require("that", 101)
    assert refused.value.code is FaultCode.OVERLOADED
