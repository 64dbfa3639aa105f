"""The `meshslm` command itself: its table of commands and the options before them."""

from __future__ import annotations

import click

from meshslm.cli.lazy_group import LazyCommand, LazyGroup

EPILOG = """\b
Shell completion (bash; zsh and fish likewise):
  eval "$(_MESHSLM_COMPLETE=bash_source meshslm)"
"""

COMMANDS = {
    "demo": LazyCommand(
        "meshslm.cli.demo:demo", "Start three nodes on this machine and ask one of them."
    ),
    "up": LazyCommand("meshslm.cli.up:up", "Run a node until it is stopped."),
    "ask": LazyCommand("meshslm.cli.ask:ask", "Ask the mesh one thing and stream the answer."),
    "chat": LazyCommand("meshslm.cli.chat:chat", "Talk with the mesh, turn by turn."),
    "route": LazyCommand("meshslm.cli.route:route", "Show who would be asked TEXT, and why."),
    "peers": LazyCommand(
        "meshslm.cli.peers:peers",
        "Show the nodes that a node knows, what they host and how busy they are.",
    ),
    "status": LazyCommand(
        "meshslm.cli.status:status", "Show how a node is doing: identity, uptime, tasks, engines."
    ),
    "tasks": LazyCommand(
        "meshslm.cli.history:tasks",
        "Show the newest tasks that entered at a node, or anywhere in its mesh.",
    ),
    "task": LazyCommand(
        "meshslm.cli.history:task",
        "Show what became of one task, step by step, wherever in the mesh it entered.",
    ),
    "usage": LazyCommand(
        "meshslm.cli.history:usage", "Show what the mesh was used for: requests, tokens and time."
    ),
    "drain": LazyCommand(
        "meshslm.cli.drain:drain",
        "Let a node finish its work, hand the rest to others, and leave.",
    ),
    "mesh": LazyCommand(
        "meshslm.cli.mesh:mesh", "Make a private mesh, let nodes in, and put them out."
    ),
    "models": LazyCommand(
        "meshslm.cli.models:models",
        "Fetch, list and check models; load and unload those of a running node.",
    ),
    "profiles": LazyCommand("meshslm.cli.profiles:profiles", "List and check specialist profiles."),
    "config": LazyCommand("meshslm.cli.config:config", "Show the settings in effect."),
    "doctor": LazyCommand("meshslm.cli.doctor:doctor", "Check this machine and say what to do."),
    "record": LazyCommand(
        "meshslm.cli.record:record", "Fetch what the flight recorder of a node has."
    ),
    "state": LazyCommand(
        "meshslm.cli.state:state", "Show, verify, save and put back shared documents."
    ),
    "sim": LazyCommand("meshslm.cli.sim:sim", "Simulate a mesh of many nodes."),
}


def _version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from meshslm import __version__

    click.echo(f"meshslm {__version__}")
    ctx.exit()


@click.command(
    cls=LazyGroup,
    lazy=COMMANDS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_version,
    help="Show the version and exit.",
)
def root(debug: bool) -> None:
    """A private mesh of small language models that answers the OpenAI API.

    Each node hosts specialists; a request that arrives anywhere is answered by the node best
    suited to it.
    """
