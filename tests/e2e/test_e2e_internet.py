"""Five daemons on machines of their own: lost packets, cuts, hangs, kills, NAT, new addresses."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import START_SECONDS, until
from tests.e2e.internet import LINK_PORT, Internet, Machine, Nat, why_not

pytestmark = pytest.mark.model

NOTICED_SECONDS = 15.0
"""Three are promised, on a machine of its own: here five daemons share two cores with engines."""
QUESTION = "Write a function that adds two numbers."


@pytest.fixture(scope="session")
def namespaces() -> None:
    reason = why_not()
    if reason:
        pytest.skip(reason)


@pytest.fixture
def internet(namespaces: None) -> Iterator[Internet]:
    with Internet() as made:
        yield made


class Five:
    """Machines `a` to `e`; `b` and `c` host a model, all know the address of `a`."""

    def __init__(self, internet: Internet, folder: Path, store: Path, nat: Nat | None) -> None:
        self.internet = internet
        self._common = ("--models-dir", str(store), "--threads", "1")
        behind = {"e": nat} if nat else {}
        self.machines = {name: internet.machine(name, folder, behind.get(name)) for name in "abcde"}

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    def boot(self, name: str, *words: str) -> None:
        hosts = ("--profile", "code") if name in "bc" else ("--no-profiles",)
        self[name].start(*self._common, *hosts, *words)

    def boot_all(self) -> None:
        lead = ("--bootstrap", f"/ip4/{self['a'].address}/tcp/{LINK_PORT}")
        for name in self.machines:
            self.boot(name, *(lead if name != "a" else ()))
        self.agree(START_SECONDS)
        until(lambda: len(self.ready()) == 2, START_SECONDS, "two models loaded")

    def ready(self) -> list[str]:
        """Names of those whose models `a` knows to be loaded."""
        reply = self["a"].get("/mesh/peers") or {"peers": []}
        return [p["name"] for p in reply["peers"] if any(load["ready"] for load in p["loads"])]

    def agree(self, seconds: float = 60.0, among: str = "abcde") -> None:
        """Wait until each of these sees all others of them, and nobody else."""
        for name in among:
            others = set(among) - {name}
            until(partial(self.sees, name, others), seconds, f"{name} sees {sorted(others)}")

    def sees(self, name: str, others: set[str]) -> bool:
        return self[name].sees() == others

    def ask(self, name: str, tokens: int = 4) -> Any:
        """An answer to whoever asks at a machine."""
        with self[name].http() as client:
            reply = client.post("/v1/chat/completions", json=body(tokens))
        assert reply.status_code == 200, reply.text
        return reply.headers["x-meshslm-node-name"]

    def gone(self, name: str) -> list[str]:
        """What a node said of peers that it gave up."""
        return [line for line in self[name].said.splitlines() if "peer.gone" in line]


def body(tokens: int, *, stream: bool = False) -> dict[str, Any]:
    turn = {"role": "user", "content": QUESTION}
    return {
        "model": "domain:code",
        "messages": [turn],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": stream,
    }


@pytest.fixture
def five(internet: Internet, tmp_path: Path, models_dir: Path) -> Five:
    made = Five(internet, tmp_path, models_dir, None)
    made.boot_all()
    return made


def test_five_machines_meet_and_notice_one_that_is_killed(five: Five) -> None:
    assert five.ask("a") in {"b", "c"}
    five["e"].kill()
    five.agree(NOTICED_SECONDS, "abcd")
    assert five.ask("d") in {"b", "c"}


@pytest.mark.long
def test_one_that_hangs_is_dropped_and_is_back_when_it_goes_on(five: Five) -> None:
    five["b"].signal(signal.SIGSTOP)
    five.agree(NOTICED_SECONDS, "acde")
    assert five.ask("a") == "c"
    five["b"].signal(signal.SIGCONT)
    five.agree()


@pytest.mark.long
def test_lost_and_late_packets_kill_nobody(five: Five) -> None:
    five.internet.loss, five.internet.delay_ms = 0.05, 20.0
    for name in "abcde" * 3:
        assert five.ask(name, 8) in {"b", "c"}
    five.agree()
    assert [five.gone(name) for name in "abcde"] == [[]] * 5


@pytest.mark.long
def test_both_sides_of_a_cut_go_on_and_are_one_again_after_it(five: Five) -> None:
    left, right = [five[n] for n in "ab"], [five[n] for n in "cde"]
    five.internet.cut(left, right)
    five.agree(NOTICED_SECONDS, "ab")
    five.agree(NOTICED_SECONDS, "cde")
    assert five.ask("a") == "b"
    assert five.ask("d") == "c"
    five.internet.heal()
    five.agree()


@pytest.mark.long
def test_a_machine_without_its_cable_is_dropped_and_is_back_with_it(five: Five) -> None:
    five.internet.unplug(five["b"])
    five.agree(NOTICED_SECONDS, "acde")
    until(lambda: not five["b"].sees(), NOTICED_SECONDS, "it sees nobody")
    assert five.ask("a") == "c"
    assert five.ask("b") == "b", "it goes on for its own user"
    five.internet.heal()
    five.agree()


@pytest.mark.long
def test_two_that_do_not_hear_each_other_one_way_lose_their_link_alone(five: Five) -> None:
    a, b = five["a"], five["b"]
    five.internet.cut([a], [b], one_way=True)
    until(lambda: "b" not in a.sees() and "a" not in b.sees(), 30, "the link is given up")
    assert five.ask("a") == "c"
    for name in "cde":
        until(partial(five.sees, name, set("abcde") - {name}), what="others reach both")
    for name in "ab":
        until(partial(five.sees, name, set("cde")), what="both reach the others")
    five.internet.heal()
    five.agree()


@pytest.mark.long
@pytest.mark.parametrize("fault", ["unplugged", "killed", "hung"])
def test_an_answer_goes_on_when_who_gave_it_is_lost(five: Five, fault: str) -> None:
    with (
        five["a"].http() as client,
        client.stream("POST", "/v1/chat/completions", json=body(160, stream=True)) as reply,
    ):
        server = five[reply.headers["x-meshslm-node-name"]]
        lines = (line[6:] for line in reply.iter_lines() if line.startswith("data: "))
        pieces = [json.loads(next(lines)) for _ in range(8)]
        if fault == "unplugged":
            five.internet.unplug(server)
        elif fault == "killed":
            server.kill()
        else:
            server.signal(signal.SIGSTOP)
        pieces += [json.loads(line) for line in lines if line != "[DONE]"]
    assert not [piece["error"] for piece in pieces if "error" in piece]
    finish = [c["finish_reason"] for p in pieces for c in p["choices"] if c["finish_reason"]]
    assert finish in (["length"], ["stop"])
    until(lambda: server.name not in five["a"].sees(), NOTICED_SECONDS, "it is dropped")


@pytest.mark.long
def test_an_answer_goes_on_when_its_asker_gets_another_address(five: Five) -> None:
    before = five["d"].get("/mesh/status")["tasks"]
    with (
        five["d"].http() as client,
        client.stream("POST", "/v1/chat/completions", json=body(160, stream=True)) as reply,
    ):
        lines = (line[6:] for line in reply.iter_lines() if line.startswith("data: "))
        pieces = [json.loads(next(lines)) for _ in range(8)]
        five["d"].move("10.9.7.4")
        pieces += [json.loads(line) for line in lines if line != "[DONE]"]
    assert not [piece["error"] for piece in pieces if "error" in piece]
    finish = [c["finish_reason"] for p in pieces for c in p["choices"] if c["finish_reason"]]
    assert finish in (["length"], ["stop"])
    assert "no longer has the address 10.9.0.4" in five["d"].said
    tasks = five["d"].get("/mesh/status")["tasks"]
    for other_way in ("failed", "retried", "continued"):
        assert tasks[other_way] == before[other_way], "it went on where it was"
    five.agree()


@pytest.mark.long
def test_one_behind_a_translator_is_a_member_even_when_that_restarts(
    internet: Internet, tmp_path: Path, models_dir: Path
) -> None:
    nat = Nat("203.0.113.9")
    five = Five(internet, tmp_path, models_dir, nat)
    five.boot_all()
    assert five.ask("e") in {"b", "c"}
    nat.forget()
    until(lambda: bool(five.gone("a")), NOTICED_SECONDS, "the silence is noticed")
    five.agree()
    assert five.ask("e") in {"b", "c"}


@pytest.mark.long
def test_one_comes_back_with_another_address_and_nothing_but_its_file_of_peers(five: Five) -> None:
    for name in "abcd":
        until(partial(told_of, five[name], "10.9.0.5"), what="it is written down")
    until(partial(told_of, five["e"], "10.9.0.2"), what="it is written down")
    five["e"].stop()
    five.agree(NOTICED_SECONDS, "abcd")
    five["e"].move("10.9.7.7")
    five.boot("e")
    five.agree()
    until(partial(told_of, five["a"], "10.9.7.7"), what="the new address is written down")
    five["a"].kill()
    five.agree(NOTICED_SECONDS, "bcde")
    five.boot("a")
    five.agree()


def told_of(machine: Machine, address: str) -> bool:
    """Whether the node's file of peers has an address."""
    file = machine.folder / "peers.json"
    return file.exists() and address in file.read_text()
