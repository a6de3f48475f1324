"""The law of `edda.testing`: what happens in memory happens the same on a real database, row by row of history."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from edda import EddaApp, TerminalError, WorkflowContext, WorkflowHandle, send_event, wait_event, wait_timer, workflow
from edda.testing import InMemoryApp, fake
from tests.acceptance.support import reaches
from tests.databases import available, fresh_database
from tests.testing.workflows import NOTES, add, book, charge, child, note, pay

DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "mysql": "mysql+asyncmy"}
Ends = list[Any]


@workflow(name="testing.law.saga")
async def law_saga(ctx: WorkflowContext) -> None:
    await note(ctx, "begins")
    for place in "abc":
        await book(ctx, place)
    raise TerminalError("no seats left")


@workflow(name="testing.law.mixed")
async def law_mixed(ctx: WorkflowContext) -> dict[str, Any]:
    sums = await asyncio.gather(*(add(ctx, number) for number in range(3)))
    await note(ctx, "in the middle")
    await wait_timer(ctx, 0.01)
    event = await wait_event(ctx, "testing.law.event", match={"number": 7})
    return {"sums": sums, "child": await child.run(0), "event": event.data}


@workflow(name="testing.law.late")
async def law_late(ctx: WorkflowContext) -> str:
    try:
        async with asyncio.timeout(0.02):
            await wait_event(ctx, "testing.law.never")
    except TimeoutError:
        return "late"
    return "never"


WORKFLOWS = [law_saga, law_mixed, law_late, charge, child]


async def saga(app: EddaApp) -> WorkflowHandle[Any]:
    return await app.start(law_saga)


async def mixed(app: EddaApp) -> WorkflowHandle[Any]:
    handle = await app.start(law_mixed)
    await reaches(handle, "waiting_for_event")
    await send_event("testing.law.event", "/law", {"number": 6})
    await send_event("testing.law.event", "/law", {"number": 7})
    return handle


async def late(app: EddaApp) -> WorkflowHandle[Any]:
    return await app.start(law_late)


async def failing(app: EddaApp) -> WorkflowHandle[Any]:
    return await app.start(charge, 5)


async def cancelled(app: EddaApp) -> WorkflowHandle[Any]:
    handle = await app.start(law_mixed)
    await reaches(handle, "waiting_for_event")
    await handle.cancel()
    return handle


CASES: list[tuple[Callable[[EddaApp], Coroutine[Any, Any, WorkflowHandle[Any]]], Callable[[], Any]]] = [
    (saga, nullcontext),
    (mixed, nullcontext),
    (late, nullcontext),
    (cancelled, nullcontext),
    (failing, lambda: fake(pay, raises=TerminalError("refused"))),
]


async def make_tables(db_url: str) -> None:
    kind, _, place = db_url.partition("://")
    engine = create_async_engine(f"{DRIVERS[kind]}://{place}")
    async with engine.begin() as connection:
        await connection.run_sync(NOTES.create_all)
    await engine.dispose()


async def what_happens(app: EddaApp, case: Any, surroundings: Any) -> Ends:
    """The end, and every row of history, without what only one run has: ids and times."""
    with surroundings():
        handle = await case(app)
        try:
            end = repr(await handle.result())
        except Exception as error:
            end = f"{type(error).__name__}: {error}"
        rows = [(entry.event_type, entry.activity_id) for entry in await handle.history()]
    return [await handle.status(), end.replace(handle.id, "<id>"), sorted(rows, key=repr), len(rows)]


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def db_url(request: pytest.FixtureRequest) -> Iterator[str]:
    if available()[request.param] is None:
        pytest.skip(f"there is no {request.param} server")
    with fresh_database(request.param) as url:
        yield url


@pytest.mark.parametrize(("case", "surroundings"), CASES, ids=lambda value: getattr(value, "__name__", ""))
async def test_it_happens_the_same_in_memory_and_on_a_database(db_url: str, case: Any, surroundings: Any) -> None:
    async with InMemoryApp(workflows=WORKFLOWS) as app:
        await app.create_tables(NOTES)
        in_memory = await what_happens(app, case, surroundings)
    await make_tables(db_url)
    async with EddaApp(db_url=db_url, workflows=WORKFLOWS, shutdown_grace_seconds=0.05) as real:
        assert await what_happens(real, case, surroundings) == in_memory
