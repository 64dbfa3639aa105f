"""A mesh of daemons without models, watched through what they log: that costs them nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from meshslm.adapters.keyring import load_or_create
from meshslm.cli.demo_nodes import free_ports

PATIENCE_S = 120.0
LOOK_S = 0.02


def until(what: str, fact: Callable[..., bool], *of: object) -> None:
    """Return when `fact` holds of these. Raises `TimeoutError`."""
    deadline = time.monotonic() + PATIENCE_S
    while not fact(*of):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {PATIENCE_S:g} s")
        time.sleep(LOOK_S)


class Journal:
    """The log of one daemon. Its times are those of this machine's clock."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def text(self) -> str:
        """All of it."""
        return self._path.read_text(encoding="utf-8") if self._path.exists() else ""

    def clear(self) -> None:
        """Forget all of it, before the daemon is started again."""
        self._path.unlink(missing_ok=True)

    def times(self, topic: str, peer: str, since: float) -> list[float]:
        """When the daemon told this of a peer, seconds since 1970."""
        found = []
        for line in self.text().splitlines():
            if f" {topic} {peer} " in line:
                told = datetime.fromisoformat(" ".join(line.split(" ", 2)[:2])).timestamp()
                if told >= since:
                    found.append(told)
        return found


class Daemon:
    """One process."""

    def __init__(self, folder: Path, link: int, gateway: int) -> None:
        self.name = folder.name
        self.node = str(load_or_create(folder).node_id)
        self.address = f"/ip4/127.0.0.1/tcp/{link}"
        self.url = f"http://127.0.0.1:{gateway}"
        self._folder = folder
        self._gateway = gateway
        self._out = folder.with_suffix(".log")
        self.journal = Journal(self._out)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, bootstrap: str) -> None:
        """Start it, to join through `bootstrap` where that is another's address."""
        words = [sys.executable, "-m", "meshslm", "up", "--no-profiles", "--no-mdns"]
        words += ["--name", self.name, "--data-dir", str(self._folder), "--listen", self.address]
        words += ["--gateway-port", str(self._gateway)]
        if bootstrap != self.address:
            words += ["--bootstrap", bootstrap]
        with self._out.open("ab") as out:
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )

    def is_up(self) -> bool:
        """Whether it has said so. Raises `RuntimeError` where it has ended."""
        text = self.journal.text()
        if self.process is not None and self.process.poll() is not None:
            raise RuntimeError(f"{self.name} ended: {text[-500:]}")
        return "is up" in text

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None, "only who was started is sent a signal"
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


class Daemons:
    """All of them; the first is whom others join through."""

    def __init__(self, folder: Path, count: int) -> None:
        ports = iter(free_ports(2 * count))
        self.all = [Daemon(folder / f"n{i}", next(ports), next(ports)) for i in range(count)]

    def start(self, daemon: Daemon) -> None:
        """Start one, or start it again."""
        daemon.start(self.all[0].address)

    def others(self, one: Daemon) -> list[Daemon]:
        """All that run, without one."""
        return [daemon for daemon in self.all if daemon is not one and daemon.process is not None]

    def met(self, one: Daemon, since: float) -> bool:
        """Whether one and all that run have met since then."""
        return all(
            other.journal.times("peer.alive", one.node, since)
            and one.journal.times("peer.alive", other.node, since)
            for other in self.others(one)
        )


@contextmanager
def daemons(count: int, spare: int = 0) -> Iterator[Daemons]:
    """So many daemons that know each other, and some that have not been started."""
    with tempfile.TemporaryDirectory(prefix="meshslm-bench-") as folder:
        mesh = Daemons(Path(folder), count + spare)
        try:
            for daemon in mesh.all[:count]:
                mesh.start(daemon)
            for daemon in mesh.all[:count]:
                until(f"{daemon.name} is up", daemon.is_up)
                until(f"{daemon.name} knows all", mesh.met, daemon, 0.0)
            yield mesh
        finally:
            for daemon in mesh.all:
                daemon.kill()
