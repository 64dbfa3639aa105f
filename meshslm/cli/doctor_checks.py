"""What `meshslm doctor` looks at: each check is a function from plain values to findings.

Rules:
- A check changes nothing that stays, and raises nothing: what it cannot look at is a finding.
- A finding that is not `ok` says what to do.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from meshslm import limits
from meshslm.cli.screen import bytes_text

LEAST_PYTHON: Final = (3, 11)
DISK_WARN_BYTES: Final = 1024 * limits.MIB
DISK_FAIL_BYTES: Final = 300 * limits.MIB
"""The default model as it comes and as it is prepared takes 250 MiB while both are there."""
MEMORY_WARN_BYTES: Final = 1024 * limits.MIB
"""A daemon with the default model takes about 400 MiB (a guess before measuring larger ones)."""


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    check: str
    verdict: Verdict
    detail: str
    advice: str = ""
    """What to do; empty where there is nothing to do."""


def check_python() -> Finding:
    """The interpreter's version."""
    have = sys.version_info[:2]
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if have < LEAST_PYTHON:
        wanted = ".".join(map(str, LEAST_PYTHON))
        return Finding("python", Verdict.FAIL, detail, f"install Python {wanted} or newer")
    return Finding("python", Verdict.OK, detail)


def check_sandbox(wanted: str) -> Finding:
    """What confines the workers that read models; `wanted` is the setting `engine.sandbox`."""
    from meshslm.engine.sandbox import possible

    if wanted == "off":
        advice = "set engine.sandbox to 'auto' unless you know why not"
        return Finding("sandbox", Verdict.WARN, "switched off", advice)
    found = possible()
    if not found.lacking:
        return Finding("sandbox", Verdict.OK, f"workers are confined in {', '.join(found.held)}")
    advice = (
        "a model file that breaks llama.cpp could do what this user can: host only files that you "
        "trust, or use a kernel (Linux 5.13 or newer) with Landlock and seccomp"
    )
    verdict = Verdict.FAIL if wanted == "required" else Verdict.WARN
    return Finding("sandbox", verdict, "; ".join(found.lacking), advice)


def check_folder(what: str, folder: Path, option: str) -> Finding:
    """Whether `folder`, or the nearest one above it that exists, can be written to."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        advice = f"give {there} to the user who runs meshslm, or choose another with {option}"
        return Finding(what, Verdict.FAIL, f"{folder}: {error.strerror}", advice)
    state = "" if folder.exists() else " (will be made)"
    return Finding(what, Verdict.OK, f"{folder} is writable{state}")


def check_disk(folder: Path) -> Finding:
    """Room for models where they are kept."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    free = shutil.disk_usage(there).free
    detail = f"{bytes_text(free)} free at {folder}"
    if free < DISK_FAIL_BYTES:
        advice = f"the default model needs {bytes_text(DISK_FAIL_BYTES)}: remove something"
        return Finding("disk", Verdict.FAIL, detail, advice)
    if free < DISK_WARN_BYTES:
        advice = "enough for the default model; more models need more"
        return Finding("disk", Verdict.WARN, detail, advice)
    return Finding("disk", Verdict.OK, detail)


def check_memory() -> Finding:
    """Memory that a model could use now, limits of a container included."""
    from meshslm.adapters.memory import read

    memory = read()
    detail = f"{bytes_text(memory.available)} of {bytes_text(memory.total)} available"
    if memory.available < MEMORY_WARN_BYTES:
        advice = "a model may not fit: stop something, or host a smaller one"
        return Finding("memory", Verdict.WARN, detail, advice)
    return Finding("memory", Verdict.OK, detail)


def check_key(key: Path) -> Finding:
    """Whether only its owner can read the node's private key."""
    try:
        found = key.stat()
    except FileNotFoundError:
        return Finding("identity", Verdict.OK, "no key yet: the first start makes one")
    except OSError as error:
        advice = "run it as the user whose node this is"
        return Finding("identity", Verdict.FAIL, f"{key}: {error.strerror}", advice)
    mode = found.st_mode & 0o777
    if mode & 0o077:
        detail = f"{key} can be read by others (mode {mode:04o})"
        return Finding("identity", Verdict.FAIL, detail, f"chmod 600 {key}")
    if found.st_uid != os.geteuid():
        detail = f"{key} belongs to user {found.st_uid}"
        return Finding("identity", Verdict.WARN, detail, "run it as the user whose node this is")
    return Finding("identity", Verdict.OK, f"{key}, mode {mode:04o}")


def check_port(what: str, host: str, port: int) -> Finding:
    """Whether a socket can listen at `host` and `port`; port 0 is any free one."""
    check = f"{what} port"
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = infos[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        advice = "something else listens there: stop it, or choose another port"
        return Finding(check, Verdict.FAIL, f"{host}:{port}: {error.strerror}", advice)
    return Finding(check, Verdict.OK, f"{host}:{port or 'any'} is free")


def worst(findings: Sequence[Finding]) -> Verdict:
    """The verdict on all of them."""
    verdicts = {finding.verdict for finding in findings}
    for verdict in (Verdict.FAIL, Verdict.WARN):
        if verdict in verdicts:
            return verdict
    return Verdict.OK
