"""Which files that come in another format are made into GGUF files, and by what."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from meshslm import __version__
from meshslm.models.convert_bert import CONVERTED_BY as BERT
from meshslm.models.convert_bert import convert_archive, is_archive
from meshslm.models.convert_e5 import convert_packed_e5, is_packed_e5
from meshslm.models.progress import Report
from meshslm.models.sources import Fetched

PACKED_E5: Final = f"meshslm {__version__}, packed e5 to GGUF"


def converter_of(path: Path) -> str:
    """What converts a file, for a manifest; empty where it is a GGUF file, or unknown."""
    if is_archive(path):
        return BERT
    return PACKED_E5 if is_packed_e5(path) else ""


def converted(fetched: Fetched, name: str, stage: Path, report: Report) -> Fetched:
    """A GGUF file in the folder `stage`; itself, if nothing is to be converted. `OurFault`."""
    if is_archive(fetched.path):
        return convert_archive(fetched.path, name, stage, report)
    if is_packed_e5(fetched.path):
        return convert_packed_e5(fetched.path, name, stage, report)
    return fetched
