"""What acceptance tests share: waiting with a deadline, stopping a workflow at a chosen line, looking into tables.

Nothing here knows the engine: only the public API, and plain SQL for what a user would look at with SQL.
"""

import asyncio
import inspect
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import MetaData, column, select, table, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from edda import RetryPolicy, WorkflowContext, WorkflowHandle, activity

SOON = 15.0 if os.environ.get("EDDA_TEST_ENGINE") != "stub" else 1.5
"""Seconds within which everything has to happen that needs no waiting; generous, because machines are shared."""

QUICK = RetryPolicy(initial_interval=0.001)
"""The default policy without its patience."""

DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "mysql": "mysql+asyncmy"}

_SERVERS = [
    pytest.param("postgresql", marks=pytest.mark.postgresql),
    pytest.param("mysql", marks=pytest.mark.mysql),
]
on_every_database = pytest.mark.parametrize("db_url", ["sqlite", *_SERVERS], indirect=True)
on_every_server = pytest.mark.parametrize("db_url", _SERVERS, indirect=True)
on_postgresql = pytest.mark.parametrize("db_url", _SERVERS[:1], indirect=True)
on_mysql = pytest.mark.parametrize("db_url", _SERVERS[1:], indirect=True)


async def eventually(condition: Callable[[], Any], *, within_seconds: float = SOON) -> Any:
    """Ask again and again until the (possibly async) condition holds, and return what it said."""
    deadline = time.monotonic() + within_seconds
    while True:
        outcome = condition()
        if inspect.isawaitable(outcome):
            outcome = await outcome
        if outcome:
            return outcome
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_seconds} s: {inspect.getsource(condition).strip()}")
        await asyncio.sleep(0.01)


async def reaches(handle: WorkflowHandle[Any], *statuses: str, within_seconds: float = SOON) -> str:
    """Wait until the instance has one of these statuses."""
    deadline = time.monotonic() + within_seconds
    while (status := await handle.status()) not in statuses:
        if time.monotonic() > deadline:
            raise AssertionError(f"{handle} is {status} ({await handle.reason()}), not {' or '.join(statuses)}")
        await asyncio.sleep(0.01)
    return status


async def events_of(handle: WorkflowHandle[Any], event_type: str, activity_id: str | None = None) -> list[Any]:
    """The history events of one type, oldest first."""
    return [
        event
        for event in await handle.history()
        if event.event_type == event_type and activity_id in (None, event.activity_id)
    ]


async def results_of(handle: WorkflowHandle[Any]) -> dict[str, Any]:
    """The recorded results by activity id, in the order of recording."""
    completed = await events_of(handle, "ActivityCompleted")
    results = {event.activity_id: event.event_data["result"] for event in completed}
    assert len(results) == len(completed), "an activity has more than one recorded result"
    return results


class Gate:
    """An activity that blocks until the test opens it: here a workflow can be stopped, and the app restarted.

    `await gate.pass_(ctx)` in the workflow; `await gate.reached()` and `gate.open()` in the test.
    """

    def __init__(self, name: str = "gate") -> None:
        self.arrivals = 0
        self._reached = asyncio.Event()
        self._open = asyncio.Event()

        @activity(name=name)
        async def pass_(ctx: WorkflowContext) -> None:
            self.arrivals += 1
            self._reached.set()
            await self._open.wait()

        self.pass_ = pass_

    async def reached(self) -> None:
        await asyncio.wait_for(self._reached.wait(), SOON)

    def open(self) -> None:
        self._open.set()


class Attempts:
    """Counts attempts and remembers when each began, on the monotonic clock."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def begin(self) -> int:
        self.times.append(time.monotonic())
        return len(self.times)

    @property
    def count(self) -> int:
        return len(self.times)

    @property
    def gaps(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)]


class Tables:
    """A user's look at the database: own tables, and edda's by name."""

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        driver = DRIVERS[parsed.get_backend_name()]
        self.engine: AsyncEngine = create_async_engine(parsed.set(drivername=driver), poolclass=NullPool)

    async def create(self, metadata: MetaData) -> None:
        async with self.engine.begin() as connection:
            await connection.run_sync(metadata.create_all)

    async def count(self, name: str) -> int:
        return len(await self.rows(f"SELECT 1 FROM {name}"))

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        async with self.engine.connect() as connection:
            return [tuple(row) for row in await connection.execute(text(sql))]

    async def do(self, sql: str) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(text(sql))

    async def outbox(self) -> list[dict[str, Any]]:
        """The outbox rows in the order in which their events were sent."""
        names = ("id", "instance_id", "seq", "ordinal", "type", "source", "data", "bytes", "content_type", "status")
        outbox = table("edda_outbox", *map(column, names))
        async with self.engine.connect() as connection:
            rows = await connection.execute(
                select(outbox).order_by(outbox.c.instance_id, outbox.c.seq, outbox.c.ordinal)
            )
            return [dict(row) for row in rows.mappings()]


@contextmanager
def elapsed() -> Iterator[Callable[[], float]]:
    """`with elapsed() as seconds: …; seconds()`."""
    begun = time.monotonic()
    yield lambda: time.monotonic() - begun
