"""A small model first and a large one where need be, with real daemons and checked answers.

Two files of the same model stand for two models: one with weights of about four bits, and one with
sixteen. So they differ far less in what they know than in what they cost, and what is told here is
how often the judge sends an answer on, whether it sends the right ones, and what that costs; a pair
of really different models would gain more by the second, and lose more where the judge is wrong.

Each way is measured by nodes that were just started: nobody has computed a prompt before. The time
of processors is that of all daemons and their engines.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
from msgspec.structs import replace

from bench.checkable import Checkable, checkable
from bench.engines import default_model
from bench.nodes import READY_S, answers, knows, settings
from bench.table import Row
from bench.turns import say
from meshslm.cli.demo_nodes import NodePlan, RunningNodes, plan_nodes
from meshslm.core.cascade import CONFIDENT
from meshslm.models.model_library import ModelLibrary

TYPES: Final = {"small": "Q2_K", "large": "F16"}
"""Of the weights; where a matrix cannot be cut into blocks of 256, as here, Q2_K has four bits."""
THRESHOLDS: Final = (0.3, 0.5, 0.7, 0.8, 0.9)
PROFILE: Final = """
name = "{name}"
model = "{name}"
[[domains]]
domain = "questions"
sentence = "Sums, and what a text says."
"""


@dataclass(frozen=True, slots=True)
class Given:
    """One answer, as its client got it."""

    right: bool
    tokens: int
    """Of prompt and answer."""
    steps: Sequence[Mapping[str, Any]] = ()
    saved_tokens: int = 0

    @property
    def sure(self) -> float:
        """How sure the small model was."""
        return float(self.steps[0].get("confidence") or 0.0)


@dataclass(frozen=True, slots=True)
class Way:
    """All requests, answered in one way."""

    given: list[Given]
    cpu_s: float

    @property
    def right(self) -> int:
        """Answers that are right."""
        return sum(one.right for one in self.given)


def prepare(home: Path) -> list[str]:
    """Make both models in a store below `home`; the profiles that answer with them."""
    library = ModelLibrary(home / "models", environment={})
    profiles = []
    for name, kind in TYPES.items():
        say(f"writing {name}, {kind}")
        file = home / f"{name}.gguf"
        argv = [sys.executable, "-m", "meshslm.engine.quantise", str(default_model()), str(file)]
        subprocess.run([*argv, kind], check=True, capture_output=True)  # it says much
        library.pull(f"file:{file}", lambda _: None, name=name, prepared=False)
        file.unlink()
        profile = home / "profiles" / f"{name}.toml"
        profile.parent.mkdir(exist_ok=True)
        profile.write_text(PROFILE.format(name=name), encoding="utf-8")
        profiles.append(str(profile))
    return profiles


@contextmanager
def tiers(home: Path, profiles: Sequence[str]) -> Iterator[tuple[NodePlan, list[psutil.Process]]]:
    """Two nodes, one with each model; the one with the small model, and their processes."""
    found = settings(home)
    found = replace(
        found,
        node=replace(found.node, models_dir=str(home / "models")),
        engine=replace(found.engine, threads=1, slots=1, context=512, batch=128),
    )
    with RunningNodes() as nodes:
        plans = plan_nodes(found, home, None, tuple(zip(TYPES, profiles, strict=True)))
        nodes.start(plans)
        for plan in plans:
            nodes.wait_until(plan.name, partial(answers, plan.url, "/readyz"), READY_S)
            nodes.wait_until(plan.name, partial(knows, plan.url, len(plans) - 1), READY_S)
        daemons = [psutil.Process(node.pid) for node in nodes.nodes]
        yield plans[0], [p for one in daemons for p in (one, *one.children(recursive=True))]


def ask(url: str, one: Checkable, model: str, *, cascade: bool) -> Given:
    """One request, whole."""
    body = {**one.body(model), "routing": {"cascade": cascade}}
    reply = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120)
    reply.raise_for_status()
    told = reply.json()
    info = told["meshslm"].get("cascade") or {"steps": (), "saved_tokens": 0}
    return Given(
        one.holds(told["choices"][0]["message"]["content"] or ""),
        told["usage"]["total_tokens"],
        info["steps"],
        info["saved_tokens"],
    )


def answered(
    home: Path, profiles: Sequence[str], asked: Sequence[Checkable], model: str, *, cascade: bool
) -> Way:
    """All requests in one way, by fresh nodes."""
    with tiers(home, profiles) as (plan, processes):
        ask(plan.url, asked[0], "small", cascade=False)  # what is compiled once
        ask(plan.url, asked[0], "large", cascade=False)
        before = _cpu_s(processes)
        given = [ask(plan.url, one, model, cascade=cascade) for one in asked[1:]]
        return Way(given, _cpu_s(processes) - before)


def _cpu_s(processes: Sequence[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return float(sum(t.user + t.system for t in times))


def measure() -> list[Row]:
    """The same requests to the small model, to the large one, and in steps."""
    asked = checkable()
    with tempfile.TemporaryDirectory(prefix="meshslm-bench-") as folder:
        home = Path(folder)
        profiles = prepare(home)
        ways = {}
        for name, model in (("small", "small"), ("large", "large"), ("steps", "domain:questions")):
            say(f"{len(asked)} requests: {name}")
            ways[name] = answered(home, profiles, asked, model, cascade=name == "steps")
    return rows(asked[1:], ways["small"], ways["large"], ways["steps"])


def rows(asked: Sequence[Checkable], small: Way, large: Way, steps: Way) -> list[Row]:
    """What came of it."""
    count = len(asked)
    on = [one for one in steps.given if len(one.steps) > 1]
    unsure = sum("unsure" in one.steps[0].get("why_not", "") for one in on)
    kept = [s.right for s, one in zip(small.given, steps.given, strict=True) if len(one.steps) < 2]
    sent = [s.right for s, one in zip(small.given, steps.given, strict=True) if len(one.steps) > 1]
    spared = sum(one.saved_tokens for one in steps.given)
    whole = sum(one.tokens for one in large.given)
    found = [
        Row(
            f"{count} checkable requests in steps: sent on to the large model",
            f"{len(on)} ({len(on) / count:.0%})",
            f"{unsure} as unsure, {len(on) - unsure} for their form",
        ),
        Row("answered rightly in steps", _share(steps.right, count),
            f"small alone {_share(small.right, count)}, large alone {_share(large.right, count)}"),
        Row(
            "of the small model's answers that were given, right",
            _share(sum(kept), len(kept)),
            f"of those that were sent on {_share(sum(sent), len(sent))}",
        ),
        Row(
            "time of processors in steps",
            f"{steps.cpu_s:.1f} s",
            f"large alone {large.cpu_s:.1f} s, small alone {small.cpu_s:.1f} s",
            f"{steps.cpu_s / large.cpu_s:.2f}",
        ),
        Row(
            "tokens that the large model was spared",
            f"{spared}",
            f"large alone {whole}",
            f"{spared / whole:.2f}",
        ),
    ]  # fmt: skip
    return [*found, *_by_kind(asked, small, large, steps), *_by_threshold(small, large, steps)]


def _by_kind(asked: Sequence[Checkable], small: Way, large: Way, steps: Way) -> Iterator[Row]:
    for kind in dict.fromkeys(one.kind for one in asked):
        at = [n for n, one in enumerate(asked) if one.kind == kind]
        a, b, c = (sum(way.given[n].right for n in at) for way in (small, large, steps))
        on = sum(len(steps.given[n].steps) > 1 for n in at)
        yield Row(
            f"{kind}: right in steps",
            f"{_share(c, len(at))}, {on} sent on",
            f"small alone {a}, large alone {b}",
        )


def _by_threshold(small: Way, large: Way, steps: Way) -> Iterator[Row]:
    """What other bounds of confidence would have come to, by the answers of each alone."""
    count = len(small.given)
    three = list(zip(small.given, large.given, steps.given, strict=True))
    for least in THRESHOLDS:
        on = [one.sure < least for _, _, one in three]
        right = sum((b if up else a).right for up, (a, b, _) in zip(on, three, strict=True))
        mark = " (the default)" if least == CONFIDENT else ""
        yield Row(
            f"`confident = {least}`{mark} would send on", _share(sum(on), count),
            f"and answer {_share(right, count)} rightly",
        )  # fmt: skip


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.0%})" if whole else "none"
