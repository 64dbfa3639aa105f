"""Two daemons on a slow wire: documents go over a connection of their own beside an answer."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from tests.e2e.conftest import START_SECONDS, until
from tests.e2e.internet import LINK_PORT, Internet, Machine, why_not

pytestmark = [pytest.mark.model, pytest.mark.long]

VALUES = 32
VALUE_BYTES = 40_000
"""Of each value, before it is made text: 1.2 MiB together, which nothing makes smaller."""
TOKENS = 200
GAP_SECONDS = 2.0
"""Between two tokens at most; the bulk alone takes the wire that long."""


@pytest.fixture
def pair(tmp_path: Path, models_dir: Path) -> Iterator[tuple[Internet, Machine, Machine]]:
    """`near` asks, `far` hosts a model; both share their documents."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with Internet() as internet:
        near, far = internet.machine("near", tmp_path), internet.machine("far", tmp_path)
        words = ("--models-dir", str(models_dir), "--threads", "1")
        far.start(*words, "--profile", "code")
        lead = f"/ip4/{far.address}/tcp/{LINK_PORT}"
        near.start(*words, "--no-profiles", "--bootstrap", lead)
        until(lambda: any(load["ready"] for load in loads(near)), START_SECONDS, "a model loaded")
        yield internet, near, far


def loads(machine: Machine) -> list[dict[str, object]]:
    reply = machine.get("/mesh/peers") or {"peers": []}
    return [load for peer in reply["peers"] for load in peer["loads"]]


def connections(machine: Machine) -> int:
    """Between the two daemons, as the kernel of a machine has them."""
    assert machine.daemon is not None
    established, port = "01", f":{LINK_PORT:04X}"
    rows = Path(f"/proc/{machine.daemon.pid}/net/tcp").read_text().splitlines()[1:]
    return sum(
        1
        for row in map(str.split, rows)
        if row[3] == established and (row[1].endswith(port) or row[2].endswith(port))
    )


def answered(machine: Machine) -> list[float]:
    """When the pieces of a long answer came."""
    body = {
        "model": "domain:code",
        "messages": [{"role": "user", "content": "Count from one to a hundred, in words."}],
        "max_tokens": TOKENS,
        "min_tokens": TOKENS,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
    }
    times = []
    with machine.http() as client, client.stream("POST", "/v1/chat/completions", json=body) as got:
        assert got.status_code == 200, got.read()
        for line in got.iter_lines():
            if line.startswith("data: {"):
                assert "error" not in json.loads(line.removeprefix("data: "))
                times.append(time.monotonic())
    return times


def write_much(machine: Machine) -> dict[str, str]:
    chance = Random(1)
    values = {
        f"value-{n}": b64encode(chance.randbytes(VALUE_BYTES)).decode() for n in range(VALUES)
    }
    with machine.http() as client:
        for key, value in values.items():
            path = f"/mesh/memory/bulk/values/{key}"
            client.put(path, json={"value": value}).raise_for_status()
    return values


def has(machine: Machine, key: str, value: str) -> bool:
    reply = machine.get(f"/mesh/memory/bulk/values/{key}")
    return reply is not None and reply.get("value") == value


def test_an_answer_goes_on_beside_documents_on_a_slow_wire(
    pair: tuple[Internet, Machine, Machine],
) -> None:
    internet, near, far = pair
    until(lambda: connections(near) == 1, 20, "one connection while nothing waits")
    internet.mbit, internet.delay_ms = 4.0, 20.0
    with ThreadPoolExecutor(2) as pool:
        streamed, written = pool.submit(answered, near), pool.submit(write_much, far)
        until(lambda: connections(near) == 2, 30, "a connection for bulk")
        values = written.result(60)
        for key, value in values.items():
            until(partial(has, near, key, value), 60, f"{key} at the other node")
        times = streamed.result(120)
    gaps = [after - before for before, after in pairwise(times)]
    assert max(gaps) < GAP_SECONDS
    assert "peer.gone" not in near.said + far.said
    until(lambda: connections(near) == 1, 40, "it ends when it is idle")
