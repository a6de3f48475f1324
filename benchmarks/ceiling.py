"""The ceiling: group commit with nothing around it. No leases, no replay, no hooks, no codec beyond JSON.

It writes the rows that edda writes, into edda's own tables, through the same driver: one instance row, one history row
per step and one each for begin and end, one update of the instance row; n + 1 commits for n steps in a row. What
arrives while a transaction is in flight is the next transaction. As a ceiling it is only worth something if it comes
near to what the driver does when somebody feeds it ready-made transactions of 100 rows, so that is measured with it:

    python -m benchmarks.ceiling [--databases sqlite,postgresql,mysql]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from queue import SimpleQueue
from typing import Any, Final, Protocol

import asyncmy
import asyncpg
from pydantic_core import from_json, to_json
from sqlalchemy.engine import make_url

from benchmarks.figures import Spread, percentile, table
from edda.storage.sql import open_store
from edda.storage.sql.schema import HISTORY, HISTORY_COLUMNS, INSTANCE
from tests.databases import available, fresh_database

CONCURRENCIES: Final = (1, 10, 100, 1000)
WORKFLOWS: Final = {1: 60, 10: 600, 100: 2000, 1000: 3000}
"""How many workflows make one sample of W2, by concurrency: about a second of edda's time."""

STEPS: Final = 5
BARE_ROWS: Final = 100
ROWS_PER_STEP: Final = (STEPS + 4) / STEPS
"""Each workflow writes 4 rows more than it has steps: its own, twice, and those of its begin and its end."""

TOOK: Final = '{"duration_us":7}'
"""The details that edda stores with each result: how long it took."""

Row = tuple[Any, ...]

INSTANCE_COLUMNS: Final = tuple(column.name for column in INSTANCE.columns)
INSERT_INSTANCE: Final = f"insert into edda_instance ({', '.join(INSTANCE_COLUMNS)}) values "
INSERT_HISTORY: Final = f"insert into edda_history ({', '.join(HISTORY_COLUMNS)}) values "
SET_ENDED: Final = (
    "status = 'completed', owner = null, claimable_at_us = null, output = {output}, updated_at_us = {at}, "
    "ended_at_us = {at}"
)


@dataclass(slots=True)
class Load:
    """What one transaction writes."""

    starts: list[Row] = field(default_factory=list[Row])
    """Rows of `edda_instance`."""
    records: list[Row] = field(default_factory=list[Row])
    """Rows of `edda_history`."""
    ends: list[Row] = field(default_factory=list[Row])
    """(output, time, id) of instances that end."""


class Driver(Protocol):
    """One connection, and the quickest way to write a load over it."""

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    async def write(self, load: Load) -> None: ...
    async def fetch(self, text: str) -> list[Sequence[Any]]: ...
    def prepare(self, records: list[Row]) -> Callable[[], Awaitable[None]]:
        """A transaction of these rows, with everything done beforehand that can be."""
        ...


# --- SQLite ---------------------------------------------------------------------------------------------------------


class Sqlite:
    """A thread that owns the connection; `executemany` for each kind of row."""

    def __init__(self, url: str) -> None:
        self._path = make_url(url).database
        self._jobs: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        await self._call(self._connect)

    async def close(self) -> None:
        await self._call(lambda: self._connection.close())
        self._jobs.put(None)

    async def write(self, load: Load) -> None:
        await self._call(lambda: self._write(load))

    async def fetch(self, text: str) -> list[Sequence[Any]]:
        rows: list[Sequence[Any]] = await self._call(lambda: self._connection.execute(text).fetchall())
        return rows

    def prepare(self, records: list[Row]) -> Callable[[], Awaitable[None]]:
        load = Load(records=records)
        return lambda: self.write(load)

    def _connect(self) -> None:
        assert self._path is not None
        self._connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = full")
        self._insert_instance = INSERT_INSTANCE + _marks("?", len(INSTANCE_COLUMNS))
        self._insert_history = INSERT_HISTORY + _marks("?", len(HISTORY_COLUMNS))
        self._update = f"update edda_instance set {SET_ENDED.format(output='?1', at='?2')} where id = ?3"

    def _write(self, load: Load) -> None:
        connection = self._connection
        connection.execute("begin immediate")
        if load.starts:
            connection.executemany(self._insert_instance, load.starts)
        if load.records:
            connection.executemany(self._insert_history, load.records)
        if load.ends:
            connection.executemany(self._update, load.ends)
        connection.execute("commit")

    async def _call(self, job: Callable[[], Any]) -> Any:
        future = self._loop.create_future()
        self._jobs.put((job, future))
        return await future

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, future = item
            try:
                result = job()
            except BaseException as error:
                self._loop.call_soon_threadsafe(future.set_exception, error)
            else:
                self._loop.call_soon_threadsafe(future.set_result, result)


