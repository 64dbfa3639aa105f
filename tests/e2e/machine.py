"""Runs inside a network namespace: makes its device, hands it out, and keeps a door open.

The door is a Unix socket that leads to the gateway on the namespace's loopback: files are seen
from every network namespace. Only the standard library is used, for a quick start.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading

DEVICE = "wire"
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_PR_SET_PDEATHSIG = 1


def device(address: str) -> int:
    """A TUN device with this address and a route to everywhere."""
    tun = os.open("/dev/net/tun", os.O_RDWR)
    flags = _IFF_TUN | _IFF_NO_PI
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH", DEVICE.encode(), flags))
    for words in (
        ("link", "set", "lo", "up"),
        ("address", "add", f"{address}/8", "dev", DEVICE),
        ("link", "set", DEVICE, "up", "mtu", "1500"),
        ("route", "add", "default", "dev", DEVICE),
    ):
        subprocess.run(["ip", *words], check=True)
    return tun


def relay(source: socket.socket, target: socket.socket) -> None:
    """Carry bytes one way until they end."""
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, target):
            end.close()


def let_in(visitor: socket.socket, port: int) -> None:
    try:
        inside = socket.create_connection(("127.0.0.1", port), 5)
    except OSError:
        visitor.close()  # nobody is at home
        return
    inside.settimeout(None)
    threading.Thread(target=relay, args=(inside, visitor), daemon=True).start()
    relay(visitor, inside)


def main() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    test = socket.socket(fileno=int(sys.argv[1]))
    order = json.loads(test.recv(4096))
    tun = device(order["address"])
    door = socket.socket(socket.AF_UNIX)
    door.bind(order["door"])
    door.listen()
    socket.send_fds(test, [b"ready"], [tun])
    os.close(tun)
    test.close()
    while True:
        visitor, _ = door.accept()
        threading.Thread(target=let_in, args=(visitor, order["port"]), daemon=True).start()


if __name__ == "__main__":
    main()
