"""`meshslm chat`: a conversation, kept in memory and nowhere else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click

from meshslm.cli.answers import show_stream, tell_answered, write_text
from meshslm.cli.reach import model_option, open_client, url_option
from meshslm.cli.screen import harmless

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshslm.client import Client, Message, Model

HELP: Final = """\
/model NAME   ask NAME from now on: auto, domain:NAME, a model, a profile, each with @NODE
/reset        forget the conversation
/quit         leave (Ctrl-D too); Ctrl-C stops an answer"""


@click.command()
@model_option
@click.option("--system", metavar="TEXT", help="System message, instead of the profile's.")
@url_option
def chat(model: str, system: str | None, url: str | None) -> None:
    """Talk with the mesh, turn by turn.

    The conversation is kept in memory and sent along with every turn. Commands: /model NAME,
    /reset, /help, /quit. Ctrl-C stops an answer, Ctrl-D leaves.
    """
    with open_client(url) as client:
        client.status()  # tells of an unreachable node before anything is typed
        if sys.stdin.isatty():
            import readline  # noqa: F401 - gives `input` a history and line editing

            click.echo(f"talking with {model}; /help lists the commands", err=True)
        Conversation(client, model, system).run()


class Conversation:
    """Turns so far, and the loop that adds to them."""

    def __init__(self, client: Client, model: str, system: str | None) -> None:
        self._client = client
        self._model = model
        self._system: list[Message] = (
            [{"role": "system", "content": system}] if system is not None else []
        )
        self._turns: list[Message] = []

    def run(self) -> None:
        """Read lines until the end of input or /quit."""
        while True:
            try:
                line = input("> " if sys.stdin.isatty() else "").strip()
            except EOFError:
                if sys.stdin.isatty():
                    click.echo()
                return
            except KeyboardInterrupt:
                click.echo()
                continue
            if line == "/quit":
                return
            if line.startswith("/"):
                self._command(line)
            elif line:
                self._turn(line)

    def _command(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        if name == "/model" and rest.strip():
            self._choose(rest.strip())
        elif name == "/model":
            click.echo(f"asking {self._model}", err=True)
        elif name == "/reset":
            self._turns.clear()
            click.echo("the conversation is forgotten", err=True)
        elif name == "/help":
            click.echo(HELP, err=True)
        else:
            click.echo(f"there is no command {name}\n{HELP}", err=True)

    def _choose(self, name: str) -> None:
        """Ask another model, if somebody would answer for it now."""
        from meshslm.errors import MeshslmError

        try:
            problem = unanswered(name, self._client.models())
        except MeshslmError as error:
            problem = str(error)
        if problem:
            click.echo(f"meshslm: error: {harmless(problem)}", err=True)
            click.echo(f"still asking {self._model}", err=True)
            return
        self._model = name
        click.echo(f"asking {self._model} from now on", err=True)

    def _turn(self, line: str) -> None:
        from meshslm.errors import MeshslmError

        asked: Message = {"role": "user", "content": line}
        pieces: list[str] = []

        def write(piece: str) -> None:
            pieces.append(piece)
            write_text(piece)

        answer = None
        try:
            conversation = [*self._system, *self._turns, asked]
            with self._client.stream(conversation, model=self._model) as stream:
                answer = show_stream(stream, write).answer
        except KeyboardInterrupt:
            click.echo(" [stopped]", err=True)
        except MeshslmError as error:
            if pieces:
                click.echo()
            click.echo(f"meshslm: error: {harmless(str(error))}", err=True)
        if pieces:
            # A broken answer was read too: what follows may refer to it.
            self._turns += [asked, {"role": "assistant", "content": "".join(pieces)}]
        if answer is not None:
            click.echo()
            tell_answered(answer)


def unanswered(name: str, models: Sequence[Model]) -> str:
    """Why nobody would answer for `name`, with what there is; empty where somebody would."""
    wanted, _, node = name.partition("@")
    model = next((model for model in models if model.id == wanted), None)
    if model is None:
        known = ", ".join(model.id for model in models)
        return f"nobody answers for '{wanted}'; there are: {known}"
    hosts = model.meshslm.hosts if model.meshslm else []
    if node and not any(node in (host.node, host.node_name) for host in hosts):
        known = ", ".join(host.node_name or host.node for host in hosts)
        return f"'{node}' does not answer for '{wanted}'; who does: {known or 'nobody'}"
    return ""
