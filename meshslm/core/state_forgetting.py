"""Gives up what authors wrote that are gone for ever, when the coordinators have decided so.

Everything else about documents needs nobody's leave. This does: a part that one node drops by
itself comes back from the next one that has it. So it is decided, as the document's next
generation, and every node that knows the decision drops these parts, from memory and disk in one
transaction, takes them from nobody any more, and says so where it compares: who does not know yet
is not asked for them, and looks sooner.

Timer: `state.forget`.

Rules:
- Who keeps the log of decisions acts on them at once; everybody else looks at the start, every
  `FORGET_LOOK_MS`, and when a peer says that it knows more.
- What a node knows it keeps, on its disk: it needs no coordinators to know it tomorrow.
- An author that is given up and comes back writes on in a higher generation.
"""

from __future__ import annotations

from meshslm import state_limits
from meshslm.chance import Chance
from meshslm.core.consensus.asking import Asking
from meshslm.core.consensus.decided import GENERATION
from meshslm.core.documents import Documents
from meshslm.core.outbox import Outbox
from meshslm.ids import Instant, NodeId, after
from meshslm.state.forgotten import listed
from meshslm.state.names import complaint
from meshslm.state.part import PartKey
from meshslm.wire.consensus import Decision
from meshslm.wire.state import PartClock

TIMER = "state.forget"


class StateForgetting:
    """What this node knows of it, and how it comes to know more."""

    def __init__(self, documents: Documents, out: Outbox, chance: Chance) -> None:
        self._documents = documents
        self._out = out
        self._chance = chance
        self._asking: Asking | None = None
        self._soonest = Instant(0)
        """Not before: whoever claims to know more must not make us ask and ask."""

    def attach(self, asking: Asking) -> None:
        """Name who asks the coordinators; once."""
        self._asking = asking
        asking.followed = self.learn

    # --- learning -------------------------------------------------------------------------------
    def start(self, stored: tuple[PartKey, ...]) -> None:
        """Go on from what the disk says, and look soon."""
        for key in stored:
            self._documents.forgotten.add(key)
        self._drop(self._documents.forgotten.documents(), ())
        first = self._chance.between(0.5, 1.5) * state_limits.FORGET_FIRST_MS
        self._out.start_timer(TIMER, "", first)

    def look(self, now: Instant) -> None:
        """Ask what is decided."""
        rest = self._chance.between(0.5, 1.5) * state_limits.FORGET_LOOK_MS
        self._out.start_timer(TIMER, "", rest)
        self._soonest = after(now, state_limits.FORGET_AGAIN_MS)
        if self._asking is not None:
            self._asking.look(GENERATION, now)

    def hinted(self, document: str, told: tuple[PartClock, ...], now: Instant) -> None:
        """A peer says what it goes by: look where that is more than is known here."""
        known = self._documents.forgotten
        news = any(not known.covers(document, c.author, c.generation) for c in told)
        if news and now >= self._soonest and self._documents.ready:
            self.look(now)

    def learn(self, decision: Decision) -> None:
        """Something is decided: act on it, if it is a generation."""
        name = decision.subject
        if decision.kind != GENERATION or complaint(name) or not self._documents.ready:
            return  # who is not ready looks when it is
        keys = [PartKey(name, author, last) for author, last in listed(decision.value).items()]
        fresh = tuple(key for key in sorted(keys) if self._documents.forgotten.add(key))
        if fresh:
            self._out.tell("state.forgotten", f"{name}: {', '.join(key.author for key in fresh)}")
            self._drop((name,), fresh)

    # --- dropping -------------------------------------------------------------------------------
    def _drop(self, names: tuple[str, ...], fresh: tuple[PartKey, ...]) -> None:
        parts = [
            part
            for name in names
            if (document := self._documents.holdings.find(name)) is not None
            for (author, generation), part in sorted(document.parts.items())
            if self._documents.forgotten.covers(name, author, generation)
        ]
        if parts or fresh:
            self._documents.let_go(parts, fresh)

    def reloaded(self, name: str) -> None:
        """A part was read again, which may have been given up meanwhile."""
        self._drop((name,), ())

    # --- telling --------------------------------------------------------------------------------
    def told(self, document: str) -> tuple[PartClock, ...]:
        """What a comparison of a document goes by."""
        return tuple(PartClock(a, g) for a, g in self._documents.forgotten.of(document))


def covered(told: tuple[PartClock, ...]) -> dict[NodeId, int]:
    """The last generation of each author that a peer gives up."""
    return {clock.author: clock.generation for clock in told}
