"""What a durable step costs: W1, W2 and W3, edda and the ceiling in turns (A B, B A, ...), on each database.

    python -m benchmarks.steps                                    everything: some minutes per database
    python -m benchmarks.steps --databases sqlite --workloads w2 --concurrency 100 --pairs 3
    python -m benchmarks.steps --quick --require 0.15             for CI: W2 at 100, 3 pairs; fails below 15 %

- W1: a workflow of one trivial activity, one at a time: from `start()` to the result.
- W2: workflows of 5 trivial activities, so many at a time.
- W3: one workflow of many activities: does the last step cost what the first did? And after kill -9, what does it cost
  to bring the body back to where it was?
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast

from benchmarks.ceiling import CONCURRENCIES, DRIVERS, STEPS, WORKFLOWS, Prototype, Sample, durability, measure, stored
from benchmarks.figures import Report, Spread, table
from edda import EddaApp, WorkflowContext, activity, workflow
from edda.storage.port import Store
from tests.databases import available, fresh_database

PAIRS: Final = 7
PAIRS_QUICK: Final = 3
W1_WORKFLOWS: Final = 100
W3_STEPS: Final = (1_000, 10_000)
WINDOW_STEPS: Final = 500
"""The beginning and the end of a long workflow, for comparison; the first steps, which warm up, are left out."""
WARM_UP_STEPS: Final = 50
TAKE_OVER_SECONDS_MAX: Final = 60.0


# --- what runs ------------------------------------------------------------------------------------------------------


@activity
async def add(ctx: WorkflowContext, number: int) -> dict[str, Any]:
    return {"number": number + 1}


@workflow
async def count_up(ctx: WorkflowContext, number: int, steps: int) -> int:
    for _ in range(steps):
        number = (await add(ctx, number))["number"]
    return number


Moment = tuple[float, float]
"""Wall clock, and CPU of this process, in seconds."""


def now() -> Moment:
    return time.perf_counter(), time.process_time()


@dataclass(slots=True)
class Moments:
    """When things happened in this process: code of the body and of activities leaves its traces here."""

    steps: list[Moment] = field(default_factory=list[Moment])
    """At each activity of the long workflow."""
    history: tuple[Moment, Moment] | None = None
    """Before and after reading the history of the long workflow."""
    at_end: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: Moment = (0.0, 0.0)
    stay: bool = False
    """Whether the last activity never ends."""


MOMENTS = Moments()


@activity
async def tick(ctx: WorkflowContext, number: int) -> dict[str, Any]:
    MOMENTS.steps.append(now())
    return {"number": number + 1}


@activity
async def arrive(ctx: WorkflowContext) -> None:
    MOMENTS.arrived = now()
    MOMENTS.at_end.set()
    if MOMENTS.stay:
        await asyncio.Event().wait()


@workflow
async def long_count(ctx: WorkflowContext, steps: int) -> int:
    number = 0
    for _ in range(steps):
        number = (await tick(ctx, number))["number"]
    await arrive(ctx)
    return number


class MemoryApp(EddaApp):
    """An app without a database, to see the engine alone."""

    def _make_store(self) -> Store:
        from edda.storage.memory import MemoryStore

        return MemoryStore()


class Edda:
    """An app on one database, and measurements with it."""

    def __init__(self, kind: str, url: str, **options: Any) -> None:
        self.kind = kind
        self.app = (MemoryApp if kind == "memory" else EddaApp)(db_url=url, **options)

    async def __aenter__(self) -> Self:
        await self.app.initialize()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.app.shutdown()

    @property
    def store(self) -> Any:
        """The app's own store."""
        engine = self.app._engine  # pyright: ignore[reportPrivateUsage]
        assert engine is not None
        return engine.store

    def transactions(self) -> int:
        """Group commits so far."""
        engine = self.app._engine  # pyright: ignore[reportPrivateUsage]
        assert engine is not None
        assert engine.worker is not None
        return engine.worker._committer.batches  # pyright: ignore[reportPrivateUsage]

    async def sample(self, *, workflows: int, steps: int, concurrency: int) -> Sample:
        async def run(number: int) -> None:
            handle = await self.app.start(count_up, number=number, steps=steps)
            result = await handle.result()
            assert result == number + steps

        return await measure(run, self.transactions, workflows=workflows, steps=steps, concurrency=concurrency)


# --- W1 and W2: in turns with the ceiling -----------------------------------------------------------------------------


