"""Which LoRA adapters are in the store, for whoever asks often: it is read when it has changed."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from meshslm.errors import OurFault
from meshslm.models.model_library import ModelLibrary
from meshslm.models.store import Blob

log = logging.getLogger("meshslm.models")


class AdapterList:
    """The adapters of all stored models."""

    def __init__(self, library: ModelLibrary) -> None:
        self._library = library
        self._seen = -1
        self._known: dict[str, dict[str, Blob]] = {}

    def of(self, model: str) -> Mapping[str, str]:
        """Adapters of a stored model that an engine can use now: digests by name."""
        return {name: blob.sha256 for name, blob in self._of(model).items()}

    def sizes(self, model: str) -> tuple[int, ...]:
        """Their sizes, in bytes."""
        return tuple(blob.size for blob in self._of(model).values())

    def _of(self, model: str) -> Mapping[str, Blob]:
        changed = self._library.store.changed_ns()
        if changed != self._seen:
            self._known = self._read()
            self._seen = changed
        return self._known.get(model, {})

    def _read(self) -> dict[str, dict[str, Blob]]:
        found: dict[str, dict[str, Blob]] = {}
        for name in self._library.store.names():
            try:
                stored = self._library.ready(name)
            except OurFault as fault:
                log.warning("%s cannot be used: %s", name, fault)
                continue
            if stored is not None and stored.manifest.adapter_of:
                found.setdefault(stored.manifest.adapter_of, {})[name] = stored.manifest.used
        return found
