"""The command itself: help without weight, version, and one form of failure for all commands."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
import pytest

from meshslm import __version__
from meshslm.cli.failures import run_command
from meshslm.cli.root import COMMANDS, root
from meshslm.errors import FaultCode, OurFault, RequestFault

if TYPE_CHECKING:
    from tests.cli.conftest import Run

HEAVY = {
    "cryptography",
    "httpx",
    "hypercorn",
    "libp2p",
    "llama_cpp",
    "msgpack",
    "msgspec",
    "numpy",
    "prometheus_client",
    "psutil",
    "rich",
    "starlette",
    "trio",
    "zeroconf",
}
BUDGET = 180
"""Modules that a help screen may import in all: it was 127 when this was written, most of them
Python's own and click's. Every hundred costs about 30 ms."""


def walk(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        with click.Context(command) as ctx:
            for name in command.list_commands(ctx):
                child = command.get_command(ctx, name)
                assert child is not None
                yield from walk(child, (*path, name))


def imported_by(*words: str) -> set[str]:
    """Names of the modules in a fresh interpreter after running a command line."""
    script = (
        "import sys; from meshslm.cli import main; "
        f"code = main({list(words)!r}); "
        "print('\\n'.join(sys.modules), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stderr.split())


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("ask", "--help")])
def test_help_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    modules = imported_by(*words)
    assert not {module.partition(".")[0] for module in modules} & HEAVY
    assert len(modules) < BUDGET, sorted(modules)


def test_help_lists_every_command_with_its_own_summary(run: Run) -> None:
    shown = run("--help")
    assert shown.code == 0
    with click.Context(root) as ctx:
        for name, entry in COMMANDS.items():
            command = root.get_command(ctx, name)
            assert command is not None
            assert command.name == name
            assert command.get_short_help_str(limit=200) == entry.summary
            assert name in shown.out


def test_every_command_has_help(run: Run) -> None:
    for path in walk(root):
        shown = run(*path, "--help")
        assert shown.code == 0, path
        assert shown.out.startswith("Usage: meshslm"), path
        assert run(*path, "-h").out == shown.out


def test_version(run: Run) -> None:
    assert run("--version").out == f"meshslm {__version__}\n"


def test_no_command_shows_help_and_is_wrong_usage(run: Run) -> None:
    shown = run()
    assert shown.code == 2
    assert shown.err.startswith("Usage: meshslm")


def test_a_typing_error_names_the_nearest_command(run: Run) -> None:
    shown = run("statsu")
    assert shown.code == 2
    assert shown.err == (
        "meshslm: error: no command 'statsu'; did you mean 'status'?\nhint: see 'meshslm --help'\n"
    )


def test_an_unknown_option_points_at_the_command_that_has_none(run: Run) -> None:
    shown = run("peers", "--colour")
    assert shown.code == 2
    assert "--colour" in shown.err
    assert "hint: see 'meshslm peers --help'" in shown.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_is_offered(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "meshslm"],
        env={"_MESHSLM_COMPLETE": f"{shell}_source", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "_MESHSLM_COMPLETE" in done.stdout


def command_that_raises(failure: BaseException) -> click.Command:
    @click.command()
    @click.option("--debug", is_flag=True)
    def command(debug: bool) -> None:
        raise failure

    return command


def noted(failure: Exception, note: str) -> Exception:
    failure.add_note(note)
    return failure


@pytest.mark.parametrize(
    ("failure", "code", "shown"),
    [
        (OurFault("disk full"), 1, "meshslm: error: disk full\n"),
        (noted(OurFault("no model"), "pull it"), 1, "meshslm: error: no model\nhint: pull it\n"),
        (
            ExceptionGroup("tasks", [ExceptionGroup("more", [OurFault("port in use")])]),
            1,
            "meshslm: error: port in use\n",
        ),
        (RequestFault(FaultCode.BAD_REQUEST, "no text"), 1, "meshslm: error: no text\n"),
        (OurFault("a\x1b[2Jb"), 1, "meshslm: error: a[2Jb\n"),
        (click.ClickException("no"), 1, "meshslm: error: no\n"),
        (KeyboardInterrupt(), 130, "\n"),
        (SystemExit(5), 5, ""),
    ],
)
def test_failures_have_one_form(
    failure: BaseException, code: int, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(command_that_raises(failure), []) == code
    assert capsys.readouterr().err == shown


def test_a_bug_shows_its_traceback_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    command = command_that_raises(ValueError("odd"))
    assert run_command(command, []) == 70
    plain = capsys.readouterr().err
    assert plain.startswith("meshslm: error: this is a bug in meshslm (ValueError: odd)\nhint: ")
    assert "Traceback" not in plain
    assert run_command(command, ["--debug"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_closes_the_pipe_is_no_error() -> None:
    line = f"{sys.executable} -m meshslm --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""


def test_without_the_extra_one_line_says_what_to_install() -> None:
    without = "import sys; sys.modules['click'] = None; from meshslm.cli import main; "
    done = subprocess.run(
        [sys.executable, "-c", f"{without}sys.exit(main(['status']))"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "pip install 'meshslm[node]'" in line
    assert "click is missing" in line
