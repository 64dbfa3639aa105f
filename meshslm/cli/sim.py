"""`meshslm sim`: the production decisions on a virtual clock, with faults from a seed."""

from __future__ import annotations

from pathlib import Path

import click

from meshslm.cli.failures import DONE, FAILED
from meshslm.cli.screen import console, json_option, print_json
from meshslm.cli.sim_many import compare, swarm
from meshslm.cli.sim_plan import plan_options, planned
from meshslm.cli.sim_plot import plot
from meshslm.cli.sim_replay import replay
from meshslm.cli.steps import Steps


@click.group()
def sim() -> None:
    """Simulate a mesh of many nodes.

    The nodes run the same decisions as real ones; clock, network, disks and engines are simulated.
    The same seed gives the same run, event by event, on every machine.
    """


for command in (swarm, compare, plot, replay):
    sim.add_command(command)


@sim.command()
@plan_options
@json_option
def run(
    scenario: Path | None, nodes: int | None, seed: int, seconds: float | None, as_json: bool
) -> int:
    """Run one scenario, check every task and print the figures.

    Ends with 1 where a check fails: a task lost or ended twice, a token lost, doubled or out of
    order, or views that did not converge. Ends with 2 where the scenario makes no sense.
    """
    from meshslm.sim.run import Progress
    from meshslm.sim.run import run as simulate

    plan = planned(scenario, nodes, seconds)
    with Steps(quiet=as_json) as steps, steps.step("simulating") as step:

        def on_progress(progress: Progress) -> None:
            step.note = (
                f"{progress.virtual_s:.0f} of {progress.total_s:.0f} virtual seconds, "
                f"{progress.events} events, {progress.tasks_open} tasks open"
            )

        report = simulate(plan, seed=seed, on_progress=on_progress)
    if as_json:
        print_json(report.as_dict())
    else:
        console().print(report.table())
    return DONE if report.ok else FAILED
