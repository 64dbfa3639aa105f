"""Files that are packaged with the program, and the one place that reads them.

Rules:
- They are part of the code: they hold what a release was tested with, and nothing that a user
  changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources


def catalogue_text() -> str:
    """The built-in model catalogue, as TOML."""
    return (resources.files(__name__) / "catalogue.toml").read_text(encoding="utf-8")


def profile_texts() -> Mapping[str, str]:
    """The packaged specialist profiles as TOML, by file name without its ending."""
    folder = resources.files(__name__) / "profiles"
    return {
        entry.name.removesuffix(".toml"): entry.read_text(encoding="utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".toml")
    }


def trial_text() -> str:
    """The text that prepared models are compared on: prose, instructions, code, a letter."""
    return (resources.files(__name__) / "trial.txt").read_text(encoding="utf-8")
