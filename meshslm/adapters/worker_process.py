"""One worker process and the pipe to it: starts it, talks to it, ends it, and says why it died.

Rules:
- It waits for nobody but the system: a worker that does not read gets no further commands, and one
  that does not leave is killed.
- Nothing heavy is imported here: the daemon must stay small.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
from collections import deque
from collections.abc import Sequence
from typing import Final

import trio

from meshslm.adapters import memory
from meshslm.adapters.worker_death import cause_of_death
from meshslm.engine.protocol import Command, Shutdown, encode

log = logging.getLogger("meshslm.engine")

GOODBYE_S: Final = 0.5
"""Time for a worker to leave by itself."""
READ_BYTES: Final = 256 * 1024
COMMANDS: Final = 4096
"""Commands waiting for a worker that does not read; the runs beyond fail."""
LAST_WORDS: Final = 4096
"""Bytes of the worker's standard error that are kept to explain its death."""


class WorkerProcess:
    """One worker process and the pipe to it."""

    def __init__(self, command: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            # Started from the main thread: Linux ends a child when the thread that made it ends.
            self.process = subprocess.Popen(  # noqa: S603 - no argument comes from outside
                [*command, "--fd", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
            )
        ours.settimeout(0)
        self._raw = ours
        self._socket = trio.socket.from_stdlib_socket(ours)
        assert self.process.stderr is not None
        self._stderr = trio.lowlevel.FdStream(os.dup(self.process.stderr.fileno()))
        self.process.stderr.close()
        self._words = b""
        self._oom_kills = memory.oom_kills()
        self._commands: deque[Command] = deque()
        self._told = trio.Event()

    def tell(self, command: Command, *, always: bool = False) -> bool:
        """Queue a command; False where too many wait."""
        if len(self._commands) >= COMMANDS and not always:
            return False
        self._commands.append(command)
        self._told.set()
        return True

    async def write(self) -> None:
        """Send what is queued, all that waits in one frame each time."""
        while True:
            await self._told.wait()
            self._told = trio.Event()
            commands, self._commands = list(self._commands), deque()
            try:
                await self._send(encode(commands))
            except OSError:
                return  # the reader notices the death

    async def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[await self._socket.send(view) :]

    async def receive(self) -> bytes:
        """Some bytes; none where it is dead."""
        while True:
            # Not `recv` at once, as trio's own would: that nearly always fails, once a token.
            await trio.lowlevel.wait_readable(self._raw)
            try:
                return self._raw.recv(READ_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                return b""

    async def listen(self) -> None:
        """Keep its last words, and log them."""
        async for data in self._stderr:
            self._words = (self._words + bytes(data))[-LAST_WORDS:]
            for line in bytes(data).decode(errors="replace").splitlines():
                log.warning("worker %d: %s", self.process.pid, line)

    async def end(self, keep_s: float) -> int:
        """Ask it to leave, with time to keep states, then make it; its exit code."""
        try:
            with trio.move_on_after(GOODBYE_S):
                await self._send(encode([Shutdown(keep_s)]))
        except OSError:
            pass
        with trio.move_on_after(GOODBYE_S + keep_s):
            await self._exited()
        if self.process.poll() is None:
            self.process.kill()
        code = await self._exited()
        with trio.move_on_after(GOODBYE_S):
            await self.listen()  # to the end: what it said last tells why it died
        self._socket.close()
        await trio.aclose_forcefully(self._stderr)
        return code

    async def _exited(self) -> int:
        while self.process.poll() is None:  # noqa: ASYNC110 - it ends within milliseconds
            await trio.sleep(0.005)
        code = self.process.poll()
        assert code is not None
        return code

    def death(self, code: int, private_mib: int) -> str:
        """Why it died, as far as can be told."""
        words = self._words.decode(errors="replace")
        kills = memory.oom_kills() - self._oom_kills
        return cause_of_death(code, words, oom_kills=kills, private_mib=private_mib)
