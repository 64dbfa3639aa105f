"""`meshslm drain` watches a node leave."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest

from meshslm.client import DrainInfo
from tests.cli.conftest import documented_keys
from tests.cli.local_server import Answering, served_by
from tests.cli.stand_in_node import STATUS

if TYPE_CHECKING:
    from tests.cli.conftest import Run


@contextmanager
def leaving_node(*left: DrainInfo) -> Iterator[tuple[str, list[bytes]]]:
    """A node that tells so much at one look after the other, and then is gone."""
    looks = iter(left)
    posted: list[bytes] = []

    class Handler(Answering):
        def do_GET(self) -> None:
            drain = next(looks, None) if posted else None
            if posted and drain is None:
                self.close_connection = True
                return
            self.tell(200, msgspec.structs.replace(STATUS, drain=drain))

        def do_POST(self) -> None:
            posted.append(self.body())
            self.tell(202, next(looks))

        def tell(self, status: int, shape: object) -> None:
            self.whole(status, msgspec.json.encode(shape))

    with served_by(Handler) as url:
        yield url, posted


def left(ms: float, tasks: int, runs: int) -> DrainInfo:
    return DrainInfo(left_ms=ms, tasks=tasks, runs=runs)


def test_it_watches_until_the_node_is_gone(run: Run) -> None:
    with leaving_node(left(30_000, 2, 1), left(29_000, 1, 0)) as (url, posted):
        outcome = run("drain", "--limit", "30s", "--url", url)
    assert outcome.code == 0, outcome.err
    assert posted == [b'{"limit_s":30}']
    assert outcome.out == "node-a has left, and nothing was broken off\n"


def test_it_says_what_was_broken_off(run: Run) -> None:
    with leaving_node(left(1000, 2, 1), left(50, 1, 2)) as (url, _):
        outcome = run("drain", "--limit", "1s", "--url", url, "--json")
    assert outcome.code == 0, outcome.err
    assert set(outcome.json) == documented_keys("drain")
    assert outcome.json["broken_off"] == 3


@pytest.mark.parametrize("limit", ["0s", "soon", "-5s"])
def test_a_limit_that_is_none_is_refused(run: Run, limit: str) -> None:
    assert run("drain", "--limit", limit, "--url", "http://127.0.0.1:9").code == 2


def test_where_no_node_is_it_says_so(run: Run) -> None:
    outcome = run("drain", "--url", "http://127.0.0.1:9")
    assert outcome.code == 1
    assert "--url" in outcome.err
