"""The crash matrix: the canonical workflows, with a crash at every commit boundary, before it and after it.

A boundary is any transaction that changes the database for a worker: commits, claims, starts, reaping. All single
crashes are tried, then all ordered pairs: the second crash is counted in the run that the first one changed. After a
crash the process comes back a moment later. The outcome must always be the canonical one, and no invariant broken.

`python -m tests.simulation.crash_matrix [--pairs 400] [--only canon_saga]`; with `--database postgresql` all single
crashes happen on a real database (see `real.matrix`).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import edda
from edda.core.event import CloudEvent
from edda.core.history import InstanceId
from edda.core.lifecycle import Status
from tests.databases import KINDS
from tests.simulation.canonical import CANONICAL, HEARING, Canonical
from tests.simulation.faults import CRASHES, Fault, Plan
from tests.simulation.outcome import problems_of
from tests.simulation.real.matrix import run_real_matrix
from tests.simulation.world import Scenario, Start, World

BOUNDARIES: Final = frozenset(
    {
        "write start",
        "write step",
        "write child",
        "write park",
        "write undo",
        "write end",
        "session commit",
        "claim",
        "reap",
        "accept",
        "route",
        "learn",
        "look",
    }
)
INSTANCE: Final = "c"


class Boundaries(Plan):
    """Crashes at the n-th boundaries, counted over all operations and processes together."""

    def __init__(self, crashes: Sequence[tuple[int, Fault]]) -> None:
        super().__init__(())
        self._crashes = dict(crashes)
        self.passed = 0
        self.when_passed: Callable[[int], None] = lambda passed: None

    def draw(self, operation: str) -> Fault | None:
        if operation not in BOUNDARIES:
            return None
        fault = self._crashes.get(self.passed)
        self.when_passed(self.passed)
        self.passed += 1
        return fault

    def __str__(self) -> str:
        return ", ".join(f"boundary {number}: {fault}" for number, fault in self._crashes.items())


class SimBench:
    """The bench of a simulated process (see `canonical`)."""

    def __init__(self, world: World) -> None:
        self._world = world

    def entered(self, ctx: edda.WorkflowContext) -> None:
        info = ctx.activity
        self._world.entered(ctx.instance_id, info.id, ctx.worker_id, info.attempt, info.name, None)

    async def write_effect(self, ctx: edda.WorkflowContext) -> None:
        row: Any = ("effect", str(ctx.instance_id), ctx.activity.id)
        ctx.session.add(row)
        await ctx.session.flush()

    async def die(self, ctx: edda.WorkflowContext) -> None:
        world = self._world
        node = next(node for node in world.nodes if ctx.worker_id in node.workers)
        world.loop.after(world.loop.world, 0, world.crash, node)
        await asyncio.sleep(3600)


class CanonicalWorld(World):
    """A world with one canonical instance, two workers, and restarts at once."""

    def __init__(
        self,
        canonical: Canonical,
        plan: Boundaries,
        *,
        seed: int = 0,
        trace: bool = False,
        sent_at: Sequence[int] | None = None,
    ) -> None:
        """`sent_at`: the boundaries at which somebody outside sends news; or a few seconds later, if it is needed."""
        start = Start(id=INSTANCE, workflow=canonical.workflow, arguments={})
        super().__init__(
            Scenario(
                seed=seed,
                starts=[start],
                plan=plan,
                workers=2,
                always_evict=seed % 2 / 1.0,
                presence=1.0,
                restart_us=(5_000, 6_000),
                handling=canonical.handled > 0,
            ),
            trace=trace,
        )
        self.bench = SimBench(self)
        self.records.sinks = False
        self._canonical = canonical
        if canonical.cancel_after:
            self.loop.after(self.loop.world, 20_000, self._cancel_when_due, start)
        if sent_at is not None:
            self._news = dict(enumerate(sent_at, start=1))
            plan.when_passed = self._send_news
            for number in self._news:
                self.loop.after(self.loop.world, 3_000_000, self._send, number)

    def _send_news(self, passed: int) -> None:
        for number, place in list(self._news.items()):
            if place == passed:
                self.loop.after(self.loop.world, 0, self._send, number)

    def _send(self, number: int) -> None:
        if self._news.pop(number, None) is not None:
            self.senders.send([news(number)])

    def _cancel_when_due(self, start: Start) -> None:
        history = self.store.history.get(InstanceId(INSTANCE), ())
        if self._cancelled.get(INSTANCE) == "done":
            return
        if any(event.call_id == self._canonical.cancel_after for event in history):
            self._cancel(start)
        self.loop.after(self.loop.world, 20_000, self._cancel_when_due, start)

    def _repairs_allowed(self, status: Status) -> int:
        return 0

    def check_outcome(self) -> None:
        """Compare with the one outcome that the workflow may have."""
        for problem in problems_of(self._canonical, INSTANCE, self.store):
            self.records.violate("outcome", problem)


def news(number: int) -> CloudEvent:
    data = json.dumps({"to": INSTANCE, "n": number})
    return CloudEvent(
        id=f"news-{number}", source="/outside", type="canon.news", json=data, subject=INSTANCE if number == 2 else None
    )


def play_canonical(
    canonical: Canonical,
    crashes: Sequence[tuple[int, Fault]],
    *,
    seed: int = 0,
    trace: bool = False,
    sent_at: Sequence[int] | None = None,
) -> tuple[list[str], int, list[str]]:
    """Run one cell of the matrix: its violations, the boundaries that were passed, and the trace."""
    plan = Boundaries(crashes)
    world = CanonicalWorld(canonical, plan, seed=seed, trace=trace, sent_at=sent_at)
    violations = world.run()
    if not violations:
        world.check_outcome()
    return violations, plan.passed, world.trace or []


@dataclass(slots=True)
class Matrix:
    """What the matrix of one or more workflows gave."""

    singles: int = 0
    pairs: int = 0
    boundaries: dict[str, int] = field(default_factory=dict[str, int])
    failures: list[str] = field(default_factory=list[str])


def run_matrix(canonicals: Sequence[Canonical] = CANONICAL, *, pairs_max: int | None = None, seed: int = 0) -> Matrix:
    """All single crashes, and all ordered pairs (or so many of each workflow, drawn by chance)."""
    matrix = Matrix()
    gc.collect()
    gc.freeze()
    try:
        for canonical in canonicals:
            if canonical in HEARING:
                run_hearing(canonical, matrix, seed)
            else:
                run_workflow(canonical, matrix, pairs_max, seed)
            gc.collect()
    finally:
        gc.unfreeze()
    return matrix


def run_workflow(canonical: Canonical, matrix: Matrix, pairs_max: int | None, seed: int) -> None:
    name = canonical.workflow.name
    violations, boundaries, _ = play_canonical(canonical, (), seed=seed)
    _note(matrix, name, (), violations)
    matrix.boundaries[name] = boundaries
    pairs: list[tuple[tuple[int, Fault], tuple[int, Fault]]] = []
    for first in range(boundaries):
        for fault in CRASHES:
            violations, passed, _ = play_canonical(canonical, [(first, fault)], seed=seed)
            matrix.singles += 1
            _note(matrix, name, [(first, fault)], violations)
            pairs += [
                ((first, fault), (second, other))
                for second in range(first + 1, min(passed, first + 60))
                for other in CRASHES
            ]
    if pairs_max is not None and len(pairs) > pairs_max:
        pairs = Random(seed).sample(pairs, pairs_max)
    for number, pair in enumerate(pairs):
        violations, _, _ = play_canonical(canonical, pair, seed=seed)
        matrix.pairs += 1
        _note(matrix, name, pair, violations)
        if number % 200 == 199:
            gc.collect()


def run_hearing(canonical: Canonical, matrix: Matrix, seed: int, *, every: int = 1) -> None:
    """News at each boundary, with a crash at each of those before or after it, and at none."""
    name = canonical.workflow.name
    _, boundaries, _ = play_canonical(canonical, (), seed=seed, sent_at=(0, 0))
    matrix.boundaries[name] = boundaries
    crashes = [None, *((number, fault) for number in range(boundaries + 2) for fault in CRASHES)]
    cells = [(sent_at, gap, crash) for sent_at in range(boundaries + 2) for gap in (0, 3) for crash in crashes]
    for number, (sent_at, gap, crash) in enumerate(cells[seed % every :: every]):
        planned = () if crash is None else (crash,)
        violations, _, _ = play_canonical(canonical, planned, seed=seed, sent_at=(sent_at, sent_at + gap))
        matrix.singles += 1
        _note(matrix, f"{name}, news at {sent_at} and {sent_at + gap}", planned, violations)
        if number % 200 == 199:
            gc.collect()


def _note(matrix: Matrix, name: str, crashes: Sequence[tuple[int, Fault]], violations: Sequence[str]) -> None:
    if violations:
        where = ", ".join(f"{fault} boundary {number}" for number, fault in crashes) or "without a crash"
        matrix.failures.append(f"{name}, {where}: {violations[0]}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.crash_matrix", description=__doc__)
    parser.add_argument("--pairs", type=int, help="at most so many pairs of each workflow")
    parser.add_argument("--only", help="one workflow")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--database", choices=KINDS, help="single crashes on a real database instead of the model")
    parser.add_argument("--crashes", nargs="*", default=None, help="trace one cell: 3:before 7:after")
    options = parser.parse_args()
    known = CANONICAL if options.database is not None else (*CANONICAL, *HEARING)
    chosen = [each for each in known if options.only in (None, each.workflow.name)]
    if options.database is not None:
        return _main_real(options.database, chosen)
    if options.crashes is not None:
        crashes = [
            (int(number), Fault.CRASH_BEFORE if when == "before" else Fault.CRASH_AFTER)
            for number, when in (each.split(":") for each in options.crashes)
        ]
        violations, _, trace = play_canonical(chosen[0], crashes, seed=options.seed, trace=True)
        print("\n".join([*trace, *violations]))
        return 1 if violations else 0
    began = time.process_time()
    matrix = run_matrix(chosen, pairs_max=options.pairs, seed=options.seed)
    print(f"boundaries: {matrix.boundaries}")
    print(
        f"{len(chosen)} workflows, {matrix.singles:,} single crashes, {matrix.pairs:,} ordered pairs, "
        f"{time.process_time() - began:.0f} s of CPU, {len(matrix.failures)} violations"
    )
    for failure in matrix.failures[:20]:
        print(f"    {failure}")
    return 1 if matrix.failures else 0


def _main_real(kind: str, chosen: Sequence[Canonical]) -> int:
    report = run_real_matrix(kind, chosen)
    print(report.table())
    for failure in report.failures[:40]:
        print(f"    {failure}")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
