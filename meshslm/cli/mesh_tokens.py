"""Join tokens on the command line: making, narrowing and reading them.

Rules:
- A token is a secret: it is never an argument, and no message shows it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from meshslm.cli.durations import Duration
from meshslm.cli.effective import config_option, load_effective
from meshslm.cli.failures import fail
from meshslm.cli.screen import json_option, print_json

if TYPE_CHECKING:
    from meshslm.wire.admission import JoinToken

F = TypeVar("F", bound=Callable[..., Any])

VARIABLE: Final = "MESHSLM_JOIN_TOKEN"
CREDENTIAL: Final = "meshslm.token"
"""Name of the systemd credential."""

ROLES: Final[dict[str, tuple[str, ...]]] = {
    "gateway": ("submit",),
    "specialist": ("serve",),
    "coordinator": ("coordinate",),
    "memory": ("write",),
    "operator": ("submit", "rollout"),
    "admitter": ("admit",),
    "member": ("submit", "serve", "coordinate", "write"),
}
"""What a new member is for, and what it may do then."""


def token_options(command: F) -> F:
    """Where a token comes from."""
    option = click.option(
        "--token-file",
        type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
        help="File with the join token; - for standard input.",
    )
    return option(command)


def token_from(file: Path | None) -> JoinToken | None:
    """The token that was given: the file's, else the environment's, else systemd's."""
    from meshslm.adapters.tokens import TEXT_BYTES, from_text

    if file is not None and str(file) == "-":
        return from_text(sys.stdin.read(TEXT_BYTES + 1))
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if file is None and VARIABLE in os.environ:
        return from_text(os.environ[VARIABLE])
    if file is None and folder and (Path(folder) / CREDENTIAL).exists():
        file = Path(folder) / CREDENTIAL
    if file is None:
        return None
    try:
        with file.open(encoding="ascii") as opened:
            return from_text(opened.read(TEXT_BYTES + 1))
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror}")
    except UnicodeDecodeError:
        fail(f"there is no join token in {file}")


output_option = click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the token to this new file (mode 0600) instead of standard output.",
)


@click.command()
@click.option(
    "--role",
    "roles",
    type=click.Choice(tuple(ROLES)),
    multiple=True,
    help="What the new member is for; several add up. Default: member.",
)
@click.option("--domains", help="Domains it may serve, with commas between; default: any.")
@click.option("--namespaces", help="Namespaces it may write to; default: any.")
@click.option(
    "--expires", type=Duration(), default="24h", show_default=True, help="Life of the token."
)
@click.option(
    "--uses",
    type=click.IntRange(0, 100_000),
    default=1,
    show_default=True,
    help="Nodes that may join with it; 0: any number.",
)
@click.option(
    "--life", type=Duration(60), default="30d", show_default=True, help="Life of the certificate."
)
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="MULTIADDR",
    help="Where the new node reaches this one; default: where it listens.",
)
@output_option
@config_option
@click.option("--data-dir", metavar="FOLDER", help="Identity and journals of this node.")
@json_option
def invite(
    roles: tuple[str, ...],
    domains: str | None,
    namespaces: str | None,
    expires: int,
    uses: int,
    life: int,
    addresses: tuple[str, ...],
    output: Path | None,
    as_json: bool,
    **where: Any,
) -> None:
    """Make a token with which another node joins this mesh.

    Whoever has the token can use it: hand it over like a password. A token whose uses are counted
    is redeemed by this node alone, which has to run; one of any number by all that may admit.
    """
    from meshslm.adapters.admission_desk import AdmissionDesk
    from meshslm.adapters.keyring import load_or_create
    from meshslm.adapters.mesh_folder import MeshFolder
    from meshslm.adapters.tokens import Grant, from_text, serial_of
    from meshslm.core.certificates import NotAdmitted

    settings = load_effective(**where).settings
    data = Path(settings.node.data_dir)
    key = load_or_create(data)
    rights = tuple(dict.fromkeys(r for role in roles or ("member",) for r in ROLES[role]))
    grant = Grant(
        b"", rights, _names(domains, "--domains"), _names(namespaces, "--namespaces"), uses, life
    )
    places = _places(addresses or settings.link.listen, key.node_id)
    desk = AdmissionDesk(MeshFolder(data), key, time.time)
    try:
        text = desk.invite(grant, time.time() + expires, places)
    except NotAdmitted as refusal:
        fail(f"this node cannot invite: {refusal}")
    told = {"token_serial": serial_of(from_text(text)), "addresses": places, "rights": rights}
    _hand_out(text, output, as_json, told)


@click.command()
@token_options
@click.option("--expires", type=Duration(), help="It runs out so much from now, or earlier.")
@click.option("--node", metavar="ID", help="Only this node may use it.")
@click.option("--domains", help="It gives no other domains than these.")
@click.option("--namespaces", help="It gives no other namespaces than these.")
@click.option("--rights", help="It gives no other rights than these: submit, serve, ...")
@output_option
@json_option
def narrow(
    token_file: Path | None,
    expires: int | None,
    node: str | None,
    domains: str | None,
    namespaces: str | None,
    rights: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Make a token that gives less out of one that gives more; needs no key and no network."""
    from meshslm.adapters.tokens import narrowed, to_text
    from meshslm.ids import NodeId

    token = token_from(token_file)
    if token is None:
        raise click.UsageError(f"no token: give --token-file, or {VARIABLE}")
    less = narrowed(
        token,
        expires_unix_s=None if expires is None else time.time() + expires,
        peer=NodeId(node) if node else None,
        rights=_left(rights, "--rights"),
        domains=_left(domains, "--domains"),
        namespaces=_left(namespaces, "--namespaces"),
    )
    _hand_out(to_text(less), output, as_json, {})


def _left(given: str | None, option: str) -> tuple[str, ...]:
    """What narrowing leaves; empty: all, where the option was not given at all."""
    return () if given is None else _names(given, option)


def _names(given: str | None, option: str) -> tuple[str, ...]:
    from meshslm import limits

    text = "*" if given is None else given
    names = tuple(dict.fromkeys(n.strip() for n in text.split(",") if n.strip()))
    if not 1 <= len(names) <= limits.CERTIFIED_NAMES:
        raise click.UsageError(f"{option} takes 1 to {limits.CERTIFIED_NAMES} names")
    long = [name for name in names if len(name.encode()) > limits.NAME_BYTES]
    if long:
        raise click.UsageError(f"{option}: a name has at most {limits.NAME_BYTES} bytes")
    return names


def _places(listen: tuple[str, ...], node: str) -> tuple[str, ...]:
    from meshslm import limits
    from meshslm.adapters.multiaddrs import AddressError, parse, reachable

    places: list[str] = []
    for text in listen:
        try:
            address = parse(text)
        except AddressError as error:
            raise click.UsageError(str(error)) from None
        if address.port == 0:
            raise click.UsageError("this node listens at any free port; give --address")
        bound = reachable(address)
        places += [f"{str(place).partition('/p2p/')[0]}/p2p/{node}" for place in bound]
    return tuple(dict.fromkeys(places))[: limits.ADDRESSES_PER_PEER]


def _hand_out(text: str, output: Path | None, as_json: bool, told: dict[str, Any]) -> None:
    if output is not None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(output, flags, 0o600), "w", encoding="ascii") as file:
                file.write(f"{text}\n")
        except OSError as error:
            fail(f"cannot write {output}: {error.strerror}")
    if as_json:
        where = {"token": text} if output is None else {"file": str(output)}
        print_json({**where, **told})
    elif output is None:
        click.echo(text)
