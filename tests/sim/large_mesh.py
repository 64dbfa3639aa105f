"""What tests of a mesh beyond a link between every two look at."""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

from meshslm.core.events import Event, Send
from meshslm.core.growth import Growth
from meshslm.core.node import NodeCore
from meshslm.ids import Instant
from meshslm.sim.node import SimNode
from meshslm.wire.codec import decode


class Chatty(NodeCore):
    """Counts the kinds of what it sends."""

    kinds: ClassVar[Counter[str]] = Counter()

    def handle(self, event: Event, now: Instant) -> list[Any]:
        effects = super().handle(event, now)
        Chatty.kinds.update(
            type(decode(effect.message)).__name__ for effect in effects if isinstance(effect, Send)
        )
        return effects


def growth(node: SimNode) -> Growth:
    core = node.core
    assert isinstance(core, NodeCore)
    return core.growth
