"""`meshslm state`: shared documents of a node: how large, whether alike, saved and put back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from meshslm.cli.effective import load_effective
from meshslm.cli.failures import fail
from meshslm.cli.reach import node_url, open_client, url_option
from meshslm.cli.screen import bytes_text, json_option, print_fields, print_json, print_table

if TYPE_CHECKING:
    from meshslm.api.state import StateReply

TIMEOUT_S = 10.0


@click.group()
def state() -> None:
    """Show, verify, save and put back shared documents.

    Every node keeps replicas of the mesh's documents: memory, registry, rollouts, ledgers.
    """


@state.command()
@url_option
@json_option
def show(url: str | None, as_json: bool) -> None:
    """Show what a running node holds."""
    told = _asked("GET", url, as_json=as_json)
    if told is None:
        return
    print_fields(
        [
            ("state", "ready" if told.ready else "not open yet"),
            *([("trouble", told.trouble)] if told.trouble else []),
            (
                "from others",
                f"{told.taken} deltas taken, {told.refused} refused, {told.known} known before",
            ),
            ("comparisons", f"{told.compared}, {told.agreed} equal, {told.diverged} diverged"),
            ("mended", f"{told.repaired} parts, {told.rebuilt} rebuilt"),
        ]
    )
    if told.documents:
        click.echo()
        print_table(
            ("document", "entries", "live", "stored", "authors", ""),
            [
                (
                    d.document,
                    d.keys,
                    bytes_text(d.live_bytes),
                    bytes_text(d.full_bytes),
                    d.authors,
                    "in quarantine" if d.quarantined else "",
                )
                for d in told.documents
            ],
            right=("entries", "live", "stored", "authors"),
        )


@state.command()
@url_option
@json_option
def verify(url: str | None, as_json: bool) -> None:
    """Compare the documents of a running node with those of every member it is linked to.

    Ends with 1 where replicas have diverged, or where a member did not answer. One that is only
    behind is being brought up to date. In a mesh of more than some sixty nodes not every two are
    linked: how many were not asked is told, and another node verifies others.
    """
    told = _asked("POST", url, as_json=as_json)
    if told is not None:
        print_table(
            ("member", "replicas", "documents", ""),
            [
                (c.node, c.state, c.documents, ", ".join((*c.diverged, *c.behind)[:5]))
                for c in told.checks
            ],
            right=("documents",),
        )
        if told.unasked:
            click.echo(f"{told.unasked} members were not asked: no link, or no documents", err=True)
        bad = [c.node for c in told.checks if c.state in {"diverged", "waiting"}]
        if bad:
            fail(f"{len(bad)} of {len(told.checks)} members diverged or did not answer")


@state.command()
@click.argument("document")
@click.argument("author")
@click.option("--force", is_flag=True, help="Although that node is there now.")
@url_option
@json_option
def forget(url: str | None, document: str, author: str, *, force: bool, as_json: bool) -> None:
    """Give up for ever what a node that is gone wrote to a document.

    DOCUMENT is a name as 'meshslm state show' has it, AUTHOR a node's id, as 'meshslm peers --all'
    has it. The coordinators decide it, every node drops these entries within minutes, and nobody
    takes them again. A node that comes back all the same writes on, without what it wrote before.
    It cannot be undone.
    """
    from msgspec import to_builtins

    with open_client(url) as client:
        told = client.forget(document, author, force=force)
    if as_json:
        print_json(to_builtins(told))
    else:
        click.echo(f"generation {told.generation} of {told.document}; given up so far:")
        print_table(("author", "up to"), [(f.author, f.generation) for f in told.forgotten])


@state.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--force", is_flag=True, help="Overwrite the file.")
@click.option("--data-dir", metavar="FOLDER", help="Of the node.")
def backup(file: Path, force: bool, data_dir: str | None) -> None:
    """Save the documents of this machine's node to a file; it may run meanwhile."""
    from meshslm.adapters.state_files import back_up

    if file.exists() and not force:
        fail(f"{file} is there already", "--force overwrites it")
    size = back_up(_path(data_dir), file)
    click.echo(f"{file}: {bytes_text(size)}")


@state.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--data-dir", metavar="FOLDER", help="Of the node.")
def restore(file: Path, data_dir: str | None) -> None:
    """Put saved documents in place of those of this machine's node, which must not run.

    What the node wrote after the backup comes back from other members, if there are any.
    """
    from meshslm.adapters.keyring import DirectoryLock
    from meshslm.adapters.state_files import put_back

    settings = load_effective(data_dir=data_dir).settings
    with DirectoryLock(Path(settings.node.data_dir)):
        kept = put_back(file, _path(data_dir))
    click.echo(f"{file} is in place" + (f"; what was there is now {kept}" if kept else ""))


@state.command()
@click.option("--document", help="Only this one, such as memory/notes.")
@click.option("--data-dir", metavar="FOLDER", help="Of the node.")
def export(document: str | None, data_dir: str | None) -> None:
    """Print all entries as JSON, one a line: document, key, revision, author, value.

    A value that is no text is given in base64, as `value_base64`. The node may run meanwhile.
    """
    import json

    for entry in _entries(_path(data_dir), document):
        click.echo(json.dumps(entry, ensure_ascii=False))


def _entries(path: Path, document: str | None) -> Iterator[dict[str, Any]]:
    import base64

    from meshslm.adapters.state_files import stored_documents

    for name, found in sorted(stored_documents(path).items()):
        if document not in (None, name):
            continue
        for key in found.keys():  # noqa: SIM118 - a document is no mapping
            entry = found.get(key)
            if entry is None or entry.deleted:
                continue
            told: dict[str, Any] = {"document": name, "key": key, "revision": entry.revision}
            told |= {"author": found.author_of(key), "written_ms": entry.written_ms}
            if entry.expires_ms:
                told["expires_ms"] = entry.expires_ms
            try:
                told["value"] = entry.value.decode()
            except UnicodeDecodeError:
                told["value_base64"] = base64.b64encode(entry.value).decode()
            yield told


def _path(data_dir: str | None) -> Path:
    from meshslm.adapters.sqlite_journal import STATE_FILE

    settings = load_effective(data_dir=data_dir).settings
    return Path(settings.state.directory or settings.node.data_dir) / STATE_FILE


def _asked(method: str, url: str | None, *, as_json: bool) -> StateReply | None:
    """What the node tells; None where it was printed as it came."""
    import httpx
    import msgspec

    from meshslm.api.state import PATH, VERIFY, StateReply

    base = node_url(url)
    try:
        path = VERIFY if method == "POST" else PATH
        response = httpx.request(method, base + path, timeout=TIMEOUT_S)
    except httpx.HTTPError as error:
        fail(f"no node answers at {base}: {error}", "--url or MESHSLM_URL names another node")
    try:
        if response.status_code != 200:
            fail(str(msgspec.json.decode(response.content)["error"]["message"]))
        told = msgspec.json.decode(response.content, type=StateReply)
    except (msgspec.MsgspecError, KeyError, TypeError):
        fail(f"what answers at {base} is no node of this version")
    if as_json:
        print_json(msgspec.to_builtins(told))
        return None
    return told