# --- PostgreSQL -----------------------------------------------------------------------------------------------------


class Postgresql:
    """One statement per transaction, each kind of row as an `unnest` of arrays."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def open(self) -> None:
        self._connection: Any = await asyncpg.connect(self._url)

    async def close(self) -> None:
        await self._connection.close()

    async def write(self, load: Load) -> None:
        text = _one_statement(bool(load.starts), bool(load.records), bool(load.ends))
        arrays = [*zip(*load.starts, strict=True), *zip(*load.records, strict=True), *zip(*load.ends, strict=True)]
        await self._connection.execute(text, *arrays)

    async def fetch(self, text: str) -> list[Sequence[Any]]:
        return list(await self._connection.fetch(text))

    def prepare(self, records: list[Row]) -> Callable[[], Awaitable[None]]:
        text, arrays = _one_statement(False, True, False), list(zip(*records, strict=True))

        async def write() -> None:
            await self._connection.execute(text, *arrays)

        return write


@lru_cache
def _one_statement(starts: bool, records: bool, ends: bool) -> str:
    number = itertools.count(1)

    def arrays(columns: Sequence[tuple[str, str]]) -> str:
        return ", ".join(f"${next(number)}::{kind}[]" for _, kind in columns)

    parts: list[str] = []
    for wanted, table_ in ((starts, INSTANCE), (records, HISTORY)):
        if wanted:
            columns = [(column.name, _POSTGRESQL_TYPES[column.kind.value]) for column in table_.columns]
            names = ", ".join(name for name, _ in columns)
            parts.append(f"{table_.name}_rows as (insert into {table_.name} ({names}) "
                         f"select * from unnest({arrays(columns)}))")  # fmt: skip
    if ends:
        values = arrays([("output", "text"), ("at_us", "bigint"), ("id", "text")])
        sets = SET_ENDED.format(output="v.output", at="v.at_us")
        parts.append(
            f"ended as (update edda_instance i set {sets} from unnest({values}) v(output, at_us, id) where i.id = v.id)"
        )
    return f"with {', '.join(parts)} select 1"


_POSTGRESQL_TYPES: Final = {
    "key": "text",
    "word": "text",
    "text": "text",
    "bytes": "bytea",
    "integer": "bigint",
    "flag": "smallint",
}


# --- MariaDB and MySQL ----------------------------------------------------------------------------------------------


class Mysql:
    """Multi-row statements; BEGIN and COMMIT only where a transaction has more than one of them."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)

    async def open(self) -> None:
        self._connection: Any = await asyncmy.connect(
            host=self._url.host or "127.0.0.1",
            port=self._url.port or 3306,
            user=self._url.username or "root",
            password=self._url.password or "",
            database=self._url.database,
            autocommit=True,
        )
        await self._execute("set session transaction isolation level read committed", ())

    async def close(self) -> None:
        await self._connection.ensure_closed()

    async def write(self, load: Load) -> None:
        single = bool(load.starts) + bool(load.records) + bool(load.ends) == 1
        if not single:
            await self._connection.begin()
        if load.starts:
            await self._insert(INSERT_INSTANCE, len(INSTANCE_COLUMNS), load.starts)
        if load.records:
            await self._insert(INSERT_HISTORY, len(HISTORY_COLUMNS), load.records)
        if load.ends:
            others = ["select %s, %s, %s"] * (len(load.ends) - 1)
            values = " union all ".join(["select %s as output, %s as at_us, %s as id", *others])
            sets = SET_ENDED.replace("{output}", "v.output").replace("{at}", "v.at_us")
            sets = sets.replace("output =", "i.output =", 1)
            text = f"update edda_instance i join ({values}) v on i.id = v.id set {sets}"
            await self._execute(text, [value for row in load.ends for value in row])
        if not single:
            await self._connection.commit()

    async def fetch(self, text: str) -> list[Sequence[Any]]:
        async with self._connection.cursor() as cursor:
            await cursor.execute(text)
            return list(await cursor.fetchall())

    def prepare(self, records: list[Row]) -> Callable[[], Awaitable[None]]:
        return lambda: self._insert(INSERT_HISTORY, len(HISTORY_COLUMNS), records)

    async def _insert(self, head: str, width: int, rows: list[Row]) -> None:
        text = head + ", ".join([_marks("%s", width)] * len(rows))
        await self._execute(text, [value for row in rows for value in row])

    async def _execute(self, text: str, values: Sequence[Any]) -> None:
        async with self._connection.cursor() as cursor:
            await cursor.execute(text, values)