@dataclass(slots=True)
class Duel:
    """Samples of both, by pairs."""

    edda: list[Sample]
    ceiling: list[Sample]

    def ratios(self, figure: Callable[[Sample], float]) -> Spread:
        """edda's figure as a share of the ceiling's, pair by pair."""
        return Spread.of(figure(a) / figure(b) for a, b in zip(self.edda, self.ceiling, strict=True))


def _median(samples: Sequence[Sample], figure: Callable[[Sample], float]) -> float:
    return statistics.median(figure(sample) for sample in samples)


async def duel(edda: Edda, prototype: Prototype, *, pairs: int, **load: int) -> Duel:
    """A B, B A, A B ...: whoever else uses the machine disturbs both."""
    found = Duel([], [])
    for pair in range(pairs):
        first_is_edda = pair % 2 == 0
        for is_edda in (first_is_edda, not first_is_edda):
            if is_edda:
                found.edda.append(await edda.sample(**load))
            else:
                found.ceiling.append(await prototype.sample(**load))
    return found


COLUMNS: Final = (
    *("conc", "steps/s", "wf/s", "ratio [min-max]", "ceiling", "p50 ms", "p99 ms"),
    *("cpu us", "loop us", "ceil cpu", "cpu ratio", "tx/step", "ceil tx"),
)


def _line(concurrency: int, found: Duel) -> list[object]:
    def ours(figure: Callable[[Sample], float]) -> float:
        return _median(found.edda, figure)

    def theirs(figure: Callable[[Sample], float]) -> float:
        return _median(found.ceiling, figure)

    return [
        concurrency,
        ours(lambda s: s.steps_per_second),
        ours(lambda s: s.workflows / s.seconds),
        str(found.ratios(lambda s: s.steps_per_second)),
        theirs(lambda s: s.steps_per_second),
        ours(lambda s: s.latency_ms(50)),
        ours(lambda s: s.latency_ms(99)),
        ours(lambda s: s.cpu_us_per_step),
        ours(lambda s: s.loop_us_per_step),
        theirs(lambda s: s.cpu_us_per_step),
        str(found.ratios(lambda s: s.cpu_us_per_step)),
        ours(lambda s: s.transactions_per_step),
        theirs(lambda s: s.transactions_per_step),
    ]


async def compare(
    kind: str, report: Report, *, workloads: set[str], concurrencies: Sequence[int], pairs: int, scale: float
) -> list[float]:
    """W1 and W2 on one database. Returns the ratios of W2 by concurrency."""
    ratios: list[float] = []
    with fresh_database(kind) as ours, fresh_database(kind) as theirs:
        prototype = Prototype(kind, theirs)
        await prototype.open()
        try:
            async with Edda(kind, ours) as edda:
                await _same_rows(kind, ours, edda, prototype, report)
                if "w1" in workloads:
                    await _compare_w1(kind, edda, prototype, report, pairs)
                if "w2" in workloads:
                    lines: list[list[object]] = []
                    for concurrency in concurrencies:
                        load = {"workflows": max(concurrency, int(WORKFLOWS[concurrency] * scale)), "steps": STEPS}
                        found = await duel(edda, prototype, pairs=pairs, concurrency=concurrency, **load)
                        lines.append(_line(concurrency, found))
                        speed = found.ratios(lambda s: s.steps_per_second)
                        ratios.append(speed.median)
                        report.add("W2", kind, ratio=speed, **dict(zip(COLUMNS, lines[-1], strict=True)))
                    bare = await prototype.against_bare(pairs)
                    report.add("ceiling", kind, of_bare_transactions=bare)
                    settings = await durability(prototype.driver, kind)
                    title = f"W2 {settings}; the ceiling at 100 reaches {bare} of bare transactions of 100 rows"
                    print(table(title, COLUMNS, lines), flush=True)
        finally:
            await prototype.close()
    return ratios


async def _same_rows(kind: str, url: str, edda: Edda, prototype: Prototype, report: Report) -> None:
    """Warm both up, and see that both write the same rows and bytes."""
    load = {"workflows": 200, "steps": STEPS, "concurrency": 20}
    await edda.sample(**load)
    await prototype.sample(**load)
    reader = DRIVERS[kind](url)
    await reader.open()
    try:
        a, b = await stored(reader), await stored(prototype.driver)
    finally:
        await reader.close()
    steps = load["workflows"] * STEPS
    ours, theirs = (sum(rows for rows, _ in found.values()) / steps for found in (a, b))
    our_bytes, their_bytes = (sum(size for _, size in found.values()) / steps for found in (a, b))
    them = f"the ceiling {theirs:.2f} and {their_bytes:.0f}"
    print(f"{kind}: per step of W2 {ours:.2f} rows and {our_bytes:.0f} bytes; {them}", flush=True)
    report.add("rows", kind, rows=ours, bytes=our_bytes, ceiling_rows=theirs, ceiling_bytes=their_bytes)
    assert ours == theirs, "the ceiling does not write the rows that edda writes"
    assert abs(our_bytes / their_bytes - 1) < 0.05, "the ceiling does not write the bytes that edda writes"


