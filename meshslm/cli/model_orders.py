"""`meshslm models load`, `unload`, `pin` and `unpin`: orders to a running node.

An order is given in one request; then the node's status tells how far it is. Whoever interrupts the
command stops watching: the node goes on.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from meshslm.cli.failures import fail
from meshslm.cli.reach import open_client, url_option
from meshslm.cli.screen import json_option, print_json
from meshslm.cli.steps import Step, Steps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshslm.client import Client, ModelStatus

LOOK_S: Final = 0.1
"""Between two looks at a node's status: a load of the smallest model takes about a second."""

ON_THE_WAY_IN = ("waiting", "loading", "restarting", "unloading")
ON_THE_WAY_OUT = ("draining", "unloading")

HOSTED: Final = (
    "a node hosts the models of its profiles: 'meshslm status' shows them, 'meshslm up --profile' "
    "adds to them"
)


@click.command()
@click.argument("name")
@url_option
@json_option
def load(name: str, url: str | None, *, as_json: bool) -> None:
    """Load a model of a running node into memory, and wait until it takes requests.

    Where it does not fit, idle models are unloaded for it, the least recently used first; busy
    ones when their requests are over. What can never fit is refused with the numbers.
    """
    with open_client(url) as client, _watched(name, quiet=as_json) as step:
        found = _loaded(client, step, client.load_model(name))
    _tell(found, f"{name} is loaded, {found.need_mib} MiB", as_json=as_json)


@click.command()
@click.argument("name")
@click.option("--now", is_flag=True, help="Hand back the requests that it is answering, too.")
@url_option
@json_option
def unload(name: str, url: str | None, *, now: bool, as_json: bool) -> None:
    """Unload a model of a running node, and wait until its memory is free.

    What it is answering is answered first; requests that wait for it go to other nodes. A request
    that comes later loads it again. With --now, answers that have begun end with an error, and the
    others are asked again elsewhere.
    """
    with open_client(url) as client, _watched(name, quiet=as_json) as step:
        found = client.unload_model(name, now=now)
        while found.state in ON_THE_WAY_OUT:
            found = _looked(client, step, name)
    _tell(found, f"{name} is not loaded", as_json=as_json)


@click.command()
@click.argument("name")
@url_option
@json_option
def pin(name: str, url: str | None, *, as_json: bool) -> None:
    """Load a model of a running node and keep it in memory.

    It is unloaded neither when idle nor for another model, until it is unpinned or the node ends.
    To have it pinned whenever a node starts, give its profile load = "always".
    """
    with open_client(url) as client, _watched(name, quiet=as_json) as step:
        found = _loaded(client, step, client.pin_model(name))
    _tell(found, f"{name} is pinned until this node ends, {found.need_mib} MiB", as_json=as_json)


@click.command()
@click.argument("name")
@url_option
@json_option
def unpin(name: str, url: str | None, *, as_json: bool) -> None:
    """Let a pinned model of a running node be unloaded again when that is due."""
    with open_client(url) as client, _watched(name, quiet=True):
        found = client.unpin_model(name)
    _tell(found, f"{name} is not pinned", as_json=as_json)


def _loaded(client: Client, step: Step, found: ModelStatus) -> ModelStatus:
    """Wait until a model that is to be loaded is."""
    name = found.model
    while found.state in ON_THE_WAY_IN:
        found = _looked(client, step, name)
    if found.state == "failed":
        fail(f"{name} could not be loaded: {found.reason}")
    if found.state == "absent":
        fail(
            f"{name} is not in memory: it was unloaded again, by order or for another model",
            f"'meshslm models pin {name}' keeps it there",
        )
    return found


def _looked(client: Client, step: Step, name: str) -> ModelStatus:
    """How a model stands after a moment."""
    time.sleep(LOOK_S)
    found = next((model for model in client.status().models if model.model == name), None)
    if found is None:
        fail(f"the node hosts {name} no more")
    step.note = {
        "waiting": "waits for memory: what runs on other models comes first",
        "loading": f"{found.loaded:.0%}",
        "draining": "waits for what runs on it",
        "restarting": f"its worker was lost: {found.reason}",
    }.get(found.state, "")
    return found


@contextmanager
def _watched(name: str, *, quiet: bool) -> Iterator[Step]:
    """One step on the screen; a model that is not known brings a hint."""
    from meshslm.errors import FaultCode, RequestFault

    try:
        with Steps(quiet=quiet) as steps, steps.step(f"model {name}") as step:
            yield step
    except RequestFault as fault:
        if fault.code is FaultCode.UNKNOWN_MODEL:
            fault.add_note(HOSTED)
        raise


def _tell(found: ModelStatus, words: str, *, as_json: bool) -> None:
    if as_json:
        from msgspec import to_builtins

        print_json(to_builtins(found))
    else:
        click.echo(words)
