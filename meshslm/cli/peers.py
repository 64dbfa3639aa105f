"""`meshslm peers`: the nodes that a node knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from meshslm.cli.dials import print_dials
from meshslm.cli.reach import open_client, short_node, url_option
from meshslm.cli.screen import duration_text, json_option, print_json, print_table

if TYPE_CHECKING:
    from meshslm.api.admin import BanInfo, PeerInfo
    from meshslm.api.registry import MemberInfo


@click.command()
@url_option
@click.option("--banned", is_flag=True, help="Show whom this node keeps away, why, and how long.")
@click.option(
    "--all",
    "away",
    is_flag=True,
    help="Show members that are away, too, for a week; with --json the registry alone.",
)
@json_option
def peers(url: str | None, banned: bool, away: bool, as_json: bool) -> None:
    """Show the nodes that a node knows, what they host and how busy they are.

    Bootstrap addresses at which nobody answers follow, with the reason and the next attempt.
    """
    with open_client(url) as client:
        told = client.status()
        known = [] if banned else client.peers()
        members = client.registry() if away else []
    if as_json:
        from msgspec import to_builtins

        print_json(to_builtins(told.banned if banned else members if away else known))
        return
    if banned:
        _print_banned(told.banned)
        return
    columns = ("name", "state", "node", "hosts", "running", "tokens/s", "round trip", "heard")
    listed = {peer.node for peer in known}
    rows = [_row(peer) for peer in known]
    rows += [_away_row(m) for m in members if not m.there and m.node not in listed]
    print_table(columns, rows, right=("running", "tokens/s", "round trip", "heard"))
    missing = [dial for dial in told.bootstrap if dial.state != "linked"]
    if missing:
        click.echo()
        print_dials(missing)


def _print_banned(banned: list[BanInfo]) -> None:
    if not banned:
        click.echo("nobody is banned")
        return
    rows = [(ban.node, duration_text(ban.left_ms), ban.strikes, ban.reason) for ban in banned]
    print_table(("node", "for", "strikes", "reason"), rows, right=("for", "strikes"))


def _away_row(member: MemberInfo) -> tuple[str, ...]:
    hosts = ", ".join(f"{h.profile} ({', '.join(h.domains) or 'any'})" for h in member.hosts)
    heard = f"{duration_text(member.seen_ms)} ago"
    return (member.name, "away", short_node(member.node), hosts or "-", "-", "-", "-", heard)


def _row(peer: PeerInfo) -> tuple[str, ...]:
    hosts = ", ".join(
        f"{s.profile} ({', '.join(card.domain for card in s.domains) or 'any'})"
        for s in peer.specialists
    )
    running = sum(load.running for load in peer.loads)
    slots = running + sum(load.free_slots for load in peer.loads)
    speeds = [f"{load.decode_tps:.0f}" for load in peer.loads if load.decode_tps]
    return (
        peer.name,
        peer.state,
        short_node(peer.node),
        hosts or "-",
        f"{running} of {slots}" if peer.loads else "-",
        ", ".join(speeds) or "-",
        duration_text(peer.rtt_ms),
        "-" if peer.heard_ms is None else f"{duration_text(peer.heard_ms)} ago",
    )
