"""`meshslm route`: who would be asked, and why, without asking."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from meshslm.cli.reach import model_option, open_client, strategy_option, url_option
from meshslm.cli.screen import json_option, print_fields, print_json, print_table

if TYPE_CHECKING:
    from meshslm.api.routing import CandidateInfo, RouteReply
    from meshslm.client import RouteOptions

TERMS = (
    "network",
    "queue",
    "prefill",
    "decode",
    "load",
    "price",
    "power",
    "reliability",
    "trust",
    "sticky",
)


@click.command()
@click.argument("text", nargs=-1, required=True)
@model_option
@url_option
@strategy_option
@click.option("--max-tokens", type=click.IntRange(1), help="Longest answer, in tokens.")
@click.option("--private", is_flag=True, help="The prompt is not to leave the mesh.")
@json_option
def route(
    text: tuple[str, ...],
    model: str,
    url: str | None,
    strategy: str | None,
    max_tokens: int | None,
    private: bool,
    as_json: bool,
) -> None:
    """Show who would be asked TEXT, and why. Nothing is run.

    Each candidate is shown with what asking it is expected to cost, in milliseconds, or with what
    dropped it.
    """
    prompt = " ".join(text)
    if not prompt.strip():
        raise click.UsageError("the question is empty")
    options: RouteOptions = {}
    if strategy is not None:
        options["strategy"] = strategy
    if max_tokens is not None:
        options["max_tokens"] = max_tokens
    if private:
        options["private"] = True
    with open_client(url) as client:
        told = client.route(prompt, model=model, **options)
    if as_json:
        from msgspec import to_builtins

        print_json(to_builtins(told))
        return
    print_fields(_fields(told))
    if told.candidates:
        click.echo()
        print_table(
            ("rank", "node", "profile", "total", *TERMS, "dropped"),
            [_row(candidate) for candidate in told.candidates],
            right=("rank", "total", *TERMS),
        )


def _fields(told: RouteReply) -> list[tuple[str, object]]:
    who = f"{told.node_name} as {told.profile} ({told.model})" if told.node else "nobody"
    domains = ", ".join(f"{d.domain} {d.score:.2f}" for d in told.domains[:5])
    complexity = "" if told.complexity is None else f", complexity {told.complexity:.2f}"
    signs = ", ".join(f"{s.sign} {s.weight:.2f}" for s in told.signs)
    return [
        ("would ask", who),
        ("why", told.reason),
        ("strategy", f"{told.strategy}, tier {told.tier or 'edge'}{complexity}"),
        *([("because of", signs)] if signs else []),
        *([("domains", domains)] if domains else []),
    ]


def _row(candidate: CandidateInfo) -> tuple[object, ...]:
    cost = candidate.cost_ms
    if cost is None:
        blank = [""] * (1 + len(TERMS))
        return ("", candidate.node_name, candidate.profile, *blank, candidate.dropped)
    terms = [f"{getattr(cost, name):.0f}" for name in TERMS]
    total = f"{cost.total:.0f}"
    return (candidate.rank, candidate.node_name, candidate.profile, total, *terms, "")
