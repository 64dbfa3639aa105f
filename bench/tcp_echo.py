"""A plain TCP echo, and one who asks it: what two processes on this machine can do at best.

Messages have a length before them, so that a client can keep a number of them in flight; nothing
is encrypted, decoded or decided.
"""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_LENGTH = struct.Struct("!II")
"""Bytes that follow, and bytes that are wanted back."""
READ_BYTES = 1 << 18


class Messages:
    """A socket that carries messages."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._left = bytearray()

    def send(self, messages: list[tuple[int, bytes]]) -> None:
        """Send messages in one call, each with the number of bytes that it asks for."""
        self._socket.sendall(b"".join(_LENGTH.pack(len(m), back) + m for back, m in messages))

    def receive(self) -> list[tuple[int, bytes]]:
        """Whatever whole messages are there next; empty at the end."""
        found: list[tuple[int, bytes]] = []
        while not found:
            data = self._socket.recv(READ_BYTES)
            if not data:
                return []
            self._left += data
            at = 0
            while len(self._left) - at >= _LENGTH.size:
                size, back = _LENGTH.unpack_from(self._left, at)
                end = at + _LENGTH.size + size
                if end > len(self._left):
                    break
                found.append((back, bytes(self._left[at + _LENGTH.size : end])))
                at = end
            del self._left[:at]
        return found


def rate(port: int, size: int, back: int, in_flight: int, seconds: float) -> float:
    """Answers a second, with so many requests of `size` bytes under way all the time."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        messages, request = Messages(connection), (back, bytes(size))
        messages.send([request] * in_flight)
        answers, began = 0, time.perf_counter()
        while (now := time.perf_counter()) < began + seconds:
            come = len(messages.receive())
            answers += come
            messages.send([request] * come)
        return answers / (now - began)


@contextmanager
def echoing() -> Iterator[int]:
    """The port of an echo in a process of its own."""
    command = [sys.executable, "-m", "bench.tcp_echo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None, "it was asked for"
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def main() -> None:
    """Echo to one caller after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            # Who has measured hangs up with answers under way.
            with connection, suppress(ConnectionError):
                messages = Messages(connection)
                while come := messages.receive():
                    messages.send([(0, message[:back]) for back, message in come])


if __name__ == "__main__":
    main()
