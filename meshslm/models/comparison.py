"""Trying every way to keep a model on this machine, and taking the one that the rule chooses.

Rules:
- Nothing is changed before all are tried: what stops it on the way leaves the model as it was.
- A format that cannot be made of this model, or not be run, is told of and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from meshslm.engine.gguf import GgufHeader
from meshslm.engine.kinds import Pooling, pooling_of
from meshslm.errors import OurFault
from meshslm.models.disk import DiskFull
from meshslm.models.prepare import prepare
from meshslm.models.progress import Report
from meshslm.models.sources import Fetched
from meshslm.models.store import Blob, Manifest, ModelStore
from meshslm.models.trials import CANDIDATES, Trial, choose, measure


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A format that is not to be had."""

    quantisation: str
    why: str


OnTrial = Callable[[Trial | LeftOut], None]
"""Hears of each format as it was tried."""


@dataclass(frozen=True, slots=True)
class _Made:
    """A file of one format."""

    blob: Blob
    path: Path
    by: str
    """Program that made it; empty for the original."""


def compare(
    store: ModelStore,
    manifest: Manifest,
    header: GgufHeader,
    report: Report,
    environment: Mapping[str, str],
    on_trial: OnTrial,
) -> Manifest:
    """Try all, and place the chosen one. The lock of its name must be held. Raises `OurFault`."""
    if pooling_of(header) is not Pooling.NONE:
        raise OurFault(
            f"{manifest.name} is an embedding model, which cannot be compared by its text: name "
            "the format that it is to have"
        )
    stage = store.stage(manifest.name)
    made: dict[str, _Made] = {}
    trials: list[Trial] = []
    for candidate in _candidates(store, manifest, header, report, environment):
        if isinstance(candidate, LeftOut):
            on_trial(candidate)
            continue
        name = candidate.blob.quantisation
        try:
            found = measure(candidate.path, stage / "trial.log", report, environment)
        except OurFault as fault:
            if not trials:
                raise OurFault(f"{manifest.name}: {fault}") from fault
            on_trial(LeftOut(name, str(fault)))
            continue
        made[name] = candidate
        trials.append(Trial(name, candidate.blob.size, found))
        on_trial(trials[-1])
    return _place(store, manifest, trials, made)


def _candidates(
    store: ModelStore,
    manifest: Manifest,
    header: GgufHeader,
    report: Report,
    environment: Mapping[str, str],
) -> Iterator[_Made | LeftOut]:
    """The original, then each other format, made of it when its turn comes."""
    original = store.path(manifest.original)
    yield _Made(manifest.original, original, "")
    there = manifest.prepared
    for name in CANDIDATES:
        if name == manifest.original.quantisation:
            continue
        if there is not None and there.quantisation == name and store.intact(there):
            yield _Made(there, store.path(there), manifest.prepared_by)
            continue
        try:
            fetched, by = prepare(
                original, header, store.stage(manifest.name), report, environment, name
            )
        except DiskFull:
            raise
        except OurFault as fault:
            yield LeftOut(name, str(fault))
            continue
        yield _Made(blob_of(fetched, name), fetched.path, by)


def _place(
    store: ModelStore, manifest: Manifest, trials: list[Trial], made: Mapping[str, _Made]
) -> Manifest:
    chosen = made[choose(trials).quantisation]
    original = not chosen.by
    manifest = msgspec.structs.replace(
        manifest,
        wanted=chosen.blob.quantisation,
        prepared=None if original else chosen.blob,
        prepared_by=chosen.by,
        trials=tuple(trials),
    )
    staged = {} if original or store.intact(chosen.blob) else {chosen.blob: chosen.path}
    store.place(manifest, staged)
    return manifest


def blob_of(made: Fetched, quantisation: str) -> Blob:
    """A file that was made, as the store knows it."""
    return Blob(made.sha256, made.size, quantisation)
