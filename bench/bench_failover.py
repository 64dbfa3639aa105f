"""Answers whose node is killed, stopped or cut off while they stream, with real processes.

Three nodes: clients ask the first, the other two host the same. At a random moment of a stream the
one that serves it is killed (kill -9, its engine with it), stopped (SIGSTOP), or loses its link
without anybody being told. The same is asked undisturbed too, once, and the texts are compared.
Only the disturbed node is started anew, and at another port, so that the ways between it and the
first lead through cables that can be cut. Engines compute with two threads, as they would on
machines of their own: whoever goes on has the cores of the one that died. Both nodes have answered
a request with the same schema or tools before, as nodes in use have, though not the same question.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

import httpx
from msgspec.structs import replace

from bench.cuttable import LOOPBACK, Cable
from bench.nodes import READY_S, answers, settings
from bench.table import Row
from bench.turns import say
from meshslm.adapters.keyring import load_or_create
from meshslm.cli.demo_nodes import NodePlan, RunningNode, RunningNodes, free_ports, plan_nodes
from meshslm.errors import OurFault

ROUNDS: Final = 100
rounds = ROUNDS
"""Streams disturbed by each kind of fault; `--rounds` makes it fewer."""
TOKENS: Final = 60
FIRST_EVENTS: Final = 3
"""The answer has begun, and its client has some of it."""
ROLES: Final = (("node-a", "code"), ("node-b", "writing"), ("node-c", "writing"))
TARGETS_MS: Final = {"kill -9": 500.0, "SIGSTOP": 2000.0, "cut link": 2000.0}
ANIMAL: Final = {
    "type": "object",
    "properties": {
        "home": {"type": "string", "minLength": 60, "maxLength": 90},
        "food": {"type": "string", "minLength": 60, "maxLength": 90},
    },
    "required": ["home", "food"],
    "additionalProperties": False,
}
TEXT: Final[Mapping[str, Any]] = {}
SCHEMA: Final[Mapping[str, Any]] = {
    "response_format": {"type": "json_schema", "json_schema": {"name": "it", "schema": ANIMAL}}
}
CALL: Final[Mapping[str, Any]] = {
    "tool_choice": "required",
    "tools": [{"type": "function", "function": {"name": "note_animal", "parameters": ANIMAL}}],
}


@dataclass
class Heard:
    """One stream as its client got it."""

    node: str = ""
    said: str = ""
    """Text and arguments."""
    whole: bool = False
    continued: str = ""
    times: list[float] = field(default_factory=list)

    def take(self, event: Mapping[str, Any]) -> None:
        """Add an event."""
        if "error" in event:
            self.said += f"[{event['error']['message']}]"
            return
        self.continued = (event.get("meshslm") or {}).get("continued") or self.continued
        for choice in event["choices"]:
            delta = choice["delta"]
            self.said += delta.get("content") or ""
            for call in delta.get("tool_calls") or []:
                self.said += call["function"]["arguments"]
            self.times.append(time.perf_counter())

    def gap_ms(self, since: float) -> float:
        """The longest its client waited for the next piece, after `since`."""
        later = [at for at in self.times if at > since]
        waits = [at - max(before, since) for before, at in pairwise(self.times)
                 if at > since]  # fmt: skip
        return 1000 * max(waits) if later and waits else 0.0


class Trio:
    """The nodes, and the cables between the first and the others."""

    def __init__(self, home: Path, nodes: RunningNodes) -> None:
        small = settings(home)
        engine = replace(small.engine, threads=2, slots=4, context=1024)
        self._plans = plan_nodes(replace(small, engine=engine), home, None, ROLES)
        self._nodes = nodes
        self._cables = {plan.name: Cable() for plan in self._plans[1:]}
        self._back = {plan.name: Cable() for plan in self._plans[1:]}
        """By which they dial the first; cut together with those by which it dials them."""
        first = self._plans[0].config.read_text(encoding="utf-8")
        ids = re.findall(r"/p2p/(\w+)", first)
        others = dict(zip(self._cables, ids[-2:], strict=True))
        ways = [f"/ip4/{LOOPBACK}/tcp/{self._cables[n].port}/p2p/{i}" for n, i in others.items()]
        self._first_id = load_or_create(self._plans[0].folder).node_id
        for cable in self._back.values():
            cable.to = int(re.findall(r"/tcp/(\d+)\"", first)[0])
        _put(self._plans[0], bootstrap=ways)
        for plan in self._plans[1:]:
            self._move(plan)
        nodes.start(self._plans)
        self.wait()

    @property
    def url(self) -> str:
        """Where clients ask."""
        return self._plans[0].url

    def disturb(self, kind: str, name: str) -> None:
        """Do it to a node."""
        if kind == "cut link":
            self._cables[name].cut()
            self._back[name].cut()
            return
        if kind == "kill -9":
            self._cables[name].refuse()  # as the dead node's own address does
        how = signal.SIGKILL if kind == "kill -9" else signal.SIGSTOP
        os.killpg(self._node(name).pid, how)

    def renew(self, name: str) -> None:
        """Start a disturbed node anew, at another port, with an uncut cable."""
        old = self._node(name)
        old.kill()
        self._cables[name].mend()
        self._back[name].mend()
        self._move(old.plan)
        self._nodes.nodes[self._nodes.nodes.index(old)] = RunningNode(old.plan)
        self.wait()

    def wait(self) -> None:
        """Until all are ready and the first knows both others to be."""
        for plan in self._plans:
            self._nodes.wait_until(plan.name, partial(answers, plan.url, "/readyz"), READY_S)
        self._nodes.wait_until("acquainted", self._acquainted, READY_S)

    def warm(self, form: Mapping[str, Any], names: Iterable[str]) -> None:
        """Let nodes answer a request of a form, if it is one."""
        for name in names if form else ():
            question = _asked("What does a cat eat, and where does it sleep?", 2, form)
            listen(self.url, question, model=f"writing@{name}")

    def _acquainted(self) -> bool:
        peers = httpx.get(self.url + "/mesh/peers", timeout=5).json()["peers"]
        ready = [p for p in peers if p["state"] == "alive" and any(e["ready"] for e in p["loads"])]
        return len(ready) == len(self._cables)

    def _node(self, name: str) -> RunningNode:
        return next(node for node in self._nodes.nodes if node.plan.name == name)

    def _move(self, plan: NodePlan) -> None:
        (port,) = free_ports(1)
        self._cables[plan.name].to = port
        back = f"/ip4/{LOOPBACK}/tcp/{self._back[plan.name].port}/p2p/{self._first_id}"
        _put(plan, bootstrap=[back], listen=[f"/ip4/{LOOPBACK}/tcp/{port}"])
        (plan.folder / "peers.json").unlink(missing_ok=True)


def _put(plan: NodePlan, **lists: list[str]) -> None:
    """Change keys of a node's configuration."""
    lines = plan.config.read_text(encoding="utf-8").splitlines()
    for key, values in lists.items():
        lines = [
            f"{key} = {json.dumps(values)}" if li.startswith(f"{key} =") else li for li in lines
        ]
    plan.config.write_text("\n".join(lines) + "\n", encoding="utf-8")


