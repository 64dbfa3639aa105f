"""Machines behind NAT: called through a relay, linked directly where the translators allow it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import START_SECONDS, until
from tests.e2e.internet import LINK_PORT, Internet, Machine, Nat, Packet, why_not

pytestmark = pytest.mark.model

MEET_SECONDS = 60.0
TALE = [{"role": "user", "content": "Write a long story about a lighthouse keeper."}]


class KindNat(Nat):
    """One that keeps ports, as most routers do where it can."""

    def outward(self, packet: Packet) -> None:
        key = (packet.source, packet.source_port, packet.target, packet.target_port)
        if packet.opens and key not in self.out:
            self.out[key] = packet.source_port
            self.back[packet.source_port, packet.target, packet.target_port] = key[:2]
        super().outward(packet)


@pytest.fixture
def internet() -> Iterator[Internet]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with Internet() as made:
        yield made


class Two:
    """`b`, which hosts a model, and `c`, each behind its own NAT; `a` relays, `d` hosts too."""

    def __init__(
        self, internet: Internet, folder: Path, store: Path, kind: Callable[[str], Nat], *, d: bool
    ) -> None:
        common = ("--models-dir", str(store), "--threads", "1")
        nats = {"b": kind("203.0.113.2"), "c": kind("203.0.113.3")}
        names = "abcd" if d else "abc"
        self.machines = {n: internet.machine(n, folder, nat=nats.get(n)) for n in names}
        lead = ("--bootstrap", f"/ip4/{self['a'].address}/tcp/{LINK_PORT}")
        for name, machine in self.machines.items():
            hosts = ("--profile", "code") if name in "bd" else ("--no-profiles",)
            more = ("--relay", "on") if name == "a" else lead
            machine.start(*common, *hosts, *more)
        for name in self.machines:
            others = set(self.machines) - {name}
            until(partial(self.sees, name, others), START_SECONDS, f"{name} sees {others}")
        until(lambda: len(self.ready()) == len(names) - 2, START_SECONDS, "models are loaded")

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    def sees(self, name: str, others: set[str]) -> bool:
        return self[name].sees() == others

    def ready(self) -> list[str]:
        """Names of those whose models `c` knows to be loaded."""
        reply = self["c"].get("/mesh/peers") or {"peers": []}
        return [p["name"] for p in reply["peers"] if any(load["ready"] for load in p["loads"])]

    def reach(self, name: str) -> dict[str, Any]:
        """How a node says that it is reached."""
        found: dict[str, Any] = (self[name].get("/mesh/status") or {}).get("reach", {})
        return found

    def is_called_through_a_relay(self, name: str) -> bool:
        reach = self.reach(name)
        return reach.get("state") == "private" and any(r["used"] for r in reach["relays"])

    def tell(self, disturb: Callable[[], None] | None, host: str = "b") -> tuple[str, str]:
        """A tale that `c` asks `host` for, and who told its end."""
        body = {
            "model": f"domain:code@{host}" if disturb is None else "domain:code",
            "messages": TALE,
            "max_tokens": 64,
            "temperature": 0,
            "stream": True,
        }
        text, events, teller, last = "", 0, "", {}
        with (
            self["c"].http(120.0) as client,
            client.stream("POST", "/v1/chat/completions", json=body) as answer,
        ):
            assert answer.status_code == 200, answer.read()
            teller = answer.headers["x-meshslm-node-name"]
            for line in answer.iter_lines():
                if not line.startswith("data: {"):
                    continue
                last = json.loads(line.removeprefix("data: "))
                assert "error" not in last, last
                text += "".join(c["delta"].get("content") or "" for c in last["choices"])
                events += 1
                if events == 6 and disturb is not None:
                    disturb()
        return text, teller


def test_two_behind_strict_nats_talk_through_a_relay(
    internet: Internet, tmp_path: Path, models_dir: Path
) -> None:
    two = Two(internet, tmp_path, models_dir, Nat, d=False)
    assert two.reach("a")["offers_relay"]
    for name, other in (("b", "c"), ("c", "b")):
        until(partial(two.is_called_through_a_relay, name), MEET_SECONDS, f"{name} has a relay")
        assert two[name].sees() == {"a", other}
    assert len(two.reach("c")["relayed"]) == 1
    text, teller = two.tell(None)
    assert teller == "b"
    assert len(text) > 40


def test_two_behind_kind_nats_get_a_direct_link_and_lose_no_answer(
    internet: Internet, tmp_path: Path, models_dir: Path
) -> None:
    two = Two(internet, tmp_path, models_dir, KindNat, d=False)
    calm, _ = two.tell(None)
    until(lambda: two.reach("b")["relayed"] == two.reach("c")["relayed"] == [], MEET_SECONDS)
    two["a"].kill()
    until(lambda: two["c"].sees() == {"b"}, MEET_SECONDS, "the two need nobody else")
    again, teller = two.tell(None)
    assert (again, teller) == (calm, "b")


@pytest.mark.long
def test_an_answer_outlives_the_relay_that_carried_it(
    internet: Internet, tmp_path: Path, models_dir: Path
) -> None:
    two = Two(internet, tmp_path, models_dir, Nat, d=True)
    calm, _ = two.tell(None)
    text, _ = two.tell(two["a"].kill)
    assert text == calm
