"""What `meshslm doctor net` makes of what a node says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from meshslm.api.admin import DhtInfo, ReachInfo, RelayInfo, WitnessInfo
from tests.cli.conftest import Run
from tests.cli.stand_in_node import NODE, STATUS, stand_in_node

PLACE = "/ip4/203.0.113.7/tcp/7415"


def witness(outcome: str, detail: str = "") -> WitnessInfo:
    return WitnessInfo(
        node=NODE, seen=PLACE, outcome=outcome, address=PLACE, detail=detail, relays=False
    )


Told = Callable[..., Any]


@pytest.fixture
def told(run: Run) -> Iterator[Told]:
    """Tells what the doctor says of a node that is reached so."""
    with stand_in_node() as node:

        def tell(reach: ReachInfo, *words: str, **fields: Any) -> Any:
            node.status = msgspec.structs.replace(STATUS, reach=reach, **fields)
            return run("doctor", "net", "--gateway-port", node.url.rpartition(":")[2], *words)

        yield tell


def checks(told: Any) -> list[tuple[str, str]]:
    return [(check["check"], check["verdict"]) for check in told.json["checks"]]


def test_a_node_on_loopback_is_told_how_to_open_up(told: Told) -> None:
    said = told(ReachInfo(), "--json")
    assert said.code == 0
    assert ("listening", "warn") in checks(said)
    assert "link.listen" in said.out


def test_a_private_node_without_a_relay_is_told_what_to_do(told: Told) -> None:
    reach = ReachInfo(state="private", reason="1 of 1", witnesses=[witness("failed", "no answer")])
    said = told(reach, addresses=["/ip4/192.168.1.7/tcp/7415"])
    assert "could not dial it at /ip4/203.0.113.7/tcp/7415: no answer" in said.out
    assert "forward the link's port" in said.out
    with_relay = ReachInfo(
        state="private",
        relays=[
            RelayInfo(node=NODE, used=True, age_ms=1000.0, reason=""),
            RelayInfo(node="other", used=False, age_ms=1000.0, reason="no room"),
        ],
        relayed=[NODE],
    )
    said = told(with_relay)
    assert "forward the link's port" not in said.out
    assert "called through" in said.out
    assert "would not relay" in said.out
    assert "through a relay" in said.out


def test_a_public_node_that_relays(told: Told) -> None:
    reach = ReachInfo(state="public", witnesses=[witness("reached")], offers_relay=True)
    said = told(reach, "--json", addresses=[PLACE])
    assert {verdict for _, verdict in checks(said)} == {"ok"}
    assert "relays for members" in said.out


@pytest.mark.parametrize(
    ("counts", "verdict", "words"),
    [
        ((0, 0, 0, None), "ok", "first round is under way"),
        ((0, 0, 0, 5000.0), "warn", "no server answered 5.0 s ago: refused"),
        ((3, 1, 3, 5000.0), "ok", "3 servers answered 5.0 s ago, 1 addresses found, 3 keep"),
        ((3, 1, 0, 5000.0), "ok", "it is not found until"),
    ],
)
def test_servers_of_a_dht_are_told_of(
    told: Told, counts: tuple[int, int, int, float | None], verdict: str, words: str
) -> None:
    answered, found, kept, age = counts
    dht = DhtInfo(
        servers=[PLACE], answered=answered, found=found, kept=kept, age_ms=age, reason="refused"
    )
    said = told(ReachInfo(), "--json", dht=dht)
    assert ("dht", verdict) in checks(said)
    assert words in said.out
    assert "dht" not in [name for name, _ in checks(told(ReachInfo(), "--json"))]


def test_where_no_node_runs_it_fails(run: Run) -> None:
    said = run("doctor", "net", "--gateway-port", "1")
    assert said.code == 1
    assert "meshslm up" in said.out
