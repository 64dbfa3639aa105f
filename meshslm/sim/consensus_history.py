"""What clients of a group asked and heard, and whether one order of it all explains that.

The check is Wing and Gong's (1993) with Lowe's memory of states that were tried (2017): for each
subject, some order of the operations must exist in which each takes effect between its begin and
its end, and in which a plain model of the subject would have answered the same. The models here are
written from the documentation of the commands, and share nothing with the machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshslm.core.consensus.events import DecisionMade
    from meshslm.wire.consensus import Command

State = tuple[Any, ...]
MOST_STATES = 200_000
"""Of one search; an honest history takes some hundreds."""


@dataclass(slots=True)
class Operation:
    """One thing that a client wanted."""

    client: str
    begin: int
    act: str
    subject: str
    holder: str = ""
    amount: int = 0
    expected: int = 0
    end: float = inf
    """Infinite: it is not known what came of it, or when."""
    outcome: Any = None
    void: bool = False
    """Certainly nothing came of it."""


class History:
    """All operations of a run."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.healed_at = 0
        self.refused = 0
        self._generations: dict[str, int] = {}

    def begin(
        self, client: str, now: int, command: Command | None, kind: str, subject: str
    ) -> Operation:
        """A client asks."""
        if command is None:
            operation = Operation(client, now, "read", f"{kind}/{subject}")
        else:
            kind = command.act.partition(".")[0]
            operation = Operation(
                client,
                now,
                command.act,
                f"{kind}/{command.subject}",
                command.holder,
                command.amount,
                command.expected,
            )
        self.operations.append(operation)
        return operation

    def end(self, operation: Operation, now: int, made: DecisionMade | None) -> None:
        """It hears; None: it was cut short."""
        unclear = made is None or made.code == "unknown"
        if operation.act == "read":
            if made is None or made.code != "decided":
                operation.void = True
                return
            operation.outcome = _shown(made)
            self._notice(operation)
        elif unclear:
            return
        elif made is not None and made.code in ("no_majority", "no_group", "busy"):
            operation.void = True
            self.refused += 1
            return
        else:
            assert made is not None
            operation.outcome = made.code
        operation.end = now

    def _notice(self, operation: Operation) -> None:
        kind, _, name = operation.subject.partition("/")
        if kind == "generation":
            self._generations[name] = operation.outcome[1] if operation.outcome else 0

    def seen_generation(self, name: str) -> int:
        """What was read last, for guesses that are mostly right."""
        return self._generations.get(name, 0)

    def stop(self, now: int) -> None:
        """The run is over; what is under way has no end."""
        del now

    def decided_since(self, instant: int) -> int:
        """Operations that came to an end with an answer since."""
        return sum(1 for o in self.operations if instant <= o.end < inf)

    def check(self) -> None:
        """Raise `AssertionError` where no order explains what was heard."""
        subjects: dict[str, list[Operation]] = {}
        for operation in self.operations:
            if not operation.void and (operation.act != "read" or operation.end < inf):
                subjects.setdefault(operation.subject, []).append(operation)
        for subject, operations in subjects.items():
            assert linearizable(operations), f"no order explains what was heard of {subject}"


def _shown(made: DecisionMade) -> State:
    """A decision as the models have it."""
    if not made.decisions:
        return ()
    (found,) = made.decisions
    shares = tuple((share.holder, share.amount) for share in found.shares)
    return (found.kind, found.amount, shares)


def linearizable(operations: list[Operation]) -> bool:
    """Whether some order of the operations on one subject explains their outcomes."""
    ordered = sorted(operations, key=lambda operation: operation.begin)
    known = sum(1 << place for place, o in enumerate(ordered) if o.end < inf)
    stack: list[tuple[int, State]] = [(0, ())]
    tried = {(0, ())}
    while stack:
        done, state = stack.pop()
        if done & known == known:
            return True
        for then in _steps(ordered, done, state):
            if then not in tried:
                tried.add(then)
                stack.append(then)
        assert len(tried) < MOST_STATES, "the history is too tangled to be checked"
    return False


def _steps(ordered: list[Operation], done: int, state: State) -> list[tuple[int, State]]:
    """What may have come next; what had to end first comes last, and so is tried first.

    What never changes anything, a read or a refusal, may be now if it fits now: then nothing else
    needs to be tried.
    """
    able: list[int] = []
    first_end = inf
    for place, operation in enumerate(ordered):
        if operation.begin > first_end:
            break
        if not done >> place & 1:
            able.append(place)
            first_end = min(first_end, operation.end)
    found: list[tuple[float, int, tuple[int, State]]] = []
    for place in able:
        operation = ordered[place]
        if operation.begin > first_end:
            continue
        answer, after = _model(state, operation)
        then = (done | 1 << place, after)
        if operation.end < inf and answer == operation.outcome:
            if operation.act == "read" or operation.outcome != "decided":
                return [then]
            found.append((operation.end, place, then))
        elif operation.end == inf and after != state:
            found.append((inf, place, then))
    return [then for _, _, then in sorted(found, reverse=True)]


def _model(state: State, operation: Operation) -> tuple[Any, State]:
    """What a subject in this state answers, and its state afterwards."""
    if operation.act == "read":
        return state, state
    if operation.act == "generation":
        number = state[1] if state else 0
        if operation.expected != number:
            return "conflict", state
        return "decided", ("generation", number + 1, ())
    return _quota(state, operation)


def _quota(state: State, operation: Operation) -> tuple[Any, State]:
    shares = dict(state[2]) if state else {}
    used = sum(shares.values())
    if operation.act == "quota.set":
        if operation.amount < used:
            return "conflict", state
        return "decided", ("quota", operation.amount, _sorted(shares))
    if operation.act == "quota.grant":
        if not state:
            return "unknown_quota", state
        if used + operation.amount > state[1]:
            return "exhausted", state
        shares[operation.holder] = shares.get(operation.holder, 0) + operation.amount
        return "decided", ("quota", state[1], _sorted(shares))
    if shares.get(operation.holder, 0) < operation.amount:
        return "conflict", state
    shares[operation.holder] -= operation.amount
    return "decided", ("quota", state[1], _sorted(shares))


def _sorted(shares: dict[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((holder, amount) for holder, amount in shares.items() if amount))
