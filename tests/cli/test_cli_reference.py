"""`docs/cli.md` is what the commands say of themselves."""

from __future__ import annotations

from pathlib import Path

from meshslm.cli.reference import reference

DOCUMENT = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_document_is_up_to_date() -> None:
    written = DOCUMENT.read_text(encoding="utf-8")
    assert written == reference(), "run: python -m meshslm.cli.reference > docs/cli.md"
