"""Decisions over HTTP."""

from __future__ import annotations

import pytest

from meshslm.core.consensus.events import DecisionMade
from meshslm.wire.consensus import Command, Decision, Share
from tests.gateway.served import Served

DECISIONS = "/mesh/consensus/decisions"
GRANT = {"act": "quota.grant", "subject": "gpu", "holder": "n1", "amount": 2}


async def test_the_view(served: Served) -> None:
    told = (await served.http.get("/mesh/consensus")).json()
    assert (told["role"], told["committed"], told["last"]) == ("leader", 7, 8)
    assert told["seats"][0]["votes"] is True


async def test_something_is_decided(served: Served) -> None:
    response = await served.http.post(DECISIONS, json=GRANT)
    assert (response.status_code, response.json()["index"]) == (200, 9)
    assert served.service.wanted == [(Command("quota.grant", "gpu", "n1", "", 2), "", "")]


async def test_what_is_decided_is_read(served: Served) -> None:
    quota = Decision("quota", "gpu", "", 9, 4, (Share("n1", 2),))
    served.service.made = DecisionMade(1, "decided", "", 9, (quota,))
    response = await served.http.get(DECISIONS, params={"kind": "quota", "subject": "gpu"})
    assert response.json()["decisions"][0]["shares"] == [{"holder": "n1", "amount": 2}]
    assert served.service.wanted == [(None, "quota", "gpu")]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("conflict", 409),
        ("exhausted", 409),
        ("no_majority", 503),
        ("unknown", 503),
        ("no_group", 503),
        ("forbidden", 403),
        ("bad_command", 400),
    ],
)
async def test_what_is_not_decided_says_why(served: Served, code: str, status: int) -> None:
    served.service.made = DecisionMade(1, code, "because of this")
    response = await served.http.post(DECISIONS, json=GRANT)
    assert response.status_code == status
    assert response.json()["error"]["message"] == f"{code}: because of this"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"act": "rollout.begin"},
        {"act": "no.such", "subject": "x"},
        {"act": "revoke", "subject": ""},
        {"act": "revoke", "subject": "x" * 129},
        {"act": "revoke", "subject": "\u00e9" * 100},
        {"act": "revoke", "subject": "x", "value": "y" * 5000},
        {"act": "quota.set", "subject": "x", "amount": -1},
        {"act": "quota.set", "subject": "x", "amount": 2**60},
        {"act": "revoke", "subject": "x", "surprise": 1},
    ],
)
async def test_a_bad_command_is_refused_here(served: Served, body: dict[str, object]) -> None:
    assert (await served.http.post(DECISIONS, json=body)).status_code == 400
    assert not served.service.wanted


async def test_a_question_is_bounded(served: Served) -> None:
    for bad in ({"kind": "k" * 33}, {"subject": "s" * 129}):
        assert (await served.http.get(DECISIONS, params=bad)).status_code == 400


async def test_orders_about_seats(served: Served) -> None:
    url = "/mesh/consensus/seats"
    assert (await served.http.post(url, json={"order": "add", "node": "n2"})).status_code == 200
    assert (await served.http.post(url, json={"order": "crown"})).status_code == 400
    assert served.service.seats == [("add", "n2")]
