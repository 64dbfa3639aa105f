"""What the entries of the log do: the decisions of a mesh.

Every coordinator carries out the same entries in the same order, so all have the same decisions.

Rules:
- A proposal is carried out once: its result is kept for `PROPOSALS_REMEMBERED` entries, and
  one that is older than these is refused, as nobody could know whether it came before.
- One active rollout for each model. Never more of a quota granted than there is. What is revoked
  stays revoked. A generation follows only the one that its proposer knew, and takes no author
  back that an earlier one gave up.
- Bounded in number and in bytes; what does not fit is refused, never dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from meshslm import mesh_limits
from meshslm.errors import PeerFault
from meshslm.state.forgotten import gives_back
from meshslm.wire.codec import decode, encode
from meshslm.wire.consensus import Command, Decision, Decisions, Kept, Proposal, Result, Share

DECIDED = "decided"

ROLLOUT, QUOTA, REVOKED, GENERATION = "rollout", "quota", "revoked", "generation"
KINDS = (ROLLOUT, QUOTA, REVOKED, GENERATION)

Outcome = Decision | None
"""The decision as it is from now on; None: there is none any more."""


class Refused(Exception):
    """A command that does not fit what is decided."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Decided:
    """All decisions, and the results of the last proposals."""

    def __init__(self) -> None:
        self._decisions: dict[tuple[str, str], Decision] = {}
        self._results: dict[str, Result] = {}
        self._bytes = 0

    def carry_out(self, index: int, proposal: Proposal) -> Result:
        """Do what an entry says; the result of its proposal, the same if it came before."""
        self._forget(index)
        known = self._results.get(proposal.id)
        if known is not None:
            return known
        if index - proposal.base > mesh_limits.PROPOSALS_REMEMBERED:
            return Result(proposal.id, index, "stale", "too much was decided since: ask again")
        try:
            self._do(index, proposal.command)
            result = Result(proposal.id, index, DECIDED)
        except Refused as refused:
            result = Result(proposal.id, index, refused.code, str(refused)[:200])
        self._results[proposal.id] = result
        return result

    def result(self, name: str) -> Result | None:
        """What became of a proposal, while that is known."""
        return self._results.get(name)

    def find(self, kind: str, subject: str) -> tuple[Decision, ...]:
        """Decisions of a kind (empty: any) about a subject (empty: any), in order."""
        return tuple(
            self._decisions[key]
            for key in sorted(self._decisions)
            if kind in ("", key[0]) and subject in ("", key[1])
        )

    def saved(self) -> bytes:
        """All of it, for a snapshot."""
        return encode(Kept(decisions=Decisions(self.find("", ""), tuple(self._results.values()))))

    def load(self, data: bytes) -> None:
        """Take what `saved` gave. Raises `PeerFault` for anything else."""
        kept = decode(data)
        if not isinstance(kept, Kept) or kept.decisions is None:
            raise PeerFault("a snapshot holds no decisions")
        self._decisions = {(d.kind, d.subject): d for d in kept.decisions.decisions}
        self._results = {result.id: result for result in kept.decisions.results}
        self._bytes = sum(map(_size, self._decisions.values()))

    def __len__(self) -> int:
        return len(self._decisions)

    def _forget(self, index: int) -> None:
        """Results are in the order of their entries."""
        while self._results:
            first = next(iter(self._results.values()))
            if first.index > index - mesh_limits.PROPOSALS_REMEMBERED:
                return
            del self._results[first.id]

    def _do(self, index: int, command: Command) -> None:
        if not command.subject:
            raise Refused("bad_command", "it is about nothing")
        known = _ACTS.get(command.act)
        if known is None:
            raise Refused("bad_command", f"no act is called {command.act!r}")
        kind, act = known
        before = self._decisions.get((kind, command.subject))
        after = act(before, command)
        if after is not None and after is not before:
            after = replace(after, revision=index)
        self._put((kind, command.subject), before, after)

    def _put(self, key: tuple[str, str], before: Outcome, after: Outcome) -> None:
        grown = self._bytes + (_size(after) if after else 0) - (_size(before) if before else 0)
        if after is not None and grown > max(mesh_limits.DECISIONS_BYTES, self._bytes):
            raise Refused("full", f"over {mesh_limits.DECISIONS_BYTES} bytes are decided already")
        if after is None:
            self._decisions.pop(key, None)
        elif before is None and len(self._decisions) >= mesh_limits.DECISIONS:
            raise Refused("full", f"{mesh_limits.DECISIONS} things are decided already")
        else:
            self._decisions[key] = after
        self._bytes = grown


