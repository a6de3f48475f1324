"""`edda bench`: how fast this machine and this database are, in a minute and without leaving anything behind."""

from __future__ import annotations

import statistics
import tempfile
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from edda.app import EddaApp
from edda.cli.options import limit, with_json
from edda.cli.terminal import Progress, note, say_json, table

EXAMPLES = """\
  edda bench                              a new SQLite file, deleted afterwards
  edda bench --db postgresql://db/empty   an empty database: rows stay there
"""
STEPS = 20


def add(parser: ArgumentParser) -> None:
    parser.add_argument("--db", metavar="URL", help="default: a new SQLite file that is deleted afterwards")
    parser.add_argument(
        "--instances", type=limit(100_000), default=200, metavar="N", help="how many to run; default 200"
    )
    with_json(parser)


async def run(options: Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="edda-bench-") as directory:
        url = options.db or f"sqlite:///{Path(directory) / 'bench.db'}"
        figures = await _measure(url, options.instances)
    if options.json:
        say_json(figures)
        return 0
    table(("WHAT", "FIGURE"), [(name.replace("_", " "), f"{value:,.1f}") for name, value in figures.items()])
    note("Absolute figures differ by a factor of two between runs on a busy machine.")
    return 0


async def _measure(url: str, count: int) -> dict[str, float]:
    import asyncio

    from edda.workflow import Workflow

    workflow: Workflow[..., Any] = _workflow()
    app = EddaApp("edda-bench", db_url=url, workflows=[workflow])
    progress = Progress("measuring")
    async with app:
        latencies: list[float] = []
        for number in range(20):
            progress.tell(f"one at a time, {number + 1} of 20")
            begin = time.perf_counter()
            handle = await app.start(workflow)
            await handle.result()
            latencies.append((time.perf_counter() - begin) / (STEPS + 1) * 1000)
        progress.tell(f"{count} at once")
        begin = time.perf_counter()
        handles = [await app.start(workflow) for _ in range(count)]
        await asyncio.gather(*(handle.result() for handle in handles))
        seconds = time.perf_counter() - begin
    progress.end()
    return {
        "milliseconds_per_step_alone": statistics.median(latencies),
        "steps_per_second_together": count * STEPS / seconds,
        "instances_per_second_together": count / seconds,
    }


def _workflow() -> Any:
    """Made when it is asked for, so that importing this declares nothing."""
    from edda.activity import activity
    from edda.context import WorkflowContext
    from edda.workflow import workflow

    @activity
    async def bench_step(ctx: WorkflowContext, number: int) -> int:
        return number

    @workflow(name="edda.bench")
    async def bench(ctx: WorkflowContext) -> int:
        return sum([await bench_step(ctx, number) for number in range(STEPS)])

    return bench
