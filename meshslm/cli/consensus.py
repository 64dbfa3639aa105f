"""`meshslm mesh consensus` and `decide`: who decides what there must be one of, and deciding it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from meshslm.api.acts import ACTS
from meshslm.cli.failures import fail
from meshslm.cli.reach import open_client, short_node, url_option
from meshslm.cli.screen import harmless, json_option, print_fields, print_json, print_table

if TYPE_CHECKING:
    from meshslm.client import DecisionInfo


@click.command()
@url_option
@click.option("--found", is_flag=True, help="Begin a group at this node. Do it at one node only.")
@click.option("--decisions", is_flag=True, help="Show what is decided, as of now.")
@json_option
def consensus(url: str | None, *, found: bool, decisions: bool, as_json: bool) -> None:
    """Show the coordinators that decide rollouts, strict quotas and revocations.

    Any majority of the voters decides. Without one, nothing of that kind can be decided, and
    requests are answered all the same; the exit code is 1 then.
    """
    from msgspec import to_builtins

    with open_client(url) as client:
        if found:
            client.seat("found")
        view = client.consensus()
        decided = client.decisions() if decisions else []
    if as_json:
        print_json(to_builtins(decided if decisions else view))
    elif decisions:
        _print_decisions(decided)
    else:
        print_fields(
            [
                ("group", view.group or "none: this node is in no group"),
                ("this node", view.role),
                ("leader", short_node(view.leader) if view.leader else "none is known"),
                ("term", view.term),
                ("voters", ", ".join(short_node(s.node) for s in view.seats if s.votes) or "-"),
                ("learners", ", ".join(short_node(s.node) for s in view.seats if not s.votes)),
                ("committed", f"{view.committed} of {view.last} entries"),
                ("decided", f"{view.decisions} things"),
            ]
        )
    if view.trouble:
        fail(view.trouble)


DECIDE = """Have the coordinators decide something that there must be one of.

\b
ACT            SUBJECT     what it does
rollout.begin  a model     makes --value its one active rollout
rollout.end    a model     ends it; with --value only if it is that one
quota.set      any name    there is --amount of it, and never less than is granted
quota.grant    the same    gives --holder --amount of it, if so much is left
quota.release  the same    takes so much back
revoke         any name    it stays revoked; --value says why
generation     a document  begins the next one; 'state forget' does it for you

What is decided holds for the whole mesh, and stays. The exit code is 1 where it was refused, or
where no majority of the coordinators is there. If it says that it may still be decided, look with
'meshslm mesh consensus --decisions' before you repeat a grant.
"""


@click.command(help=DECIDE)
@click.argument("act", type=click.Choice(ACTS), metavar="ACT")
@click.argument("subject")
@click.option("--value", metavar="TEXT", help="A rollout's plan, or why something is revoked.")
@click.option("--holder", metavar="WHO", help="Who gets or gives back some of a quota.")
@click.option(
    "--amount", type=click.IntRange(0, 2**53), help="Of a quota: all there is, or this grant."
)
@click.option(
    "--expected",
    type=click.IntRange(0, 2**53),
    help="The present generation of a document; 0 at first.",
)
@url_option
@json_option
def decide(url: str | None, act: str, subject: str, *, as_json: bool, **fields: object) -> None:
    """Propose a command, and show what is decided about its subject then."""
    from msgspec import to_builtins

    given = {name: value for name, value in fields.items() if value is not None}
    with open_client(url) as client:
        made = client.decide(act, subject, **given)
        kind = {"revoke": "revoked"}.get(act, act.partition(".")[0])
        now = client.decisions(kind, subject)
    if as_json:
        print_json({"index": made.index, "decisions": to_builtins(now)})
    elif now:
        _print_decisions(now)
    else:
        click.echo(f"decided; nothing is active for {harmless(subject)} now")


def _print_decisions(decided: list[DecisionInfo]) -> None:
    print_table(
        ("kind", "subject", "value", "amount", "held by"),
        [
            (
                one.kind,
                harmless(one.subject),
                harmless(one.value) or "-",
                str(one.amount or "-"),
                ", ".join(f"{harmless(s.holder)}: {s.amount}" for s in one.shares) or "-",
            )
            for one in decided
        ],
        right=("amount",),
    )
