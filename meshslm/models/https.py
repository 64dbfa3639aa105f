"""Fetching a model file from a web server, in as many attempts as it takes.

What arrived is kept beside a note of what it belongs to (URL, validator, length). A later attempt,
of this process or another, asks only for the rest, and only if the file is still the same
(RFC 9110, sections 13.1.5 and 14.2).

Rules:
- Encrypted and verified on every hop; a redirect to anything else is refused.
- The server's word bounds nothing: size and digest are checked here.
- A failure of the network is tried again as long as bytes come; one of the server's, or of ours,
  is told at once.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin

import httpx
import msgspec

from meshslm import __version__, limits
from meshslm.errors import OurFault
from meshslm.models.disk import DiskFile, DiskFull, need_space, write_whole
from meshslm.models.progress import TICK_S, Progress, Report, Stage
from meshslm.models.sources import Fetched, HttpsSource, Pin

Sleep = Callable[[float], None]


class PartNote(msgspec.Struct, frozen=True):
    """What a partly fetched file belongs to."""

    url: str
    validator: str
    """Strong entity tag, or else date of the last change; empty where the server gave neither."""
    total: int
    """Bytes of the whole file; 0 where the server did not say."""


class _Broken(Exception):
    """The connection failed; the rest can be asked for."""


def fetch_https(
    source: HttpsSource,
    stage: Path,
    pin: Pin,
    report: Report,
    *,
    transport: httpx.BaseTransport | None = None,
    sleep: Sleep = time.sleep,
) -> Fetched:
    """Bring the file of `source` into the folder `stage`.

    `transport` replaces the network. Raises `OurFault`; what arrived stays for the next time,
    unless the disk was full.
    """
    timeout = httpx.Timeout(limits.PULL_IDLE_MS / 1000, connect=15)
    headers = {"User-Agent": f"meshslm/{__version__}", "Accept-Encoding": "identity"}
    part = _Part(stage, source, pin)
    try:
        with (
            httpx.Client(transport=transport, timeout=timeout, headers=headers) as client,
            DiskFile(
                part.path,
                most=pin.size or limits.MODEL_BYTES,
                resume=report if part.resumable else None,
            ) as file,
        ):
            _attempts(client, part, file, report, sleep)
            return Fetched(part.path, file.digest, file.size)
    except BaseException as error:
        if isinstance(error, DiskFull) or not part.begun:
            part.discard()
        raise


class _Part:
    """The partly fetched file and its note."""

    def __init__(self, stage: Path, source: HttpsSource, pin: Pin) -> None:
        self.path = stage / "model.part"
        self.source = source
        self.pin = pin
        self._note_path = stage / "model.part.json"
        self.note = self._read()

    @property
    def resumable(self) -> bool:
        return bool(self.note.validator)

    @property
    def begun(self) -> bool:
        return self.path.exists() and self.path.stat().st_size > 0

    def _read(self) -> PartNote:
        try:
            note = msgspec.json.decode(self._note_path.read_bytes(), type=PartNote)
        except (OSError, msgspec.DecodeError):
            note = None
        if note is None or note.url != self.source.url:
            return PartNote(self.source.url, "", 0)
        return note

    def remember(self, validator: str, total: int) -> None:
        self.note = PartNote(self.source.url, validator, total)
        write_whole(self._note_path, msgspec.json.encode(self.note))

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note_path.unlink(missing_ok=True)


def _attempts(
    client: httpx.Client, part: _Part, file: DiskFile, report: Report, sleep: Sleep
) -> None:
    """Ask again as long as the connection breaks, but not for ever without a byte."""
    fruitless = 0
    while True:
        before = file.size
        try:
            _attempt(client, part, file, report)
            return
        except _Broken as broken:
            fruitless = 0 if file.size > before else fruitless + 1
            if fruitless == limits.PULL_ATTEMPTS:
                raise OurFault(
                    f"{part.source.url}: {broken}; {file.size} bytes are kept, pull again to go on"
                ) from broken
            wait = limits.PULL_BACKOFF_MS / 1000 * 2**fruitless
        for _ in range(int(wait / TICK_S)):
            report(Progress(Stage.DOWNLOADING, file.size, part.note.total))
            sleep(TICK_S)


def _attempt(client: httpx.Client, part: _Part, file: DiskFile, report: Report) -> None:
    """One request, for what is missing. Raises `_Broken` where it ends too early."""
    headers = {}
    if file.size and part.note.validator:
        if file.size == part.note.total:
            return
        headers = {"Range": f"bytes={file.size}-", "If-Range": part.note.validator}
    with _opened(client, part.source.url, headers) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and headers:
            file.begin_anew()
            part.remember("", 0)
            raise _Broken("the server does not have the rest of the file")
        _begin(response, part, file)
        try:
            for chunk in response.iter_raw():  # as it comes: what is buffered would be lost
                file.write(chunk)
                report(Progress(Stage.DOWNLOADING, file.size, part.note.total))
        except httpx.TransportError as error:
            raise _Broken(_why(error)) from error
    if file.size < part.note.total:
        raise _Broken(f"the connection ended at byte {file.size} of {part.note.total}")


def _begin(response: httpx.Response, part: _Part, file: DiskFile) -> None:
    """Check the answer's head, and set the file to where the answer begins."""
    url = part.source.url
    if response.status_code == httpx.codes.PARTIAL_CONTENT:
        start, total = _content_range(response)
        validator = part.note.validator
        if start != file.size or total != (part.note.total or total):
            raise OurFault(
                f"{url}: asked for the file from byte {file.size} of {part.note.total}, the server "
                f"sent it from byte {start} of {total}"
            )
    elif response.status_code == httpx.codes.OK:
        file.begin_anew()
        total = _length(response)
        validator = _validator(response)
    else:
        raise OurFault(
            f"{url}: the server answered {response.status_code} {response.reason_phrase}"
        )
    if response.headers.get("content-encoding", "identity") != "identity":
        raise OurFault(f"{url}: the server compressed the file although asked not to")
    expected = part.pin.size
    if total > limits.MODEL_BYTES or (expected and total and total != expected):
        raise OurFault(
            f"{url} has {total} bytes, expected {expected or f'at most {limits.MODEL_BYTES}'}"
        )
    need_space(file.path.parent, (total or expected or 0) - file.size, part.source.file_name)
    part.remember(validator, total)


