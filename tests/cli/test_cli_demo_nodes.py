"""The processes of a demonstration, with programs in place of nodes that misbehave on purpose."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from meshslm.adapters.keyring import DirectoryLock, load_or_create
from meshslm.cli import demo_nodes
from meshslm.cli.demo import ended_as_interrupted
from meshslm.cli.demo_nodes import NodePlan, RunningNode, RunningNodes, free_ports, plan_nodes
from meshslm.errors import OurFault
from meshslm.settings import Settings, default_directories, effective
from meshslm.toml_text import TomlText

if TYPE_CHECKING:
    from tests.cli.conftest import Run

SECONDS = 20.0


def until(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not fact():
        assert time.monotonic() < deadline, "the fact did not come true"
        time.sleep(0.01)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return effective(default_directories({}, tmp_path)).settings


def read_settings(path: Path, home: Path) -> Settings:
    file = TomlText(str(path), path.read_text())
    return effective(default_directories({}, home), file=file).settings


def test_three_nodes_that_can_find_each_other(settings: Settings, tmp_path: Path) -> None:
    plans = plan_nodes(settings, tmp_path, None)
    written = [read_settings(plan.config, tmp_path) for plan in plans]
    assert [plan.profile for plan in plans] == ["code", "writing", "general"]
    assert len({plan.gateway_port for plan in plans}) == 3
    for plan, mine in zip(plans, written, strict=True):
        assert mine.node.data_dir == str(plan.folder)
        assert mine.node.profiles == (plan.profile,)
        assert mine.node.models_dir == settings.node.models_dir
        assert mine.gateway.port == plan.gateway_port
        (listen,) = mine.link.listen
        identity = load_or_create(plan.folder).node_id
        others = [other for other in written if other is not mine]
        for other in others:
            assert f"{listen}/p2p/{identity}" in other.link.bootstrap
        assert len(mine.link.bootstrap) == 2


def test_a_second_run_keeps_the_identities(settings: Settings, tmp_path: Path) -> None:
    first = [load_or_create(plan.folder) for plan in plan_nodes(settings, tmp_path, None)]
    again = [load_or_create(plan.folder) for plan in plan_nodes(settings, tmp_path, None)]
    assert [key.node_id for key in first] == [key.node_id for key in again]


def test_ports_may_be_given(settings: Settings, tmp_path: Path) -> None:
    plans = plan_nodes(settings, tmp_path, 5000)
    assert [plan.url for plan in plans] == [f"http://127.0.0.1:{5000 + i}" for i in range(3)]


def test_free_ports_avoid_those_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        taken = held.getsockname()[1]
        ports = free_ports(3, [taken])
    assert taken not in ports
    assert len(set(ports)) == 3


# --- processes ----------------------------------------------------------------------------------
@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a shell script in the place of the node."""
    script = tmp_path / "node"

    def put(body: str) -> None:
        script.write_text(f"#!/bin/bash\n{body}\n")
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))

    return put


def plan(tmp_path: Path, name: str = "node-x") -> NodePlan:
    return NodePlan(name, "code", tmp_path / name, 1)


def log_says(node: RunningNode, word: str) -> Callable[[], bool]:
    return lambda: word in node.plan.log.read_text()


def test_a_node_that_ends_is_told_with_the_end_of_its_log(
    tmp_path: Path, program: Callable[[str], None]
) -> None:
    program("for i in $(seq 40); do echo line $i; done; exit 3")
    with RunningNodes() as nodes:
        nodes.start([plan(tmp_path)])
        with pytest.raises(OurFault) as failure:
            nodes.wait_until("ready", lambda: False, SECONDS)
    text = str(failure.value)
    assert "node-x ended with exit code 3" in text
    assert "line 40" in text
    assert "line 20\n" not in text
    assert "node-x.log" in failure.value.__notes__[0]


