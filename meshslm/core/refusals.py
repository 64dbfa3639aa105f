"""Why nobody can be asked, in words that say what there is to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from meshslm.core.candidates import Candidate, Refusal
from meshslm.core.route_facts import Facts
from meshslm.core.route_filters import AUTO, DOMAIN, HARD
from meshslm.errors import FaultCode
from meshslm.wire.messages import TaskRequest

NAMES_SHOWN: Final = 20
DETAIL_CHARACTERS: Final = 1000


def exhausted(request: TaskRequest, count: int) -> Refusal:
    """All who could have done it were tried."""
    detail = f"all {count} nodes for {request.selector!r} were tried"
    return Refusal(FaultCode.NOT_READY, detail, exhausted=True)


def of_filter(
    name: str,
    request: TaskRequest,
    candidates: Sequence[Candidate],
    dropped: Sequence[Candidate],
    facts: Facts,
) -> Refusal:
    """A hard filter left nobody of `dropped`; nobody at all was there if it may be private."""
    if not dropped:
        what = f"{request.selector!r} is asked what may be private"
        return Refusal(FaultCode.NOT_READY, f"{what}, and only an upstream is left")
    if name == "operation":
        return _unable(request, candidates)
    if name == "adapter":
        return _no_adapter(request, candidates)
    why = dict(HARD)[name](facts, dropped[0])
    detail = f"{request.selector!r} cannot be asked: {why}"
    return Refusal(FaultCode.BAD_REQUEST, detail[:DETAIL_CHARACTERS])


def unknown(problem: str, candidates: Sequence[Candidate]) -> Refusal:
    """Nobody is called that."""
    names = dict.fromkeys(
        name
        for c in candidates
        for name in (
            c.specialist.model,
            c.specialist.profile,
            *(DOMAIN + card.domain for card in c.specialist.domains),
        )
    )
    shown = ", ".join(sorted(names)[:NAMES_SHOWN])
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    known = f"known are {AUTO}, {shown}{more}" if names else "nobody hosts anything yet"
    return Refusal(FaultCode.UNKNOWN_MODEL, f"{problem}; {known}"[:DETAIL_CHARACTERS])


def _no_adapter(request: TaskRequest, candidates: Sequence[Candidate]) -> Refusal:
    """There are models, but none of them with this adapter."""
    found = {(name, c.specialist.model) for c in candidates for name in c.specialist.adapters}
    what = f"adapter {request.adapter!r}"[:500]
    bases = ", ".join(sorted(base for name, base in found if name == request.adapter)[:NAMES_SHOWN])
    if bases:
        detail = f"{what} is for {bases}, and {request.selector!r} is not one of them"
        return Refusal(FaultCode.BAD_REQUEST, detail[:DETAIL_CHARACTERS])
    names = [f"{name} (for {base})" for name, base in sorted(found)]
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    known = f"known are {', '.join(names[:NAMES_SHOWN])}{more}" if names else "nobody has any"
    detail = f"no node here has an {what}; {known}"
    return Refusal(FaultCode.UNKNOWN_MODEL, detail[:DETAIL_CHARACTERS])


def _unable(request: TaskRequest, candidates: Sequence[Candidate]) -> Refusal:
    """There are models, but not for this operation."""
    able = [c for c in candidates if request.operation in c.specialist.operations]
    names = sorted({c.specialist.profile for c in able})[:NAMES_SHOWN]
    what = f"{request.selector!r} cannot do {request.operation!r}"[:500]
    if names:
        detail = f"{what}; who can: {', '.join(names)}"
        return Refusal(FaultCode.BAD_REQUEST, detail[:DETAIL_CHARACTERS])
    detail = f"{what}, and no other model here can"
    return Refusal(FaultCode.UNKNOWN_MODEL, detail[:DETAIL_CHARACTERS])
