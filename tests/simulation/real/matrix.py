"""The crash matrix on a real database: `python -m tests.simulation.crash_matrix --database sqlite|postgresql|mysql`.

First each canonical workflow runs without a crash and tells how many commit boundaries it has. Then, all at once, one
instance for each boundary and each side of it: there its process dies, and takes what else it held with it. On a server
half of the processes have a presence, so that others notice at once; after the others they take over when the lease of
one second is over. The outcome must be the canonical one, and no invariant broken.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

from tests.databases import fresh_database
from tests.simulation.canonical import CANONICAL, Canonical
from tests.simulation.faults import CRASHES, Fault
from tests.simulation.real.board import Board, Cell
from tests.simulation.real.dump import make_effects_table
from tests.simulation.real.fleet import QUIET_SECONDS, Fleet

PROCESSES: Final = 8
"""At once on a server; a process has up to six connections."""
FILES: Final = 16
"""SQLite databases at once; each has a process of its own."""
ROUNDS_MAX: Final = 4
"""A crash whose instance was hit by another's, and never came to its own boundary, is tried again."""
BROKEN: Final = ("broke down", "a defect in edda")
"""What the engine logs when something happens that must not."""


@dataclass(slots=True)
class Report:
    """What the matrix on one database gave."""

    database: str
    quiet_seconds: float
    cells: list[Cell] = field(default_factory=list[Cell])
    boundaries: dict[str, int] = field(default_factory=dict[str, int])
    crashes: Counter[tuple[str, Fault]] = field(default_factory=Counter[tuple[str, Fault]])
    deaths: int = 0
    delays: list[float] = field(default_factory=list[float])
    declared_dead: int = 0
    unreached: list[Cell] = field(default_factory=list[Cell])
    """Those whose runs never came to their boundary: the deaths of others had made them other runs."""
    failures: list[str] = field(default_factory=list[str])
    seconds: float = 0.0

    def add(self, fleet: Fleet, failures: Sequence[str], declared_dead: int) -> None:
        board: Board = fleet.board
        self.cells += board.cells.values()
        self.crashes += board.crashes
        self.deaths += board.deaths
        self.delays += board.delays
        self.declared_dead += declared_dead
        self.failures += failures

    def table(self) -> str:
        return "\n".join(
            [
                f"{'workflow':<28}boundaries  crashes before/after  takeovers  not reached  violations",
                *map(self._line, self.boundaries),
                f"crashes before/after: {self._kinds()}",
                self._sum(),
            ]
        )

    def _line(self, name: str) -> str:
        mine = [cell for cell in self.cells if cell.canonical.workflow.name == name]
        fired = Counter(cell.fault for cell in mine if cell.fired)
        unreached = sum(cell.canonical.workflow.name == name for cell in self.unreached)
        violations = sum(failure.startswith(f"{name},") for failure in self.failures)
        return (
            f"{name:<28}{self.boundaries[name]:>10}{fired[Fault.CRASH_BEFORE]:>16}/{fired[Fault.CRASH_AFTER]:<5}"
            f"{sum(cell.takeovers.total() for cell in mine):>10}{unreached:>13}{violations:>12}"
        )

    def _kinds(self) -> str:
        return ", ".join(
            f"{kind} {self.crashes[kind, Fault.CRASH_BEFORE]}/{self.crashes[kind, Fault.CRASH_AFTER]}"
            for kind in sorted({operation for operation, _ in self.crashes})
        )

    def _sum(self) -> str:
        return (
            f"{self.database}: {len(self.boundaries)} workflows, {sum(self.boundaries.values())} boundaries, "
            f"{len(self.cells)} instances, {sum(self.crashes.values())} planned crashes, {self.deaths} processes dead, "
            f"{sum(cell.takeovers.total() for cell in self.cells)} takeovers "
            f"(after {min(self.delays, default=0):.2f}, {median(self.delays or [0]):.2f}, "
            f"{max(self.delays, default=0):.2f} s), {len(self.unreached)} not reached, "
            f"{self.declared_dead} living workers declared dead, "
            f"{sum(cell.repairs.total() for cell in self.cells)} bystanders set aside, "
            f"{len(self.failures)} violations, {self.seconds:.0f} s"
        )


