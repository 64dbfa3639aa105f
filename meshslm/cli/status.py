"""`meshslm status`: how a node is doing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from meshslm.cli.dials import dht_text, print_dials
from meshslm.cli.reach import open_client, url_option
from meshslm.cli.screen import (
    bytes_text,
    duration_text,
    json_option,
    print_fields,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from meshslm.api.admin import StateInfo, StatusReply

RESIDENT = ("loading", "ready", "draining", "restarting", "unloading")
"""States of a model in which it takes memory."""


@click.command()
@url_option
@json_option
def status(url: str | None, as_json: bool) -> None:
    """Show how a node is doing: identity, uptime, tasks, engines."""
    with open_client(url) as client:
        told = client.status()
    if as_json:
        from msgspec import to_builtins

        print_json(to_builtins(told))
        return
    print_fields(_fields(told))
    if told.bootstrap:
        click.echo()
        print_dials(told.bootstrap)
    if told.loads:
        click.echo()
        print_table(
            ("engine", "state", "running", "queued", "free slots", "prefill/s", "tokens/s"),
            [
                (
                    load.model,
                    "ready" if load.ready else "not ready",
                    load.running,
                    load.queued,
                    load.free_slots,
                    f"{load.prefill_tps:.0f}" if load.prefill_tps else "-",
                    f"{load.decode_tps:.0f}" if load.decode_tps else "-",
                )
                for load in told.loads
            ],
            right=("running", "queued", "free slots", "prefill/s", "tokens/s"),
        )
    if told.models:
        click.echo()
        print_table(
            ("model", "state", "memory", "", ""),
            [
                (
                    model.model,
                    f"{model.state} {model.loaded:.0%}"
                    if model.state == "loading"
                    else model.state,
                    f"{model.need_mib} MiB",
                    "pinned" if model.pinned else "",
                    model.reason,
                )
                for model in told.models
            ],
            right=("memory",),
        )


def _fields(told: StatusReply) -> list[tuple[str, object]]:
    tasks = told.tasks
    leaving = told.leaving or told.drain is not None
    return [
        ("name", told.name),
        ("node", told.node),
        ("mesh", f"{told.mesh}{' (leaving)' if leaving else ''}"),
        ("version", told.version),
        ("up", f"{duration_text(told.uptime_ms)}, boot {told.boot}"),
        ("listens", ", ".join(told.addresses) or "nowhere"),
        ("peers", f"{told.peers_alive} alive{_banned_text(told)}"),
        (
            "tasks",
            (
                f"{tasks.active} active; {tasks.arrived} arrived, {tasks.finished} finished, "
                f"{tasks.failed} failed, {tasks.cancelled} cancelled, {tasks.retried} retries, "
                f"{tasks.continued} of them in mid-answer"
            ),
        ),
        ("runs", f"{tasks.served} served, {tasks.refused} refused"),
        ("memory", _memory_text(told)),
        *([("documents", _documents_text(told.state))] if told.state is not None else []),
        *([("dht", dht_text(told.dht))] if told.dht is not None else []),
    ]


def _documents_text(state: StateInfo) -> str:
    sizes = f"{bytes_text(state.live_bytes)} live, {bytes_text(state.full_bytes)} stored"
    text = f"{state.count} shared, {sizes}"
    if state.quarantined:
        text += f"; {state.quarantined} IN QUARANTINE (meshslm state verify)"
    if state.trouble:
        text += f"; NOTHING CAN BE STORED: {state.trouble}"
    return text if state.ready else "not open yet"


def _banned_text(told: StatusReply) -> str:
    return f", {len(told.banned)} banned (meshslm peers --banned)" if told.banned else ""


def _memory_text(told: StatusReply) -> str:
    taken = sum(m.need_mib for m in told.models if m.state in RESIDENT)
    bound = f" of {told.memory_budget_mib} MiB" if told.memory_budget_mib else ""
    return f"{taken} MiB{bound} for models, by estimate"