def _size(decision: Decision) -> int:
    """Bytes that it takes in a snapshot, at most."""
    shares = sum(len(share.holder.encode()) + 16 for share in decision.shares)
    return len(decision.subject.encode()) + len(decision.value.encode()) + shares + 64


def _begin_rollout(before: Outcome, command: Command) -> Outcome:
    if before is not None and before.value != command.value:
        raise Refused("conflict", f"the rollout {before.value!r} is active; end it first")
    return before or Decision(ROLLOUT, command.subject, command.value)


def _end_rollout(before: Outcome, command: Command) -> Outcome:
    if before is None or command.value not in ("", before.value):
        raise Refused("conflict", "no such rollout is active")
    return None


def _set_quota(before: Outcome, command: Command) -> Outcome:
    granted = _granted(before)
    if command.amount < granted:
        raise Refused("conflict", f"{granted} of it are granted already")
    quota = before or Decision(QUOTA, command.subject)
    return replace(quota, amount=command.amount)


def _grant(before: Outcome, command: Command) -> Outcome:
    if before is None:
        raise Refused("unknown_quota", f"there is no quota {command.subject!r}")
    if not command.holder or not command.amount:
        raise Refused("bad_command", "a grant names a holder and an amount")
    left = before.amount - _granted(before)
    if command.amount > left:
        raise Refused("exhausted", f"{left} of {before.amount} are left")
    held = _held(before, command.holder)
    if not held and len(before.shares) >= mesh_limits.SHARES:
        raise Refused("full", f"{mesh_limits.SHARES} hold some of it already")
    return _with_share(before, Share(command.holder, held + command.amount))


def _release(before: Outcome, command: Command) -> Outcome:
    held = _held(before, command.holder)
    if before is None or not 0 < command.amount <= held:
        raise Refused("conflict", f"{command.holder!r} holds {held} of it")
    return _with_share(before, Share(command.holder, held - command.amount))


def _revoke(before: Outcome, command: Command) -> Outcome:
    return before or Decision(REVOKED, command.subject, command.value)


def _generation(before: Outcome, command: Command) -> Outcome:
    now = before.amount if before is not None else 0
    if command.expected != now:
        raise Refused("conflict", f"the generation is {now}, not {command.expected}")
    back = gives_back(before.value, command.value) if before is not None else ""
    if back:
        raise Refused("conflict", f"{back} was given up in generation {now}, and stays so")
    return Decision(GENERATION, command.subject, command.value, now + 1)


def _granted(quota: Outcome) -> int:
    return sum(share.amount for share in quota.shares) if quota is not None else 0


def _held(quota: Outcome, holder: str) -> int:
    shares = quota.shares if quota is not None else ()
    return next((share.amount for share in shares if share.holder == holder), 0)


def _with_share(quota: Decision, changed: Share) -> Decision:
    others = (share for share in quota.shares if share.holder != changed.holder)
    shares = (*others, *((changed,) if changed.amount else ()))
    return replace(quota, shares=tuple(sorted(shares, key=lambda share: share.holder)))


_ACTS: dict[str, tuple[str, Callable[[Outcome, Command], Outcome]]] = {
    "rollout.begin": (ROLLOUT, _begin_rollout),
    "rollout.end": (ROLLOUT, _end_rollout),
    "quota.set": (QUOTA, _set_quota),
    "quota.grant": (QUOTA, _grant),
    "quota.release": (QUOTA, _release),
    "revoke": (REVOKED, _revoke),
    "generation": (GENERATION, _generation),
}

ACTS = tuple(_ACTS)