def test_a_node_that_is_killed_is_told_so(tmp_path: Path, program: Callable[[str], None]) -> None:
    program("kill -SEGV $$")
    with RunningNodes() as nodes:
        nodes.start([plan(tmp_path)])
        with pytest.raises(OurFault, match="node-x ended with signal 11"):
            nodes.wait_until("ready", lambda: False, SECONDS)


def test_waiting_has_an_end(tmp_path: Path, program: Callable[[str], None]) -> None:
    program("exec sleep 60")
    with RunningNodes() as nodes:
        nodes.start([plan(tmp_path)])
        with pytest.raises(OurFault, match=r"models loaded: not within 0 s"):
            nodes.wait_until("models loaded", lambda: False, 0.1)


def test_every_node_is_stopped_whatever_happens(
    tmp_path: Path, program: Callable[[str], None]
) -> None:
    program("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.02; done")
    nodes = RunningNodes()

    def trouble() -> None:
        with nodes:
            nodes.start([plan(tmp_path, "node-x"), plan(tmp_path, "node-y")])
            for node in nodes.nodes:
                until(log_says(node, "up"))
            raise ValueError("trouble")

    with pytest.raises(ValueError, match="trouble"):
        trouble()
    assert [node.exit_code for node in nodes.nodes] == [0, 0]
    assert all("bye" in node.plan.log.read_text() for node in nodes.nodes)


def test_a_node_that_does_not_stop_is_killed_with_its_children(
    tmp_path: Path, program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    program("trap '' TERM; sleep 60 & echo child $!; while :; do sleep 0.02; done")
    monkeypatch.setattr(demo_nodes, "STOP_SECONDS", 0.2)
    nodes = RunningNodes()
    nodes.start([plan(tmp_path)])
    (node,) = nodes.nodes
    until(log_says(node, "child"))
    child = int(node.plan.log.read_text().split()[-1])
    assert nodes.stop() == ["node-x"]
    assert node.exit_code == -signal.SIGKILL
    until(lambda: gone(child))


def gone(pid: int) -> bool:
    """Whether a process has ended; one that its parent has not yet heard of has."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_settings_of_the_environment_do_not_reach_the_nodes(
    tmp_path: Path, program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHSLM_NODE_NAME", "mine")
    program("env; echo words $@")
    node = RunningNode(plan(tmp_path))
    assert node.wait(SECONDS)
    told = node.plan.log.read_text()
    assert "MESHSLM_" not in told
    assert f"up --config {node.plan.config} --stop-with-parent {os.getpid()}" in told


def test_a_second_demonstration_needs_a_folder_of_its_own(run: Run, tmp_path: Path) -> None:
    with DirectoryLock(tmp_path / "demo"):
        shown = run("demo", "--dir", str(tmp_path / "demo"))
    assert shown.code == 1
    assert f"in use by process {os.getpid()}" in shown.err
    assert "hint: a second demonstration needs a folder of its own: --dir" in shown.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_termination_unwinds_as_ctrl_c_does(number: int) -> None:
    before = signal.getsignal(number)

    def terminated() -> None:
        with ended_as_interrupted():
            os.kill(os.getpid(), number)
            until(lambda: False)

    with pytest.raises(KeyboardInterrupt):
        terminated()
    assert signal.getsignal(number) == before


# --- ending with the parent ---------------------------------------------------------------------
CHILD = """
import os, signal, sys
from meshslm.cli.stop_with_parent import stop_with_parent
signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"terminated") and sys.exit(0))
stop_with_parent(int(sys.argv[1]))
os.write(1, b"bound")
signal.pause()
"""

PARENT = """
import os, signal, subprocess, sys
subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())], process_group=0)
signal.pause()
"""


def test_a_child_ends_with_its_killed_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, CHILD], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.read(5) == b"bound"
        parent.kill()
        assert parent.stdout.read() == b"terminated"


def test_a_child_whose_parent_is_gone_already_does_not_begin() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "1"], capture_output=True, timeout=SECONDS, check=True
    )
    assert done.stdout == b""