async def _compare_w1(kind: str, edda: Edda, prototype: Prototype, report: Report, pairs: int) -> None:
    found = await duel(edda, prototype, pairs=pairs, workflows=W1_WORKFLOWS, steps=1, concurrency=1)
    ratio = found.ratios(lambda s: s.latency_ms(50))
    figures = {
        name: _median(samples, lambda s, percent=percent: s.latency_ms(percent))  # type: ignore[misc]
        for samples, who in ((found.edda, ""), (found.ceiling, "ceiling_"))
        for percent, name in ((50.0, f"{who}p50_ms"), (99.0, f"{who}p99_ms"))
    }
    report.add("W1", kind, ratio=ratio, **figures)
    text = ", ".join(f"{name} {value:.2f}" for name, value in figures.items())
    print(f"W1 {kind}: {text}; ratio of p50 {ratio}\n", flush=True)


# --- W3: a long workflow, and its replay ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Growth:
    """The cost of a step at the begin and at the end of one workflow: wall clock (median) and CPU (mean), in us."""

    seconds: float
    first_us: float
    last_us: float
    first_cpu_us: float
    last_cpu_us: float

    @property
    def ratio(self) -> float:
        return self.last_us / self.first_us

    @property
    def cpu_ratio(self) -> float:
        return self.last_cpu_us / self.first_cpu_us


