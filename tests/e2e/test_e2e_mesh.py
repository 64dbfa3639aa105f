"""Three daemons with a real model: who answers, and that nobody works for those who left."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import openai
import psutil
import pytest

from tests.e2e.conftest import Mesh, Start, get, until

pytestmark = pytest.mark.model

POEM = "Write a short poem about a lighthouse in winter."
HANG_UP_SECONDS = 1.0


def rests(pid: int) -> bool:
    """Whether a process uses no processor for a tenth of a second."""
    process = psutil.Process(pid)
    before = process.cpu_times()
    time.sleep(0.1)
    after = process.cpu_times()
    return bool(after.user + after.system - before.user - before.system < 0.03)


@pytest.fixture
def official(mesh: Mesh) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{mesh.url('a')}/v1", api_key="none", max_retries=0)


def test_the_official_client_reaches_a_specialist_elsewhere(
    mesh: Mesh, official: openai.OpenAI
) -> None:
    answer = official.chat.completions.with_raw_response.create(
        model="domain:writing",
        messages=[{"role": "user", "content": POEM}],
        max_tokens=16,
        temperature=0,
    )
    assert answer.headers["x-meshslm-node-name"] == "node-b"
    completion = answer.parse()
    assert completion.choices[0].message.content
    assert completion.usage is not None
    assert 0 < completion.usage.completion_tokens <= 16


def test_the_official_client_streams(mesh: Mesh, official: openai.OpenAI) -> None:
    whole = official.chat.completions.create(
        model="domain:writing",
        messages=[{"role": "user", "content": POEM}],
        max_tokens=16,
        temperature=0,
    )
    pieces = []
    usage = None
    with official.chat.completions.create(
        model="domain:writing",
        messages=[{"role": "user", "content": POEM}],
        max_tokens=16,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        for chunk in stream:
            usage = chunk.usage or usage
            pieces += [choice.delta.content or "" for choice in chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert len(pieces) > 2
    assert usage is not None
    assert usage.completion_tokens == (whole.usage.completion_tokens if whole.usage else 0)


def test_the_official_client_lists_the_models_of_the_mesh(official: openai.OpenAI) -> None:
    names = {model.id for model in official.models.list()}
    assert {"code", "writing", "general"} <= names


def test_the_official_client_is_told_of_an_unknown_model(official: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        official.chat.completions.create(
            model="no-such-model", messages=[{"role": "user", "content": "Hi"}]
        )


@pytest.mark.parametrize(
    ("prompt", "node"),
    [
        (POEM, "node-b"),
        ("Write a Python function that reverses a linked list.", "node-a"),
    ],
)
def test_auto_finds_the_specialist_from_every_node(mesh: Mesh, prompt: str, node: str) -> None:
    for letter in "abc":
        with mesh.client(letter) as client:
            answer = client.ask(prompt, max_tokens=4)
        assert answer.node_name == node, (letter, answer.route)
        assert answer.route


def test_a_client_that_hangs_up_stops_the_generation_on_the_remote_node(mesh: Mesh) -> None:
    with mesh.client("a") as client:
        with client.stream(POEM, model="domain:writing", max_tokens=900, temperature=1.5) as stream:
            assert len(list(itertools.islice(stream, 3))) == 3
            assert mesh.running("b") == 1
            left_at = time.monotonic()
        until(lambda: mesh.running("b") == 0, what="the remote node stops")
        until(lambda: rests(mesh.worker("b")), what="the remote engine rests")
        assert time.monotonic() - left_at < HANG_UP_SECONDS
    tasks = get(mesh.url("a"), "/mesh/status")["tasks"]
    assert tasks["active"] == 0
    assert tasks["cancelled"] >= 1


def test_ask_from_the_command_line(mesh: Mesh, start: Start) -> None:
    program = start(
        "ask", "--url", mesh.url("a"), "--model", "domain:writing", "--max-tokens", "8", POEM
    )
    assert program.ended(60) == 0, program.said
    assert program.out.read_text().strip()
    assert "-- node-b answered as writing" in program.err.read_text()


def test_ctrl_c_while_asking_stops_the_generation(mesh: Mesh, start: Start) -> None:
    words = ("--model", "domain:writing", "--max-tokens", "900", "--temperature", "1.5")
    program = start("ask", "--url", mesh.url("a"), *words, POEM)
    until(program.out.read_text, 60, "the answer begins")
    program.interrupt()
    assert program.ended() == 130
    until(lambda: mesh.running("b") == 0, what="the remote node stops")
    assert "Traceback" not in program.said


def test_ctrl_c_in_a_chat_stops_the_answer_and_not_the_chat(mesh: Mesh) -> None:
    words = ("--model", "domain:writing", "--url", mesh.url("a"))
    with subprocess.Popen(
        [sys.executable, "-m", "meshslm", "chat", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as chat:
        assert chat.stdin is not None
        assert chat.stdout is not None
        chat.stdin.write(b"Write a very long story about a lighthouse, with many chapters.\n")
        chat.stdin.flush()
        assert chat.stdout.read(1)
        chat.send_signal(signal.SIGINT)
        until(lambda: mesh.running("b") == 0, what="the remote node stops")
        assert chat.poll() is None
        _, told = chat.communicate(b"/quit\n", 30)
    assert chat.returncode == 0
    assert b"[stopped]" in told
    assert b"Traceback" not in told


def test_peers_and_status_from_the_command_line(mesh: Mesh, start: Start) -> None:
    peers = start("peers", "--url", mesh.url("a"), "--json")
    assert peers.ended() == 0
    known = {peer["name"]: peer for peer in json.loads(peers.out.read_text())}
    assert set(known) == {"node-a", "node-b", "node-c"}
    assert known["node-a"]["state"] == "self"
    assert known["node-b"]["specialists"][0]["profile"] == "writing"
    status = start("status", "--url", mesh.url("b"))
    assert status.ended() == 0
    assert "node-b" in status.said


def test_one_copy_of_the_weights_for_all(mesh: Mesh) -> None:
    """The engines map the same file, so the kernel keeps it once."""
    mapped = [
        {
            line.split()[-1]
            for line in Path(f"/proc/{mesh.worker(letter)}/maps").read_text().splitlines()
            if "sha256-" in line
        }
        for letter in "abc"
    ]
    assert mapped[0]
    assert mapped[0] == mapped[1] == mapped[2]
