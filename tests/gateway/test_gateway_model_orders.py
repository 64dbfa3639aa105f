"""Orders about models over HTTP."""

from __future__ import annotations

import pytest

from meshslm.core.residency import Order
from meshslm.errors import FaultCode, RequestFault
from tests.gateway.served import Served


@pytest.mark.parametrize("order", list(Order))
async def test_an_order_is_given_and_answered_with_the_models_state(
    served: Served, order: Order
) -> None:
    response = await served.http.post(f"/mesh/models/smollm2-1.7b/{order}")
    assert response.status_code == 202
    assert response.json() == {
        "model": "smollm2-1.7b",
        "state": "loading",
        "loaded": 0.5,
        "need_mib": 300,
        "pinned": order is Order.PIN,
        "reason": "",
    }
    assert served.service.orders == [("smollm2-1.7b", order, False)]


async def test_what_is_so_already_is_200(served: Served) -> None:
    served.service.ordered = "ready"
    assert (await served.http.post("/mesh/models/m/load")).status_code == 200


async def test_an_unload_may_be_at_once(served: Served) -> None:
    for now in (True, False):
        await served.http.post("/mesh/models/m/unload", json={"now": now})
    assert [at_once for _, _, at_once in served.service.orders] == [True, False]


@pytest.mark.parametrize(
    ("order", "body", "status"),
    [
        ("load", b'{"now": true}', 400),
        ("unload", b'{"now": "yes"}', 400),
        ("unload", b'{"soon": true}', 400),
        ("unload", b"{", 400),
        ("unload", b"\xff", 400),
        ("unload", b" " * 2000, 413),
        ("preload", b"", 404),
        ("", b"", 404),
    ],
)
async def test_nonsense_is_refused_and_the_next_order_heard(
    served: Served, order: str, body: bytes, status: int
) -> None:
    response = await served.http.post(f"/mesh/models/m/{order}", content=body)
    assert response.status_code == status
    assert response.json()["error"]["message"]
    assert served.service.orders == []
    assert (await served.http.post("/mesh/models/m/load")).status_code == 202


async def test_a_refusal_has_its_status_and_words(served: Served) -> None:
    detail = "this node hosts no model 'x'; known are a, b"
    served.service.refusal = RequestFault(FaultCode.UNKNOWN_MODEL, detail, param="model")
    response = await served.http.post("/mesh/models/x/load")
    assert response.status_code == 404
    assert response.json()["error"] == {
        "message": detail,
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


async def test_orders_are_posts_and_not_for_other_sites(served: Served) -> None:
    assert (await served.http.get("/mesh/models/m/load")).status_code == 405
    strange = {"origin": "https://example.org"}
    response = await served.http.post("/mesh/models/m/unload", headers=strange)
    assert response.status_code == 403
    assert served.service.orders == []