async def grow(edda: Edda, steps: int) -> Growth:
    """Run one workflow of so many activities."""
    MOMENTS.steps.clear()
    MOMENTS.at_end = asyncio.Event()  # an event belongs to one loop
    MOMENTS.stay = False
    gc.collect()
    began = time.perf_counter()
    handle = await edda.app.start(long_count, steps=steps)
    await handle.result()
    seconds = time.perf_counter() - began
    window = min(WINDOW_STEPS, steps // 4)
    first, last = MOMENTS.steps[WARM_UP_STEPS : WARM_UP_STEPS + window], MOMENTS.steps[-window:]
    return Growth(seconds, *(_wall_us(part) for part in (first, last)), *(_cpu_us(part) for part in (first, last)))


def _wall_us(moments: Sequence[Moment]) -> float:
    return statistics.median(after[0] - before[0] for before, after in itertools.pairwise(moments)) * 1e6


def _cpu_us(moments: Sequence[Moment]) -> float:
    return (moments[-1][1] - moments[0][1]) / (len(moments) - 1) * 1e6


@dataclass(frozen=True, slots=True)
class Replay:
    """What it took to take up a workflow whose process was killed, in us per recorded step."""

    steps: int
    wall_us: float
    cpu_us: float
    """Of reading and of replaying: what a busy machine does not distort."""
    read_cpu_us: float
    take_over_seconds: float
    """From the kill to the first new activity; the new process begins after the kill."""


async def replay_after_kill(url: str, steps: int) -> Replay:
    """Another process runs a workflow up to its last activity and is killed; this one takes it up."""
    arguments = [sys.executable, "-m", "benchmarks.steps", "--child", url, str(steps)]
    child = await asyncio.create_subprocess_exec(*arguments, stdout=subprocess.PIPE)
    assert child.stdout is not None
    line = await child.stdout.readline()
    if child.returncode is None:
        child.kill()
    await child.wait()
    if line.strip() != b"arrived":
        raise RuntimeError("the process that was to be killed ended by itself")
    killed = time.perf_counter()
    MOMENTS.stay = False
    MOMENTS.at_end = asyncio.Event()  # an event belongs to one loop
    gc.collect()
    MOMENTS.history = None
    async with TimedApp(db_url=url, lease_seconds=3.0, poll_seconds=0.05) as app:
        async with asyncio.timeout(TAKE_OVER_SECONDS_MAX):
            await MOMENTS.at_end.wait()
        await app.handle("long").result(timeout=TAKE_OVER_SECONDS_MAX)
    assert MOMENTS.history is not None
    asked, read = MOMENTS.history
    wall, cpu, read_cpu = (
        seconds / steps * 1e6
        for seconds in (MOMENTS.arrived[0] - asked[0], MOMENTS.arrived[1] - asked[1], read[1] - asked[1])
    )
    return Replay(steps, wall, cpu, read_cpu, MOMENTS.arrived[0] - killed)


class TimedApp(EddaApp):
    """Notes when it reads the history of the long workflow; from the first moment, as it may be claimed at once."""

    def _make_store(self) -> Store:
        store: Any = super()._make_store()
        original = store.histories

        async def histories(ids: Sequence[str]) -> Any:
            asked = now()
            found = await original(ids)
            if "long" in ids:
                MOMENTS.history = asked, now()
            return found

        store.histories = histories
        return cast(Store, store)


async def _child(url: str, steps: int) -> None:
    MOMENTS.stay = True
    async with EddaApp(db_url=url, lease_seconds=3.0) as app:
        await long_count.options(id="long").on(app).start(steps=steps)
        await MOMENTS.at_end.wait()
        print("arrived", flush=True)
        await asyncio.Event().wait()


async def long_workflows(kind: str, report: Report, *, repeats: int, lengths: Sequence[int] = W3_STEPS) -> None:
    lines: list[list[object]] = []
    for steps in lengths:
        with fresh_database(kind) as url:
            async with Edda(kind, url) as edda:
                await edda.sample(workflows=200, steps=STEPS, concurrency=20)
                growths = [await grow(edda, steps) for _ in range(repeats)]
        replays: list[Replay] = []
        for _ in range(repeats):
            with fresh_database(kind) as url:
                replays.append(await replay_after_kill(url, steps))
        growth = sorted(growths, key=lambda one: one.seconds)[len(growths) // 2]
        replay = sorted(replays, key=lambda one: one.cpu_us)[len(replays) // 2]
        wall, cpu = Spread.of(one.ratio for one in growths), Spread.of(one.cpu_ratio for one in growths)
        report.add("W3", kind, steps=steps, growth=growth, wall_ratio=wall, cpu_ratio=cpu, replay=replay)
        line = [steps, growth.seconds, growth.first_us, growth.last_us, str(wall), str(cpu)]
        lines.append([*line, replay.wall_us, replay.cpu_us, replay.read_cpu_us, replay.take_over_seconds])
    print(table(f"W3 {kind}", W3_COLUMNS, lines), flush=True)


W3_COLUMNS: Final = (
    *("steps", "seconds", "first us", "last us", "last/first", "CPU last/first"),
    *("replay us", "replay CPU us", "of it reading", "taken over s"),
)


# --- the command ----------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--databases", default=",".join(kind for kind, url in available().items() if url))
    found.add_argument("--workloads", default="w1,w2,w3")
    found.add_argument("--concurrency", default=",".join(map(str, CONCURRENCIES)))
    found.add_argument("--pairs", type=int, default=PAIRS)
    found.add_argument("--scale", type=float, default=1.0, help="times the usual number of workflows")
    found.add_argument("--quick", action="store_true", help="W2 at concurrency 100 only, 3 pairs")
    found.add_argument("--require", type=float, default=0.0, help="exit code 1 where W2 reaches less of the ceiling")
    found.add_argument("--json", type=Path, metavar="FILE")
    found.add_argument("--child", nargs=2, metavar=("URL", "STEPS"), help=argparse.SUPPRESS)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = parser().parse_args(arguments)
    if chosen.child:
        asyncio.run(_child(chosen.child[0], int(chosen.child[1])))
        return 0
    workloads = {"w2"} if chosen.quick else set(chosen.workloads.split(","))
    concurrencies = [100] if chosen.quick else [int(number) for number in chosen.concurrency.split(",")]
    pairs = PAIRS_QUICK if chosen.quick else chosen.pairs
    report = Report()
    ratios: list[float] = []
    for kind in chosen.databases.split(","):
        if workloads & {"w1", "w2"}:
            options = {"workloads": workloads, "concurrencies": concurrencies, "pairs": pairs, "scale": chosen.scale}
            ratios += asyncio.run(compare(kind, report, **options))
        if "w3" in workloads:
            asyncio.run(long_workflows(kind, report, repeats=min(3, pairs)))
    if chosen.json:
        report.write(chosen.json)
    if ratios and min(ratios) < chosen.require:
        print(f"W2 reaches {min(ratios):.2f} of the ceiling, less than {chosen.require}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
