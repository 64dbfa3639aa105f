"""`meshslm demo` as a newcomer runs it, and that nothing stays behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from pathlib import Path

import pytest

from meshslm.cli.reference import JSON_KEYS
from tests.e2e.conftest import START_SECONDS, Program, Start, family, get, gone, until

pytestmark = pytest.mark.model


def words(tmp_path: Path, models_dir: Path) -> tuple[str, ...]:
    where = ("--dir", str(tmp_path / "demo"), "--models-dir", str(models_dir))
    return ("demo", "--max-tokens", "12", *where)


def stays_up(program: Program) -> bool:
    assert program.process.poll() is None, program.said
    return "the mesh stays up" in program.err.read_text()


def test_node_a_is_asked_and_node_b_answers(start: Start, tmp_path: Path, models_dir: Path) -> None:
    program = start(*words(tmp_path, models_dir), "--no-keep", "--json")
    assert program.ended(START_SECONDS) == 0, program.said
    told = json.loads(program.out.read_text())
    assert set(told) == set(JSON_KEYS["demo"].split())
    assert told["asked"] == "node-a"
    answer = told["answer"]
    assert (answer["node_name"], answer["profile"]) == ("node-b", "writing")
    assert answer["route"]
    assert answer["text"].strip()
    assert answer["ttft_ms"] > 0
    assert answer["tokens_per_s"] > 0
    assert 0 < told["mesh_up_s"] < told["first_text_s"]
    assert [node["profile"] for node in told["nodes"]] == ["code", "writing", "general"]
    assert all(gone(node["pid"]) for node in told["nodes"])
    assert program.err.read_text() == ""


def test_it_tells_people_what_happened_and_ctrl_c_stops_everything(
    start: Start, tmp_path: Path, models_dir: Path
) -> None:
    program = start(*words(tmp_path, models_dir))
    until(lambda: stays_up(program), START_SECONDS, "the mesh")
    said = program.err.read_text()
    for step in ("model smollm2-135m-instruct", "models loaded", "nodes know each other"):
        assert f"ok  {step}" in said
    assert (
        "-- node-b answered as writing (smollm2-135m-instruct)\n-- why: auto: domain writing"
        in said
    )
    assert "tokens/s" in said
    assert program.out.read_text().strip()
    urls = re.findall(r"node-[abc]  (http://\S+)/v1", said)
    assert len(urls) == 3
    for url in urls:
        assert get(url, "/readyz")["ready"] is True
    assert f"curl {urls[0]}/v1/chat/completions" in said
    everybody = family(program.process.pid)
    assert len(everybody) >= 7, "the demonstration, three daemons, three engines"
    program.interrupt()
    assert program.ended() == 0
    until(lambda: all(gone(pid) for pid in everybody), what="nothing stays behind")
    assert "Traceback" not in program.said


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_stays_behind_when_it_is_killed(
    start: Start, tmp_path: Path, models_dir: Path, number: int
) -> None:
    program = start(*words(tmp_path, models_dir))
    until(lambda: stays_up(program), START_SECONDS, "the mesh")
    everybody = family(program.process.pid)
    os.kill(program.process.pid, number)
    program.ended()
    until(lambda: all(gone(pid) for pid in everybody), what="nothing stays behind")


def test_a_node_that_cannot_start_is_shown_with_its_log(
    start: Start, tmp_path: Path, models_dir: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1] - 1  # the port of node B
        program = start(*words(tmp_path, models_dir), "--no-keep", "--port", str(port))
        assert program.ended(START_SECONDS) == 1
    assert "meshslm: error: node-b ended with exit code 1; the end of its log:" in program.said
    assert "in use" in program.said
    assert "node-b.log" in program.said


def test_a_node_that_dies_meanwhile_is_told(start: Start, tmp_path: Path, models_dir: Path) -> None:
    program = start(*words(tmp_path, models_dir))
    until(lambda: stays_up(program), START_SECONDS, "the mesh")
    (pid,) = re.findall(r"\bpid (\d+)", program.said)[1:2] or [""]
    assert pid
    os.kill(int(pid), signal.SIGKILL)
    until(lambda: "node-b ended with signal 9" in program.said, what="told")
    program.interrupt()
    assert program.ended() == 0
