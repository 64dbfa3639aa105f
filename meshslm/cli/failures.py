"""How a command ends when it cannot do what it was asked: one form for every command.

    meshslm: error: what was wrong
    hint: what to do about it

Rules:
- An error that this program raises on purpose is shown without a traceback; its notes
  (`add_note`) are its hints.
- Anything else is a bug, says so in one line, and shows its traceback only with `--debug`.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from itertools import takewhile
from typing import Final, NoReturn

import click

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
BUG: Final = 70
"""EX_SOFTWARE of sysexits.h."""
INTERRUPTED: Final = 130
"""What shells report of a command ended by Ctrl-C: 128 + SIGINT."""


def run_command(command: click.Command, argv: Sequence[str] | None) -> int:
    """Run `command` and return its exit code; every failure is told on stderr."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in takewhile(lambda argument: argument.startswith("-"), arguments)
    try:
        code = command.main(arguments, prog_name="meshslm", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except BaseException as failure:  # noqa: BLE001 - the last handler: every end has a code
        return tell_failure(failure, debug=debug)


def tell_failure(failure: BaseException, *, debug: bool) -> int:
    """Say on stderr what went wrong, and return the exit code that goes with it."""
    from meshslm.errors import MeshslmError

    while isinstance(failure, BaseExceptionGroup) and len(failure.exceptions) == 1:
        failure = failure.exceptions[0]  # a task group wraps even the one thing that went wrong
    if isinstance(failure, SystemExit):
        return failure.code if isinstance(failure.code, int) else FAILED
    if isinstance(failure, click.exceptions.Exit):
        return failure.exit_code
    if isinstance(failure, (KeyboardInterrupt, click.Abort)):
        return INTERRUPTED
    if isinstance(failure, BrokenPipeError):
        return _reader_gone()
    if isinstance(failure, click.exceptions.NoArgsIsHelpError):
        click.echo(failure.format_message(), err=True)
        return USAGE
    if debug and not isinstance(failure, click.ClickException):
        traceback.print_exception(failure)
    if isinstance(failure, click.UsageError):
        where = failure.ctx.command_path if failure.ctx is not None else "meshslm"
        _say(failure.format_message(), [f"see '{where} --help'"])
        return USAGE
    if isinstance(failure, click.ClickException):
        _say(failure.format_message(), [])
        return FAILED
    if isinstance(failure, MeshslmError):
        _say(str(failure), getattr(failure, "__notes__", []))
        return FAILED
    kind = type(failure).__name__
    _say(
        f"this is a bug in meshslm ({kind}: {failure})",
        [] if debug else ["run it again as 'meshslm --debug ...' for the traceback to report"],
    )
    return BUG


def fail(message: str, *hints: str) -> NoReturn:
    """End the command as one that could not be done."""
    from meshslm.errors import OurFault

    fault = OurFault(message)
    for hint in hints:
        fault.add_note(hint)
    raise fault


def _say(message: str, hints: Sequence[str]) -> None:
    from meshslm.cli.screen import harmless

    click.echo(f"meshslm: error: {harmless(message)}", err=True)
    for hint in hints:
        click.echo(f"hint: {harmless(hint)}", err=True)


def _reader_gone() -> int:
    """Whoever read our stdout (`| head`) closed it: end quietly, as other programs do."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, sys.stdout.fileno())
    return FAILED
