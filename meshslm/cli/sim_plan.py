"""What a command that simulates one mesh is told of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from meshslm.sim.scenario import Scenario

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--scenario",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="TOML file that says what happens; without it a calm mesh with a few faults.",
    ),
    click.option(
        "--nodes", type=click.IntRange(1), help="Number of nodes, instead of the scenario's."
    ),
    click.option("--seed", type=int, default=1, show_default=True, help="Decides the whole run."),
    click.option(
        "--seconds", type=click.FloatRange(0, min_open=True), help="Virtual time, in seconds."
    ),
)


def plan_options(command: _Command) -> _Command:
    """Adds `scenario`, `nodes`, `seed` and `seconds`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def planned(scenario: Path | None, nodes: int | None, seconds: float | None) -> Scenario:
    """What these options ask for. Raises `UsageError` where it makes no sense."""
    from meshslm.errors import OurFault
    from meshslm.sim.scenario import default_scenario, load_scenario, resized

    try:
        plan = default_scenario(seconds) if scenario is None else load_scenario(scenario)
        return resized(plan, nodes=nodes, seconds=seconds)
    except OurFault as fault:
        raise click.UsageError(str(fault)) from fault
