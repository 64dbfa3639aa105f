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

What `--json` prints keeps its shape within a major version: keys may be added, none is renamed
or removed.
"""


def reference() -> str:
    """The whole document."""
    parts = [HEAD]
    for context in _contexts(root, None):
        level = "##" if context.parent is None or context.parent.parent is None else "###"
        text = context.command.get_help(context).rstrip()
        parts.append(f"{level} {context.command_path}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


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
