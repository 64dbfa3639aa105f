"""Finding the node that a command talks to.

`--url` says which; then `MESHSLM_URL`; then the gateway that this user's settings describe.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from meshslm.client import Client

F = TypeVar("F", bound=Callable[..., Any])

url_option = click.option(
    "--url",
    metavar="URL",
    envvar="MESHSLM_URL",
    show_envvar=True,
    help="Node to talk to; the one of this machine's settings by default.",
)


def node_url(url: str | None) -> str:
    """Base address of the node to talk to. Raises `OurFault`, or `UsageError` for a bad one."""
    if url is None:
        from meshslm.cli.effective import load_effective

        gateway = load_effective().settings.gateway
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(gateway.host, gateway.host)  # noqa: S104
        return f"http://[{host}]:{gateway.port}" if ":" in host else f"http://{host}:{gateway.port}"
    if not re.match(r"https?://[^/]", url):
        raise click.UsageError(f"{url!r} is no address of a node, such as http://127.0.0.1:7416")
    return url.rstrip("/").removesuffix("/v1")


def short_node(node: str) -> str:
    """The end of a node id: enough to tell nodes apart; the beginnings are alike."""
    return f"..{node[-8:]}" if len(node) > 12 else node
