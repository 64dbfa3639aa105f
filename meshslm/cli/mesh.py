"""`meshslm mesh`: private meshes, from their making to their members' leaving."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from meshslm.cli.consensus import consensus, decide
from meshslm.cli.durations import Duration, moment_text
from meshslm.cli.effective import config_option, load_effective
from meshslm.cli.failures import fail
from meshslm.cli.mesh_tokens import invite, narrow, token_from, token_options
from meshslm.cli.screen import json_option, print_fields, print_json, print_table

if TYPE_CHECKING:
    from meshslm.adapters.mesh_folder import Entry, Member, MeshFolder
    from meshslm.settings import Settings

data_dir_option = click.option(
    "--data-dir", metavar="FOLDER", help="Identity and journals of this node."
)


@click.group()
def mesh() -> None:
    """Make a private mesh, let nodes in, and put them out.

    A private mesh has a key. A node is let in with a join token, and is a member by a certificate
    that says what it may do; every member checks every other's. These commands work on this node's
    data folder, whether the node runs or not; a running one takes notices up within a second.
    """


@mesh.command()
@click.argument("name", default="meshslm")
@config_option
@data_dir_option
@json_option
def create(name: str, as_json: bool, **where: Any) -> None:
    """Make a private mesh with this node as its first member.

    NAME is what people call it. The mesh's key is written into the data folder: keep a copy in a
    safe place. Whoever has it can let anybody in; without it nobody can be put out.
    """
    from meshslm.adapters.admission_desk import create_mesh
    from meshslm.adapters.consensus_log import ConsensusLog
    from meshslm.adapters.keyring import DirectoryLock, load_or_create

    if not 1 <= len(name.encode()) <= 64:
        raise click.UsageError("a mesh's name has 1 to 64 bytes")
    settings = load_effective(**where).settings
    with DirectoryLock(Path(settings.node.data_dir)):
        folder, key = _folder(settings), load_or_create(Path(settings.node.data_dir))
        certificate = create_mesh(folder, key, name, time.time())
        ConsensusLog(Path(settings.node.data_dir)).found(secrets.randbits(52) + 1)
    if as_json:
        print_json(_told(folder))
        return
    click.echo(f"mesh {name} {certificate.mesh.hex()}")
    click.echo(f"its key is {folder.path / 'root.key'}; keep a copy in a safe place", err=True)
    click.echo("next: 'meshslm up' here, and 'meshslm mesh invite' for another node", err=True)


@mesh.command()
@token_options
@click.option(
    "--at",
    multiple=True,
    metavar="MULTIADDR",
    help="Where the inviting node is now, ending in /p2p/ID; as the token says by default.",
)
@click.option("--name", help="What people call this node.")
@config_option
@data_dir_option
@json_option
def join(token_file: Path | None, at: tuple[str, ...], as_json: bool, **where: Any) -> None:
    """Join a private mesh with a token.

    The token is read from a file, from standard input (--token-file -), from the environment
    (MESHSLM_JOIN_TOKEN) or from the systemd credential 'meshslm.token'; never from the command
    line, which every user of the machine can see. 'meshslm up' takes the last two by itself.
    """
    token = token_from(token_file)
    if token is None:
        fault = "no token: give --token-file, '--token-file -', or MESHSLM_JOIN_TOKEN"
        raise click.UsageError(fault)
    settings = load_effective(**where).settings
    from meshslm.daemon.private_mesh import join_mesh

    member = join_mesh(settings, token, at)
    if as_json:
        print_json(_told(_folder(settings)))
        return
    certificate = member.certificate
    click.echo(f"member of {certificate.mesh_name} until {moment_text(certificate.not_after)}")
    click.echo(f"may: {_allowed(member)}; 'meshslm up' starts the node", err=True)


@mesh.command()
@config_option
@data_dir_option
@json_option
def status(as_json: bool, **where: Any) -> None:
    """Show which mesh this node is in, what it may do, and until when.

    Exit code 1 where it is in no private mesh, or its certificate has run out.
    """
    folder = _folder(load_effective(**where).settings)
    told = _told(folder)
    if as_json:
        print_json(told)
    elif told["mesh"] is None:
        click.echo("in no private mesh; 'meshslm mesh create' makes one", err=True)
    else:
        member = folder.member()
        assert member is not None, "it was read a moment ago"
        print_fields(
            [
                ("mesh", told["name"]),
                ("mesh id", told["mesh"]),
                ("node", told["node"]),
                ("serial", told["serial"]),
                ("may", _allowed(member)),
                ("until", moment_text(member.certificate.not_after)),
                ("has the mesh's key", "yes" if told["has_key"] else "no"),
            ]
        )
    if not told["valid"]:
        raise click.exceptions.Exit(1)


@mesh.command()
@config_option
@data_dir_option
@json_option
def members(as_json: bool, **where: Any) -> None:
    """List whom this node let in, the newest certificate of each.

    Another node that may let others in has a list of its own; 'meshslm peers' shows who is there.
    """
    folder = _folder(load_effective(**where).settings)
    member = folder.member()
    if member is None:
        fail("this node is in no private mesh")
    rows = _members(folder, member)
    if as_json:
        print_json(rows)
        return
    print_table(
        ("name", "node", "state", "may", "until", "serial"),
        [
            (
                row["name"] or "-",
                row["node"],
                row["state"],
                ", ".join(row["rights"]),
                moment_text(row["not_after"]),
                row["serial"],
            )
            for row in rows
        ],
    )


@mesh.command()
@click.argument("what")
@config_option
@data_dir_option
@json_option
def revoke(what: str, as_json: bool, **where: Any) -> None:
    """Put a member out, for ever: the whole mesh drops it within seconds.

    WHAT is a node's id, which is never let in again, or the serial of a certificate or of a token,
    with the certificates that came of it. Those that a revoked member has signed end with it. It
    needs the mesh's key.
    """
    from meshslm.adapters.admission_desk import revoke as write_revocation

    folder = _folder(load_effective(**where).settings)
    about = _kind_of(folder, what)
    member = folder.member()
    if member is not None and member.certificate.node == what:
        raise click.UsageError("that is this node itself; 'meshslm mesh leave' leaves the mesh")
    write_revocation(folder, about, what, time.time())
    if as_json:
        print_json({"revoked": what, "about": about})
    else:
        click.echo(f"revoked the {about} {what}")


@mesh.command()
@click.option(
    "--grace",
    type=Duration(0),
    default="30d",
    show_default=True,
    help="How long what the old key signed is still good: who is away for longer needs a token.",
)
@config_option
@data_dir_option
@json_option
def rotate(grace: int, as_json: bool, **where: Any) -> None:
    """Give the mesh a new key, signed by the present one.

    Members learn of it over the mesh and stay members: their certificates are signed anew before
    the old key ends. Tokens of the old key end at once. It does not help against somebody who has
    the old key: then make a new mesh.
    """
    from meshslm.adapters.admission_desk import rotate as hand_over

    folder = _folder(load_effective(**where).settings)
    key = hand_over(folder, time.time(), grace)
    if as_json:
        print_json({"key": key.public.hex(), "grace_s": grace})
    else:
        click.echo(f"the mesh's key is now {key.public.hex()}")
        click.echo("keep a copy of root.key in a safe place again", err=True)


@mesh.command()
@click.option("--yes", is_flag=True, help="Although this node has the mesh's key.")
@config_option
@data_dir_option
@json_option
def leave(yes: bool, as_json: bool, **where: Any) -> None:
    """Forget the mesh: certificate, notices, ledger, log of decisions, and the mesh's key."""
    from meshslm.adapters.consensus_log import ConsensusLog
    from meshslm.adapters.keyring import DirectoryLock

    settings = load_effective(**where).settings
    folder = _folder(settings)
    with DirectoryLock(Path(settings.node.data_dir)):
        if folder.root() is not None and not yes:
            fail(f"the mesh's key is here ({folder.path}); copy it first, then add --yes")
        folder.forget()
        ConsensusLog(Path(settings.node.data_dir)).forget()
    if as_json:
        print_json({"left": True})


