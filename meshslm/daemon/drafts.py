"""Small models that guess for larger ones: which belongs to which, and whether there is room.

Rules:
- One of another vocabulary is a mistake of whoever wrote the profile, and is refused. One that
  cannot be had, or does not fit, is told in the log, and its model goes without.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from meshslm.engine.estimate import draft_mib
from meshslm.engine.gguf import read_header
from meshslm.engine.vocabularies import check_draft
from meshslm.errors import OurFault
from meshslm.models.model_library import ModelLibrary, ReadyModel
from meshslm.models.progress import Report
from meshslm.profiles import Profile, drafts_of

log = logging.getLogger("meshslm.hosting")


class Drafts:
    """The drafts of the models of one node."""

    def __init__(self, profiles: Sequence[Profile], library: ModelLibrary, budget_mib: int) -> None:
        """`budget_mib`: memory for models. Raises `OurFault` where profiles differ."""
        self._wanted = drafts_of(profiles)
        self._library = library
        self._budget_mib = budget_mib
        self._paths: dict[str, Path] = {}

    def bring(self, model: ReadyModel, context: int, need_mib: float, report: Report) -> float:
        """Have the draft of a model ready; the memory, in MiB, that it takes beside `need_mib`.

        0 where there is none. Raises `OurFault` for one with other tokens.
        """
        self._paths.pop(model.name, None)
        name = self._wanted.get(model.name, "")
        if not name:
            return 0.0
        try:
            draft = self._library.ensure(name, report)
            takes = draft_mib(read_header(draft.path), context)
        except OurFault as fault:
            log.warning("%s goes without its draft %s: %s", model.name, name, fault)
            return 0.0
        check_draft(model.name, model.path, name, draft.path)
        if need_mib + takes > self._budget_mib:
            log.warning(
                "%s goes without its draft %s: they need %.0f and %.0f MiB, and models may take %d",
                model.name,
                name,
                need_mib,
                takes,
                self._budget_mib,
            )
            return 0.0
        log.info("%s has the draft %s, which takes %.0f MiB more", model.name, name, takes)
        self._paths[model.name] = draft.path
        return takes

    def path(self, model: str) -> Path | None:
        """The file of a model's draft; None where it has none."""
        return self._paths.get(model)
