"""Many schedules, one after the other: `python -m tests.simulation --schedules 1000 --seed 0`.

Prints how often each fault hit each operation (a cell below 20 is red: that fault was not tried there), the rate, and
every violation with the command that plays its seed again with a trace.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from tests.simulation.faults import FAULTS, Fault
from tests.simulation.world import Result, Scenario, play, scenario_of

CELL_MIN: Final = 20
"""Below it a combination of operation and fault counts as not tried."""
COLLECT_EVERY: Final = 40
"""Schedules between two runs of the garbage collector."""


@dataclass(slots=True)
class Report:
    """What many schedules gave."""

    schedules: int = 0
    seconds: float = 0.0
    histories: int = 0
    hits: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    failures: list[Result] = field(default_factory=list[Result])

    def add(self, result: Result) -> None:
        self.schedules += 1
        self.histories += result.histories
        self.hits.update(result.hits)
        if result.violations:
            self.failures.append(result)

    @property
    def thin_cells(self) -> list[tuple[str, Fault, int]]:
        """Combinations that were tried too seldom to say anything."""
        return [
            (operation, fault, self.hits[operation, fault.value])
            for operation, faults in FAULTS.items()
            for fault in faults
            if self.hits[operation, fault.value] < CELL_MIN
        ]

    def table(self) -> str:
        faults = [fault.value for fault in Fault]
        width = max(map(len, FAULTS))
        lines = [" " * width + " |" + "".join(f"{_short(name):>9}" for name in ("ok", *faults))]
        for operation, possible in FAULTS.items():
            cells = [f"{self.hits[operation, 'ok']:>9}"]
            for fault in Fault:
                count = self.hits[operation, fault.value]
                cells.append(f"{count:>8}{' ' if count >= CELL_MIN else '!'}" if fault in possible else " " * 8 + "-")
            lines.append(f"{operation:<{width}} |" + "".join(cells))
        others = ", ".join(f"{name} {count}" for (who, name), count in sorted(self.hits.items()) if who == "process")
        lines.append(f"at any time: {others}")
        return "\n".join(lines)


def _short(name: str) -> str:
    words = {
        "crash before": "crash<", "crash after": "crash>", "answer lost": "lost", "unknown, not done": "not done",
        "unknown, done late": "late", "pause, done meanwhile": "pause", "pause, done after": "stuck",
    }  # fmt: skip
    return words.get(name, name)


def run_many(
    seeds: Iterable[int],
    *,
    seconds_max: float | None = None,
    failures_max: int = 20,
    scenario: Callable[[int], Scenario] = scenario_of,
) -> Report:
    """Play schedules until the seeds, the time, or the patience with failures is used up."""
    report = Report()
    began = time.perf_counter()
    gc.collect()
    gc.freeze()
    try:
        for seed in seeds:
            try:
                result = play(scenario(seed))
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise
            report.add(result)
            if report.schedules % COLLECT_EVERY == 0:
                gc.collect()
            report.seconds = time.perf_counter() - began
            if len(report.failures) >= failures_max or (seconds_max is not None and report.seconds > seconds_max):
                break
    finally:
        gc.unfreeze()
    return report


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--schedules", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--minutes", type=float, help="stop after so long")
    parser.add_argument("--failures", type=int, default=20, help="stop after so many failures")
    parser.add_argument("--replay", type=int, metavar="SEED", help="play one seed and print what happens")
    options = parser.parse_args(arguments)
    if options.replay is not None:
        return _replay(options.replay)
    report = run_many(
        range(options.seed, options.seed + options.schedules),
        seconds_max=options.minutes * 60 if options.minutes else None,
        failures_max=options.failures,
    )
    print(report.table())
    rate = report.schedules / report.seconds * 3600
    print(
        f"{report.schedules:,} schedules in {report.seconds:.1f} s ({rate:,.0f} an hour), "
        f"{report.histories:,} rows of history, {len(report.failures)} with violations"
    )
    for result in report.failures:
        print(f"\nseed {result.seed}: python -m tests.simulation --replay {result.seed}")
        for violation in result.violations[:4]:
            print(f"    {violation}")
    thin = report.thin_cells
    if thin:
        print(
            f"\n{len(thin)} cells have fewer than {CELL_MIN}: "
            + ", ".join(f"{o}/{f.value} {n}" for o, f, n in thin[:12])
        )
    return 1 if report.failures or thin else 0


def _replay(seed: int) -> int:
    scenario = scenario_of(seed)
    print(f"seed {seed}: {scenario.plan or 'no fault of a call'}")
    for start in scenario.starts:
        print(f"  {start.id}: {start.arguments}, cancel at {start.cancel_at_us} us")
    result = play(scenario, trace=True)
    print("\n".join(result.trace))
    for violation in result.violations:
        print(f"VIOLATION {violation}")
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
