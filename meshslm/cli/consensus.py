"""`meshslm mesh consensus`: who decides what there must be one of, and what is decided."""

from __future__ import annotations

import click

from meshslm.cli.failures import fail
from meshslm.cli.reach import open_client, short_node, url_option
from meshslm.cli.screen import harmless, json_option, print_fields, print_json, print_table


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
        columns = ("kind", "subject", "value", "amount", "held by")
        print_table(
            columns,
            [
                (
                    one.kind,
                    harmless(one.subject),
                    harmless(one.value) or "-",
                    str(one.amount or "-"),
                    ", ".join(f"{share.holder}: {share.amount}" for share in one.shares) or "-",
                )
                for one in decided
            ],
            right=("amount",),
        )
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
