"""Draining over HTTP."""

from __future__ import annotations

import pytest

from tests.gateway.served import Served


async def test_a_drain_is_answered_with_what_is_left(served: Served) -> None:
    response = await served.http.post("/mesh/drain", json={"limit_s": 2.5})
    assert response.status_code == 202
    assert response.json() == {"left_ms": 2500.0, "tasks": 1, "runs": 2}
    assert served.service.drains == [2500]


async def test_without_a_body_it_has_a_minute(served: Served) -> None:
    assert (await served.http.post("/mesh/drain")).status_code == 202
    assert served.service.drains == [60_000]


@pytest.mark.parametrize(
    "body", [b'{"limit_s": -1}', b'{"limit_s": 1e9}', b'{"limit": 1}', b"{", b"\xff"]
)
async def test_nonsense_is_refused(served: Served, body: bytes) -> None:
    response = await served.http.post("/mesh/drain", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["message"]
    assert served.service.drains == []
