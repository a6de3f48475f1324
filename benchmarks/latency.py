"""W4 and W5: from sending an event to the line after `wait_event`; and how late timers are.

    python -m benchmarks.latency                                   all databases, all of it
    python -m benchmarks.latency --databases postgresql --workloads w4 --rounds 5

- W4: one instance waits, one event is sent, 200 times; the sender is in the worker's process, or in another one. On
  SQLite the other process is a client of the same file. Databases and places take turns: A B C, A B C, ... Where only
  the poll tells of an event, expect a whole period and not half of one: the poll before it woke the instance before.
- W5: 1,000 instances with a timer of 1 s each, started as fast as it goes: how late the line after the timer is, by the
  due time that stands in the history. None may be early.

Times are of one machine's clock, read in the workflow function where it goes on; what comes after it, the commit of
what it did, is not in them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Report, percentile, table
from edda import EddaApp, WorkflowContext, wait_event, wait_timer, workflow
from edda.core.event import CloudEvent
from tests.databases import available, fresh_database

resumed: dict[str, float] = {}
"""When which instance got its event; filled by the function itself, for this process is the worker."""


@workflow
async def until_event(ctx: WorkflowContext) -> None:
    await wait_event(ctx, f"go.{ctx.instance_id}")
    resumed.setdefault(ctx.instance_id, time.time())


@workflow
async def until_time(ctx: WorkflowContext, seconds: float) -> None:
    await wait_timer(ctx, seconds)
    resumed.setdefault(ctx.instance_id, time.time())


# -- W4 ----------------------------------------------------------------------------------------------------------------


async def send_for_others(url: str) -> None:
    """The other process: an event for each line it reads, named there; it says when it began to send."""
    async with EddaApp(db_url=url, workflows=[]) as app:
        print("up", flush=True)
        while name := (await asyncio.to_thread(sys.stdin.readline)).strip():
            began = time.time()
            await app.accept([_event(name)])
            print(began, flush=True)


def _event(name: str) -> CloudEvent:
    return CloudEvent(name, "/bench", f"go.{name}")


@contextlib.asynccontextmanager
async def other_process(url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.latency", "--send", url,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    await process.stdout.readline()
    try:
        yield process
    finally:
        process.stdin.close()
        await process.wait()


class Place:
    """One database with a worker here and a sender in another process."""

    def __init__(self, app: EddaApp, sender: asyncio.subprocess.Process) -> None:
        self._app = app
        self._sender = sender
        self._count = 0

    async def latencies(self, count: int, *, here: bool) -> list[float]:
        return [await self._one(here=here) for _ in range(count)]

    async def _one(self, *, here: bool) -> float:
        self._count += 1
        name = f"w-{self._count}"
        bound: Any = until_event.options(id=name)
        handle = await self._app.start(bound)
        while await handle.status() != "waiting_for_event":  # noqa: ASYNC110
            await asyncio.sleep(0.001)  # as a caller would who has only the handle
        began = await self._send(name, here=here)
        await handle.result(timeout=30)
        return resumed.pop(name) - began

    async def _send(self, name: str, *, here: bool) -> float:
        if here:
            began = time.time()
            await self._app.accept([_event(name)])
            return began
        assert self._sender.stdin is not None
        assert self._sender.stdout is not None
        self._sender.stdin.write(f"{name}\n".encode())
        await self._sender.stdin.drain()
        return float(await self._sender.stdout.readline())


async def wake_latency(kinds: Sequence[str], report: Report, *, rounds: int, count: int) -> None:
    found: dict[tuple[str, str], list[float]] = {}
    async with contextlib.AsyncExitStack() as stack:
        places: dict[str, Place] = {}
        for kind in kinds:
            url = stack.enter_context(fresh_database(kind))
            app = await stack.enter_async_context(EddaApp(db_url=url))
            places[kind] = Place(app, await stack.enter_async_context(other_process(url)))
            await places[kind].latencies(5, here=True)
        for _ in range(rounds):
            for kind, place in places.items():
                for where in ("same process", "other process"):
                    more = await place.latencies(max(1, count // rounds), here=where == "same process")
                    found.setdefault((kind, where), []).extend(more)
    for (kind, where), times in found.items():
        report.add("w4", kind, where=where, **_figures(times))


# -- W5 ----------------------------------------------------------------------------------------------------------------


async def timers(kind: str, report: Report, *, count: int) -> None:
    with fresh_database(kind) as url:
        async with EddaApp(db_url=url) as app:
            resumed.clear()
            flow: Any = until_time
            handles = await asyncio.gather(*(app.start(flow.options(id=f"t-{n}"), 1.0) for n in range(count)))
            await asyncio.gather(*(handle.result(timeout=60) for handle in handles))
            due = [await _due(handle) for handle in handles]
            late = [resumed[handle] - at for handle, at in zip(handles, due, strict=True)]
    report.add("w5", kind, where=f"{count} timers", early=sum(seconds < 0 for seconds in late), **_figures(late))


async def _due(handle: Any) -> float:
    """A second after the instance was started, by its own clock."""
    started, *_ = await handle.history()
    found: float = started.created_at.timestamp() + 1.0
    return found


def _figures(times: Sequence[float]) -> dict[str, float]:
    return {
        "n": len(times),
        "p50_ms": percentile(times, 50) * 1000,
        "p99_ms": percentile(times, 99) * 1000,
        "max_ms": max(times) * 1000,
        "load": os.getloadavg()[0],
    }


# -- the command -------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--databases", default=",".join(kind for kind, url in available().items() if url))
    parser.add_argument("--workloads", default="w4,w5")
    parser.add_argument("--events", type=int, default=200, help="for each database and place")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--timers", type=int, default=1000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--send", metavar="URL", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.send:
        asyncio.run(send_for_others(chosen.send))
        return 0
    report = Report()
    kinds = chosen.databases.split(",")
    if "w4" in chosen.workloads:
        asyncio.run(wake_latency(kinds, report, rounds=chosen.rounds, count=chosen.events))
    if "w5" in chosen.workloads:
        for kind in kinds:
            asyncio.run(timers(kind, report, count=chosen.timers))
    columns = ["workload", "database", "where", "n", "p50_ms", "p99_ms", "max_ms", "early", "load"]
    print(table("wake-ups", columns, [[row.get(name, "") for name in columns] for row in report.rows]))
    if chosen.json:
        report.write(chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