@contextmanager
def trio() -> Iterator[Trio]:
    """The mesh, in a folder that goes away with it; what its nodes logged stays if it fails."""
    with tempfile.TemporaryDirectory(prefix="meshslm-bench-") as folder, RunningNodes() as nodes:
        try:
            yield Trio(Path(folder), nodes)
        except OurFault:
            kept = Path(tempfile.mkdtemp(prefix="meshslm-bench-logs-"))
            for log in Path(folder).glob("*.log"):
                shutil.copy(log, kept)
            say(f"what its nodes logged is in {kept}")
            raise


def _asked(prompt: str, tokens: int, form: Mapping[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}], "max_tokens": tokens, **form}


def listen(
    url: str,
    question: Mapping[str, Any],
    disturb: Callable[[str], None] | None = None,
    model: str = "domain:writing",
) -> Heard:
    """Stream one answer; `disturb` gets the name of the node that gives it, after each event."""
    told = {"stream": True, "stream_options": {"include_usage": True}}
    body = {**question, "model": model, "temperature": 0, **told}
    heard = Heard()
    with httpx.stream("POST", url + "/v1/chat/completions", json=body, timeout=60) as answer:
        answer.read() if answer.status_code != 200 else None
        heard.node = answer.headers.get("x-meshslm-node-name", "")
        for line in answer.iter_lines():
            if line == "data: [DONE]":
                heard.whole = True
            elif line.startswith("data: "):
                heard.take(json.loads(line.removeprefix("data: ")))
                if disturb is not None:
                    disturb(heard.node)
    return heard


