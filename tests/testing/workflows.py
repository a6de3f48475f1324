"""Workflows that the tests of `edda.testing` try. Their names are of this package alone."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import Column, MetaData, String, Table, text

from edda import (
    EventTimeoutError,
    RetryPolicy,
    TerminalError,
    WorkflowContext,
    activity,
    compensation,
    on_failure,
    send_event_transactional,
    sleep,
    wait_event,
    wait_timer,
    workflow,
)

HOURLY = RetryPolicy(initial_interval=3600, max_interval=36_000, max_attempts=3, max_duration=None)


@activity(name="testing.add")
async def add(ctx: WorkflowContext, number: int, to: int = 1) -> int:
    return number + to


@activity(name="testing.pay", retry_policy=HOURLY)
def pay(ctx: WorkflowContext, cents: int) -> str:
    return f"paid {cents}"


NOTES = MetaData()
Table("testing_notes", NOTES, Column("line", String(100), index=True))


@activity(name="testing.note")
async def note(ctx: WorkflowContext, line: str) -> None:
    await ctx.session.execute(text("insert into testing_notes values (:line)"), {"line": line})


@compensation(name="testing.unbook")
async def unbook(ctx: WorkflowContext, place: str) -> None:
    await ctx.session.execute(text("insert into testing_notes values (:line)"), {"line": f"unbooked {place}"})


@activity(name="testing.book")
@on_failure(unbook)
async def book(ctx: WorkflowContext, place: str) -> str:
    return place.upper()


@workflow(name="testing.months")
async def months(ctx: WorkflowContext, count: int) -> list[int]:
    """Waits for a month, again and again."""
    sums: list[int] = []
    for number in range(count):
        begun = ctx.now()
        await sleep(ctx, 30 * 86_400)
        days = (ctx.now() - begun).days
        sums.append(await add(ctx, number, to=days))
    return sums


@workflow(name="testing.paid")
async def paid(ctx: WorkflowContext, timeout_seconds: float = 3600) -> str:
    try:
        event = await wait_event(ctx, "testing.payment", timeout_seconds=timeout_seconds)
    except EventTimeoutError:
        return "too late"
    return f"got {event.data['cents']}"


@workflow(name="testing.forever")
async def forever(ctx: WorkflowContext) -> None:
    await wait_event(ctx, "testing.never")


@workflow(name="testing.charge")
async def charge(ctx: WorkflowContext, cents: int) -> str:
    return await pay(ctx, cents)


@workflow(name="testing.child")
async def child(ctx: WorkflowContext, number: int) -> int:
    await wait_timer(ctx, 60 * number)
    return number * number


@workflow(name="testing.everything")
async def everything(ctx: WorkflowContext, cents: int) -> dict[str, Any]:
    """Activities in a row and beside each other, a child, a timer, an event, an event out, the database."""
    async with asyncio.TaskGroup() as group:
        one, two = group.create_task(add(ctx, 1)), group.create_task(add(ctx, 2, to=cents))
        squared = group.create_task(child.run(7))
    await note(ctx, f"sum {one.result() + two.result()}")
    await asyncio.sleep(86_400)
    event = await wait_event(ctx, "testing.payment", timeout_seconds=7200, match={"cents": cents})
    await send_event_transactional(ctx, "testing.shipped", "/testing", {"cents": cents})
    return {
        "sum": one.result() + two.result(),
        "square": squared.result(),
        "event": event.data,
        "receipt": await pay(ctx, cents),
    }


@workflow(name="testing.undone")
async def undone(ctx: WorkflowContext, places: list[str]) -> None:
    await note(ctx, "begins")
    for place in places:
        await book(ctx, place)
    raise TerminalError("no seats left")


EXECUTED = {"times": 0}
"""What a process remembers."""


@workflow(name="testing.forgetful")
async def forgetful(ctx: WorkflowContext) -> int:
    """Wrong: its result depends on what a crash destroys."""
    EXECUTED["times"] += 1
    await add(ctx, 1)
    return EXECUTED["times"]


@workflow(name="testing.undecided")
async def undecided(ctx: WorkflowContext) -> None:
    """Wrong: a replay of it makes other calls."""
    EXECUTED["times"] += 1
    await (add(ctx, 1) if EXECUTED["times"] % 2 else pay(ctx, 1))
    await wait_timer(ctx, 10)


ALL = [months, paid, forever, charge, child, everything, undone, forgetful, undecided]
