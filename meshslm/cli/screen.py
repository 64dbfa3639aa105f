"""What commands print: tables and JSON on stdout, progress and remarks on stderr.

Rules:
- `--json` prints one JSON document, indented, with text as it is; its shape is part of the
  interface and tested.
- Where the output is not a terminal, tables are as wide as their content and nothing moves.
- Names, addresses and reasons come from peers: their control characters are left out, so that
  nobody in the mesh can move the cursor of whoever looks at it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from rich.console import Console

PIPED_WIDTH = 200
"""Columns of a table that goes into a pipe or file: nothing of ours is wider."""

_UNSEEN: Final = {
    code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"
}
"""C0 and C1 control characters, without those that lay text out."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
"""The `--json` of every command that shows something."""


def console(*, err: bool = False) -> Console:
    """A rich console on the present stdout or stderr."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    width = None if stream.isatty() else PIPED_WIDTH
    return Console(file=stream, width=width, highlight=False, soft_wrap=not stream.isatty())


def harmless(text: str) -> str:
    """`text` without control characters."""
    return text.translate(_UNSEEN)


def print_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()
) -> None:
    """Print a table on stdout; columns named in `right` hold numbers."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(harmless(str(cell))) for cell in row))
    console().print(table)


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one pair a line, on stdout."""
    pairs = [(name, harmless(str(value))) for name, value in fields]
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        click.echo(f"{click.style(name.ljust(width), bold=True)}  {value}")


def duration_text(milliseconds: float | None) -> str:
    """A duration as a person reads it; a dash where there is none."""
    if milliseconds is None:
        return "-"
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def bytes_text(count: float) -> str:
    """A number of bytes as a person reads it, in units of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
