"""Downloads: resumed, redirected, broken off, and lied to."""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshslm import limits
from meshslm.errors import OurFault
from meshslm.models.disk import DiskFile, DiskFull
from meshslm.models.https import fetch_https
from meshslm.models.sources import HttpsSource, Pin
from tests.models.small_models import Reports, sha256

URL = "https://models.test/m.gguf"
SOURCE = HttpsSource(URL)
CONTENT = bytes(range(256)) * 4096
PIN = Pin(sha256=sha256(CONTENT), size=len(CONTENT))

PIECE = 64 * 1024

Answer = Callable[[httpx.Request], httpx.Response]


def fetch(stage: Path, answer: Answer, pin: Pin = PIN, reports: Reports | None = None) -> bytes:
    fetched = fetch_https(
        SOURCE,
        stage,
        pin,
        reports or Reports(),
        transport=httpx.MockTransport(answer),
        sleep=lambda _: None,
    )
    content = fetched.path.read_bytes()
    assert (fetched.sha256, fetched.size) == (sha256(content), len(content))
    return content


class Breaking(httpx.SyncByteStream):
    """A body that ends in a broken connection after so many bytes."""

    def __init__(self, content: bytes, after: int) -> None:
        self._content = content
        self._after = after

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, self._after, PIECE):
            yield self._content[start : min(start + PIECE, self._after)]
        if self._after < len(self._content):
            raise httpx.ReadError("connection reset")


class Server:
    """Serves `content` with ranges; the n-th answer breaks off after `breaks[n]` bytes."""

    def __init__(self, content: bytes = CONTENT, tag: str = '"v1"', *breaks: int) -> None:
        self.content = content
        self.tag = tag
        self.breaks = list(breaks)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        start, status, headers = 0, 200, {"etag": self.tag}
        found = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        if found and request.headers.get("if-range") == self.tag:
            start, status = int(found[1]), 206
            last = len(self.content) - 1
            headers["content-range"] = f"bytes {start}-{last}/{len(self.content)}"
        body = self.content[start:]
        headers["content-length"] = str(len(body))
        after = self.breaks.pop(0) if self.breaks else len(body)
        return httpx.Response(status, headers=headers, stream=Breaking(body, after))

    @property
    def ranges(self) -> list[str | None]:
        return [request.headers.get("range") for request in self.requests]


def test_a_whole_file_comes(tmp_path: Path) -> None:
    reports = Reports()
    assert fetch(tmp_path, Server(), reports=reports) == CONTENT
    assert reports.heard[-1].done == reports.heard[-1].total == len(CONTENT)


def test_a_broken_connection_is_gone_on_with(tmp_path: Path) -> None:
    server = Server(CONTENT, '"v1"', 1000, 500_000)
    assert fetch(tmp_path, server) == CONTENT
    assert server.ranges == [None, "bytes=1000-", "bytes=501000-"]


def test_a_later_process_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path, Server(), reports=Reports("downloading"))
    server = Server()
    assert fetch(tmp_path, server) == CONTENT
    assert server.ranges == [f"bytes={PIECE}-"]


def test_a_file_that_changed_meanwhile_is_fetched_anew(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path, Server(b"x" * len(CONTENT)), reports=Reports("downloading"))
    server = Server(CONTENT, '"v2"')
    assert fetch(tmp_path, server) == CONTENT
    assert server.requests[0].headers["if-range"] == '"v1"'


def test_without_a_strong_validator_nothing_is_resumed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path, Server(CONTENT, 'W/"weak"'), reports=Reports("downloading"))
    server = Server(CONTENT, 'W/"weak"')
    assert fetch(tmp_path, server) == CONTENT
    assert server.ranges == [None]


def test_another_url_begins_anew(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path, Server(b"x" * len(CONTENT)), reports=Reports("downloading"))
    note = tmp_path / "model.part.json"
    note.write_text(note.read_text().replace("m.gguf", "other.gguf"))
    server = Server()
    assert fetch(tmp_path, server) == CONTENT
    assert server.ranges == [None]


@given(st.lists(st.integers(1, 400_000), max_size=8), st.booleans())
def test_whatever_breaks_the_result_is_the_file(breaks: list[int], weak: bool) -> None:
    tag = '"1"'
    if weak:  # each try begins anew, so there may not be many
        tag, breaks = 'W/"1"', breaks[: limits.PULL_ATTEMPTS - 1]
    with tempfile.TemporaryDirectory() as folder:
        assert fetch(Path(folder), Server(CONTENT, tag, *breaks)) == CONTENT


def test_it_gives_up_when_nothing_comes_and_keeps_what_came(tmp_path: Path) -> None:
    server = Server(CONTENT, '"v1"', 1000, *[0] * 20)
    with pytest.raises(OurFault, match=r"connection reset; 1000 bytes are kept, pull again"):
        fetch(tmp_path, server)
    assert len(server.requests) == 1 + limits.PULL_ATTEMPTS
    again = Server()
    assert fetch(tmp_path, again) == CONTENT
    assert again.ranges == ["bytes=1000-"]


