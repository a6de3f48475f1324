"""Section M of the promises, timers, and what waiting costs: nothing while it lasts, and no time when it is over."""

import time

from edda import EddaApp, WorkflowContext, activity, send_event, wait_event, wait_timer, workflow
from tests.acceptance.conftest import Apps
from tests.acceptance.support import SOON, Tables, events_of, eventually, on_every_database, on_every_server, reaches


@activity
async def where(ctx: WorkflowContext) -> str:
    return ctx.worker_id


@on_every_database
async def test_R114_a_timer_is_never_early_and_its_minute_begins_with_the_first_run(apps: Apps, tables: Tables) -> None:
    @workflow
    async def minute(ctx: WorkflowContext) -> str:
        await wait_timer(ctx, duration_seconds=60)
        return "over"

    app = await apps.open()
    handle = await app.start(minute)
    await reaches(handle, "waiting_for_timer")
    (started,) = await events_of(handle, "WorkflowStarted")
    due_at = await _due_at(tables)
    assert abs(due_at - started.created_at.timestamp() - 60) < 0.001
    await apps.restart()
    assert await _due_at(tables) == due_at
    assert time.time() < due_at


async def _due_at(tables: Tables) -> float:
    ((due_us,),) = await tables.rows("SELECT claimable_at_us FROM edda_instance")
    return float(due_us) / 1_000_000


@on_every_database
async def test_R115_what_stands_before_and_after_a_timer_runs_once(apps: Apps) -> None:
    runs: list[str] = []

    @activity
    async def step(ctx: WorkflowContext, name: str) -> None:
        runs.append(name)

    @workflow
    async def order_with_timeout(ctx: WorkflowContext) -> list[str]:
        await step(ctx, "before")
        await wait_timer(ctx, duration_seconds=1.5)
        await step(ctx, "after")
        return runs

    app = await apps.open(max_residents=0)
    handle = await app.start(order_with_timeout)
    await reaches(handle, "waiting_for_timer")
    app = await apps.restart(max_residents=0)
    assert await app.handle(handle).result(timeout=SOON) == ["before", "after"]


@on_every_server
async def test_R117_an_event_resumes_a_workflow_on_any_worker_that_knows_it(apps: Apps) -> None:
    """The process that takes the event knows no workflow, and the worker that began the instance is gone."""

    @workflow
    async def paid(ctx: WorkflowContext) -> list[object]:
        before = await where(ctx)
        event = await wait_event(ctx, "payment.completed")
        return [before, await where(ctx), event.data]

    first = await apps.open()
    handle = await first.start(paid)
    await reaches(handle, "waiting_for_event")
    await first.shutdown()
    second, third = await apps.open(poll_seconds=0.1), await apps.open(poll_seconds=0.1)
    async with EddaApp(db_url=apps.db_url, workflows=[]) as receiver:
        assert await receiver.handle(handle).status() == "waiting_for_event"
        event = await receiver.handle(handle).history()
        assert [entry.event_type for entry in event] == ["WorkflowStarted", "ActivityCompleted"]
    await second.shutdown()
    await send_event("payment.completed", "bank", {"amount": 5})
    before, after, data = await third.handle(handle).result(timeout=SOON)
    assert before != after
    assert data == {"amount": 5}


@on_every_database
async def test_R119_waiting_for_an_event_blocks_no_worker(apps: Apps) -> None:
    """A worker that runs two instances at once has twenty that wait, and time for one that does not."""

    @workflow
    async def waiting(ctx: WorkflowContext) -> object:
        return (await wait_event(ctx, "payment.completed")).data

    @workflow
    async def quick(ctx: WorkflowContext) -> str:
        return await where(ctx)

    app = await apps.open(max_running=2, max_residents=1)
    handles = [await app.start(waiting) for _ in range(20)]
    await eventually(lambda: _all_wait(handles))
    assert await (await app.start(quick)).result(timeout=SOON)
    await send_event("payment.completed", "bank", {"amount": 5})
    assert [await handle.result(timeout=SOON) for handle in handles] == [{"amount": 5}] * 20


async def _all_wait(handles: list[object]) -> bool:
    return all([await handle.status() == "waiting_for_event" for handle in handles])  # type: ignore[attr-defined]
