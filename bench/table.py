"""One measured row, and tables of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Row:
    """A figure, what it was compared with in the same run, and what it should reach."""

    what: str
    value: str
    against: str = ""
    """What it was compared with, and that one's figure."""
    ratio: str = ""
    target: str = ""
    reached: bool | None = None


def spread(samples: Sequence[float], unit: str, digits: int = 1) -> str:
    """Median with the extremes, such as `31.0 ms (29.4 to 40.2)`."""
    low, middle, high = min(samples), median(samples), max(samples)
    return f"{middle:.{digits}f} {unit} ({low:.{digits}f} to {high:.{digits}f})"


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| measured | figure | against | ratio | to reach | reached |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        reached = {None: "", True: "yes", False: "**no**"}[row.reached]
        cells = (row.what, row.value, row.against, row.ratio, row.target, reached)
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join(lines)
