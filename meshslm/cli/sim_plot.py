"""`meshslm sim plot`: one run as a picture."""

from __future__ import annotations

from pathlib import Path

import click

from meshslm.cli.failures import DONE, FAILED, fail
from meshslm.cli.screen import json_option, print_json
from meshslm.cli.steps import Steps


@click.command()
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--scenario",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="TOML file that says what happens; without it a calm mesh with a few faults.",
)
@click.option("--nodes", type=click.IntRange(1), help="Number of nodes, instead of the scenario's.")
@click.option("--seed", type=int, default=1, show_default=True, help="Decides the whole run.")
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), help="Virtual time, in seconds."
)
@json_option
def plot(
    out: Path,
    scenario: Path | None,
    nodes: int | None,
    seed: int,
    seconds: float | None,
    as_json: bool,
) -> int:
    """Run one scenario and draw the mesh, its views, latencies and traffic over time.

    OUT ends in .html, a page with a slider that needs nothing but a browser, or in .png, which
    needs matplotlib: pip install 'meshslm[plot]'. Ends with 1 where a check fails.
    """
    from meshslm.errors import OurFault
    from meshslm.sim.film import Film
    from meshslm.sim.plot import html, png
    from meshslm.sim.run import production
    from meshslm.sim.scenario import default_scenario, load_scenario, resized

    if out.suffix not in (".html", ".png"):
        raise click.UsageError(f"{out} must end in .html or .png")
    try:
        plan = default_scenario(seconds) if scenario is None else load_scenario(scenario)
        plan = resized(plan, nodes=nodes, seconds=seconds)
    except OurFault as fault:
        raise click.UsageError(str(fault)) from fault
    simulation = production(plan, seed)
    film = Film(simulation)
    with Steps(quiet=as_json) as steps, steps.step("simulating") as step:

        def on_progress(_: object) -> None:
            film.look()
            step.note = f"{len(film.frames)} moments"

        report = simulation.run(on_progress)
    drawn = html(film, report).encode() if out.suffix == ".html" else png(film, report)
    try:
        out.write_bytes(drawn)
    except OSError as error:
        fail(f"cannot write {out}: {error.strerror}")
    if as_json:
        print_json({"ok": report.ok, "path": str(out), "moments": len(film.frames)})
    else:
        click.echo(f"{out}: {len(film.frames)} moments")
    return DONE if report.ok else FAILED
