"""The worker's end of its socket to the daemon.

Rules:
- It waits for a daemon that is slow to read, with a bounded backlog.
"""

from __future__ import annotations

import select
import socket
from typing import Final

from meshslm.engine.protocol import Command, FrameReader, Report, decode_commands, encode

BACKLOG_BYTES: Final = 256 * 1024
"""Reports not yet read by the daemon, beyond the socket's own buffer; then the worker waits."""


class Gone(Exception):
    """The daemon closed its end."""


class Pipe:
    """The worker's end of the socket pair."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(0)
        self._socket = connection
        self._reader = FrameReader()
        self._readable = select.poll()
        self._readable.register(connection, select.POLLIN)
        self._out = bytearray()

    def receive(self, *, wait: bool) -> list[Command]:
        """Commands that have come; waits for some where `wait`. Raises `Gone`."""
        commands: list[Command] = []
        while True:
            self._flush()
            if wait and not commands:
                writers = [self._socket] if self._out else []
                select.select([self._socket], writers, [])
            elif not self._readable.poll(0):
                return commands  # the usual case between two steps: cheaper than an exception
            try:
                data = self._socket.recv(256 * 1024)
            except BlockingIOError:
                if commands or not wait:
                    return commands
                continue
            except ConnectionError as error:
                raise Gone from error
            if not data:
                raise Gone
            for body in self._reader.feed(data):
                commands += decode_commands(body)

    def send(self, reports: list[Report]) -> None:
        """Report. Waits while the daemon is far behind. Raises `Gone`."""
        self._out += encode(reports)
        self._flush()
        while len(self._out) > BACKLOG_BYTES:
            select.select([], [self._socket], [])
            self._flush()

    def drain(self) -> None:
        """Wait until everything is written."""
        while self._out:
            select.select([], [self._socket], [])
            self._flush()

    def _flush(self) -> None:
        while self._out:
            try:
                sent = self._socket.send(self._out)
            except BlockingIOError:
                return
            except ConnectionError as error:
                raise Gone from error
            del self._out[:sent]
