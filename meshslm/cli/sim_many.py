"""`meshslm sim swarm` and `sim compare`: many runs, and what they show together."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import click

from meshslm.cli.failures import DONE, FAILED, fail
from meshslm.cli.screen import console, json_option, print_json, print_table
from meshslm.cli.sim_replay import read_text
from meshslm.cli.steps import Steps

if TYPE_CHECKING:
    from meshslm.sim.comparison import Comparison, Told
    from meshslm.sim.statistics import Difference
    from meshslm.sim.swarm import Verdict

scenario_type = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.option(
    "--runs", type=click.IntRange(1), default=20, show_default=True, help="Number of seeds."
)
@click.option("--seed", type=int, default=1, show_default=True, help="The first of them.")
@click.option("--nodes", type=click.IntRange(2), help="Of each mesh; drawn where it is left out.")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=os.cpu_count() or 1,
    show_default="one for each core",
    help="Runs side by side.",
)
@click.option(
    "--keep", type=click.Path(path_type=Path, dir_okay=False), help="File that failures go to."
)
@json_option
def swarm(
    runs: int, seed: int, nodes: int | None, jobs: int, keep: Path | None, as_json: bool
) -> int:
    """Run many simulations whose meshes and faults are drawn from their seeds.

    In the first phase of each run anything may go wrong, and no task may be lost or answered
    wrongly. In the second nothing goes wrong any more, and everything must come to be well. Ends
    with 1 where a run fails, and prints the command that shows it again. Ctrl-C ends it early.
    """
    verdicts, interrupted = _verdicts(range(seed, seed + runs), nodes, min(jobs, runs), as_json)
    failed = [verdict for verdict in verdicts if not verdict.ok]
    if keep is not None:
        _keep(keep, failed)
    if as_json:
        print_json(
            {
                "ok": not failed and not interrupted,
                "runs": len(verdicts),
                "failed": [_plain(verdict, nodes) for verdict in failed],
                "events": sum(verdict.events for verdict in verdicts),
            }
        )
    else:
        _show(verdicts, failed, nodes)
    if interrupted:
        raise KeyboardInterrupt
    return FAILED if failed else DONE


def _verdicts(
    seeds: range, nodes: int | None, jobs: int, quiet: bool
) -> tuple[list[Verdict], bool]:
    """All that came until the end, or until Ctrl-C."""
    from meshslm.sim.swarm import swarm as run_swarm

    verdicts: list[Verdict] = []
    with Steps(quiet=quiet) as steps, steps.step("simulating") as step:
        try:
            for verdict in run_swarm(seeds, nodes=nodes, jobs=jobs):
                verdicts.append(verdict)
                bad = sum(not v.ok for v in verdicts)
                step.note = f"{len(verdicts)} of {len(seeds)} seeds, {bad} failed"
                if not verdict.ok:
                    steps.say(f"seed {verdict.seed} fails: {verdict.wrong[0]}")
        except KeyboardInterrupt:
            return sorted(verdicts, key=lambda v: v.seed), True
    return sorted(verdicts, key=lambda v: v.seed), False


def _keep(file: Path, failed: list[Verdict]) -> None:
    from meshslm.sim.regressions import with_case

    if not failed:
        return
    text = read_text(file) if file.exists() else ""
    for verdict in failed:
        text = with_case(str(file), text, verdict)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"cannot write {file}: {error.strerror}")


def again(seed: int, nodes: int | None) -> str:
    """The command that shows a seed again."""
    sized = f" --nodes {nodes}" if nodes is not None else ""
    return f"meshslm sim swarm --seed {seed} --runs 1{sized}"


def _plain(verdict: Verdict, nodes: int | None) -> dict[str, object]:
    from msgspec import to_builtins

    return {
        "seed": verdict.seed,
        "violations": list(verdict.wrong),
        "trace": verdict.trace,
        "again": again(verdict.seed, nodes),
        "scenario": to_builtins(verdict.scenario),
    }


def _show(verdicts: list[Verdict], failed: list[Verdict], nodes: int | None) -> None:
    out = console()
    kinds = sorted({kind for verdict in verdicts for kind in verdict.kinds})
    events = sum(verdict.events for verdict in verdicts)
    out.print(f"{len(verdicts)} runs, {events} events, {len(kinds)} kinds of faults")
    if not failed:
        out.print("PASS: all checks hold in all runs", style="bold green")
        return
    out.print(f"FAIL: {len(failed)} of {len(verdicts)} runs", style="bold red")
    for verdict in failed:
        out.print(f"seed {verdict.seed}: {again(verdict.seed, nodes)}", markup=False)
        for line in verdict.wrong[:5]:
            out.print(f"  {line}", markup=False)


@click.command()
@click.argument("a", type=scenario_type)
@click.argument("b", type=scenario_type, required=False)
@click.option(
    "--with",
    "program",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Another version's 'meshslm', which runs B; without B the same scenario.",
)
@click.option(
    "--runs", type=click.IntRange(2), default=10, show_default=True, help="Seeds for each."
)
@click.option("--seed", type=int, default=1, show_default=True, help="The first of them.")
@click.option("--nodes", type=click.IntRange(1), help="Number of nodes, instead of the scenarios'.")
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), help="Virtual time, in seconds."
)
@json_option
def compare(
    a: Path,
    b: Path | None,
    program: Path | None,
    runs: int,
    seed: int,
    nodes: int | None,
    seconds: float | None,
    as_json: bool,
) -> int:
    """Run two scenarios, or one with two versions, with the same seeds; say where they differ.

    Prints the medians of each figure, the interval that holds their difference with 95 %
    (bootstrap), and p of the rank-sum test of Mann and Whitney. With many figures one in twenty
    looks like a difference by chance: believe those with a small p. Ends with 1 where a check of
    B fails in more runs than of A.
    """
    from meshslm.errors import OurFault
    from meshslm.sim.comparison import comparison, reports, reports_by
    from meshslm.sim.scenario import load_scenario, resized

    if b is None and program is None:
        raise click.UsageError("with what is it to be compared? Give B, or --with, or both")
    b = b or a
    seeds = range(seed, seed + runs)
    try:
        sides = [reports(resized(load_scenario(a), nodes=nodes, seconds=seconds), seeds)]
        if program is None:
            sides.append(reports(resized(load_scenario(b), nodes=nodes, seconds=seconds), seeds))
    except OurFault as fault:
        raise click.UsageError(str(fault)) from fault
    if program is not None:
        sized = {"--nodes": nodes, "--seconds": seconds}
        options = [w for name, given in sized.items() if given for w in (name, str(given))]
        sides.append(reports_by(program, b, seeds, options))
    found: list[list[Told]] = []
    with Steps(quiet=as_json) as steps:
        for file, side in zip((a, b), sides, strict=True):
            with steps.step(f"simulating {file}") as step:
                found.append([])
                for number, report in zip(count(1), side):
                    found[-1].append(report)
                    step.note = f"{number} of {runs} seeds"
    result = comparison(*found)
    if as_json:
        from dataclasses import asdict

        print_json({**asdict(result), "a": str(a), "b": str(b)})
    else:
        _show_comparison(result)
    return FAILED if result.failed_b > result.failed_a else DONE


def _show_comparison(result: Comparison) -> None:
    columns = ("figure", "A", "B", "difference", "95 %", "p", "")
    right = ("A", "B", "difference", "95 %", "p")
    print_table(columns, _rows(result.figures.items()), right=right)
    console().print(
        f"{result.seeds} runs each; checks failed in {result.failed_a} of A and "
        f"{result.failed_b} of B"
    )


def _rows(figures: Iterable[tuple[str, Difference | None]]) -> Iterable[tuple[str, ...]]:
    for name, found in figures:
        if found is None:
            yield (name, "-", "-", "-", "-", "-", "not measured")
            continue
        yield (
            name,
            f"{found.median_a:.1f}",
            f"{found.median_b:.1f}",
            f"{found.difference:+.1f}",
            f"{found.low:+.1f} to {found.high:+.1f}",
            f"{found.p:.3f}",
            "differs" if found.clear else "",
        )