def run_real_matrix(
    kind: str,
    canonicals: Sequence[Canonical] = CANONICAL,
    *,
    every: int = 1,
    quiet_seconds: float = QUIET_SECONDS,
) -> Report:
    """The matrix on one kind of database; of the crashes every first, second ... one.

    What does not end within `quiet_seconds` of the last crash is stuck.
    """
    report = Report(kind, quiet_seconds)
    began = time.monotonic()
    with _listening(report):
        asyncio.run(_run(report, canonicals, every))
    report.seconds = time.monotonic() - began
    return report


async def _run(report: Report, canonicals: Sequence[Canonical], every: int) -> None:
    asyncio.get_running_loop().set_exception_handler(partial(_lost_exception, report))
    calm = [Cell(canonical=each, id=each.workflow.name) for each in canonicals]
    await _play(report, calm)
    for cell in calm:
        report.boundaries[cell.canonical.workflow.name] = len(cell.passed)
    cells = [
        Cell(
            canonical=cell.canonical, id=f"{cell.id}-{number}-{fault[6]}", boundary=boundary, number=number, fault=fault
        )
        for cell in calm
        for number, boundary in enumerate(cell.passed)
        for fault in CRASHES
    ]
    report.unreached = cells[::every]
    for _ in range(ROUNDS_MAX):
        await _play(report, report.unreached)
        report.unreached = [cell.again() for cell in report.unreached if not cell.fired]
        if not report.unreached:
            break


async def _play(report: Report, cells: list[Cell]) -> None:
    if report.database == "sqlite":
        await _play_on_files(report, cells)
        return
    with fresh_database(report.database) as url:
        await make_effects_table(url)
        await _play_fleet(report, Fleet(url, cells, processes=PROCESSES, quiet_seconds=report.quiet_seconds))


async def _play_on_files(report: Report, cells: list[Cell]) -> None:
    """A file for each cell: one process has it, and whoever comes next must find all that the one before left."""
    places = asyncio.Semaphore(FILES)
    with tempfile.TemporaryDirectory(prefix="edda_crash_matrix_") as directory:
        template = Path(directory) / "edda.db"
        await make_effects_table(f"sqlite:///{template}")

        async def play(cell: Cell) -> None:
            async with places:
                path = Path(directory) / cell.id / "0" / "edda.db"
                path.parent.mkdir(parents=True)
                shutil.copyfile(template, path)
                fleet = Fleet(f"sqlite:///{path}", [cell], processes=1, quiet_seconds=report.quiet_seconds)
                await _play_fleet(report, fleet)
                shutil.rmtree(Path(directory) / cell.id)

        await asyncio.gather(*map(play, cells))


async def _play_fleet(report: Report, fleet: Fleet) -> None:
    stored = await fleet.run()
    report.add(fleet, fleet.verdict(stored), len(stored.declared_dead))


@contextmanager
def _listening(report: Report) -> Iterator[None]:
    """The dead and the bereaved log a lot; what says that the engine broke is a violation."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if any(words in text for words in BROKEN):
                error = record.exc_info[1] if record.exc_info else None
                report.failures.append(f"engine: {text}: {error!r}")

    logger, listener = logging.getLogger("edda"), Listener(logging.ERROR)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(listener)
    try:
        yield
    finally:
        logger.removeHandler(listener)
        logger.propagate = propagate


def _lost_exception(report: Report, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An error that nobody has looked at. Drivers leave some behind when their connection is cut; edda leaves none."""
    error = context.get("exception")
    if not isinstance(error, OSError):
        report.failures.append(f"engine: {context['message']}: {error!r} {context.get('future', '')}")
