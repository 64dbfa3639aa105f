"""`meshslm doctor net`: how a running node reaches others and is reached, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from meshslm.cli.effective import load_effective, setting_options
from meshslm.cli.failures import DONE, FAILED
from meshslm.cli.reach import gateway_url
from meshslm.cli.screen import duration_text, json_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshslm.api.admin import PeerInfo, StatusReply
    from meshslm.cli.doctor_checks import Finding
    from meshslm.settings import Settings

OPEN_UP = (
    "set link.listen to /ip4/0.0.0.0/tcp/PORT, in a private mesh (meshslm mesh create) or with "
    "link.open = true"
)


@click.command()
@setting_options
@json_option
def net(as_json: bool, **options: Any) -> int:
    """Explain how this node reaches others and is reached.

    Asks the running node where it listens, where members see it come from, whether they could dial
    it there, which relays it uses and whether it relays for others, and how bootstrap addresses
    stand. Ends with 1 where something keeps it from the mesh.
    """
    from meshslm.cli.doctor import report
    from meshslm.cli.doctor_checks import Verdict

    settings = load_effective(**options).settings
    verdict = report(examine_net(settings), as_json=as_json)
    return FAILED if verdict is Verdict.FAIL else DONE


def examine_net(settings: Settings) -> Iterator[Finding]:
    """Every finding, from this machine outwards."""
    from meshslm.cli.doctor import check_bootstrap
    from meshslm.cli.doctor_checks import Finding, Verdict
    from meshslm.client import Client
    from meshslm.errors import MeshslmError

    url = gateway_url(settings)
    try:
        with Client(url) as client:
            status, peers = client.status(), client.peers()
    except MeshslmError as error:
        advice = "start one with 'meshslm up': only a running node knows how it is reached"
        yield Finding("node", Verdict.FAIL, f"none answers at {url}: {error}", advice)
        return
    names = {peer.node: peer.name or peer.node for peer in peers}
    yield _listening(status)
    yield from check_bootstrap(url)
    yield _members(settings, status, peers)
    yield from _dht(status)
    yield from _seen(status, names)
    yield _verdict(settings, status)
    yield from _relays(settings, status, names)


def _listening(status: StatusReply) -> Finding:
    from meshslm.cli.doctor_checks import Finding, Verdict

    direct = [a.partition("/p2p/")[0] for a in status.addresses if "/p2p-circuit" not in a]
    told = ", ".join(direct) or "nowhere"
    if all(address.startswith(("/ip4/127.", "/ip6/::1/")) for address in direct):
        return Finding("listening", Verdict.WARN, f"{told}: for this machine alone", OPEN_UP)
    return Finding("listening", Verdict.OK, told)


def _members(settings: Settings, status: StatusReply, peers: list[PeerInfo]) -> Finding:
    from meshslm.cli.doctor_checks import Finding, Verdict

    mdns = "on" if settings.link.mdns else "off"
    relayed = len(status.reach.relayed)
    told = f"{status.peers_alive} linked, {relayed} of them through relays; mDNS is {mdns}"
    if status.peers_alive:
        return Finding("members", Verdict.OK, told)
    lost = [peer for peer in peers if peer.state == "unreachable"]
    if lost:
        told += f"; {len(lost)} known and not reached"
    advice = "give the address of a member with --bootstrap, or turn on link.mdns on a LAN"
    return Finding("members", Verdict.WARN, told, advice)


def _dht(status: StatusReply) -> Iterator[Finding]:
    from meshslm.cli.dials import dht_text
    from meshslm.cli.doctor_checks import Finding, Verdict

    dht = status.dht
    if dht is None:
        return
    if dht.age_ms is not None and not dht.answered:
        advice = "check the addresses in link.dht: TCP, ending in the server's Ed25519 id"
        yield Finding("dht", Verdict.WARN, dht_text(dht), advice)
    elif dht.answered and not dht.kept:
        advice = "this node finds others; it is not found until a server can dial where it listens"
        yield Finding("dht", Verdict.OK, dht_text(dht), advice)
    else:
        yield Finding("dht", Verdict.OK, dht_text(dht))


def _seen(status: StatusReply, names: dict[str, str]) -> Iterator[Finding]:
    """What each member knows of how this node is reached."""
    from meshslm.cli.doctor_checks import Finding, Verdict

    for witness in status.reach.witnesses:
        who = names.get(witness.node, witness.node)
        where = f"sees this node at {witness.seen}" if witness.seen else "is linked"
        told = {
            "reached": f"{who} {where}, and has dialled it",
            "failed": f"{who} {where}, and could not dial it at {witness.address}",
            "asked": f"{who} {where}, and has said no more: {witness.detail or 'no answer yet'}",
        }.get(witness.outcome, f"{who} {where}")
        bad = witness.outcome == "failed"
        detail = f"{told}: {witness.detail}" if bad and witness.detail else told
        yield Finding("seen", Verdict.WARN if bad else Verdict.OK, detail)


def _verdict(settings: Settings, status: StatusReply) -> Finding:
    from meshslm.cli.doctor_checks import Finding, Verdict

    reach = status.reach
    told = f"{reach.state}: {reach.reason}"
    if not settings.link.reach:
        return Finding("reachable", Verdict.WARN, told, "turn link.reach on to find out")
    if reach.state == "private" and not any(relay.used for relay in reach.relays):
        advice = (
            "forward the link's port on the router to this machine, or let a member that others "
            "can dial relay (link.relay = 'on' there)"
        )
        return Finding("reachable", Verdict.WARN, told, advice)
    if reach.state == "unknown":
        advice = "it is found out when a member on another machine is linked"
        return Finding("reachable", Verdict.OK, told, advice)
    return Finding("reachable", Verdict.OK, told)


def _relays(settings: Settings, status: StatusReply, names: dict[str, str]) -> Iterator[Finding]:
    from meshslm.cli.doctor_checks import Finding, Verdict

    for relay in status.reach.relays:
        who, ago = names.get(relay.node, relay.node), duration_text(relay.age_ms)
        if relay.used:
            yield Finding("relay", Verdict.OK, f"called through {who}, reserved {ago} ago")
        else:
            detail = f"{who} would not relay {ago} ago: {relay.reason}"
            yield Finding("relay", Verdict.WARN, detail)
    for node in status.reach.relayed:
        advice = "a direct link is tried for by itself; both NATs may be too strict for one"
        detail = f"linked to {names.get(node, node)} through a relay"
        yield Finding("relayed", Verdict.OK, detail, advice)
    offered = "relays for members" if status.reach.offers_relay else "does not relay for members"
    yield Finding("relaying", Verdict.OK, f"{offered} (link.relay = {settings.link.relay!r})")
