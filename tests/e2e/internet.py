"""A small internet in user space: machines in network namespaces, and the wires between them.

A machine is a network namespace with a TUN device, so daemons in it use the kernel's own TCP on an
address of their own. What leaves a machine is an IP packet in this process, which loses, delays,
translates or delivers it. So nothing is needed of the kernel but namespaces and TUN: no bridge, no
netem, no packet filter, which many kernels are built without.

Rules:
- A namespace lives as long as the process that holds it, which ends with this one: whatever
  happens to a test, nothing is left behind.
- Chance is seeded. Packets of one direction keep their order.
"""

from __future__ import annotations

import heapq
import json
import math
import os
import random
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Self

import httpx

MACHINE = Path(__file__).with_name("machine.py")
START_SECONDS = 20.0
GATEWAY_PORT = 8080
LINK_PORT = 4101
PACKET_BYTES = 65536
_TCP, _UDP = 6, 17
_CHECKSUM_AT = {_TCP: 16, _UDP: 6}


def unshared() -> list[str]:
    """How to start a process in a network namespace of its own."""
    return ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]


def why_not() -> str:
    """Why no machine can be made here; empty where one can."""
    try:
        with tempfile.TemporaryDirectory() as folder, Internet() as internet:
            internet.machine("probe", Path(folder))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return f"no network namespaces with TUN devices here: {error}"
    return ""


@dataclass
class Nat:
    """An address translator with one public address: who was not spoken to gets nothing in."""

    address: str
    ports: Iterator[int] = field(default_factory=lambda: count(40_000))
    out: dict[tuple[str, int, str, int], int] = field(default_factory=dict)
    """Public port by private end and far end."""
    back: dict[tuple[int, str, int], tuple[str, int]] = field(default_factory=dict)

    def forget(self) -> None:
        """As a translator that restarts: known connections end in silence."""
        self.out.clear()
        self.back.clear()

    def outward(self, packet: Packet) -> None:
        """Give a packet that leaves a public source."""
        key = (packet.source, packet.source_port, packet.target, packet.target_port)
        if key not in self.out:
            if not packet.opens:
                packet.drop = True
                return
            self.out[key] = port = next(self.ports)
            self.back[port, packet.target, packet.target_port] = key[:2]
        packet.rewrite(12, self.address, self.out[key])

    def inward(self, packet: Packet) -> None:
        """Bring a packet that comes back to whom it is for."""
        end = self.back.get((packet.target_port, packet.source, packet.source_port))
        if end is None:
            packet.drop = True
        else:
            packet.rewrite(16, *end)


