"""Days that are over: journals and ledgers are sealed by their authors, and dropped in the end.

A document of a day has that day in its name, so that every node knows by itself when nobody needs
it any more: nobody has to be asked, and no mark has to stay behind. Until all have dropped it, who
has is not given it again, as it wants it no more.

Rules:
- A node seals what it wrote of days before yesterday: tasks of yesterday may end today.
- Journals go after `JOURNAL_DAYS`, ledgers after `USAGE_DAYS`, whoever wrote them.
- Names that can be no day's are left alone. What day it is comes from outside.
"""

from __future__ import annotations

from meshslm import state_limits
from meshslm.core.chronicle import DAY_MS, day_ms, day_of
from meshslm.core.documents import Documents
from meshslm.core.outbox import Outbox
from meshslm.core.state_events import Change, DayIs
from meshslm.errors import RequestFault
from meshslm.ids import Instant
from meshslm.state.entry import revision_of, unpack
from meshslm.state.names import DocumentClass, subject_of

KEPT_DAYS = {
    DocumentClass.JOURNAL: state_limits.JOURNAL_DAYS,
    DocumentClass.LEDGER: state_limits.USAGE_DAYS,
}


class StateRetention:
    """What follows when a day has passed."""

    def __init__(self, documents: Documents, out: Outbox) -> None:
        self._documents = documents
        self._out = out

    def on_day(self, event: DayIs, _now: Instant) -> None:
        """It is this day: seal and drop what is due."""
        documents = self._documents
        if not documents.ready:
            return
        documents.first_days = {
            str(cls): day_of(event.unix_ms - days * DAY_MS) for cls, days in KEPT_DAYS.items()
        }
        open_since = day_of(event.unix_ms - DAY_MS)
        for cls in KEPT_DAYS:
            for name in documents.names(f"{cls}/"):
                if documents.over(name):
                    documents.forget(name)
                    self._out.tell("state.dropped", name)
                elif is_day(subject_of(name)) and subject_of(name) < open_since:
                    self._seal(name, event.unix_ms)

    def _seal(self, name: str, unix_ms: int) -> None:
        """Write the last time to a document: its first entry again, as a delta needs a change."""
        document = self._documents.holdings.documents[name]
        own = document.own(self._documents.node)
        if not own or own[-1].sealed:
            return
        key = min(key for part in own for key in part.live)
        packed = [part.live[key] for part in own if key in part.live]
        entry = unpack(max(packed, key=revision_of))
        value = None if entry.deleted else entry.value
        change = Change(key, value, expires_ms=entry.expires_ms)
        try:
            self._documents.write(name, (change,), unix_ms=unix_ms, seal=True)
        except RequestFault as fault:
            self._out.tell("state.not-sealed", f"{name}: {fault.detail}")  # another time


def is_day(subject: str) -> bool:
    """Whether what stands behind a class is a day, such as 2026-11-22."""
    try:
        return day_of(day_ms(subject)) == subject
    except ValueError:
        return False
