"""A view of the file system for a worker: some files and folders to read, some to write, no more.

Landlock is the kernel's sandbox for unprivileged processes. It holds for this thread and all that
it will start, and cannot be taken off again.

Rules:
- Everything that the kernel can confine is confined, by the version that it has; nothing may be
  executed, and where the version knows of it no TCP port may be bound or connected to, no signal
  sent out, no abstract socket reached, no device controlled but those that are named.
- A path that does not exist is left out: it cannot be opened either.

Source: landlock(7), linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys
from collections.abc import Iterable
from typing import Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_CREATE, _ADD, _RESTRICT = 444, 445, 446
"""System calls, with these numbers on every architecture."""
_VERSION_ONLY: Final = 1
_PATH_BENEATH: Final = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 1 << 1, 1 << 2, 1 << 3
TRUNCATE, IOCTL_DEVICE = 1 << 14, 1 << 15
_REFER: Final = 1 << 13
_ALL_OF_FIRST: Final = (1 << 13) - 1
_SPECIAL_FILES: Final = 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11
"""Making devices, sockets, pipes and block devices."""
OF_FILES: Final = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEVICE
"""Rights that a rule on a single file may give."""

READ: Final = READ_FILE | READ_DIR
WRITE: Final = (_ALL_OF_FIRST & ~EXECUTE & ~_SPECIAL_FILES) | TRUNCATE
DEVICE: Final = READ_FILE | WRITE_FILE | READ_DIR | IOCTL_DEVICE

_TCP: Final = 0b11
"""Binding and connecting."""
_SCOPES: Final = 0b11
"""Abstract Unix sockets and signals."""


def version() -> int:
    """Of the kernel's Landlock; 0 where there is none."""
    if sys.platform != "linux":
        return 0
    return max(0, int(_LIBC.syscall(_CREATE, None, 0, _VERSION_ONLY)))


def confine(
    readable: Iterable[str], writable: Iterable[str] = (), devices: Iterable[str] = ()
) -> str:
    """Confine this thread to these paths; why not, or nothing. `no_new_privs` must be set."""
    have = version()
    if not have:
        return "the kernel was built or started without Landlock"
    handled = _ALL_OF_FIRST
    handled |= _REFER if have >= 2 else 0
    handled |= TRUNCATE if have >= 3 else 0
    handled |= IOCTL_DEVICE if have >= 5 else 0
    fields = [handled]
    if have >= 4:
        fields.append(_TCP)
    if have >= 6:
        fields.append(_SCOPES)
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    rules = int(_LIBC.syscall(_CREATE, attributes, len(attributes), 0))
    if rules < 0:
        return f"the kernel refused the rules: {os.strerror(ctypes.get_errno())}"
    try:
        for paths, rights in ((readable, READ), (writable, WRITE), (devices, DEVICE)):
            for path in paths:
                why = _allow(rules, path, rights & handled)
                if why:
                    return why
        if _LIBC.syscall(_RESTRICT, rules, 0) != 0:
            return f"the kernel refused to confine: {os.strerror(ctypes.get_errno())}"
    finally:
        os.close(rules)
    return ""


def _allow(rules: int, path: str, rights: int) -> str:
    """Add a rule for what lies at and below `path`; why not, or nothing."""
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= OF_FILES
        rule = struct.pack("=Qi", rights, place)
        if _LIBC.syscall(_ADD, rules, _PATH_BENEATH, rule, 0) != 0:
            return f"no rule for {path}: {os.strerror(ctypes.get_errno())}"
    finally:
        os.close(place)
    return ""
