"""Brings the run of an answer that was begun elsewhere to where it was.

Rules:
- What a client has is computed again as if it were prompt, and never said again.
- Choices that had ended are only counted.
- What cannot have been delivered is refused, with the numbers.
"""

from __future__ import annotations

from meshslm.engine.gbnf import GrammarFault
from meshslm.engine.llama import Vocabulary
from meshslm.engine.runs import Choice, Run
from meshslm.errors import FaultCode, RequestFault
from meshslm.wire.messages import TaskRequest
from meshslm.wire.shares import Shares
from meshslm.wire.tokens import unpacked


class Begun:
    """What the client of a request has: its tokens, or another model's words in our tokens."""

    def __init__(self, request: TaskRequest, vocabulary: Vocabulary) -> None:
        """Raises `RequestFault` where it makes no sense."""
        self._vocabulary = vocabulary
        self._words = bool(request.begun)
        shares = request.shares
        if shares is None:
            if request.choices != 1:
                raise _refusal(
                    f"it was not told of which of {request.choices} choices what was delivered is"
                )
            shares = Shares((len(request.begun or request.delivered),), ("",))
        if len(shares.finishes) != request.choices:
            raise _refusal(f"{len(shares.finishes)} parts were delivered of {request.choices}")
        self._finishes = shares.finishes
        try:
            if request.begun:
                texts = shares.parts(request.begun)
                self._parts = [vocabulary.tokens(t, special=False) if t else [] for t in texts]
            else:
                self._parts = [list(unpacked(p)) for p in shares.parts(request.delivered)]
        except ValueError as error:
            raise _refusal(str(error)) from None

    def make_room(self, run: Run, room: int) -> None:
        """Let a run have a token more where it must: `room` is what fits behind its prompt.

        Another model's words may be more tokens here than the client allowed it there.
        """
        longest = max(map(len, self._parts))
        if self._words and run.most <= longest < room:
            run.most = longest + 1

    def resume(self, run: Run) -> None:
        """Bring a run to where it was. Raises `RequestFault` where it cannot have been there."""
        for choice, tokens, finish in zip(run.choices, self._parts, self._finishes, strict=True):
            self._check(run, tokens, finish)
            if finish:
                choice.tokens, choice.finish = tokens, finish
            else:
                self._replay(run, choice, tokens)
        if run.finished:
            raise _refusal("what was delivered had ended already")
        going = [choice for choice in run.choices if not choice.finish]
        run.resumed = tuple((choice.number, len(choice.tokens)) for choice in going)

    def _check(self, run: Run, tokens: list[int], finish: str) -> None:
        if len(tokens) > run.most or (len(tokens) == run.most and not finish):
            raise _refusal(
                f"{len(tokens)} tokens were delivered of at most {run.most}: only what has not "
                "ended can go on"
            )
        size = self._vocabulary.size
        strange = next((token for token in tokens if token >= size), None)
        if strange is not None:
            raise _refusal(
                f"token {strange} was delivered, but the vocabulary has tokens 0 to {size - 1}"
            )

    def _replay(self, run: Run, choice: Choice, tokens: list[int]) -> None:
        try:
            run.replay(choice.number, tokens, self._vocabulary)
        except GrammarFault as fault:
            raise _refusal(
                f"what was delivered is not of the form of the answer: {fault}"
            ) from fault
        if choice.finish:
            raise _refusal("what was delivered had ended already")


def _refusal(detail: str) -> RequestFault:
    return RequestFault(FaultCode.BAD_REQUEST, detail, param="delivered")
