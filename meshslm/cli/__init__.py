"""The command line: `meshslm up`, `ask`, `models`, `demo` and the rest.

It starts fast, because `--help` and completion run in a shell's rhythm.

Rules:
- Nothing heavy is imported before a command needs it: no trio, libp2p, httpx, rich or msgspec at
  the top of a module here. A test counts what `--help` imports.
- Answers go to stdout, everything about them to stderr, so that output can be piped.
- Exit codes: 0 done, 1 it could not be done, 2 wrong usage, 70 a bug, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (`sys.argv` by default) and return its exit code."""
    try:
        from meshslm.cli.failures import run_command
        from meshslm.cli.root import root
    except ModuleNotFoundError as missing:
        if (missing.name or "").startswith("meshslm"):
            raise
        # Without an extra only the client library is installed, but pip installs the program too.
        sys.stderr.write(
            f"meshslm: error: only its client library is installed here ({missing.name} is "
            "missing); for the program: pip install 'meshslm[node]', or 'meshslm[engine]' to host "
            "models\n"
        )
        return 1
    return run_command(root, argv)
