"""`meshslm demo`: three real nodes on this machine, one question, and who answered it.

Why it exists: it is the first thing that a newcomer runs, and the whole product in half a minute.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from meshslm.cli.answers import Shown, answer_fields, show_stream, tell_answered, write_text
from meshslm.cli.effective import config_option, library_of, load_effective, models_dir_option
from meshslm.cli.failures import fail
from meshslm.cli.model_progress import ModelReport
from meshslm.cli.reach import curl_line, readiness
from meshslm.cli.screen import bytes_text, json_option, print_json
from meshslm.cli.steps import Step, Steps

if TYPE_CHECKING:
    from meshslm.cli.demo_nodes import NodePlan, RunningNode, RunningNodes
    from meshslm.client import Answer
    from meshslm.settings import Settings

PROMPT: Final = "Write a short poem about a lighthouse in winter."
"""A writing task, asked of the node that hosts `code`."""
ANSWER_TOKENS: Final = 120
"""Some seconds of text on two cores."""
READY_SECONDS: Final = 180.0
"""Three cold starts side by side on two slow cores, with the model read from a disk."""
MEET_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 0.5
"""Between two looks at whether all nodes still run."""


@click.command()
@click.option("--prompt", default=PROMPT, show_default=True, help="What to ask node A.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the nodes keep their identities and logs; 'demo' in the data folder by default.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65533),
    help="API port of node A; B and C take the next two. Free ones by default.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(1),
    default=ANSWER_TOKENS,
    show_default=True,
    help="Longest answer, in tokens.",
)
@click.option("--keep/--no-keep", default=True, help="Keep the mesh up after the answer.")
@config_option
@models_dir_option
@json_option
def demo(
    prompt: str,
    folder: Path | None,
    port: int | None,
    max_tokens: int,
    keep: bool,
    as_json: bool,
    **where: Any,
) -> None:
    """Start three nodes on this machine and ask one of them.

    Node A hosts the profile 'code', B 'writing', C 'general'. The prompt goes to A; the mesh finds
    out who should answer. Ctrl-C stops all three.
    """
    from meshslm.cli.demo_nodes import RunningNodes, plan_nodes

    began = time.monotonic()
    settings = load_effective(**where).settings
    home = (folder or Path(settings.node.data_dir) / "demo").absolute()
    with ended_as_interrupted(), _held(home), RunningNodes() as nodes:
        with Steps(quiet=as_json) as steps:
            _have_models(settings, steps)
            with steps.step("start three nodes"):
                nodes.start(plan_nodes(settings, home, port))
            with steps.step("models loaded") as step:
                nodes.wait_until("models loaded", _ready(nodes, step), READY_SECONDS)
            with steps.step("nodes know each other") as step:
                nodes.wait_until("nodes know each other", _acquainted(nodes, step), MEET_SECONDS)
        up_s = time.monotonic() - began
        shown = _ask(nodes, prompt, max_tokens, quiet=as_json)
        times = {"mesh_up_s": round(up_s, 3), "first_text_s": round(shown.first_text_at - began, 3)}
        if as_json:
            print_json(_summary(nodes, prompt, shown.answer, times))
        else:
            _tell(shown.answer, times)
        if keep:
            _keep_up(nodes, quiet=as_json)


@contextmanager
def _held(home: Path) -> Iterator[None]:
    """Keep a second demonstration off this one's logs and settings."""
    from meshslm.adapters.keyring import DirectoryLock
    from meshslm.errors import OurFault

    lock = DirectoryLock(home)
    try:
        lock.acquire()
    except OurFault as fault:
        fault.add_note("a second demonstration needs a folder of its own: --dir")
        raise
    try:
        yield
    finally:
        lock.release()


def _have_models(settings: Settings, steps: Steps) -> None:
    """Pull and prepare what the three profiles run on, once and for all three."""
    from meshslm.cli.demo_nodes import ROLES
    from meshslm.cli.profiles import packaged_profiles

    library = library_of(settings)
    profiles = packaged_profiles()
    for model in sorted({profiles[profile].model for _, profile in ROLES}):
        with steps.step(f"model {model}") as step:
            ready = library.ensure(model, ModelReport(steps, step))
            step.note = f"{ready.quantisation}, {bytes_text(ready.manifest.used.size)}"


