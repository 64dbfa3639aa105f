"""Writes the reference of the command line from the commands themselves.

    python -m meshslm.cli.reference > docs/cli.md

A test compares the two, so that the document cannot tell of options that do not exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import click

from meshslm.cli.root import root

WIDTH: Final = 96
"""Columns of the help texts: they stand in code blocks."""

HEAD: Final = """\
# Command line

Written from the commands by `python -m meshslm.cli.reference > docs/cli.md`; do not edit.

Answers go to stdout, everything about them to stderr. Exit codes: 0 done, 1 it could not be done
(the reason is on stderr), 2 wrong usage, 70 a bug in meshslm, 130 interrupted by Ctrl-C. A node
(`meshslm up`) that is stopped by SIGINT or SIGTERM ends with 0.

Shell completion: `eval "$(_MESHSLM_COMPLETE=bash_source meshslm)"` in `~/.bashrc`,
`eval "$(_MESHSLM_COMPLETE=zsh_source meshslm)"` in `~/.zshrc`,
`_MESHSLM_COMPLETE=fish_source meshslm | source` in `~/.config/fish/config.fish`.

## JSON

With `--json` a command prints one JSON document on stdout. Its shape is kept within a major
version: keys may be added, none is renamed or removed. Durations end in `_ms` or `_s`; what was not
measured is `null`. Where a command fails, stdout is empty and the reason is on stderr, as without
`--json`; `doctor`, `sim run`, `sim swarm`, `sim compare`, `sim plot` and `sim replay` print their
document also when a check fails, and end with 1.

"""

JSON_KEYS: Final = {
    "ask": (
        "text reasoning tool_calls finish_reason model node node_name profile route attempts "
        "ttft_ms queue_ms prefill_ms decode_ms tokens_per_s usage memory "
        "continued cascade"
    ),
    "config": "SETTING: value source",
    "demo": "prompt asked answer mesh_up_s first_text_s nodes",
    "doctor": "verdict checks",
    "drain": "name seconds broken_off",
    "mesh decide": "index decisions",
    "mesh create": "mesh name node serial rights domains namespaces not_after valid has_key",
    "mesh invite": "token file token_serial addresses rights",
    "mesh join": "as of `mesh create`",
    "mesh leave": "left",
    "mesh members": "LIST: name node state rights domains not_after serial token",
    "mesh narrow": "token file",
    "mesh revoke": "revoked about",
    "mesh rotate": "key grace_s",
    "mesh status": "as of `mesh create`",
    "models list": (
        "LIST: name source pinned original converted_from converted_by prepared prepared_by "
        "trials wanted architecture parameters context_length chat_template licence description "
        "adapter_of pulled_at state path"
    ),
    "models list --available": (
        "LIST: name description source sha256 size archive_sha256 archive_size "
        "converted_sha256 licence parameters quantisation"
    ),
    "models load": "model state loaded need_mib pinned reason",
    "models pin": "as of `models load`",
    "models prepare": "as an item of `models list`",
    "models pull": "as an item of `models list`",
    "models show": (
        "as an item of `models list`, and `memory`: what it needs with so many `slots` of `context`"
    ),
    "models unload": "as of `models load`",
    "models unpin": "as of `models load`",
    "models synthesize": "path architecture parameters vocabulary quantisation size",
    "peers": "LIST: node name state agent address rtt_ms heard_ms specialists hardware loads "
    "addresses",
    "peers --all": (
        "LIST: node name version there seen_ms addresses cores memory_mib accelerator hosts"
    ),
    "peers --banned": "LIST: node reason strikes left_ms",
    "record dump": "path bytes",
    "profiles check": "LIST: file name model domains examples",
    "profiles list": (
        "LIST: name model adapter draft system_prompt max_tokens load price private sampling "
        "domains cascade"
    ),
    "profiles show": "as an item of `profiles list`",
    "sim compare": "a b seeds failed_a failed_b figures",
    "sim plot": "ok path moments",
    "sim replay": (
        "ok recorded_by replayed_by reason texts events seconds effects missing after_gap crash "
        "parting"
    ),
    "sim run": (
        "ok events_per_s scenario seed nodes virtual_s wall_s events trace tasks routing "
        "first_token_ms total_ms traffic convergence violations violation_counts"
    ),
    "sim swarm": "ok runs failed events",
    "status": (
        "node name mesh version boot uptime_ms addresses peers_alive leaving tasks loads models "
        "memory_budget_mib bootstrap banned state drain reach dht"
    ),
    "state forget": "document generation forgotten",
    "state show": (
        "ready trouble documents taken refused compared agreed diverged repaired rebuilt checks "
        "unasked known waiting"
    ),
    "state verify": "as of `state show`",
}
"""Command -> the keys of its JSON: of the object, of each item of a list, or of each setting."""


def reference() -> str:
    """The whole document."""
    rows = [f"| `{command}` | {_keys_text(keys)} |" for command, keys in JSON_KEYS.items()]
    parts = [HEAD.rstrip() + "\n", "\n".join(["| Command | Keys |", "|---|---|", *rows, ""])]
    for context in _contexts(root, None):
        level = "##" if context.parent is None or context.parent.parent is None else "###"
        text = context.command.get_help(context).rstrip()
        parts.append(f"{level} {context.command_path}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def _keys_text(keys: str) -> str:
    if keys.startswith("as "):
        return keys
    kind, _, names = keys.rpartition(": ")
    listed = ", ".join(f"`{name}`" for name in names.split())
    return {"LIST": "a list of ", "SETTING": "by setting, such as `gateway.port`: "}.get(
        kind, ""
    ) + listed


def _contexts(command: click.Command, parent: click.Context | None) -> Iterator[click.Context]:
    context = click.Context(
        command,
        info_name=command.name if parent else "meshslm",
        parent=parent,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        help_option_names=["-h", "--help"],
    )
    yield context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                yield from _contexts(child, context)


if __name__ == "__main__":
    click.echo(reference(), nl=False)
