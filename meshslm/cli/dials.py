"""How the addresses stand at which a node looks for members, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshslm.cli.screen import duration_text, print_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshslm.api.admin import DhtInfo, DialInfo


def dial_text(dial: DialInfo) -> str:
    """When an address was tried last, what came of it, and when it is tried again."""
    if dial.state == "linked":
        return "linked"
    last = f"tried {duration_text(dial.last_ms)} ago" if dial.last_ms is not None else "not tried"
    parts = [last, dial.reason, f"{dial.attempts} rounds in vain" if dial.attempts else ""]
    if dial.next_ms is not None:
        parts.append(f"next try in {duration_text(dial.next_ms)}")
    elif dial.state == "dialling":
        parts.append("trying now")
    return ", ".join(part for part in parts if part)


def print_dials(dials: Iterable[DialInfo]) -> None:
    """Print a table of bootstrap addresses."""
    print_table(("bootstrap", ""), [(dial.address, dial_text(dial)) for dial in dials])


def dht_text(dht: DhtInfo) -> str:
    """What the last round of looking for members through a DHT came to."""
    if dht.age_ms is None:
        return "the first round is under way"
    ago = f"{duration_text(dht.age_ms)} ago"
    if not dht.answered:
        return f"no server answered {ago}: {dht.reason}"
    answered = f"{dht.answered} servers answered {ago}"
    return f"{answered}, {dht.found} addresses found, {dht.kept} keep this node's"