class Packet:
    """An IPv4 packet with ports."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.drop = False
        self._ports_at = (data[0] & 15) * 4

    @property
    def source(self) -> str:
        return socket.inet_ntoa(self.data[12:16])

    @property
    def target(self) -> str:
        return socket.inet_ntoa(self.data[16:20])

    @property
    def source_port(self) -> int:
        return self._port(0)

    @property
    def target_port(self) -> int:
        return self._port(2)

    @property
    def opens(self) -> bool:
        """Whether it may begin a connection through a translator."""
        return self.data[9] == _UDP or bool(self.data[self._ports_at + 13] & 2)

    def _port(self, offset: int) -> int:
        (port,) = struct.unpack_from("!H", self.data, self._ports_at + offset)
        return int(port)

    def rewrite(self, at: int, address: str, port: int) -> None:
        """Put another end at byte `at` (12: source, 16: target), and mend the checksums."""
        port_at = self._ports_at + (0 if at == 12 else 2)
        before = bytes(self.data[at : at + 4]), bytes(self.data[port_at : port_at + 2])
        after = socket.inet_aton(address), struct.pack("!H", port)
        self.data[at : at + 4], self.data[port_at : port_at + 2] = after
        self._mend(10, before[0], after[0])
        checksum_at = self._ports_at + _CHECKSUM_AT[self.data[9]]
        self._mend(checksum_at, b"".join(before), b"".join(after))

    def _mend(self, at: int, before: bytes, after: bytes) -> None:
        """RFC 1624: the new checksum from the old one and what has changed."""
        (checksum,) = struct.unpack_from("!H", self.data, at)
        total = ~checksum & 0xFFFF
        for (old,), (new,) in zip(
            struct.iter_unpack("!H", before), struct.iter_unpack("!H", after), strict=True
        ):
            total += (~old & 0xFFFF) + new
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        struct.pack_into("!H", self.data, at, ~total & 0xFFFF)


class Internet:
    """Machines, and one thread that carries what they send."""

    def __init__(self, seed: int = 7) -> None:
        self.loss = 0.0
        """Share of packets that are lost on the way."""
        self.delay_ms = 0.0
        """One way."""
        self.mbit = 0.0
        """What each machine can send in a second; 0 for any amount."""
        self.queue_ms = 100.0
        """Longest that a packet waits before such a wire; what would wait longer is lost."""
        self.machines: list[Machine] = []
        self.dropped = 0
        self._random = random.Random(seed)
        self._cuts: set[tuple[Machine, Machine]] = set()
        self._busy: dict[Machine, float] = {}
        """When all that a machine has sent will have left it."""
        self._queue: list[tuple[float, int, int, bytes]] = []
        self._order = count()
        self._selector = selectors.DefaultSelector()
        self._bell, self._rope = os.pipe()
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._carry, name="internet", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self._rope, b"x")
        self._thread.join()
        for machine in self.machines:
            machine.remove()
        self._selector.close()
        for end in (self._bell, self._rope):
            os.close(end)

    def machine(self, name: str, folder: Path, nat: Nat | None = None) -> Machine:
        """A new machine; behind `nat` its own address is good for nobody else."""
        number = len(self.machines) + 1
        address = f"192.168.{number}.2" if nat else f"10.9.0.{number}"
        machine = Machine(name, address, nat, folder)
        self.machines.append(machine)
        self._selector.register(machine.tun, selectors.EVENT_READ, machine)
        return machine

    # --- faults ---------------------------------------------------------------------------------
    def cut(self, sources: list[Machine], targets: list[Machine], *, one_way: bool = False) -> None:
        """Deliver nothing from one side to the other from now on, nor back unless `one_way`."""
        pairs = {(s, t) for s in sources for t in targets if s is not t}
        self._cuts |= pairs if one_way else pairs | {(t, s) for s, t in pairs}

    def unplug(self, machine: Machine) -> None:
        """Cut a machine off from all others."""
        self.cut([machine], self.machines)

    def heal(self) -> None:
        """Mend all cuts."""
        self._cuts = set()

    # --- the thread -----------------------------------------------------------------------------
    def _carry(self) -> None:
        while True:
            wait = self._queue[0][0] - time.monotonic() if self._queue else None
            for key, _ in self._selector.select(wait if wait is None else max(0.0, wait)):
                if key.data is None:
                    return
                self._take(key.data)
            now = time.monotonic()
            while self._queue and self._queue[0][0] <= now:
                _, _, tun, data = heapq.heappop(self._queue)
                try:
                    os.write(tun, data)
                except OSError:
                    self.dropped += 1  # its machine has just been switched off

    def _take(self, source: Machine) -> None:
        try:
            data = os.read(source.tun, PACKET_BYTES)
        except OSError:
            return  # nothing there after all
        if data[0] >> 4 != 4 or data[9] not in _CHECKSUM_AT:
            return  # what IPv6 says of itself, and pings
        packet = Packet(data)
        if source.nat is not None:
            source.nat.outward(packet)
        target = self._behind(packet.target)
        if target is not None and target.nat is not None and not packet.drop:
            target.nat.inward(packet)
        if target is None or packet.drop or (source, target) in self._cuts:
            self.dropped += 1
        elif self._random.random() >= self.loss:
            due = self._leaves(source, len(data)) + self.delay_ms / 1000
            if due < 0:
                return
            heapq.heappush(self._queue, (due, next(self._order), target.tun, bytes(packet.data)))

    def _leaves(self, source: Machine, size: int) -> float:
        """When a packet has left its machine; never (below 0) where the queue there is full."""
        now = time.monotonic()
        if not self.mbit:
            return now
        begins = max(now, self._busy.get(source, 0.0))
        if begins - now > self.queue_ms / 1000:
            self.dropped += 1
            return -math.inf
        self._busy[source] = begins + size * 8 / (self.mbit * 1_000_000)
        return self._busy[source]

    def _behind(self, address: str) -> Machine | None:
        for machine in self.machines:
            if address == (machine.nat.address if machine.nat else machine.address):
                return machine
        return None


class Machine:
    """A network namespace with a device, in which a daemon can be started and ended."""

    def __init__(self, name: str, address: str, nat: Nat | None, folder: Path) -> None:
        self.name = name
        self.address = address
        self.nat = nat
        self.folder = folder / name
        self.log = folder / f"{name}.log"
        self.daemon: subprocess.Popen[bytes] | None = None
        self._door = folder / f"{name}.door"
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._holder = subprocess.Popen(
                [*unshared(), sys.executable, str(MACHINE), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            theirs.close()
            ours.settimeout(START_SECONDS)
            order = {"address": address, "door": str(self._door), "port": GATEWAY_PORT}
            ours.sendall(json.dumps(order).encode())
            _, fds, _, _ = socket.recv_fds(ours, 16, 1)
        if not fds:
            _, said = self._holder.communicate(timeout=START_SECONDS)
            raise RuntimeError(said.decode().strip().rpartition("\n")[2])
        (self.tun,) = fds
        os.set_blocking(self.tun, False)

    # --- the daemon -----------------------------------------------------------------------------
    def start(self, *words: str) -> None:
        """Start a daemon on this machine's address."""
        listen = f"/ip4/{self.address}/tcp/{LINK_PORT}"
        command = [sys.executable, "-m", "meshslm", "up", "--open", "--no-mdns"]
        command += ["--name", self.name, "--data-dir", str(self.folder), "--listen", listen]
        command += ["--gateway-port", str(GATEWAY_PORT), *words]
        command += ["--stop-with-parent", str(os.getpid())]
        with self.log.open("ab") as log:
            self.daemon = subprocess.Popen(
                [*self.entered(), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={k: v for k, v in os.environ.items() if not k.startswith("MESHSLM_")},
            )

    def signal(self, number: signal.Signals) -> None:
        assert self.daemon is not None
        self.daemon.send_signal(number)

    def kill(self) -> None:
        """End the daemon at once, if there is one."""
        if self.daemon is not None:
            self.daemon.kill()
            self.daemon.wait()
            self.daemon = None

    def stop(self) -> None:
        """End it in order."""
        assert self.daemon is not None
        self.daemon.terminate()
        assert self.daemon.wait(START_SECONDS) == 0, self.said
        self.daemon = None

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    # --- the machine ----------------------------------------------------------------------------
    def move(self, address: str) -> None:
        """Give the machine another address."""
        for words in (["del", f"{self.address}/8"], ["add", f"{address}/8"]):
            command = [*self.entered(), "ip", "address", *words, "dev", "wire"]
            subprocess.run(command, check=True, timeout=START_SECONDS)
        self.address = address

    def remove(self) -> None:
        """Switch it off; the namespace goes with its last process."""
        self.kill()
        self._holder.kill()
        self._holder.communicate()
        os.close(self.tun)

    def entered(self) -> list[str]:
        """How to start a process on this machine."""
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", str(self._holder.pid), *user, "--net"]

    # --- what its user sees ---------------------------------------------------------------------
    def http(self, timeout: float = 60.0) -> httpx.Client:
        """A client of its gateway, through a socket that leads into the namespace."""
        return httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self._door)),
            base_url=f"http://127.0.0.1:{GATEWAY_PORT}",
            timeout=timeout,
        )

    def get(self, path: str) -> Any:
        """The JSON that its node answers; None while it does not."""
        try:
            with self.http(5.0) as client:
                return client.get(path).json()
        except httpx.HTTPError:
            assert self.daemon is None or self.daemon.poll() is None, self.said
            return None

    def sees(self) -> set[str]:
        """Names of the others that its node holds for alive."""
        reply = self.get("/mesh/peers") or {"peers": []}
        return {peer["name"] for peer in reply["peers"] if peer["state"] == "alive"}
