"""The client library imports without the daemon's weight."""

from __future__ import annotations

import subprocess
import sys

HEAVY = (
    "click",
    "cryptography",
    "hypercorn",
    "jinja2",
    "libp2p",
    "llama_cpp",
    "msgpack",
    "numpy",
    "pycrdt",
    "rich",
    "starlette",
    "trio",
    "zeroconf",
)

PROGRAM = """
import sys
{statement}
print(",".join(sorted(name for name in {heavy!r} if name in sys.modules)))
"""


def heavy_modules_after(statement: str) -> str:
    """Which of `HEAVY` a fresh interpreter has loaded after `statement`."""
    program = PROGRAM.format(statement=statement, heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_client_is_light() -> None:
    assert heavy_modules_after("import meshslm.client") == ""


def test_the_probe_sees_heavy_modules() -> None:
    assert heavy_modules_after("import msgpack, trio") == "msgpack,trio"
