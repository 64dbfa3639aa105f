"""A worker in this process, driven by commands written down beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import meshslm.engine.worker  # noqa: F401 - first: it settles how OpenMP waits
from meshslm.engine.cores import ThreadChoice
from meshslm.engine.gguf import read_header
from meshslm.engine.loading import load_decoder
from meshslm.engine.loop import Worker
from meshslm.engine.pipe import Pipe
from meshslm.engine.protocol import (
    Command,
    Ended,
    Failed,
    Load,
    Produced,
    Report,
    Shutdown,
    Start,
)
from meshslm.wire.messages import ChatMessage, Chunk, Sampling, TaskRequest, Usage


@dataclass(slots=True)
class Told:
    """What was reported of one run."""

    chunks: list[Chunk] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    failed: Failed | None = None

    @property
    def tokens(self) -> list[int]:
        return [token for chunk in self.chunks for token in chunk.tokens]

    @property
    def text(self) -> str:
        return "".join(chunk.text for chunk in self.chunks)


class ScriptedWorker:
    """Runs waves of commands: each begins when the one before has ended."""

    def __init__(self, path: Path, *, slots: int = 4, context: int = 1024, **load: Any) -> None:
        command = Load(str(path), context, slots, 512, 2, **load)
        self.threads = ThreadChoice(2)
        pipe = cast("Pipe", self)
        worker, self.ready = load_decoder(
            pipe, command, read_header(path), self.threads, lambda _: None
        )
        assert isinstance(worker, Worker)
        self.worker = worker
        self.steps = 0
        self._waves: list[list[Command]] = []
        self._later: list[tuple[int, Command]] = []
        self.told: dict[int, Told] = {}
        self.reports: list[Report] = []

    def receive(self, *, wait: bool) -> list[Command]:
        """What is due."""
        self.steps += 1
        due = [command for at, command in self._later if at <= self.steps]
        self._later = [(at, command) for at, command in self._later if at > self.steps]
        if due or not wait:
            return due
        if self._later:
            return [self._later.pop(0)[1]]
        return self._waves.pop(0) if self._waves else [Shutdown()]

    def send(self, reports: list[Report]) -> None:
        """Keep what is reported."""
        self.reports += reports
        for report in reports:
            match report:
                case Produced(run, chunk):
                    self.told.setdefault(run, Told()).chunks.append(chunk)
                case Ended(run, usage):
                    self.told[run].usage = usage
                case Failed(run):
                    self.told.setdefault(run, Told()).failed = report
                case _:
                    pass

    def play(
        self, *waves: list[Command], later: Sequence[tuple[int, Command]] = ()
    ) -> dict[int, Told]:
        """Run waves, and single commands after so many looks for any; what was told of each run."""
        self.told, self.steps = {}, 0
        first, *others = waves
        due = [(0, command) for command in first]
        self._waves, self._later = others, sorted([*due, *later], key=lambda item: item[0])
        self.worker.serve(self.threads)
        return self.told


def ask(run: int, text: str, most: int = 24, *, seed: int | None = None, **fields: Any) -> Start:
    """A run of one chat turn: greedy, or drawn with a seed."""
    sampling = Sampling(temperature=0.0) if seed is None else Sampling(temperature=0.9, seed=seed)
    messages = fields.pop("messages", (ChatMessage("user", text),))
    request = TaskRequest("x", messages=messages, max_tokens=most, sampling=sampling, **fields)
    return Start(run, request)
