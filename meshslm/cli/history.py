"""`meshslm tasks`, `task` and `usage`: what became of requests, and what they used."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import click

from meshslm.cli.reach import open_client, short_node, url_option
from meshslm.cli.screen import duration_text, harmless, json_option, print_json, print_table

if TYPE_CHECKING:
    from meshslm.client import TaskHistory, TaskStep, UsageRow

STATES = ("admitted", "routed", "moved", "continued", "finished", "failed", "dropped")
SUMS = ("requests", "failed", "prompt_tokens", "completion_tokens", "cached_tokens", "ms")
BY = ("day", "tenant", "model", "node")


@click.command()
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Show so many."
)
@click.option("--state", type=click.Choice(STATES), help="Only those of this state.")
@click.option("--mesh", is_flag=True, help="Ask every member that the node is linked to.")
@url_option
@json_option
def tasks(url: str | None, *, limit: int, state: str | None, mesh: bool, as_json: bool) -> None:
    """Show the newest tasks that entered at a node, or anywhere in its mesh.

    `meshslm task ID` shows what became of one, step by step. Journals are kept for seven days.
    """
    with open_client(url) as client:
        found = client.tasks(limit=limit, state=state or "", mesh=mesh)
    if as_json:
        from msgspec import to_builtins

        print_json(to_builtins(found))
        return
    last = ("entered at",) if mesh else ()
    columns = ("task", "at", "asked for", "state", "answered by", "tokens", "took", *last)
    rows = [(*_row(one), *((short_node(one.node),) if mesh else ())) for one in found]
    print_table(columns, rows, right=("tokens", "took"))


@click.command()
@click.argument("name", metavar="ID")
@url_option
@json_option
def task(url: str | None, name: str, *, as_json: bool) -> None:
    """Show what became of one task, step by step, wherever in the mesh it entered.

    ID is as `meshslm tasks` shows it, or the id of an answer (`chatcmpl-...`).
    """
    with open_client(url) as client:
        found = client.task(name.rpartition("-")[2])
    if as_json:
        from msgspec import to_builtins

        print_json(to_builtins(found))
        return
    first = found.events[0].at_ms
    rows = ((duration_text(step.at_ms - first), step.kind, _told(step)) for step in found.events)
    print_table(("after", "event", ""), rows, right=("after",))
    if found.events[0].text:
        click.echo()
        click.echo(harmless(found.events[0].text))


@click.command()
@click.option(
    "--days", type=click.IntRange(1, 366), default=1, show_default=True, help="Today, and before."
)
@click.option(
    "--by",
    type=click.Choice(BY),
    multiple=True,
    default=("day", "tenant", "model"),
    show_default=True,
    help="Add up by these; may be given several times.",
)
@url_option
@json_option
def usage(url: str | None, *, days: int, by: tuple[str, ...], as_json: bool) -> None:
    """Show what the mesh was used for: requests, tokens and time.

    Every node counts what enters at it, and the sums of all nodes are shown as far as they have
    come to this one. Tenants are hashes of the names that requests gave in `user`.
    """
    with open_client(url) as client:
        rows = client.usage(days=days)
    if as_json:
        from msgspec import to_builtins

        print_json(to_builtins(rows))
        return
    if not rows:
        click.echo(f"nothing was counted in {days} days" if days > 1 else "nothing today yet")
        return
    columns = (*by, "requests", "failed", "prompt", "answer", "reused", "time")
    print_table(columns, _summed(rows, by), right=columns[len(by) :])


def _summed(rows: list[UsageRow], by: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    sums: dict[tuple[str, ...], list[int]] = {}
    for row in rows:
        key = tuple(_named(name, getattr(row, name)) for name in by)
        known = sums.setdefault(key, [0] * len(SUMS))
        for place, name in enumerate(SUMS):
            known[place] += getattr(row, name)
    for key, known in sorted(sums.items()):
        yield (*key, *(f"{count:,}" for count in known[:-1]), duration_text(known[-1]))


def _named(name: str, value: str) -> str:
    if name == "tenant":
        return value[:12] or "nobody named"
    if name == "node":
        return short_node(value)
    return harmless(value) or "none"


def _row(found: TaskHistory) -> tuple[str, ...]:
    first, last = found.events[0], found.events[-1]
    answered = next((e for e in reversed(found.events) if e.node), None)
    over = found.state in ("finished", "failed", "dropped")
    return (
        found.task,
        datetime.fromtimestamp(first.at_ms / 1000).astimezone().strftime("%m-%d %H:%M:%S"),
        harmless(first.selector),
        last.code or found.state,
        harmless(f"{answered.profile} at {answered.node_name}") if answered else "",
        str(last.completion_tokens) if found.state == "finished" else "",
        duration_text(last.at_ms - first.at_ms) if over else "",
    )


def _told(step: TaskStep) -> str:
    if step.kind == "admitted":
        return harmless(f"{step.operation or 'generate'} asked of {step.selector}")
    if step.node:
        where = f"{step.profile} at {step.node_name} ({short_node(step.node)})"
        return harmless(f"{where}, attempt {step.attempt}: {step.reason}")
    if step.kind == "finished":
        return (
            f"{step.prompt_tokens} prompt tokens ({step.cached_tokens} known before), "
            f"{step.completion_tokens} of the answer"
        )
    return harmless(f"{step.code} {step.reason}".strip())
