"""One event that 100,000 instances wait for: is its 202 late, how long until all have run, and what does memory do?

    python -m benchmarks.broadcast --databases sqlite,postgresql --instances 100000
    python -m benchmarks.broadcast --waits 1000000      what leading one event on costs among so many stored waits

One instance starts and parks; its rows are copied by SQL. While the broadcast goes on, other events are stored: their
latency is that of `accept`, which is all that a 202 waits for.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import percentile, table
from edda import EddaApp, WorkflowContext, wait_event, workflow
from edda.core.event import CloudEvent
from edda.core.routing import Criteria, event_key
from edda.storage.sql import open_store
from edda.storage.sql.database import Lane
from edda.storage.sql.rows import insert
from edda.storage.sql.schema import HISTORY, INSTANCE, WAIT, WAIT_COLUMNS
from edda.storage.sql.verb import Statement, Verb
from tests.databases import available, fresh_database

SERIES = {
    "sqlite": "(with recursive n(g) as (select 1 union all select g + 1 from n where g < {count}) select g from n) n",
    "postgresql": "generate_series(1, {count}) n(g)",
    "mysql": "seq_1_to_{count} n",
}
NAMES = {
    "sqlite": "printf('b-%07d', n.g)",
    "postgresql": "'b-' || lpad(n.g::text, 7, '0')",
    "mysql": "concat('b-', lpad(n.seq, 7, '0'))",
}


@workflow
async def hearing(ctx: WorkflowContext) -> object:
    return (await wait_event(ctx, "alarm")).data["n"]


def copies(kind: str, count: int) -> Verb[None]:
    for one in (INSTANCE, HISTORY, WAIT):
        key = one.key[0]
        columns = [column.name for column in one.columns]
        values = [NAMES[kind] if name == key else f"t.{name}" for name in columns]
        series = SERIES[kind].format(count=count)
        yield Statement(
            f"insert into {one.name} ({', '.join(columns)}) select {', '.join(values)} "
            f"from {one.name} t, {series} where t.{key} = 'first'"
        )


def select(text: str) -> Verb[Any]:
    rows, _ = yield Statement(text)
    return rows


def rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def event(name: str, event_type: str = "alarm") -> CloudEvent:
    return CloudEvent(name, "/bench", event_type, json='{"n":1}')


async def broadcast(kind: str, count: int) -> list[object]:
    with fresh_database(kind) as url:
        app = EddaApp(db_url=url)
        async with app:
            bound: Any = hearing.options(id="first")
            handle = await app.start(bound)
            while await handle.status() != "waiting_for_event":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        store: Any = open_store(url)
        await store.open()
        await store.database.run("copies", lambda: copies(kind, count), lane=Lane.DESK)
        await store.database.run(
            "analyze", lambda: select("analyze") if kind != "mysql" else select("select 1"), lane=Lane.DESK
        )
        async with app:
            await asyncio.sleep(1)
            quiet = [await _accept(app, event(f"q{n}", "probe")) for n in range(50)]
            before = peak = rss_mb()
            began = time.perf_counter()
            answer = await _accept(app, event("alarm"))
            during: list[float] = []
            done = 0
            while done <= count:
                during += [await _accept(app, event(f"d{len(during)}", "probe"))]
                peak = max(peak, rss_mb())
                await asyncio.sleep(0.1)
                if len(during) % 10 == 0:
                    rows = await store.database.run(
                        "count",
                        lambda: select("select count(*) from edda_instance where status = 'completed'"),
                        lane=Lane.READ,
                    )
                    done = rows[0][0]
            seconds = time.perf_counter() - began
            routed = await store.database.run(
                "routed", lambda: select("select max(routed) from edda_inbox where id = 'alarm'"), lane=Lane.READ
            )
            assert routed[0][0] == 1
        await store.close()
    return [
        kind,
        count,
        percentile(quiet, 50) * 1e3,
        answer * 1e3,
        percentile(during, 50) * 1e3,
        percentile(during, 99) * 1e3,
        seconds,
        count / seconds,
        before,
        peak,
        os.getloadavg()[0],
    ]


async def _accept(app: EddaApp, one: CloudEvent) -> float:
    began = time.perf_counter()
    await app.accept([one])
    return time.perf_counter() - began


# -- among a million waits ---------------------------------------------------------------------------------------------


async def among(kind: str, waits: int, events: int = 2000, group: int = 100) -> list[object]:
    """Microseconds to lead one event to the one that waits for it, in groups as the router does."""
    criteria = [Criteria.of("paid", match={"order": number}) for number in range(events)]
    other = Criteria.of("paid", match={"order": -1})

    def fill() -> Verb[None]:
        for start in range(0, waits, 10_000):
            rows = [
                (
                    f"w-{n:08d}",
                    "paid:1",
                    "paid",
                    criteria[n * events // waits].route if n % (waits // events) == 0 else f"{n:064d}",
                )
                for n in range(start, min(waits, start + 10_000))
            ]
            yield Statement(insert("edda_wait", WAIT_COLUMNS), rows, many=True)

    with fresh_database(kind) as url:
        store: Any = open_store(url)
        await store.open()
        await store.learn("paid", other.fields, since_us=0)
        await store.database.run("fill", fill, lane=Lane.DESK)
        analyze = "analyze table edda_wait" if kind == "mysql" else "analyze"  # as autovacuum does within a minute
        await store.database.run("analyze", lambda: select(analyze), lane=Lane.DESK)
        sent = [CloudEvent(str(n), "/bench", "paid", json=f'{{"order":{n}}}') for n in range(events)]
        for start in range(0, events, group):
            await store.accept(sent[start : start + group])
        woken = 0
        began = time.perf_counter()
        for start in range(0, events - 200, group):
            routed = await store.route([event_key(e) for e in sent[start : start + group]])
            assert not routed.left, routed
            woken += len(routed.woken)
        grouped = (time.perf_counter() - began) / (events - 200)
        began = time.perf_counter()
        for e in sent[events - 200 :]:
            woken += len((await store.route([event_key(e)])).woken)
        one = (time.perf_counter() - began) / 200
        assert woken == events, woken
        await store.close()
    return [kind, waits, grouped * 1e6, one * 1e6, os.getloadavg()[0]]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--databases", default=",".join(kind for kind, url in available().items() if url))
    parser.add_argument("--instances", type=int, default=100_000)
    parser.add_argument("--waits", type=int, nargs="*", default=[])
    chosen = parser.parse_args(arguments)
    kinds = chosen.databases.split(",")
    if chosen.waits:
        rows = [asyncio.run(among(kind, waits)) for kind in kinds for waits in chosen.waits]
        print(
            table(
                "one event among stored waits",
                ["database", "waits", "us per event, 100 at once", "one at a time", "load"],
                rows,
            )
        )
        return 0
    rows = [asyncio.run(broadcast(kind, chosen.instances)) for kind in kinds]
    columns = [
        "database",
        "instances",
        "accept before ms",
        "its own ms",
        "during p50 ms",
        "p99 ms",
        "all done s",
        "per s",
        "RSS MB",
        "peak MB",
        "load",
    ]
    print(table("one event for very many", columns, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
