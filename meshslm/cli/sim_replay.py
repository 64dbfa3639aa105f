"""`meshslm sim replay`: a recording of a real node, or a failing seed, once more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from meshslm.cli.failures import DONE, FAILED, fail
from meshslm.cli.screen import console, json_option, print_json
from meshslm.cli.steps import Steps

if TYPE_CHECKING:
    from meshslm.core.events import Effect, Event
    from meshslm.daemon.recording import Step
    from meshslm.sim.replay import OnStep, Replay


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--steps", "show", is_flag=True, help="Print every event and what was done.")
@json_option
def replay(file: Path, show: bool, as_json: bool) -> int:
    """Let happen again what happened once.

    FILE is a recording, of 'meshslm record dump' or one that a crash left in the data folder: a
    fresh core is given what the real node was given, and what it does is compared. Or it is a
    file of 'meshslm sim swarm --keep', ending in .toml: its simulations are run again. Ends with 1
    where the core does not do the same, or a check fails.
    """
    if file.suffix == ".toml":
        return _rerun(file, as_json)
    from meshslm.sim.replay import replay as replay_recording

    try:
        data = file.read_bytes()
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror}")
    on_step = _printer() if show and not as_json else None
    with Steps(quiet=as_json) as steps, steps.step("replaying") as step:
        result = replay_recording(data, str(file), on_step=on_step)
        step.note = f"{result.events} events"
    if as_json:
        print_json(result.as_dict())
    else:
        _show(result)
    return DONE if result.ok else FAILED


def read_text(file: Path) -> str:
    """A file's text; what is wrong with it is the command's failure."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror}")
    except UnicodeDecodeError as error:
        fail(f"{file} is not UTF-8 text: {error.reason}")


def _rerun(file: Path, as_json: bool) -> int:
    """The simulations that failed once."""
    from meshslm.sim.regressions import read_cases
    from meshslm.sim.swarm import judge

    cases = read_cases(str(file), read_text(file))
    verdicts = []
    with Steps(quiet=as_json) as steps, steps.step("simulating") as step:
        for number, (case, scenario) in enumerate(cases, 1):
            verdicts.append(judge(case.seed, scenario))
            step.note = f"{number} of {len(cases)} cases"
    failed = [verdict for verdict in verdicts if not verdict.ok]
    if as_json:
        wrong = [{"seed": v.seed, "violations": list(v.wrong)} for v in failed]
        print_json({"ok": not failed, "cases": len(cases), "failed": wrong})
        return FAILED if failed else DONE
    for verdict in failed:
        console().print(f"seed {verdict.seed}: {'; '.join(verdict.wrong[:3])}", markup=False)
    console().print(f"{len(cases)} cases, {len(failed)} failed")
    return FAILED if failed else DONE


def _printer() -> OnStep:
    began: int | None = None

    def on_step(number: int, step: Step, event: Event, _effects: list[Effect]) -> None:
        nonlocal began
        began = step.now if began is None else began
        at_s = (step.now - began) / 1e6
        about = getattr(event, "key", None) or getattr(event, "peer", "") or ""
        click.echo(f"{number:7d} {at_s:12.6f} s  {step.kind} {about}  ->  {step.did or 'nothing'}")

    return on_step


def _show(result: Replay) -> None:
    out = console()
    texts = "with texts" if result.texts else "without texts"
    out.print(
        f"recorded by version {result.recorded_by} ({result.reason}, {texts}), "
        f"replayed by {result.replayed_by}",
        markup=False,
    )
    out.print(f"{result.events} events over {result.seconds:.1f} s, {result.effects} effects")
    if result.missing:
        out.print(
            f"then {result.missing} events are missing; {result.after_gap} newer ones are there, "
            "but no core can be brought to them"
        )
    if result.crash:
        out.print(f"at the end the core raised, as it did then: {result.crash}", markup=False)
    parting = result.parting
    if parting is None:
        out.print("PASS: the core did the same", style="bold green")
        return
    out.print("FAIL: the core does otherwise", style="bold red")
    at_s = parting.at_ms / 1000
    out.print(f"  at event {parting.number} ({parting.event}, {at_s:.6f} s after the first)")
    out.print(f"  recorded: {parting.recorded or 'nothing'}", markup=False)
    out.print(f"  replayed: {parting.replayed or 'nothing'}", markup=False)