@contextmanager
def _opened(client: httpx.Client, url: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
    """The answer to a GET, behind a bounded number of redirects, its body still to be read."""
    for _ in range(limits.REDIRECTS + 1):
        try:
            response = client.send(client.build_request("GET", url, headers=headers), stream=True)
        except httpx.TransportError as error:
            raise _Broken(_why(error)) from error
        try:
            if not response.has_redirect_location:
                if response.is_server_error:
                    raise _Broken(f"the server answered {response.status_code}")
                yield response
                return
            target = urljoin(url, response.headers["location"])
        finally:
            response.close()
        if not target.startswith("https://"):
            raise OurFault(f"{url} redirects to {target}, which is not encrypted")
        url = target
    raise OurFault(f"{url}: more than {limits.REDIRECTS} redirects")


def _content_range(response: httpx.Response) -> tuple[int, int]:
    """First byte and total size of a partial answer; -1 and 0 where the server gives none."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("content-range", ""))
    return (int(found[1]), int(found[2])) if found else (-1, 0)


def _length(response: httpx.Response) -> int:
    text = response.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else 0


def _validator(response: httpx.Response) -> str:
    """What tells this version of the file from a later one; a weak tag cannot (RFC 9110)."""
    tag: str = response.headers.get("etag", "")
    date: str = response.headers.get("last-modified", "")
    return tag if tag.startswith('"') else date


def _why(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return f"nothing came for {limits.PULL_IDLE_MS // 1000} s"
    return str(error) or type(error).__name__
