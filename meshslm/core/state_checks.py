"""Comparing everything with everybody on demand: `meshslm state verify`.

Rules:
- It asks and notes; what has to be fetched or mended follows from the digests as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from meshslm.core.events import Lane
from meshslm.core.outbox import Outbox
from meshslm.core.state_push import Partner
from meshslm.core.state_views import CheckView
from meshslm.ids import NodeId
from meshslm.state.document import Document
from meshslm.wire.state import DocumentDigest, StateCheck


class StateChecks:
    """The last comparison of everything, peer by peer."""

    def __init__(
        self,
        partners: Mapping[NodeId, Partner],
        out: Outbox,
        shared: Callable[[Partner], list[Document]],
    ) -> None:
        """`shared`: documents here that a peer wants, too."""
        self._partners = partners
        self._out = out
        self._shared = shared
        self._nonce = 0
        self._checks: dict[NodeId, CheckView] = {}

    def begin(self) -> None:
        """Ask all that are there now."""
        self._nonce += 1
        self._checks = {}
        for node, partner in self._partners.items():
            partner.digests = {}
            self._checks[node] = CheckView(node, "waiting", 0)
            self._out.send(node, Lane.BACKGROUND, StateCheck(self._nonce))

    def views(self) -> tuple[CheckView, ...]:
        """What came of it, by peer."""
        return tuple(self._checks[node] for node in sorted(self._checks))

    def note(self, node: NodeId, nonce: int, theirs: dict[str, DocumentDigest]) -> None:
        """A peer has told all its digests, as an answer if it says the nonce."""
        if not nonce or nonce != self._nonce:
            return
        behind, diverged = [], []
        ours = {d.name: d.digest() for d in self._shared(self._partners[node])}
        for name in sorted({**ours, **theirs}):
            mine, other = ours.get(name), theirs.get(name)
            if mine is None or other is None or mine.vector != other.vector:
                behind.append(name)
            elif mine.content != other.content:
                diverged.append(name)
        state = "diverged" if diverged else "behind" if behind else "equal"
        number = len({**ours, **theirs})
        self._checks[node] = CheckView(node, state, number, tuple(behind), tuple(diverged))
