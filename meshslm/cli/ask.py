"""`meshslm ask`: one question, one streamed answer."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, cast

import click

from meshslm.cli.answers import answer_fields, show_stream, tell_answered, write_text
from meshslm.cli.failures import fail
from meshslm.cli.reach import model_option, open_client, strategy_option, url_option
from meshslm.cli.screen import json_option, print_json

if TYPE_CHECKING:
    from meshslm.client import Options


@click.command()
@click.argument("text", nargs=-1, required=True)
@model_option
@url_option
@click.option("--system", metavar="TEXT", help="System message, instead of the profile's.")
@click.option("--max-tokens", type=click.IntRange(1), help="Longest answer, in tokens.")
@click.option("--temperature", type=click.FloatRange(0), help="0 takes the likeliest token.")
@click.option("--seed", type=int, help="The same seed draws the same tokens.")
@strategy_option
@click.option("--private", is_flag=True, help="The prompt is not to leave the mesh.")
@click.option(
    "--cascade", is_flag=True, help="Let a small model try first, and a larger one if need be."
)
@click.option("--no-stream", is_flag=True, help="Show the answer when it is whole.")
@json_option
def ask(
    text: tuple[str, ...],
    model: str,
    url: str | None,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    seed: int | None,
    strategy: str | None,
    private: bool,
    cascade: bool,
    no_stream: bool,
    as_json: bool,
) -> None:
    """Ask the mesh one thing and stream the answer.

    TEXT is the question, or '-' to read it from stdin. The answer goes to stdout; who answered,
    why, and how fast goes to stderr. Ctrl-C stops the generation wherever it runs.
    """
    prompt = _from_stdin() if text == ("-",) else " ".join(text)
    if not prompt.strip():
        raise click.UsageError("the question is empty")
    routing = _said(strategy=strategy, private=private or None, cascade=cascade or None)
    options = cast(
        "Options",
        _said(
            system=system,
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
            routing=routing or None,
        ),
    )
    with open_client(url) as client:
        if as_json or no_stream:
            answer = client.ask(prompt, model=model, **options)
        else:
            with client.stream(prompt, model=model, **options) as stream:
                answer = show_stream(stream, write_text).answer
    if as_json:
        print_json(answer_fields(answer))
        return
    if no_stream:
        write_text(answer.text)
    click.echo()
    tell_answered(answer)


def _said(**options: object) -> dict[str, object]:
    """Options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def _from_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        fail(f"stdin is not UTF-8 text (byte {error.start})")
