"""A filter on system calls for a worker: no network, no programs, no other processes.

The kernel runs the filter before every call of this process and of all its threads to come; it
cannot be taken off again. What is denied fails with `EPERM`.

Why a list of what is denied, not of what is allowed: llama.cpp, its backends and drivers use calls
that no list here would foresee, and a worker that dies of a harmless one protects nobody. What
matters is on the list; files are confined by Landlock, which is complete where it applies.

Rules:
- Calls of another architecture than the kernel's own kill the process: they would pass by number.
- `clone` makes threads, never processes. `clone3`, whose flags the filter cannot see, does not
  exist for the worker; libraries then use `clone`.

Sources: seccomp(2), linux/filter.h, and the kernel's system call tables.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from typing import Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)

PR_SET_NO_NEW_PRIVS: Final = 38
_PR_GET_SECCOMP: Final = 21
_PR_SET_SECCOMP: Final = 22
_MODE_FILTER: Final = 2

DENIED: Final[dict[str, tuple[int | None, int | None]]] = {
    # The network. The socket to the daemon is open already.
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200),
    "listen": (50, 201), "accept": (43, 202), "accept4": (288, 242),
    # Programs.
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None),
    # Other processes.
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424),
    "process_madvise": (440, 440), "kcmp": (312, 272), "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "move_pages": (279, 239),
    "migrate_pages": (256, 238), "shmget": (29, 194), "shmat": (30, 196), "semget": (64, 190),
    "msgget": (68, 186), "mq_open": (240, 180),
    # What Landlock leaves out: owners, modes, times and attributes of files.
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14),
    "lremovexattr": (198, 15), "fremovexattr": (199, 16), "utime": (132, None),
    "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    # Mounts, namespaces, identities.
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "unshare": (272, 97), "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "setuid": (105, 146), "setgid": (106, 144),
    "setreuid": (113, 145), "setregid": (114, 143), "setresuid": (117, 147),
    "setresgid": (119, 149), "setgroups": (116, 159), "setfsuid": (122, 151),
    "setfsgid": (123, 152), "capset": (126, 91),
    # Ways into the kernel that had many holes, and its administration.
    "bpf": (321, 280), "perf_event_open": (298, 241), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "userfaultfd": (323, 282),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60),
    "syslog": (103, 116), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "adjtimex": (159, 171), "clock_adjtime": (305, 266), "sethostname": (170, 161),
    "setdomainname": (171, 162), "personality": (135, 92), "iopl": (172, None),
    "ioperm": (173, None), "modify_ldt": (154, None), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "fanotify_init": (300, 262), "vhangup": (153, 58),
}  # fmt: skip
"""System call -> its number on x86-64 and on aarch64; None where there is no such call."""

OWN_ONLY: Final = {"kill": (62, 129), "tgkill": (234, 131)}
"""Calls whose first argument must be this process."""
SELF_OR_ZERO: Final = {"prlimit64": (302, 261)}
"""Calls whose first argument must be 0 (this process, too)."""
CLONE: Final = (56, 220)
CLONE3: Final = (435, 435)
IOCTL: Final = (16, 29)

_ARCHITECTURES: Final = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Machine -> column of the tables, and the kernel's name for it (linux/audit.h)."""
_X32: Final = 0x40000000
_CLONE_THREAD: Final = 0x00010000
_TIOCSTI: Final = 0x5412
"""Types into a terminal."""

# Offsets in `struct seccomp_data`; arguments are looked at in their low half (little-endian).
_NUMBER, _ARCHITECTURE, _ARGUMENT_0, _ARGUMENT_1 = 0, 4, 16, 24
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_DENY: Final = _ERRNO | errno.EPERM
_ABSENT: Final = _ERRNO | errno.ENOSYS


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    # ctypes reads it once, when the class is made.
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))  # type: ignore[mutable-override]


def supported() -> str:
    """Why there can be no filter here; empty where there can."""
    if sys.platform != "linux":
        return f"{sys.platform} has no seccomp"
    machine = os.uname().machine
    if machine not in _ARCHITECTURES:
        return f"no table of system calls for {machine}"
    if _LIBC.prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) < 0:
        return "the kernel was built without seccomp"
    return ""


def install() -> str:
    """Put the filter on this thread and all that it will start; why not, or nothing.

    `no_new_privs` must be set.
    """
    why = supported()
    if why:
        return why
    column, architecture = _ARCHITECTURES[os.uname().machine]
    code = b"".join(_instructions(column, architecture, os.getpid()))
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(buffer))
    if _LIBC.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        return f"the kernel refused the filter: {os.strerror(ctypes.get_errno())}"
    return ""


def _instructions(column: int, architecture: int, pid: int) -> list[bytes]:
    """The program: falls through from test to test, and allows at the end."""
    code = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, architecture, when_true=1),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
    ]
    if column == 0:
        code += [_step(_AT_LEAST, _X32, when_false=1), _step(_RETURN, _KILL)]
    for numbers in DENIED.values():
        number = numbers[column]
        if number is not None:
            code += [_step(_EQUAL, number, when_false=1), _step(_RETURN, _DENY)]
    code += [_step(_EQUAL, CLONE3[column], when_false=1), _step(_RETURN, _ABSENT)]
    for table, wanted in ((OWN_ONLY, pid), (SELF_OR_ZERO, 0)):
        for numbers in table.values():
            code += _argument(numbers[column], _ARGUMENT_0, _EQUAL, wanted, allowed=True)
    code += _argument(CLONE[column], _ARGUMENT_0, _ANY_BIT, _CLONE_THREAD, allowed=True)
    code += _argument(IOCTL[column], _ARGUMENT_1, _EQUAL, _TIOCSTI, allowed=False)
    return [*code, _step(_RETURN, _ALLOW)]


def _argument(number: int, offset: int, test: int, value: int, *, allowed: bool) -> list[bytes]:
    """A call that an argument decides: whether it is `allowed` where the test holds."""
    yes, no = (_ALLOW, _DENY) if allowed else (_DENY, _ALLOW)
    return [
        _step(_EQUAL, number, when_false=4),
        _step(_LOAD, offset),
        _step(test, value, when_false=1),
        _step(_RETURN, yes),
        _step(_RETURN, no),
    ]


def _step(code: int, value: int, *, when_true: int = 0, when_false: int = 0) -> bytes:
    """`struct sock_filter`; the jumps count instructions to skip."""
    return struct.pack("=HBBI", code, when_true, when_false, value)
