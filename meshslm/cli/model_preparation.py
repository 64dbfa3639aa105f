"""`meshslm models prepare`: the format of a model that suits this machine, found by trying."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from meshslm.cli.effective import config_option, models_dir_option, open_library
from meshslm.cli.model_progress import ModelReport
from meshslm.cli.model_show import shown
from meshslm.cli.screen import bytes_text, json_option, print_json, print_table
from meshslm.cli.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshslm.models.comparison import LeftOut
    from meshslm.models.model_library import ReadyModel
    from meshslm.models.trials import Trial

AUTO = "auto"
FORMATS = ("Q8_0", "Q4_0", "IQ4_NL", "Q4_K_M")
"""As in `meshslm.models.trials.CANDIDATES`; a test compares them."""


@click.command()
@click.argument("name")
@click.option(
    "--to",
    type=click.Choice((AUTO, *FORMATS), case_sensitive=False),
    default=AUTO,
    show_default=True,
    help="Format to prepare it in; auto tries all of them.",
)
@config_option
@models_dir_option
@json_option
def prepare(name: str, to: str, as_json: bool, **where: Any) -> None:
    """Choose the format of a model for this machine, and prepare it.

    Each format is made of the file that was pulled and tried for some seconds: speed on one core,
    memory, and how well it foretells a text. Formats that compute the same alone and in a batch
    and lose at most 1 % are taken, Q8_0 unless another one is 1.2 times as fast. A node that runs
    uses the new file when it starts again.
    """
    from meshslm.models.trials import Trial

    library = open_library(**where)
    trials: list[Trial] = []
    with Steps(quiet=as_json) as steps, steps.step(f"model {name}") as step:

        def on_trial(found: Trial | LeftOut) -> None:
            if isinstance(found, Trial):
                trials.append(found)
            else:
                steps.say(f"{name}: {found.quantisation} is left out: {found.why}")

        report = ModelReport(steps, step)
        ready = library.prepare(name, report, on_trial, to="" if to == AUTO else to)
        step.note = f"{ready.quantisation}, {bytes_text(ready.manifest.used.size)}"
    if as_json:
        print_json(shown(library.show(name)))
    elif trials:
        _print_trials(trials, ready)
    else:
        click.echo(ready.quantisation)


def _print_trials(trials: Sequence[Trial], ready: ReadyModel) -> None:
    columns = ("format", "size", "prompt/s", "tokens/s", "of four/s", "memory", "perplexity")
    rows = [
        (
            trial.quantisation,
            bytes_text(trial.size),
            f"{trial.measured.prefill_tps:.0f}",
            f"{trial.measured.decode_tps:.1f}",
            f"{trial.measured.together_tps:.1f}",
            f"{trial.measured.memory_mib} MiB",
            f"{trial.measured.perplexity:.2f}",
            f"{trial.loss(trials[0]):+.1%}",
            "yes" if trial.measured.batch_invariant else "no",
            _verdict(trial, first=trial is trials[0], ready=ready),
        )
        for trial in trials
    ]
    print_table((*columns, "loss", "same in batches", ""), rows, right=(*columns[1:], "loss"))


def _verdict(trial: Trial, *, first: bool, ready: ReadyModel) -> str:
    remarks = ["chosen"] if trial.quantisation == ready.quantisation else []
    return ", ".join([*remarks, "as it came"] if first else remarks)
