"""Builds llama.cpp's own server, to be measured beside the engine by `make bench-engine`.

Its source comes inside the release of llama-cpp-python that this project is locked to, so that both
sides of the comparison are the same llama.cpp, and it is compiled with the options that the
installation of llama-cpp-python uses: optimised, for this processor, with OpenMP.

Rules:
- Standard library only, like `scripts/setup.py`; what the build needs more is in its own folder.
- The source is taken by its hash in the lock file.
- A build that was interrupted goes on where it was.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from scripts import setup

LOCK = setup.ROOT / "requirements.lock"
HOME = setup.ROOT / "build" / "llama-server"
BINARY = HOME / "llama-server"
TOOLS = ("cmake==4.4.4", "ninja==1.13.2")
OPTIONS = (
    "CMAKE_BUILD_TYPE=Release",
    "BUILD_SHARED_LIBS=OFF",  # one file to keep; the kernels are the same
    "GGML_NATIVE=ON",
    "GGML_OPENMP=ON",
    "LLAMA_BUILD_IS_DEV=OFF",
    "LLAMA_BUILD_TOOLS=ON",
    "LLAMA_BUILD_SERVER=ON",
    "LLAMA_BUILD_APP=OFF",
    "LLAMA_BUILD_EXAMPLES=OFF",
    "LLAMA_BUILD_TESTS=OFF",
    "LLAMA_BUILD_UI=OFF",
    "LLAMA_USE_PREBUILT_UI=OFF",  # else it is fetched
    "LLAMA_CURL=OFF",
    "LLAMA_OPENSSL=OFF",
)


def locked(lock: str) -> tuple[str, str]:
    """The version of llama-cpp-python in a lock file, and the lines that pin it.

    Raises:
        SystemExit: where it is not there.
    """
    found = re.search(r"^llama-cpp-python==(\S+)(?: \\\n    --hash=\S+)+", lock, re.MULTILINE)
    if found is None:
        sys.exit("requirements.lock has no llama-cpp-python.")
    return found[1], found[0] + "\n"


def doing(log: Path) -> str:
    """How far the compiler is, from the last step that its log names."""
    for line in reversed(setup.tail(log)):
        if found := re.match(r"\[(\d+)/(\d+)\]", line):
            return f"compiling, step {found[1]} of {found[2]}"
    return "starting"


def fetch(python: Path, pins: str, work: Path) -> Path:
    """The source of llama.cpp, unpacked below `work`."""
    source = work / "source"
    if not (source / "unpacked").exists():
        shutil.rmtree(source, ignore_errors=True)
        source.mkdir(parents=True)
        wanted = work / "wanted.txt"
        wanted.write_text(pins, encoding="utf-8")
        command = [str(python), "-m", "pip", "download", "--progress-bar", "off", "--no-deps"]
        command += ["--no-binary", "llama-cpp-python", "--require-hashes", "-r", str(wanted)]
        setup.shown([*command, "-d", str(source)], work / "fetch.log", lambda _: "fetching")
        (archive,) = source.glob("*.tar.gz")
        unpack = ["tar", "-xzf", str(archive), "-C", str(source), "--strip-components=1"]
        subprocess.run(unpack, check=True)
        (source / "unpacked").touch()
    return source / "vendor" / "llama.cpp"


def build(tools: Path, source: Path, work: Path) -> None:
    """Compile, and put the program where it is looked for."""
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    cmake, tree, cores = str(tools / "cmake"), str(work / "tree"), len(os.sched_getaffinity(0))
    configure = [cmake, "-G", "Ninja", "-S", str(source), "-B", tree]
    options = [f"-D{option}" for option in OPTIONS]
    setup.shown([*configure, *options], work / "configure.log", lambda _: "looking", environment)
    compile_ = [cmake, "--build", tree, "--target", "llama-server", "-j", str(cores)]
    setup.shown(compile_, work / "compile.log", doing, environment)
    shutil.copy2(Path(tree, "bin", "llama-server"), BINARY)


def main() -> None:
    """Build it, unless it is there."""
    version, pins = locked(LOCK.read_text(encoding="utf-8"))
    of = HOME / "version"
    where = BINARY.relative_to(setup.ROOT)
    if BINARY.exists() and of.exists() and of.read_text(encoding="utf-8") == version:
        print(f"{where} of llama-cpp-python {version} is there.")
        return
    setup.provide(list(setup.missing()))
    print("Compiling llama.cpp's server: about 10 minutes on two cores, once", flush=True)
    started = time.monotonic()
    work = HOME / f"work-{version}"
    work.mkdir(parents=True, exist_ok=True)
    tools = work / "tools" / "bin"  # not in a temporary folder: the tree remembers where it was
    if not (tools / "ninja").exists():
        subprocess.run([sys.executable, "-m", "venv", str(tools.parent)], check=True)
        install = [str(tools / "python"), "-m", "pip", "install", "-q"]
        subprocess.run([*install, "--disable-pip-version-check", *TOOLS], check=True)
    build(tools, fetch(tools / "python", pins, work), work)
    of.write_text(version, encoding="utf-8")
    shutil.rmtree(work)
    print(f"{where} made in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
