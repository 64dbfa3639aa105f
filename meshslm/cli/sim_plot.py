"""`meshslm sim plot`: one run as a picture."""

from __future__ import annotations

from pathlib import Path

import click

from meshslm.cli.failures import DONE, FAILED, fail
from meshslm.cli.screen import json_option, print_json
from meshslm.cli.sim_plan import plan_options, planned
from meshslm.cli.steps import Steps


@click.command()
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@plan_options
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
    from meshslm.sim.film import Film
    from meshslm.sim.plot import html, png
    from meshslm.sim.run import production

    if out.suffix not in (".html", ".png"):
        raise click.UsageError(f"{out} must end in .html or .png")
    simulation = production(planned(scenario, nodes, seconds), seed)
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
