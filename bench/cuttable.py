"""A TCP connection with a cable in the middle that can be cut without either end being told."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Final

LOOPBACK: Final = "127.0.0.1"
PIECE_BYTES: Final = 64 * 1024


class Cable:
    """Listens at `port`, and carries each connection to wherever `to` is at that time."""

    def __init__(self) -> None:
        self.to = 0
        """Port of the far end."""
        self._whole = threading.Event()
        self._whole.set()
        self._sockets: list[socket.socket] = []
        self.port = 0
        self._listen()

    def cut(self) -> None:
        """From now on nothing arrives at either end, and no connection ends."""
        self._whole.clear()

    def refuse(self) -> None:
        """Take no new connections, as a machine on which nothing listens."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def mend(self) -> None:
        """Carry new connections; those that were cut end."""
        old, self._sockets = self._sockets, []
        for one in old:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._whole.set()
        if self._listener.fileno() < 0:
            self._listen()

    def _listen(self) -> None:
        self._listener = socket.create_server((LOOPBACK, self.port))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return  # it takes no more
            if not self._whole.is_set():
                self._sockets.append(near)  # it is kept waiting, as by a cable that hangs loose
                continue
            try:
                far = socket.create_connection((LOOPBACK, self.to), timeout=5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets += [near, far]  # from here on `mend` may close them at any time
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(PIECE_BYTES):
                if self._whole.is_set():
                    sink.sendall(piece)
        if self._whole.is_set():
            with suppress(OSError):
                sink.shutdown(socket.SHUT_RDWR)
