"""The command line: `meshslm up`, `ask`, `models`, `demo` and the rest.

It starts fast, because `--help` and completion run in a shell's rhythm.

Rules:
- Nothing heavy is imported before a command needs it: no trio, libp2p, httpx, rich or msgspec at
  the top of a module here. A test counts what `--help` imports.
- Answers go to stdout, everything about them to stderr, so that output can be piped.
- Exit codes: 0 done, 1 it could not be done, 2 wrong usage, 70 a bug, 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (`sys.argv` by default) and return its exit code."""
    from meshslm.cli.failures import run_command
    from meshslm.cli.root import root

    return run_command(root, argv)
