"""`meshslm models synthesize`: a model file of a given shape, with weights without meaning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from meshslm.cli.effective import config_option, library_of, load_effective, models_dir_option
from meshslm.cli.failures import fail
from meshslm.cli.model_progress import ModelReport, parameters_text
from meshslm.cli.screen import bytes_text, json_option, print_json
from meshslm.cli.steps import Steps

if TYPE_CHECKING:
    from meshslm.models.model_library import ModelLibrary
    from meshslm.models.synthetic import ModelShape

COUNT = click.IntRange(1, 2**20)


@click.command()
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False), metavar="OUT.gguf")
@click.option("--like", metavar="MODEL", help="Shape of a published model, such as qwen3-1.7b.")
@click.option("--arch", help="Architecture: llama, qwen2, qwen3, gemma or bert.")
@click.option("--layers", type=COUNT, help="Number of layers.")
@click.option("--width", type=COUNT, help="Numbers that go from layer to layer.")
@click.option("--inner", type=COUNT, help="Width of the feed-forward part.")
@click.option("--heads", type=COUNT, help="Attention heads.")
@click.option("--shared-heads", type=COUNT, help="Heads of keys and values.")
@click.option("--head-width", type=COUNT, help="Width of a head.")
@click.option("--vocabulary", type=COUNT, help="Tokens; the tokenizer is lengthened to as many.")
@click.option("--context", type=click.IntRange(1, 2**24), help="Tokens of its longest context.")
@click.option("--quant", default="Q8_0", show_default=True, help="Format of its matrices.")
@click.option(
    "--tokenizer",
    metavar="MODEL",
    help="Stored model, or .gguf file, whose tokenizer is copied; the default model's by default.",
)
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, help="Chooses the weights.")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@config_option
@models_dir_option
@json_option
def synthesize(
    target: Path,
    like: str | None,
    quant: str,
    tokenizer: str | None,
    seed: int,
    force: bool,
    as_json: bool,
    config: Path | None,
    models_dir: str | None,
    **given: Any,
) -> None:
    """Write a model file of any shape, with random weights and a real tokenizer.

    For measuring what a model would cost on this machine, and for tests: what it generates is
    noise. Without --like every number that makes a shape is to be given.
    """
    from meshslm.engine.gguf import read_header
    from meshslm.models.synthetic import synthesise

    shape = _shape(like, given)
    library = library_of(load_effective(config, models_dir=models_dir).settings)
    if target.exists() and not force:
        fail(f"{target} is there already", "replace it with --force")
    with Steps(quiet=as_json) as steps, steps.step(str(target)) as step:
        report = ModelReport(steps, step)
        source = _tokenizer(library, tokenizer, shape, report)
        synthesise(target, shape, quant, source, report, seed=seed)
        header = read_header(target)
        count = parameters_text(header.parameters)
        step.note = f"{count} parameters, {quant}, {bytes_text(header.file_size)}"
    if as_json:
        print_json(
            {
                "path": str(target),
                "architecture": header.architecture,
                "parameters": header.parameters,
                "vocabulary": header.vocabulary,
                "quantisation": quant,
                "size": header.file_size,
            }
        )


def _shape(like: str | None, given: dict[str, Any]) -> ModelShape:
    """The published shape, or none, with the numbers that were given."""
    from dataclasses import replace

    from meshslm.models.synthetic import PUBLISHED, ModelShape
    from meshslm.toml_text import nearest

    numbers = {"architecture": given.pop("arch"), **given}
    numbers = {name: value for name, value in numbers.items() if value is not None}
    if like is not None:
        if like.lower() not in PUBLISHED:
            fail(f"the shape of {like!r} is not known; {nearest(like, tuple(PUBLISHED))}")
        return replace(PUBLISHED[like.lower()], **numbers)
    wanted = ("architecture", "layers", "width", "inner", "heads", "shared_heads", "head_width")
    missing = [f"--{name.replace('_', '-')}" for name in wanted if name not in numbers]
    if missing:
        listed = ", ".join(missing).replace("--architecture", "--arch")
        raise click.UsageError(f"without --like, {listed} must be given")
    return ModelShape(**numbers)


def _tokenizer(
    library: ModelLibrary, named: str | None, shape: ModelShape, report: ModelReport
) -> Path:
    """The file whose tokenizer is copied; a model of the catalogue is fetched for it."""
    from meshslm.models.synthetic import ENCODERS

    if named is not None and Path(named).is_file():
        return Path(named)
    if named is None:
        embeds = shape.architecture in ENCODERS
        named = "all-minilm-l6-v2" if embeds else library.catalogue.default.name
    return library.ensure(named, report).path
