"""Numbers for people and for programs: medians with their spread, tables, JSON."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some figures, and their extremes."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, figures: Iterable[float]) -> Spread:
        values = list(figures)
        return cls(statistics.median(values), min(values), max(values), len(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} [{self.low:.2f}-{self.high:.2f}]"


@dataclass(slots=True)
class Report:
    """What a run found. `rows` go into the JSON file, one object per line of a table."""

    rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def add(self, workload: str, database: str, **figures: Any) -> None:
        self.rows.append({"workload": workload, "database": database, **figures})

    def write(self, path: Path) -> None:
        about = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
        path.write_text(json.dumps({"about": about, "results": self.rows}, indent=1, default=_plain) + "\n")


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which so many per cent lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Aligned text; numbers are right-aligned."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(line[place]) for line in [list(columns), *cells]) for place in range(len(columns))]
    lines = [title, "  ".join(name.ljust(width) for name, width in zip(columns, widths, strict=True)).rstrip()]
    lines += ["  ".join(_aligned(text, width) for text, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _aligned(text: str, width: int) -> str:
    return text.rjust(width) if text[:1].isdigit() else text.ljust(width)
