"""`meshslm config`: the settings in effect, each with where it comes from."""

from __future__ import annotations

from typing import Any

import click

from meshslm.cli.effective import load_effective, setting_options
from meshslm.cli.screen import json_option, print_json, print_table


@click.command()
@setting_options
@click.option("--toml", "as_toml", is_flag=True, help="Print a configuration file that says it.")
@json_option
def config(as_toml: bool, as_json: bool, **options: Any) -> None:
    """Show the settings in effect.

    Takes the same options as 'meshslm up' and shows what they would lead to. A flag wins over the
    environment, the environment over the file, the file over the default.
    """
    from msgspec import to_builtins

    from meshslm.settings import render_toml

    if as_toml and as_json:
        raise click.UsageError("--toml and --json exclude each other")
    effective = load_effective(**options)
    if as_toml:
        click.echo(render_toml(effective.settings, effective.sources), nl=False)
        return
    tables = to_builtins(effective.settings)
    rows = [
        (f"{section}.{key}", value, effective.sources[f"{section}.{key}"])
        for section, table in tables.items()
        for key, value in table.items()
    ]
    if as_json:
        print_json({key: {"value": value, "source": source} for key, value, source in rows})
        return
    print_table(("setting", "value", "source"), [(k, _shown(v), s) for k, v, s in rows])


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "-" if value == "" else str(value)
