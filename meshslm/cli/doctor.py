"""`meshslm doctor`: whether this machine can run a node, and what to do where it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from meshslm.cli.effective import library_of, load_effective, setting_options
from meshslm.cli.failures import DONE, FAILED
from meshslm.cli.lazy_group import LazyCommand, LazyGroup
from meshslm.cli.reach import gateway_url, readiness
from meshslm.cli.screen import json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshslm.adapters.hardware import Llama, ProbeFailed
    from meshslm.cli.doctor_checks import Finding, Verdict
    from meshslm.models.model_library import ReadyModel
    from meshslm.settings import Settings

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.group(
    cls=LazyGroup,
    lazy={
        "net": LazyCommand(
            "meshslm.cli.doctor_net:net", "Explain how this node reaches others and is reached."
        )
    },
    invoke_without_command=True,
)
@setting_options
@json_option
@click.pass_context
def doctor(ctx: click.Context, /, as_json: bool, **options: Any) -> int:
    """Check this machine and say what to do.

    Takes the same options as 'meshslm up' and looks at what that would use: Python, llama.cpp and
    the CPU, memory, sandbox, folders, disk, identity, models, whether a node runs already, ports.
    Ends with 1 where a check fails.
    """
    from meshslm.cli.doctor_checks import Verdict

    if ctx.invoked_subcommand is not None:
        return DONE
    settings = load_effective(**options).settings
    verdict = report(examine(settings), as_json=as_json)
    return FAILED if verdict is Verdict.FAIL else DONE


def report(examined: Iterator[Finding], *, as_json: bool) -> Verdict:
    """Tell each finding as it is made, or all of them as JSON; the worst of them."""
    from meshslm.cli.doctor_checks import worst

    findings = []
    for finding in examined:
        findings.append(finding)
        if not as_json:
            _tell(finding)
    verdict = worst(findings)
    if as_json:
        checks = [
            {"check": f.check, "verdict": f.verdict, "detail": f.detail, "advice": f.advice}
            for f in findings
        ]
        print_json({"verdict": verdict, "checks": checks})
    return verdict


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check, in the order in which a node needs the things."""
    from meshslm.adapters.hardware import ask_llama, cpu_flags, graphics
    from meshslm.adapters.keyring import KEY_FILE
    from meshslm.cli import doctor_checks as checks
    from meshslm.cli.doctor_llama import check_llama

    data, models = Path(settings.node.data_dir), Path(settings.node.models_dir)
    yield checks.check_python()
    llama = ask_llama()
    yield from check_llama(cpu_flags(), llama, graphics())
    yield checks.check_memory()
    yield checks.check_sandbox(settings.engine.sandbox)
    yield checks.check_folder("data folder", data, "--data-dir")
    yield checks.check_folder("models folder", models, "--models-dir")
    yield checks.check_disk(models)
    yield checks.check_key(data / KEY_FILE)
    yield from _check_models(settings, llama)
    yield from _check_node(settings)


def _check_models(settings: Settings, llama: Llama | ProbeFailed) -> Iterator[Finding]:
    """Whether the models of the settings' profiles are here; the default one without profiles."""
    from meshslm.cli.doctor_checks import Finding, Verdict
    from meshslm.cli.profiles import load_profile
    from meshslm.errors import OurFault

    library = library_of(settings)
    names = {library.catalogue.default.name}
    for reference in settings.node.profiles:
        try:
            names.add(load_profile(reference).model)
        except OurFault as fault:
            yield Finding("profile", Verdict.FAIL, str(fault), "correct it, or host another")
    for name in sorted(names):
        try:
            ready = library.ready(name)
        except OurFault as fault:
            yield Finding("model", Verdict.FAIL, str(fault), f"meshslm models rm {name}")
            continue
        if ready is None:
            advice = f"meshslm models pull {name}; a node that hosts it does so when it starts"
            yield Finding("model", Verdict.WARN, f"{name} is not here, or not prepared", advice)
        else:
            layers = _layers_text(settings, ready, llama)
            yield Finding("model", Verdict.OK, f"{name}, {ready.quantisation}{layers}")


def _layers_text(settings: Settings, ready: ReadyModel, llama: Llama | ProbeFailed) -> str:
    """How much of a model the GPUs take; empty without any."""
    from meshslm.adapters.hardware import ProbeFailed
    from meshslm.engine.gguf import read_header
    from meshslm.engine.offload import plan

    if isinstance(llama, ProbeFailed) or not llama.gpus:
        return ""
    header, engine = read_header(ready.path), settings.engine
    trained = header.context_length
    context = min(engine.context or trained, trained) if trained else engine.context
    free = sum(device.free_mib for device in llama.gpus)
    found = plan(header, free, context, engine.slots, engine.batch)
    why = f" ({found.why})" if found.why else ""
    return f", {found.layers} of {found.of} layers fit on the GPU{why}"


def _check_node(settings: Settings) -> Iterator[Finding]:
    """Whether a node runs; where none does, whether its ports are free."""
    from meshslm.cli.doctor_checks import Finding, Verdict, check_port

    url = gateway_url(settings)
    ready, reason = readiness(url)
    if ready:
        yield Finding("node", Verdict.OK, f"one is up and ready at {url}")
        yield from check_bootstrap(url)
        return
    advice = "start one with 'meshslm up', or wait for the one that starts"
    yield Finding("node", Verdict.WARN, f"none is ready at {url}: {reason}", advice)
    yield from check_bootstrap(url)
    yield check_port("API", settings.gateway.host, settings.gateway.port)
    for address in settings.link.listen:
        parts = address.split("/")
        if parts[1] in {"ip4", "ip6"} and parts[3:4] == ["tcp"] and parts[4].isdecimal():
            yield check_port("peer", parts[2], int(parts[4]))


def check_bootstrap(url: str) -> Iterator[Finding]:
    """How a running node fares with its bootstrap addresses; nothing where none runs."""
    from meshslm.cli.dials import dial_text
    from meshslm.cli.doctor_checks import Finding, Verdict
    from meshslm.client import Client
    from meshslm.errors import MeshslmError

    try:
        with Client(url) as client:
            dials = client.status().bootstrap
    except MeshslmError:
        return  # that no node is ready was said above
    for dial in dials:
        if dial.state == "linked":
            yield Finding("bootstrap", Verdict.OK, f"{dial.address} is linked")
            continue
        advice = "see that a node runs there, listens on more than loopback, and no firewall is "
        yield Finding(
            "bootstrap", Verdict.WARN, f"{dial.address}: {dial_text(dial)}", advice + "between"
        )


def _tell(finding: Finding) -> None:
    mark = click.style(f"{finding.verdict:<4}", fg=COLOURS[finding.verdict], bold=True)
    click.echo(f"{mark}  {finding.check:<14} {finding.detail}")
    if finding.advice:
        click.echo(f"      {'':<14} -> {finding.advice}")