@lru_cache
def _marks(mark: str, count: int) -> str:
    return f"({', '.join([mark] * count)})"


DRIVERS: Final[dict[str, Callable[[str], Driver]]] = {"sqlite": Sqlite, "postgresql": Postgresql, "mysql": Mysql}


# --- group commit ---------------------------------------------------------------------------------------------------


class GroupCommit:
    """One transaction in flight; what arrives meanwhile is the next."""

    def __init__(self, driver: Driver) -> None:
        self.transactions = 0
        self._driver = driver
        self._next, self._waiting = Load(), list[asyncio.Future[None]]()
        self._wake = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def __call__(
        self, *, starts: Row | None = None, records: Sequence[Row] = (), ends: Row | None = None
    ) -> Awaitable[None]:
        load = self._next
        if starts is not None:
            load.starts.append(starts)
        load.records.extend(records)
        if ends is not None:
            load.ends.append(ends)
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._wake.set()
        return future

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            while self._waiting:
                load, self._next = self._next, Load()
                waiting, self._waiting = self._waiting, []
                await self._driver.write(load)
                self.transactions += 1
                for future in waiting:
                    future.set_result(None)
            self._wake.clear()

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})


async def add(number: int) -> dict[str, int]:
    """The trivial activity."""
    return {"number": number + 1}


@dataclass(slots=True)
class Sample:
    """One measurement."""

    workflows: int
    steps: int
    seconds: float
    cpu_seconds: float
    """Of the whole process: on SQLite with the database in it."""
    loop_seconds: float
    """CPU of the event loop's thread."""
    transactions: int
    latencies: list[float] = field(repr=False)

    @property
    def steps_per_second(self) -> float:
        return self.steps / self.seconds

    @property
    def cpu_us_per_step(self) -> float:
        return self.cpu_seconds / self.steps * 1e6

    @property
    def loop_us_per_step(self) -> float:
        return self.loop_seconds / self.steps * 1e6

    @property
    def transactions_per_step(self) -> float:
        return self.transactions / self.steps

    def latency_ms(self, percent: float) -> float:
        return percentile(self.latencies, percent) * 1000


async def measure(
    run: Callable[[int], Awaitable[object]],
    transactions: Callable[[], int],
    *,
    workflows: int,
    steps: int,
    concurrency: int,
) -> Sample:
    """So many workflows by so many clients, each beginning the next when it has the result of the one before."""
    numbers, latencies = iter(range(workflows)), list[float]()

    async def client() -> None:
        for number in numbers:
            began = time.perf_counter()
            await run(number)
            latencies.append(time.perf_counter() - began)

    gc.collect()
    before = time.perf_counter(), time.process_time(), time.thread_time(), transactions()
    await asyncio.gather(*(client() for _ in range(concurrency)))
    after = time.perf_counter(), time.process_time(), time.thread_time(), transactions()
    seconds, cpu, loop, count = (end - begin for begin, end in zip(before, after, strict=True))
    return Sample(workflows, workflows * steps, seconds, cpu, loop, int(count), latencies)


