"""`meshslm up`: one node, in the foreground, until it is stopped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from meshslm.cli.effective import load_effective, setting_options
from meshslm.cli.mesh_tokens import token_from, token_options
from meshslm.cli.model_progress import ProgressLines
from meshslm.cli.reach import curl_line

if TYPE_CHECKING:
    from meshslm.boot import Ready
    from meshslm.settings import Settings


@click.command()
@setting_options
@token_options
@click.option("--stop-with-parent", type=int, metavar="PID", hidden=True)
def up(stop_with_parent: int | None, token_file: Path | None, **options: Any) -> int:
    """Run a node until it is stopped.

    Takes a TOML file, environment variables (MESHSLM_GATEWAY_PORT for gateway.port) and flags; a
    flag wins over the environment, the environment over the file. 'meshslm config' shows what
    comes of them. Ctrl-C or SIGTERM stops the node cleanly, a second one at once.

    A node that is in no private mesh yet joins one first where a join token is given: with
    --token-file, MESHSLM_JOIN_TOKEN, or the systemd credential 'meshslm.token'.
    """
    if stop_with_parent is not None:
        from meshslm.cli.stop_with_parent import stop_with_parent as bind

        bind(stop_with_parent)
    settings = load_effective(**options).settings
    from meshslm.boot import run_daemon
    from meshslm.cli.profiles import load_profile

    return run_daemon(
        settings,
        tuple(load_profile(reference) for reference in settings.node.profiles),
        environment=os.environ,
        token=token_from(token_file),
        on_ready=lambda ready: _greet(settings, ready),
        on_progress=ProgressLines(),
    )


def _greet(settings: Settings, ready: Ready) -> None:
    """The start-up summary, for the person who started it."""
    if settings.log.format == "json":
        return
    profiles = ", ".join(ready.profiles) or "nothing: it only passes requests on"
    lines = [
        f"{ready.name} is up (Ctrl-C stops it)",
        f"  node      {ready.node_id}",
        *(f"  peers at  {address}" for address in ready.addresses),
        f"  API at    {ready.gateway_url}/v1",
        f"  hosts     {profiles}",
        f"  try       {curl_line(ready.gateway_url)}",
    ]
    click.echo("\n".join(lines))
