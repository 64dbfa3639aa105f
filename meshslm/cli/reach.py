"""Finding the node that a command talks to.

`--url` says which; then `MESHSLM_URL`; then the gateway that this user's settings describe.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from meshslm.strategies import STRATEGIES

if TYPE_CHECKING:
    from meshslm.client import Client
    from meshslm.settings import Settings

READY_TIMEOUT_S: Final = 5.0
"""A node answers this from memory; more than this and its loop is stuck."""

READY_BYTES: Final = 64 * 1024
"""More than any node says; what else listens there may say more."""

url_option = click.option(
    "--url",
    metavar="URL",
    envvar="MESHSLM_URL",
    show_envvar=True,
    help="Node to talk to; the one of this machine's settings by default.",
)

model_option = click.option(
    "--model",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="auto, domain:NAME, or a model's or profile's name, each with @NODE where one is meant.",
)

strategy_option = click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    help="By what whoever answers is chosen, instead of the node's own.",
)


@contextmanager
def open_client(url: str | None) -> Iterator[Client]:
    """A client of the node to talk to. Raises `OurFault` with a hint where none answers."""
    from meshslm.client import Client
    from meshslm.errors import OurFault

    try:
        with Client(node_url(url)) as client:
            yield client
    except OurFault as fault:
        fault.add_note("--url or MESHSLM_URL names another node; 'meshslm doctor' checks this one")
        raise


def node_url(url: str | None) -> str:
    """Base address of the node to talk to. Raises `OurFault`, or `UsageError` for a bad one."""
    if url is None:
        from meshslm.cli.effective import load_effective

        return gateway_url(load_effective().settings)
    if not re.match(r"https?://[^/]", url):
        raise click.UsageError(f"{url!r} is no address of a node, such as http://127.0.0.1:7416")
    return url.rstrip("/").removesuffix("/v1")


def gateway_url(settings: Settings) -> str:
    """Where the gateway of these settings is reached from this machine."""
    gateway = settings.gateway
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(gateway.host, gateway.host)  # noqa: S104 - compared, not listened at
    return f"http://[{host}]:{gateway.port}" if ":" in host else f"http://{host}:{gateway.port}"


def short_node(node: str) -> str:
    """The end of a node id: enough to tell nodes apart; the beginnings are alike."""
    return f"..{node[-8:]}" if len(node) > 12 else node


def curl_line(url: str) -> str:
    """A command to paste that asks the node at `url`."""
    body = '{"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}'
    return f"curl {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'"


def readiness(url: str) -> tuple[bool, str]:
    """Whether the node at `url` (http://HOST:PORT) takes requests, and why not."""
    from http.client import HTTPConnection, HTTPException

    connection = HTTPConnection(url.removeprefix("http://"), timeout=READY_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        told = json.loads(response.read(READY_BYTES))
        return response.status == 200, str(told.get("reason", ""))
    except (OSError, HTTPException, ValueError, AttributeError):
        return False, "does not answer yet"
    finally:
        connection.close()
