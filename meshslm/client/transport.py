"""HTTP for both clients: how httpx is set up, and what its errors mean here.

httpx is imported when a client is made: it takes 0.2 s and pulls in whatever terminal libraries
are installed, which programs that only import types from here should not pay for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from meshslm import __version__
from meshslm.api.admin import DEFAULT_URL
from meshslm.client.answer import failure
from meshslm.client.asking import CONNECT_S, Asking
from meshslm.errors import FaultCode, OurFault, RequestFault

if TYPE_CHECKING:
    import httpx


def settings_for(url: str) -> dict[str, Any]:
    """Arguments for an httpx client that talks to the node at `url`."""
    base = url.rstrip("/").removesuffix("/v1")
    if not _is_address(base):
        raise OurFault(f"{url!r} is no address of a node; it looks like {DEFAULT_URL}")
    return {
        "base_url": base,
        "headers": {"user-agent": f"meshslm/{__version__}", "content-type": "application/json"},
        # A proxy of the environment is for the wide world, not for a node on loopback.
        "trust_env": False,
        # Loading certificates takes longer than a question to a local node.
        "verify": base.startswith("https"),
    }


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False  # an unclosed bracket, a port that is no number


def sending(asked: Asking) -> dict[str, Any]:
    """Arguments for httpx to send a request.

    Connecting fails fast; answering takes as long as the request allows.
    """
    import httpx  # noqa: PLC0415 - see the module's docstring

    timeout = httpx.Timeout(asked.silence_s, connect=CONNECT_S)
    return {"method": asked.method, "url": asked.path, "content": asked.body, "timeout": timeout}


@contextmanager
def told_plainly(url: object) -> Iterator[None]:
    """Raise httpx's errors as this program's."""
    import httpx  # noqa: PLC0415 - see the module's docstring

    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise OurFault(
            f"no node answers at {url} ({str(error) or 'timed out'}); start one with `meshslm up`, "
            "or say where one is"
        ) from error
    except httpx.TimeoutException as error:
        raise RequestFault(
            FaultCode.DEADLINE, f"The node at {url} did not answer in time."
        ) from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise OurFault(f"{url} is no address of a node: {error}") from error
    except httpx.TransportError as error:
        raise RequestFault(
            FaultCode.PEER_LOST, f"The node at {url} broke the connection off: {error}"
        ) from error


async def run_out(received: AsyncIterator[bytes]) -> None:
    """Let an iterator over the body of a closed response come to its end.

    It stands on a stack of generators in httpx and httpcore. Left in the middle, trio complains of
    each when it is collected; asked on, they find the connection closed and end at once.
    """
    import httpx  # noqa: PLC0415 - see the module's docstring

    try:
        async for _ in received:
            pass
    except (httpx.TransportError, httpx.StreamError):
        pass  # this is the end that was looked for


def body_of(response: httpx.Response) -> bytes:
    """The body of a response that was read; raises what it says if it is not 2xx."""
    if not response.is_success:
        raise refusal(response)
    return response.content


def refusal(response: httpx.Response) -> Exception:
    """What a response that is not 2xx, and was read, says."""
    return failure(response.status_code, response.headers, response.content)