def _ready(nodes: RunningNodes, step: Step) -> Callable[[], bool]:
    """Whether every node says at /readyz that its model is loaded."""
    waiting = [node.plan for node in nodes.nodes]

    def fact() -> bool:
        told = [(plan, *readiness(plan.url)) for plan in waiting]
        waiting[:] = [plan for plan, ready, _ in told if not ready]
        reasons = "; ".join(f"{plan.name} {reason}" for plan, ready, reason in told if not ready)
        done = f"{len(nodes.nodes) - len(waiting)} of {len(nodes.nodes)}"
        step.note = f"{done}; {reasons}" if reasons else done
        return not waiting

    return fact


def _acquainted(nodes: RunningNodes, step: Step) -> Callable[[], bool]:
    """Whether every node sees every other alive, with its specialist announced and loaded."""
    from meshslm.client import Client

    profiles = {node.plan.name: node.plan.profile for node in nodes.nodes}
    waiting = [node.plan for node in nodes.nodes]

    def knows_all(plan: NodePlan) -> bool:
        with Client(plan.url) as client:
            known = {
                peer.name: {specialist.profile for specialist in peer.specialists}
                for peer in client.peers()
                if peer.state in {"alive", "self"} and any(load.ready for load in peer.loads)
            }
        return all(profile in known.get(name, ()) for name, profile in profiles.items())

    def fact() -> bool:
        waiting[:] = [plan for plan in waiting if not knows_all(plan)]
        step.note = f"{len(nodes.nodes) - len(waiting)} of {len(nodes.nodes)}"
        return not waiting

    return fact


def _ask(nodes: RunningNodes, prompt: str, max_tokens: int, *, quiet: bool) -> Shown:
    from meshslm.client import Client

    asked = nodes.nodes[0].plan
    if not quiet:
        click.echo(f"\nasking {asked.name} (which hosts {asked.profile}): {prompt}\n", err=True)
    with (
        Client(asked.url) as client,
        client.stream(prompt, model="auto", max_tokens=max_tokens) as stream,
    ):
        return show_stream(stream, (lambda _: None) if quiet else write_text)


def _summary(
    nodes: RunningNodes, prompt: str, answer: Answer, times: dict[str, float]
) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "asked": nodes.nodes[0].plan.name,
        "answer": answer_fields(answer),
        **times,
        "nodes": [
            {
                "name": node.plan.name,
                "profile": node.plan.profile,
                "url": node.plan.url,
                "pid": node.pid,
                "config": str(node.plan.config),
                "log": str(node.plan.log),
            }
            for node in nodes.nodes
        ],
    }


def _tell(answer: Answer, times: dict[str, float]) -> None:
    click.echo()
    tell_answered(answer)
    click.echo(
        f"\nthe mesh was up after {times['mesh_up_s']:.1f} s, "
        f"its first token came after {times['first_text_s']:.1f} s",
        err=True,
    )


def _keep_up(nodes: RunningNodes, *, quiet: bool) -> None:
    """Leave the mesh up until Ctrl-C; tell of nodes that end meanwhile."""
    try:
        if not quiet:
            _tell_endpoints(nodes)
        running = list(nodes.nodes)
        while running:
            running = [node for node in running if _told_alive(node)]
            time.sleep(LOOK_SECONDS)
    except KeyboardInterrupt:
        if not quiet:
            click.echo("stopping", err=True)
        return
    fail("every node has ended")


def _tell_endpoints(nodes: RunningNodes) -> None:
    for node in nodes.nodes:
        plan = node.plan
        about = f"{plan.profile:<8}  pid {node.pid}  log {plan.log}"
        click.echo(f"  {plan.name}  {plan.url}/v1  {about}", err=True)
    click.echo(f"try:\n  {curl_line(nodes.nodes[0].plan.url)}", err=True)
    click.echo("the mesh stays up; Ctrl-C stops it", err=True)


def _told_alive(node: RunningNode) -> bool:
    """Whether a node still runs; where it does not, how it ended is told."""
    from meshslm.errors import OurFault

    try:
        node.check_alive()
    except OurFault as died:
        click.echo(f"meshslm: {died}", err=True)
        return False
    return True


@contextmanager
def ended_as_interrupted() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demonstration as Ctrl-C does: with its nodes."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