mesh.add_command(consensus)
mesh.add_command(decide)
mesh.add_command(invite)
mesh.add_command(narrow)


def _folder(settings: Settings) -> MeshFolder:
    from meshslm.adapters.mesh_folder import MeshFolder

    return MeshFolder(Path(settings.node.data_dir))


def _told(folder: MeshFolder) -> dict[str, Any]:
    member = folder.member()
    if member is None:
        return {"mesh": None, "valid": False}
    certificate = member.certificate
    return {
        "mesh": certificate.mesh.hex(),
        "name": certificate.mesh_name,
        "node": certificate.node,
        "serial": certificate.serial.hex(),
        "rights": certificate.rights,
        "domains": certificate.domains,
        "namespaces": certificate.namespaces,
        "not_after": certificate.not_after,
        "valid": time.time() < certificate.not_after,
        "has_key": folder.root() is not None,
    }


def _allowed(member: Member) -> str:
    certificate = member.certificate
    named = {"serve": certificate.domains, "write": certificate.namespaces}
    return ", ".join(
        f"{right} ({', '.join(named[right]) or 'nothing'})" if right in named else right
        for right in certificate.rights
    )


def _members(folder: MeshFolder, member: Member) -> list[dict[str, Any]]:
    from meshslm.adapters.admission_desk import board_of

    board = board_of(folder, member.certificate.mesh)
    newest: dict[str, Entry] = {}
    names: dict[str, str] = {}
    for entry in folder.ledger():
        newest[entry.node] = entry
        names[entry.node] = entry.name or names.get(entry.node, "")

    def state(entry: Entry) -> str:
        if (
            board.revoked("node", entry.node)
            or board.revoked("certificate", entry.serial)
            or board.revoked("token", entry.token)
        ):
            return "revoked"
        return "valid" if time.time() < entry.not_after else "expired"

    return [
        {
            "name": names[entry.node],
            "node": entry.node,
            "state": state(entry),
            "rights": entry.rights,
            "domains": entry.domains,
            "not_after": entry.not_after,
            "serial": entry.serial,
            "token": entry.token,
        }
        for entry in newest.values()
    ]


def _kind_of(folder: MeshFolder, what: str) -> str:
    """What a person means by an id or a serial. Raises a usage error."""
    from meshslm.adapters.keyring import public_key
    from meshslm.ids import NodeId

    if len(what) == 32 and set(what) <= set("0123456789abcdef"):
        certificates = {entry.serial for entry in folder.ledger()}
        return "certificate" if what in certificates else "token"
    try:
        public_key(NodeId(what))
    except ValueError:
        raise click.UsageError(
            f"{what!r} is neither a node's id nor a serial; 'meshslm mesh members' lists both"
        ) from None
    return "node"
