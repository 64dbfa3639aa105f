"""Memory, conversations, the journal and the ledger on three daemons with a real model."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from meshslm.client import Client
from tests.e2e.conftest import Mesh, until

pytestmark = pytest.mark.model


def ran(*words: str) -> str:
    """What a command of ours printed."""
    command = [sys.executable, "-m", "meshslm", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def seen(client: Client, namespace: str, key: str, value: Any) -> bool:
    entry = client.memory(namespace).get(key)
    return entry is not None and entry.value == value


def test_memory_is_shared_cited_and_remembered(mesh: Mesh) -> None:
    with mesh.client("a") as a, mesh.client("b") as b, mesh.client("c") as c:
        notes = a.memory("team")
        notes.put("password-of-the-day", "The password of the day is heliotrope.")
        notes.put("lunch", "Lunch is at noon.")
        until(lambda: seen(c, "team", "lunch", "Lunch is at noon."), 20, "memory on node-c")
        answer = c.ask(
            "What is the password of the day?",
            model="domain:writing",
            memory={"namespace": "team"},
            max_tokens=24,
            temperature=0.0,
        )
        cited = [citation.key for citation in answer.memory]
        assert cited[0] == "password-of-the-day"
        assert b.memory("team").add("asked") == 1
        until(lambda: a.memory("team").count("asked") == 1, 20, "the counter on node-a")


def test_a_program_hears_at_one_node_what_is_written_at_another(mesh: Mesh) -> None:
    with mesh.client("a") as a, mesh.client("c") as c, ThreadPoolExecutor(1) as pool:
        with c.memory("team").watch("news/") as changes:
            heard = pool.submit(next, changes)
            a.memory("team").put("other", "not for them")
            until(lambda: a.memory("team").put("news/1", {"n": 7}) and heard.done(), 20, "the news")
            event = heard.result()
        assert (event.kind, event.key, event.value) == ("put", "news/1", {"n": 7})


def verified(mesh: Mesh, letter: str) -> bool:
    """Whether a node finds all replicas of all its documents alike."""
    told = json.loads(ran("state", "verify", "--json", "--url", mesh.url(letter)))
    assert not any(check["diverged"] for check in told["checks"])
    return [check["state"] for check in told["checks"]] == ["equal", "equal"]


def test_all_members_hold_the_same(mesh: Mesh) -> None:
    for letter in "ac":
        until(partial(verified, mesh, letter), 40, "replicas are alike")


def test_a_conversation_goes_on_at_another_node_and_is_counted(mesh: Mesh) -> None:
    options: dict[str, Any] = {"max_tokens": 8, "temperature": 0.0, "conversation": "talk"}
    with mesh.client("a") as a, mesh.client("b") as b:
        a.ask("My name is Ada. Remember it.", model="domain:general", **options)
        until(lambda: len(b.memory("conversations").items("talk")) == 2, 20, "the turns on node-b")
        second = b.ask("What is my name?", model="domain:general", **options)
        alone = b.ask("What is my name?", model="domain:general", max_tokens=8, temperature=0.0)
        assert second.usage.prompt_tokens > alone.usage.prompt_tokens + 10
        assert second.node_name == "node-c"

        until(lambda: len(b.tasks(state="finished")) >= 2, 20, "the journal of node-b")
        newest = b.tasks(limit=1)[0]
        kinds = [event.kind for event in newest.events]
        assert kinds == ["admitted", "routed", "finished"]
        assert not any(event.text for event in newest.events)
        assert newest.events[1].node_name == "node-c"

        def counted() -> bool:
            entered = {row.node for row in a.usage() if row.model and row.requests}
            return len(entered) >= 2

        until(counted, 20, "the ledger of other nodes on node-a")
    shown = ran("task", newest.task, "--url", mesh.url("b"))
    assert "admitted" in shown
    assert "node-c" in shown
    assert newest.task in ran("tasks", "--url", mesh.url("b"))
    assert newest.task not in ran("tasks", "--url", mesh.url("a"))
    assert newest.task in ran("tasks", "--mesh", "--url", mesh.url("a"))
    assert "node-c" in ran("task", newest.task, "--url", mesh.url("a"))
    table = ran("usage", "--by", "model", "--url", mesh.url("a"))
    assert "smollm2" in table
