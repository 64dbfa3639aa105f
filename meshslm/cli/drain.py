"""`meshslm drain`: let a node finish its work, hand the rest to others, and leave.

The order is given in one request; then the node's status tells how much is left, until the node is
gone. Whoever interrupts the command stops watching: the node leaves all the same.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import click

from meshslm.cli.durations import Duration
from meshslm.cli.failures import fail
from meshslm.cli.reach import open_client, url_option
from meshslm.cli.screen import json_option, print_json
from meshslm.cli.steps import Steps

if TYPE_CHECKING:
    from meshslm.client import Client, DrainInfo

LOOK_S: Final = 0.1
"""Between two looks at what is left."""

GONE_S: Final = 15.0
"""A node whose time is up says goodbye and ends within so much more."""


@click.command()
@click.option(
    "--limit",
    type=Duration(),
    default="60s",
    show_default=True,
    help="Leave then, whatever is left.",
)
@url_option
@json_option
def drain(url: str | None, *, limit: int, as_json: bool) -> None:
    """Let a node finish its work, hand the rest to others, and leave.

    It takes nothing new. Answers that it gives to clients of other nodes go on elsewhere, behind
    what these have already; those of its own clients are finished. Then its process ends.
    """
    began = time.monotonic()
    with open_client(url) as client, Steps(quiet=as_json) as steps:
        name = client.status().name
        left = client.drain(limit_s=limit)
        with steps.step(f"{name} leaves") as step:
            seen: DrainInfo | None = left
            while seen is not None:
                left = seen
                step.note = _left_text(left)
                if time.monotonic() - began > limit + GONE_S:
                    fail(f"{name} should have left by now, and is still there")
                time.sleep(LOOK_S)
                seen = _looked(client)
    broken = left.tasks + left.runs if left.left_ms <= LOOK_S * 2000 else 0
    if as_json:
        print_json({"name": name, "seconds": time.monotonic() - began, "broken_off": broken})
    elif broken:
        click.echo(f"{name} has left; its time was up with {_left_text(left)}")
    else:
        click.echo(f"{name} has left, and nothing was broken off")


def _looked(client: Client) -> DrainInfo | None:
    """What is left; None where the node is gone."""
    from meshslm.errors import MeshslmError

    try:
        return client.status().drain
    except MeshslmError:
        return None  # it does not answer any more, or not this: it has left


def _left_text(left: DrainInfo) -> str:
    seconds = left.left_ms / 1000
    return (
        f"{left.tasks} answers to its clients and {left.runs} for other nodes left, "
        f"{seconds:.0f} s for them"
    )