def test_a_server_in_trouble_is_asked_again(tmp_path: Path) -> None:
    server = Server()
    troubles = [httpx.Response(503), httpx.Response(500)]
    assert fetch(tmp_path, lambda r: troubles.pop() if troubles else server(r)) == CONTENT


def test_a_time_out_is_told(tmp_path: Path) -> None:
    def never(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("", request=request)

    with pytest.raises(OurFault, match="nothing came for 10 s"):
        fetch(tmp_path, never)


def test_a_range_that_the_server_lacks_begins_anew(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path, Server(), reports=Reports("downloading"))
    server = Server()

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(416) if "range" in request.headers else server(request)

    assert fetch(tmp_path, answer) == CONTENT


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.Response(404), "the server answered 404 Not Found"),
        (httpx.Response(204), "the server answered 204 No Content"),
        (
            httpx.Response(302, headers={"location": "http://models.test/m.gguf"}),
            "redirects to http://models.test/m.gguf, which is not encrypted",
        ),
        (httpx.Response(302, headers={"location": URL}), "more than 5 redirects"),
        (
            httpx.Response(200, headers={"content-length": "7"}, content=b"seven!!"),
            f"has 7 bytes, expected {len(CONTENT)}",
        ),
        (
            httpx.Response(200, stream=Breaking(CONTENT + b"x", len(CONTENT) + 1)),
            f"larger than the {len(CONTENT)} bytes",
        ),
        (
            httpx.Response(200, headers={"content-encoding": "br"}, stream=Breaking(b"", 0)),
            "compressed the file",
        ),
        (
            httpx.Response(206, headers={"content-range": "bytes 5-9/10"}, content=b"xxxxx"),
            "the server sent it from byte 5 of 10",
        ),
        (httpx.Response(206, content=b"xxxxx"), "the server sent it from byte -1 of 0"),
    ],
)
def test_what_a_server_must_not_say_is_refused(
    tmp_path: Path, answer: httpx.Response, error: str
) -> None:
    with pytest.raises(OurFault, match=re.escape(error)):
        fetch(tmp_path, lambda _: answer)


def broken_at_once(_request: httpx.Request) -> httpx.Response:
    headers = {"etag": '"a"', "content-length": str(len(CONTENT))}
    return httpx.Response(200, headers=headers, stream=Breaking(CONTENT, 0))


@pytest.mark.parametrize("answer", [lambda _: httpx.Response(404), broken_at_once])
def test_where_nothing_came_nothing_is_left(tmp_path: Path, answer: Answer) -> None:
    with pytest.raises(OurFault):
        fetch(tmp_path, answer)
    assert list(tmp_path.iterdir()) == []


def test_a_file_beyond_every_bound_is_refused_before_it_comes(tmp_path: Path) -> None:
    size = limits.MODEL_BYTES + 1
    answer = httpx.Response(200, headers={"content-length": str(size)}, stream=Breaking(b"", 0))
    with pytest.raises(OurFault, match=f"has {size} bytes, expected at most"):
        fetch(tmp_path, lambda _: answer, Pin())


def test_redirects_are_followed_and_lead_to_the_file(tmp_path: Path) -> None:
    server = Server()

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "models.test":
            return httpx.Response(302, headers={"location": "https://mirror.test/x?signed=1"})
        return server(request)

    assert fetch(tmp_path, answer) == CONTENT
    assert str(server.requests[0].url) == "https://mirror.test/x?signed=1"


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: DiskFile, chunk: bytes) -> None:
        raise DiskFull("full")

    monkeypatch.setattr(DiskFile, "write", full)
    with pytest.raises(DiskFull):
        fetch(tmp_path, Server())
    assert list(tmp_path.iterdir()) == []


# --- over a real socket -------------------------------------------------------------------------
class Handler(BaseHTTPRequestHandler):
    """A plain server that cuts its first answer short."""

    cuts: ClassVar[list[int]] = []

    def do_GET(self) -> None:
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(found[1]) if found and self.headers.get("If-Range") == '"real"' else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("ETag", '"real"')
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        end = self.cuts.pop() if self.cuts else len(CONTENT)
        self.wfile.write(CONTENT[start:end])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


class ToPlainServer(httpx.BaseTransport):
    """Takes requests for an encrypted URL to a plain local server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._inner = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(scheme="http", host="127.0.0.1", port=self._port)
        return self._inner.handle_request(request)

    def close(self) -> None:
        self._inner.close()


def test_a_real_connection_that_is_cut_is_gone_on_with(tmp_path: Path) -> None:
    Handler.cuts = [700_000]
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            transport = ToPlainServer(server.server_port)
            fetched = fetch_https(SOURCE, tmp_path, PIN, Reports(), transport=transport)
        finally:
            server.shutdown()
            thread.join()
    assert fetched.sha256 == PIN.sha256
    assert fetched.path.read_bytes() == CONTENT
