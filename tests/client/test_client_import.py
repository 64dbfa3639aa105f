"""Importing the client is cheap: it waits for no HTTP library until one is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["httpx", "starlette", "trio", "rich", "prometheus_client"])
def test_importing_the_client_leaves_it_out(module: str) -> None:
    program = f"import sys, meshslm.client; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
