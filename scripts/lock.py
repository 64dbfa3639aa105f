"""Writes the lock files from pyproject.toml: every release that is installed, with its hashes.

Rules:
- They name no package index: an install takes them from wherever the user's pip looks.
- They hold for every Python from 3.11 on, and every platform.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESOLVER = "uv>=0.13"


def main() -> None:
    """Resolve again. `--upgrade` takes newer releases; without it only what must change does."""
    extra = [argument for argument in sys.argv[1:] if argument == "--upgrade"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        tools = Path(folder, "bin")
        subprocess.run([str(tools / "python"), "-m", "pip", "install", "-q", RESOLVER], check=True)
        compile_ = [
            *[str(tools / "uv"), "pip", "compile", "--quiet", "--no-config", "--universal"],
            *["--python-version", "3.11", "--generate-hashes"],
            *["--custom-compile-command", "make lock", *extra],
        ]
        everything = ["--extra", "all", "--extra", "dev", "pyproject.toml"]
        subprocess.run([*compile_, *everything, "-o", "requirements.lock"], check=True, cwd=ROOT)
        subprocess.run(
            [*compile_, "-", "-o", "requirements-pip.lock"],
            check=True,
            cwd=ROOT,
            input=b"pip",
        )


if __name__ == "__main__":
    main()