class Prototype:
    """The whole ceiling on one database."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind = kind
        self.driver = DRIVERS[kind](url)
        self._url = url
        self._numbers = itertools.count(time.time_ns())
        self._owner = "prototype-host-12345-0123abcd"

    async def open(self) -> None:
        store = open_store(self._url)  # makes the tables
        await store.open()
        await store.close()
        await self.driver.open()
        self.commit = GroupCommit(self.driver)

    async def close(self) -> None:
        await self.commit.stop()
        await self.driver.close()

    async def sample(self, *, workflows: int, steps: int, concurrency: int) -> Sample:
        return await measure(
            lambda number: self.run(number, steps),
            lambda: self.commit.transactions,
            workflows=workflows,
            steps=steps,
            concurrency=concurrency,
        )

    async def run(self, number: int, steps: int) -> object:
        """A workflow of sequential activities."""
        instance_id, commit = f"count_up-{next(self._numbers):032x}", self.commit
        text = to_json({"args": (), "kwargs": {"number": number, "steps": steps}}).decode()
        await commit(starts=_instance(instance_id, text, self._owner))
        seq = 1
        records = [_record(instance_id, seq, "WorkflowStarted", "", "count_up", meta='{"python":"3.11"}')]
        for step in range(1, steps + 1):
            arguments = to_json({"args": (number,), "kwargs": {}}).decode()
            output = to_json(await add(number)).decode()
            seq += 1
            records.append(
                _record(instance_id, seq, "ActivityCompleted", f"add:{step}", "add", arguments, output, meta=TOOK)
            )
            number = from_json(output)["number"]
            if step < steps:
                await commit(records=records)
                records = []
        output = to_json(number).decode()
        records.append(_record(instance_id, seq + 1, "WorkflowCompleted", "", "count_up", output=output))
        await commit(records=records, ends=(output, _now_us(), instance_id))
        return number

    async def bare(self, seconds: float = 0.5) -> float:
        """Rows per second of ready-made transactions, one after the other."""
        count = 40
        ready = [self.driver.prepare(self._bare_rows()) for _ in range(count)]
        began, done = time.perf_counter(), 0
        while ready and (done == 0 or time.perf_counter() - began < seconds):
            if done == len(ready):
                pause = time.perf_counter()
                ready += [self.driver.prepare(self._bare_rows()) for _ in range(count)]
                began += time.perf_counter() - pause
            await ready[done]()
            done += 1
        return done * BARE_ROWS / (time.perf_counter() - began)

    async def against_bare(self, pairs: int) -> Spread:
        """Rows per second at concurrency 100 as a share of those of ready-made transactions, in turns."""
        ratios: list[float] = []
        for pair in range(pairs):
            before = await self.bare() if pair % 2 else 0.0
            sample = await self.sample(workflows=WORKFLOWS[100], steps=STEPS, concurrency=100)
            ratios.append(sample.steps_per_second * ROWS_PER_STEP / (before or await self.bare()))
        return Spread.of(ratios)

    def _bare_rows(self) -> list[Row]:
        ids = [f"count_up-{next(self._numbers):032x}" for _ in range(BARE_ROWS)]
        values = '{"args":[1234],"kwargs":{}}', '{"number":1235}'
        return [_record(instance_id, 1, "ActivityCompleted", "add:1", "add", *values) for instance_id in ids]


def _now_us() -> int:
    return time.time_ns() // 1000


_HASH: Final = "0123456789abcdef" * 4
_INSTANCE: Final[dict[str, Any]] = {
    "workflow": "count_up", "status": "running", "reason": "", "claim": 1, "wakes": 0, "cancelled_by": "", "crashes": 0,
    "args_hash": _HASH, "detached": 0, "source_hash": _HASH, "python": "3.11", "seen_wakes": 0, "claim_key": 0,
}  # fmt: skip
_TEMPLATE: Final = tuple(_INSTANCE.get(name) for name in INSTANCE_COLUMNS)
_OWNER, _INPUT, _CREATED, _UPDATED = map(INSTANCE_COLUMNS.index, ("owner", "input", "created_at_us", "updated_at_us"))


def _instance(instance_id: str, text: str, owner: str) -> Row:
    row = list(_TEMPLATE)
    row[0], row[_OWNER], row[_INPUT], row[_CREATED] = instance_id, owner, text, _now_us()
    row[_UPDATED] = row[_CREATED]
    return tuple(row)


def _record(
    instance_id: str,
    seq: int,
    kind: str,
    call_id: str,
    name: str,
    text: str | None = None,
    output: str | None = None,
    meta: str | None = None,
) -> Row:
    return (instance_id, seq, 1, _now_us(), kind, call_id, name, text, output, None, meta)


async def stored(driver: Driver) -> dict[str, tuple[int, int]]:
    """Rows, and bytes of their values (integers count 8), by table."""
    found: dict[str, tuple[int, int]] = {}
    for table_ in (INSTANCE, HISTORY):
        sizes = [f"coalesce(length({c.name}), 0)" for c in table_.columns if c.kind.value not in ("integer", "flag")]
        numbers = len(table_.columns) - len(sizes)
        text = f"select count(*), coalesce(sum({' + '.join(sizes)} + {8 * numbers}), 0) from {table_.name}"
        rows = await driver.fetch(text)
        found[table_.name] = int(rows[0][0]), int(rows[0][1])
    return found


async def durability(driver: Driver, kind: str) -> str:
    """The settings that decide what a commit costs, as the server has them."""
    match kind:
        case "sqlite":
            shown = [(await driver.fetch(f"pragma {name}"))[0][0] for name in ("journal_mode", "synchronous")]
            return f"SQLite {sqlite3.sqlite_version}, journal_mode={shown[0]}, synchronous={shown[1]}"
        case "postgresql":
            names = ("server_version", "synchronous_commit", "fsync")
            shown = [(await driver.fetch(f"show {name}"))[0][0] for name in names]
            return f"PostgreSQL {shown[0]}, synchronous_commit={shown[1]}, fsync={shown[2]}"
        case _:
            version, flush, binlog = (
                await driver.fetch("select version(), @@innodb_flush_log_at_trx_commit, @@log_bin")
            )[0]
            return f"{version}, innodb_flush_log_at_trx_commit={flush}, log_bin={binlog}"


# --- the command ----------------------------------------------------------------------------------------------------


async def _show(kind: str, url: str, repeats: int) -> None:
    prototype = Prototype(kind, url)
    await prototype.open()
    try:
        await prototype.sample(workflows=200, steps=STEPS, concurrency=20)
        rows: list[list[object]] = []
        for concurrency in CONCURRENCIES:
            samples = [
                await prototype.sample(workflows=WORKFLOWS[concurrency], steps=STEPS, concurrency=concurrency)
                for _ in range(repeats)
            ]
            sample = sorted(samples, key=lambda one: one.steps_per_second)[len(samples) // 2]
            figures = (sample.steps_per_second, sample.cpu_us_per_step, sample.loop_us_per_step)
            latency = (sample.latency_ms(50), sample.latency_ms(99))
            rows.append([concurrency, *figures, sample.transactions_per_step, *latency])
        first = await prototype.sample(workflows=200, steps=1, concurrency=1)
        bare = await prototype.against_bare(7)
        title = (
            f"{kind}: {await durability(prototype.driver, kind)}; W1 {first.latency_ms(50):.2f} ms; "
            f"at 100 it writes {bare} of the rows of bare transactions of 100"
        )
        columns = ("concurrency", "steps/s", "cpu us", "loop us", "tx/step", "p50 ms", "p99 ms")
        print(table(title, columns, rows))
    finally:
        await prototype.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--databases", default=",".join(kind for kind, url in available().items() if url))
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    for kind in chosen.databases.split(","):
        with fresh_database(kind) as url:
            asyncio.run(_show(kind, url, chosen.repeats))


if __name__ == "__main__":
    main()
