"""The processes of a demonstration mesh: planning, starting, watching and stopping them.

Rules:
- A node is the ordinary `meshslm up`, with a configuration that can be read afterwards.
- Children are in a process group of their own, so that Ctrl-C reaches only the parent, which then
  stops them in order; should the parent be killed, the kernel stops them.
- Waiting is on facts (ready, peers, processes that end), with a deadline.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from msgspec.structs import replace

from meshslm import limits
from meshslm.adapters.admission_desk import AdmissionDesk, create_mesh, enrol
from meshslm.adapters.keyring import load_or_create
from meshslm.adapters.mesh_folder import MeshFolder
from meshslm.errors import OurFault
from meshslm.settings import Settings, render_toml

POLL_SECONDS: Final = 0.05
"""Between two looks at a fact: adds 25 ms on average, and costs nothing to speak of."""
STOP_SECONDS: Final = 10.0
"""A node that has not ended so long after SIGTERM is killed."""
TAIL_LINES: Final = 15
TAIL_BYTES: Final = 16 * 1024
LOOPBACK: Final = "127.0.0.1"
MESH: Final = "demo"
DEMO_LASTS_S: Final = 86_400
"""Certificates that last less long are made anew."""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node of the demonstration, before it runs."""

    name: str
    profile: str
    folder: Path
    """Its data folder."""
    gateway_port: int

    @property
    def url(self) -> str:
        """Base address of its HTTP interface."""
        return f"http://{LOOPBACK}:{self.gateway_port}"

    @property
    def config(self) -> Path:
        """Its settings; `meshslm up --config` starts it alone."""
        return self.folder.parent / f"{self.name}.toml"

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.folder.parent / f"{self.name}.log"


class NodeDied(OurFault):
    """A node ended that should run."""


class RunningNode:
    """One started node."""

    def __init__(self, plan: NodePlan) -> None:
        self.plan = plan
        with plan.log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and program
                [
                    sys.executable,
                    "-m",
                    "meshslm",
                    "up",
                    "--config",
                    str(plan.config),
                    "--stop-with-parent",
                    str(os.getpid()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={k: v for k, v in os.environ.items() if not k.startswith("MESHSLM_")},
                process_group=0,
            )

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def check_alive(self) -> None:
        """Raise `NodeDied` with the end of its log where it does not run."""
        code = self.exit_code
        if code is None:
            return
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        tail = "\n".join(f"    {line}" for line in self.tail())
        fault = NodeDied(f"{self.plan.name} ended with {how}; the end of its log:\n{tail}")
        fault.add_note(f"the whole log is {self.plan.log}; 'meshslm doctor' checks this machine")
        raise fault

    def tail(self) -> list[str]:
        """The last lines of its log."""
        with self.plan.log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, size - TAIL_BYTES))
            text = log.read().decode(errors="replace")
        return text.splitlines()[-TAIL_LINES:]

    def terminate(self) -> None:
        """Ask it to stop, unless it has ended."""
        self._process.terminate()

    def kill(self) -> None:
        """End it and whatever it started, at once, unless it has ended."""
        if self.exit_code is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def wait(self, seconds: float) -> bool:
        """Whether it ended within `seconds`."""
        try:
            self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            return False
        return True


class RunningNodes:
    """Started nodes; leaving the context stops every one of them, whatever happened."""

    def __init__(self) -> None:
        self.nodes: list[RunningNode] = []

    def start(self, plans: Iterable[NodePlan]) -> None:
        """Start a process for each plan."""
        for plan in plans:
            self.nodes.append(RunningNode(plan))

    def wait_until(self, what: str, fact: Callable[[], bool], seconds: float) -> None:
        """Return when `fact` holds. Raises `NodeDied`, or `OurFault` after `seconds`."""
        deadline = time.monotonic() + seconds
        while not fact():
            for node in self.nodes:
                node.check_alive()
            if time.monotonic() > deadline:
                logs = ", ".join(str(node.plan.log) for node in self.nodes)
                fault = OurFault(f"{what}: not within {seconds:.0f} s")
                fault.add_note(f"the machine may be overloaded; see {logs}")
                raise fault
            time.sleep(POLL_SECONDS)

    def stop(self) -> list[str]:
        """Stop all; returns the names of those that had to be killed.

        An interrupt (a second Ctrl-C) kills the rest at once.
        """
        for node in self.nodes:
            node.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        try:
            return [
                node.plan.name for node in self.nodes if not node.wait(deadline - time.monotonic())
            ]
        finally:
            for node in self.nodes:
                node.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def free_ports(count: int, wanted: Sequence[int] = ()) -> list[int]:
    """`count` different ports of loopback that nobody listens on, those in `wanted` first.

    Another process may take one before it is used; the node then says so.
    """
    ports: list[int] = []
    with ExitStack() as held:
        for port in [*wanted, *[0] * count]:
            if len(ports) == count:
                break
            probe = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            ports.append(probe.getsockname()[1])
    return ports


Roles = Sequence[tuple[str, str]]
"""Name and profile of each node."""

ROLES: Final[Roles] = (("node-a", "code"), ("node-b", "writing"), ("node-c", "general"))
"""The question goes to the first, and is one for the second."""


def plan_nodes(
    settings: Settings, home: Path, port: int | None, roles: Roles = ROLES
) -> list[NodePlan]:
    """Nodes that know each other's addresses, each with a configuration file below `home`.

    Identities are made here, so that all can start at once: an address holds the identity.
    What `settings` say of models, engines, logs and limits holds for all. Raises `OurFault`.
    """
    wanted = range(limits.HTTP_PORT, limits.HTTP_PORT + 2 * len(roles)) if port is None else ()
    gateways = free_ports(len(roles), wanted)
    if port is not None:
        gateways = [port + offset for offset in range(len(roles))]
    addresses = []
    for (name, _), link_port in zip(roles, free_ports(len(roles)), strict=True):
        node_id = load_or_create(home / name).node_id
        addresses.append(f"/ip4/{LOOPBACK}/tcp/{link_port}/p2p/{node_id}")
    plans = []
    for (name, profile), gateway_port, address in zip(roles, gateways, addresses, strict=True):
        plan = NodePlan(name, profile, home / name, gateway_port)
        others = tuple(other for other in addresses if other != address)
        _write_settings(settings, plan, address, others)
        plans.append(plan)
    _make_private(plans)
    return plans


def _make_private(plans: list[NodePlan]) -> None:
    """Put all of them into one mesh that nobody else is in; the first node keeps its key."""
    folders = [MeshFolder(plan.folder) for plan in plans]
    members = [folder.member() for folder in folders]
    least = time.time() + DEMO_LASTS_S
    if all(member is not None and member.certificate.not_after > least for member in members):
        return
    for folder in folders:
        folder.forget()
    key = load_or_create(plans[0].folder)
    create_mesh(folders[0], key, MESH, time.time())
    desk = AdmissionDesk(folders[0], key, time.time)
    for plan in plans[1:]:
        enrol(desk, plan.folder, plan.name)


def _write_settings(
    settings: Settings, plan: NodePlan, address: str, others: tuple[str, ...]
) -> None:
    mine = replace(
        settings,
        node=replace(
            settings.node,
            name=plan.name,
            mesh=MESH,
            data_dir=str(plan.folder),
            profiles=(plan.profile,),
        ),
        link=replace(
            settings.link,
            listen=(address.partition("/p2p/")[0],),
            bootstrap=others,
            mdns=False,
        ),
        gateway=replace(settings.gateway, host=LOOPBACK, port=plan.gateway_port),
    )
    plan.config.write_text(render_toml(mine), encoding="utf-8")
