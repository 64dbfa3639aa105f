"""`meshslm record dump` and `meshslm sim replay`: from a running node to a replay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from meshslm.core.config import CoreConfig
from meshslm.core.events import Event, Started, TaskDropped
from meshslm.daemon.recorder import Recorder
from meshslm.ids import Instant, NodeId, TaskId
from tests.cli.conftest import documented_keys

if TYPE_CHECKING:
    from tests.cli.conftest import Run


def recording(*, wrong: bool = False) -> bytes:
    """Of a node that started, to whom nothing else happened."""
    from meshslm.chance import Chance
    from meshslm.core.node import NodeCore

    config = CoreConfig(NodeId("me"), "me")
    core = NodeCore(config, Chance(b"seed"))
    recorder = Recorder(config, b"other" if wrong else b"seed", most_bytes=10**6, texts=wrong)
    events: list[Event] = [Started(1, ("/ip4/127.0.0.1/tcp/1",)), TaskDropped(TaskId("t"))]
    for now, event in enumerate(events):
        recorder.note(event, Instant(now), core.handle(event, Instant(now)))
    return recorder.dump("a test")


@pytest.fixture
def node() -> Iterator[tuple[str, dict[str, tuple[int, bytes]]]]:
    """Something that answers like a node, and what it answers."""
    from http.server import BaseHTTPRequestHandler, HTTPServer

    answers = {"/mesh/recording": (200, recording())}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers[self.path]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", answers
        server.shutdown()
        thread.join()


Node = tuple[str, dict[str, tuple[int, bytes]]]


def test_a_dump_can_be_replayed(run: Run, node: Node, tmp_path: Path) -> None:
    url, _ = node
    file = tmp_path / "r.jsonl.gz"
    told = run("record", "dump", "--url", url, "--out", str(file), "--json")
    assert told.code == 0
    assert set(told.json) == documented_keys("record dump")
    assert told.json["bytes"] == file.stat().st_size
    assert file.stat().st_mode & 0o077 == 0
    shown = run("sim", "replay", str(file), "--json")
    assert shown.code == 0
    assert set(shown.json) == documented_keys("sim replay")
    assert (shown.json["ok"], shown.json["events"]) == (True, 2)
    people = run("sim", "replay", str(file), "--steps")
    for part in ("Started", "PASS", "2 events", "a test"):
        assert part in people.out


def test_a_file_is_not_overwritten_unasked(run: Run, node: Node, tmp_path: Path) -> None:
    url, _ = node
    file = tmp_path / "r.jsonl.gz"
    file.write_text("precious")
    words = ("record", "dump", "--url", url, "--out", str(file))
    shown = run(*words)
    assert shown.code == 1
    assert "--force" in shown.err
    assert file.read_text() == "precious"
    assert run(*words, "--force").code == 0


def test_what_cannot_be_had_or_written_is_told(run: Run, node: Node, tmp_path: Path) -> None:
    url, answers = node
    out = ("--out", str(tmp_path / "r"))
    answers["/mesh/recording"] = (404, b'{"error": {"message": "nothing is recorded"}}')
    assert "nothing is recorded" in run("record", "dump", "--url", url, *out).err
    answers["/mesh/recording"] = (500, b"<html>")
    assert run("record", "dump", "--url", url, *out).code == 1
    nobody = run("record", "dump", "--url", "http://127.0.0.1:1", *out)
    assert nobody.code == 1
    assert "no node answers" in nobody.err
    answers["/mesh/recording"] = (200, b"x")
    elsewhere = str(tmp_path / "no" / "such" / "folder")
    assert "cannot write" in run("record", "dump", "--url", url, "--out", elsewhere).err


def test_another_seed_is_noticed(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "r"
    file.write_bytes(recording(wrong=True))
    shown = run("sim", "replay", str(file))
    assert shown.code == 1
    assert "FAIL" in shown.out
    assert "at event 1 (Started" in shown.out


def test_what_is_no_recording_is_told(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "r"
    file.write_text("hello")
    shown = run("sim", "replay", str(file))
    assert shown.code == 1
    assert "no recording" in shown.err
    assert run("sim", "replay", str(tmp_path / "nowhere")).code == 2
