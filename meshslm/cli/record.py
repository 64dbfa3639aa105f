"""`meshslm record`: what the flight recorder of a node has."""

from __future__ import annotations

from pathlib import Path

import click

from meshslm.cli.failures import fail
from meshslm.cli.reach import node_url, url_option
from meshslm.cli.screen import json_option, print_json

TIMEOUT_S = 30.0
"""The node packs some MiB, and does nothing else meanwhile."""


@click.group()
def record() -> None:
    """Fetch what the flight recorder of a node has.

    A node keeps the events of its decisions, from its start and the newest ones, without the texts
    of prompts and answers unless 'record.texts' says so. 'meshslm sim replay' replays them.
    """


@record.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("recording.jsonl.gz"),
    show_default=True,
    help="File to write.",
)
@click.option("--force", is_flag=True, help="Overwrite the file.")
@url_option
@json_option
def dump(out: Path, force: bool, url: str | None, as_json: bool) -> None:
    """Write the recording of a running node on this machine to a file."""
    if out.exists() and not force:
        fail(f"{out} is there already", "--force overwrites it, --out names another file")
    data = _fetched(node_url(url))
    try:
        out.write_bytes(data)
        out.chmod(0o600)
    except OSError as error:
        fail(f"cannot write {out}: {error.strerror}")
    if as_json:
        print_json({"path": str(out), "bytes": len(data)})
    else:
        click.echo(f"{out}: {len(data)} bytes; 'meshslm sim replay {out}' replays it")


def _fetched(url: str) -> bytes:
    import httpx

    try:
        response = httpx.get(f"{url}/mesh/recording", timeout=TIMEOUT_S)
    except httpx.HTTPError as error:
        fail(
            f"no node answers at {url}: {error}",
            "--url or MESHSLM_URL names another node; 'meshslm doctor' checks this one",
        )
    if response.status_code != 200:
        fail(f"the node at {url} gives no recording: {_reason(response.content)}")
    return response.content


def _reason(body: bytes) -> str:
    import msgspec

    try:
        return str(msgspec.json.decode(body)["error"]["message"])
    except (msgspec.MsgspecError, KeyError, TypeError, UnicodeDecodeError):
        return "it says no more"
