"""Makes the environment: system packages, virtual environment, locked dependencies, this project.

Why a program: the longest step compiles llama.cpp for minutes, and must show that it lives.

Rules:
- Standard library only; it runs before anything is installed, under any Python from 3.11 on.
- What is installed is what the lock files say, hash by hash.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEARTBEAT_S = 15.0
LOG_TAIL_LINES = 40

SLOW_STEPS: Mapping[str, str] = {
    "llama-cpp-python": "compiling llama.cpp takes 4 to 10 minutes on two cores, once",
    "fastecdsa": "compiling takes half a minute, once",
}


@dataclass(frozen=True)
class Need:
    """Something that only the system's package manager can provide."""

    what: str
    package: str


def missing() -> Iterator[Need]:
    """What is needed to compile the dependencies, and is not here."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if not (compiler and shutil.which("cc")):
        yield Need("a C and C++ compiler", "build-essential")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        yield Need(f"the headers of {sys.executable} (Python.h)", f"{version}-dev")
    if find_spec("ensurepip") is None or find_spec("venv") is None:
        yield Need(f"the venv module of {sys.executable}", f"{version}-venv")
    if not has_header("gmp.h"):
        yield Need("the GMP headers (gmp.h)", "libgmp-dev")


def has_header(name: str) -> bool:
    """Whether the C compiler finds a system header; by looking for the file where there is none."""
    compiler = shutil.which("cc")
    if compiler is None:
        return any(Path("/usr/include").glob(name)) or any(Path("/usr/include").glob(f"*/{name}"))
    probe = [compiler, "-E", "-x", "c", "-include", name, "/dev/null"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def provide(needs: Sequence[Need]) -> None:
    """Install what is missing, or say in one line how to.

    Raises:
        SystemExit: where it is up to the user.
    """
    if not needs:
        return
    what = ", ".join(need.what for need in needs)
    packages = sorted({need.package for need in needs})
    apt = shutil.which("apt-get")
    if apt is None:
        sys.exit(f"Missing: {what}. Install them with your system's package manager.")
    if os.geteuid() != 0:
        line = f"sudo apt-get update && sudo apt-get install -y {' '.join(packages)}"
        sys.exit(f"Missing: {what}. Run this, then make again:\n  {line}")
    print(f"Installing system packages: {' '.join(packages)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update", "-qq"], ["install", "-y", "-qq", *packages]):
        command = [apt, *arguments]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    still = [need.what for need in missing()]
    if still:
        sys.exit(
            f"Still missing: {', '.join(still)}. A Python that is not the system's brings its own "
            "headers and venv module: name another one with make PYTHON=..."
        )


def build_environment() -> dict[str, str]:
    """Environment for pip: compile on all cores, and leave out what is never used."""
    environment = dict(os.environ)
    environment.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", str(len(os.sched_getaffinity(0))))
    # LLAVA is llama.cpp's multimodal part: a large share of the build, and nothing here calls it.
    arguments = environment.get("CMAKE_ARGS", "")
    if "LLAVA_BUILD" not in arguments:
        environment["CMAKE_ARGS"] = f"{arguments} -DLLAVA_BUILD=OFF".strip()
    environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    return environment


def doing(log: Path) -> str:
    """What pip does now, from the last line of its log that tells."""
    for line in reversed(tail(log)):
        words = line.split()
        if words[:3] == ["Building", "wheel", "for"]:
            name = words[3]
            hint = SLOW_STEPS.get(name)
            return f"building {name}" + (f" ({hint})" if hint else "")
        if words[:1] == ["Collecting"]:
            return f"fetching {words[1].split('=')[0]}"
        if words[:2] == ["Installing", "collected"]:
            return "copying files"
    return "starting"


def tail(log: Path) -> list[str]:
    """The last lines of pip's log."""
    with log.open(encoding="utf-8", errors="replace") as lines:
        return list(deque(lines, maxlen=LOG_TAIL_LINES))


def shown(
    command: Sequence[str],
    log: Path,
    doing: Callable[[Path], str],
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a long program with a sign of life every `HEARTBEAT_S` seconds; its output is in `log`.

    Raises:
        SystemExit: where it fails, after the end of its log.
    """
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as sink:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=sink, stderr=subprocess.STDOUT
        )
        try:
            while process.poll() is None:
                try:
                    process.wait(HEARTBEAT_S)
                except subprocess.TimeoutExpired:
                    minutes, seconds = divmod(int(time.monotonic() - started), 60)
                    print(f"  {minutes}:{seconds:02}  {doing(log)}", flush=True)
        except KeyboardInterrupt:
            process.wait()  # the terminal interrupted it as well; let it tidy up
            sys.exit(130)
    if process.returncode != 0:
        sys.stderr.writelines(tail(log))
        sys.exit(f"{Path(command[0]).name} failed; the whole log is in {log}")


def pip(venv: Path, *arguments: str) -> None:
    """Run pip's `install`.

    Raises:
        SystemExit: where pip fails.
    """
    command = [str(venv / "bin" / "python"), "-m", "pip", "install", "--progress-bar", "off"]
    shown([*command, *arguments], venv / "setup.log", doing, build_environment())


def main() -> None:
    """Make the environment in the folder that the first argument names."""
    venv = ROOT / sys.argv[1]
    provide(list(missing()))
    if not (venv / "bin" / "python").exists():
        print(f"Creating {venv.name} with Python {sys.version.split()[0]}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    started = time.monotonic()
    print("Installing dependencies: under a minute, or about 10 minutes the first time", flush=True)
    # pip itself first: older ones do not take what they compiled before from their cache here.
    pip(venv, "--require-hashes", "-r", "requirements-pip.lock")
    pip(venv, "--require-hashes", "-r", "requirements.lock")
    pip(venv, "--no-deps", "--no-build-isolation", "-e", ".")
    # A dependency of libp2p brings types of an old trio, which would hide trio's own from mypy.
    for stubs in venv.glob("lib/python*/site-packages/trio-stubs"):
        shutil.rmtree(stubs)
    print(f"Installed in {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
