"""The prompt before the answer, for those who ask for it; with log-probabilities where asked.

Rules:
- An echo comes before the first token of its run, once for every choice.
- Its chunks have text and log-probabilities but no tokens: those are of the answer alone.
- The first token has no log-probability, since nothing precedes it: 0 stands there, with nothing
  beside it. A begin token that the vocabulary adds is not shown.
- Prompts are scored one at a time, `TILE` rows between two steps of the others; one for which there
  is no memory is refused with the numbers before any is taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from meshslm.engine.estimate import scoring_mib
from meshslm.engine.gguf import GgufHeader
from meshslm.engine.llama import Adapter, DecodeFailed, Model
from meshslm.engine.llama_scores import PromptScores
from meshslm.engine.operations import CHARACTERS
from meshslm.engine.protocol import Failed, Produced, Report
from meshslm.engine.runs import Run, told
from meshslm.engine.sampling import ranked
from meshslm.engine.spare import require
from meshslm.errors import FaultCode, RequestFault
from meshslm.wire.messages import Chunk, TaskRequest, TokenLogprob


@dataclass(slots=True)
class Echo:
    """A run whose prompt is still to be told."""

    run: Run
    adapter: Adapter | None
    scores: PromptScores | None = None

    def close(self) -> None:
        """Give back what it holds."""
        if self.scores is not None:
            self.scores.close()
            self.scores = None


def check_echo(request: TaskRequest) -> None:
    """Raise `RequestFault` where there is nothing to echo."""
    if request.echo and request.messages:
        raise RequestFault(
            FaultCode.BAD_REQUEST,
            "a conversation has no text to echo; send a prompt, or ask for the template",
            param="echo",
        )


class Echoes:
    """All of them, in the order they came."""

    def __init__(self, model: Model, header: GgufHeader) -> None:
        self._model = model
        self._header = header
        self._waiting: deque[Echo] = deque()

    @property
    def idle(self) -> bool:
        """Nothing to do."""
        return not self._waiting

    def text(self, run: Run, text: str) -> list[Report]:
        """What is told at once: the prompt itself."""
        return [
            Produced(run.id, Chunk(choice.number, text=text[place : place + CHARACTERS]))
            for choice in run.choices
            for place in range(0, len(text), CHARACTERS)
        ]

    def score(self, run: Run, adapter: Adapter | None) -> None:
        """Have the run's prompt scored, before it may begin."""
        self._waiting.append(Echo(run, adapter))

    def stop(self, number: int) -> None:
        """Forget a run; unknown ones are ignored."""
        for echo in [held for held in self._waiting if held.run.id == number]:
            echo.close()
            self._waiting.remove(echo)

    def work(self) -> tuple[list[Report], list[Run]]:
        """Score a few tokens: what came of it, and the runs that may begin now."""
        if not self._waiting:
            return [], []
        echo = self._waiting[0]
        run = echo.run
        try:
            if echo.scores is None:
                need = scoring_mib(self._header, len(run.prompt))
                require(f"scoring {len(run.prompt)} tokens of a prompt", need or 0.0)
                echo.scores = PromptScores(self._model, run.prompt, echo.adapter)
            reports = self._step(run, echo.scores)
        except RequestFault as fault:
            self.stop(run.id)
            return [Failed(run.id, fault.code, fault.detail)], []
        except DecodeFailed as fault:
            self.stop(run.id)
            return [Failed(run.id, FaultCode.INTERNAL, str(fault))], []
        if echo.scores.done < len(run.prompt):
            return reports, []
        self.stop(run.id)
        return reports, [run]

    def _step(self, run: Run, scores: PromptScores) -> list[Report]:
        begin = scores.done
        rows = scores.step()
        if not np.isfinite(rows.max(axis=1)).all():
            raise DecodeFailed("the model computed logits that are not finite")
        vocabulary = self._model.vocabulary
        entries: list[TokenLogprob] = []
        hidden = vocabulary.adds_bos and run.prompt[0] == vocabulary.bos
        if begin == 0 and not hidden:
            raw = vocabulary.piece(run.prompt[0])
            entries.append(TokenLogprob(raw.decode(errors="replace"), raw, 0.0))
        top = run.logprobs or 0
        for row, token in zip(rows, run.prompt[begin + 1 :], strict=False):
            entry = told(*ranked(row, token, top), vocabulary)
            if hidden and begin == 0 and not entries:
                entry = TokenLogprob(entry.text, entry.raw, 0.0)
            entries.append(entry)
        return list(_chunks(run, tuple(entries)))


def _chunks(run: Run, entries: tuple[TokenLogprob, ...]) -> Iterator[Report]:
    if entries:
        for choice in run.choices:
            yield Produced(run.id, Chunk(choice.number, logprobs=entries))