@dataclass
class Outcome:
    """What came of one kind of fault."""

    gaps_ms: list[float] = field(default_factory=list)
    same: int = 0
    missed: int = 0
    """The whole answer was on its way before the fault."""
    differing: list[str] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Count what came of more streams."""
        self.gaps_ms += other.gaps_ms
        self.same += other.same
        self.missed += other.missed
        self.differing += other.differing


def once(
    mesh: Trio, kind: str, form: Mapping[str, Any], number: int, calm: dict[int, Heard]
) -> Outcome:
    """One stream that is disturbed at a random moment; `calm` has the same undisturbed, by number.

    It is asked undisturbed the first time only, while the disturbed node is started anew.
    """
    into = Outcome()
    prompt = f"Write a story about the animal with the number {number} and its long journey."
    question = _asked(prompt, TOKENS, form)
    at = random.Random(number).randint(FIRST_EVENTS, TOKENS // 3)
    done: list[float] = []
    seen = 0

    def disturb(name: str) -> None:
        nonlocal seen
        seen += 1
        if seen == at:
            mesh.disturb(kind, name)
            done.append(time.perf_counter())

    disturbed = listen(mesh.url, question, disturb)
    with ThreadPoolExecutor(1) as aside:
        known = number in calm
        asked = None if known else aside.submit(listen, mesh.url, question)
        if done:  # in this thread: a node ends with the thread that started it
            mesh.renew(disturbed.node)
            mesh.warm(form, (disturbed.node,))
        if asked is not None:
            calm[number] = asked.result()
    if not done or not disturbed.continued:
        into.missed += 1
    else:
        into.gaps_ms.append(disturbed.gap_ms(done[0]))
    if disturbed.whole and disturbed.said == calm[number].said:
        into.same += 1
    else:
        undisturbed = calm[number].said
        into.differing.append(f"{kind} {number}: {disturbed.said!r}, undisturbed {undisturbed!r}")
    return into


def measure() -> list[Row]:
    """Every kind of fault, for text."""
    return _measure({"text": TEXT})


def measure_forms() -> list[Row]:
    """Every kind of fault, for answers of a form."""
    return _measure({"JSON schema": SCHEMA, "tool call": CALL})


def _measure(forms: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    plan = [(kind, form, of, n) for form, of in forms.items()
            for kind in TARGETS_MS for n in range(rounds)]  # fmt: skip
    found = {(kind, form): Outcome() for kind, form, _, _ in plan}
    calm: dict[str, dict[int, Heard]] = {form: {} for form in forms}
    began = time.monotonic()
    with trio() as mesh:
        for place, (kind, form, of, number) in enumerate(plan, 1):
            if number == 0:
                mesh.warm(of, (name for name, _ in ROLES[1:]))
            found[kind, form].add(once(mesh, kind, of, number, calm[form]))
            passed = time.monotonic() - began
            left = passed / place * (len(plan) - place)
            gaps = found[kind, form].gaps_ms
            last = f"{gaps[-1]:.0f} ms" if gaps else "-"
            say(f"{place}/{len(plan)} {form}, {kind}: {last}; about {left / 60:.0f} min left")
    for outcome in found.values():
        for line in outcome.differing:
            say(f"differs: {line}")
    return [_row(kind, form, outcome) for (kind, form), outcome in found.items()]


def _row(kind: str, form: str, outcome: Outcome) -> Row:
    runs = outcome.same + len(outcome.differing)
    gaps, target = outcome.gaps_ms, TARGETS_MS[kind]
    what = f"{form}, {kind}: until the next piece"
    if not gaps:
        return Row(what, "no stream was hit", target=f"under {target:.0f} ms", reached=False)
    high = quantiles(gaps, n=20, method="inclusive")[-1] if len(gaps) > 1 else gaps[0]
    return Row(
        what,
        f"p50 {median(gaps):.0f} ms, p95 {high:.0f} ms, longest {max(gaps):.0f} ms",
        f"{outcome.same} of {runs} as undisturbed; {outcome.missed} were over before",
        "",
        f"under {target:.0f} ms, all the same",
        max(gaps) < target and outcome.same == runs,
    )
