"""Promises R16-R27: what the overview and the architecture section say."""

import asyncio
import os
import signal
from collections.abc import Callable
from datetime import timedelta

import pytest

from edda import WorkflowContext, activity, send_event, wait_event, wait_timer, workflow
from tests.acceptance.conftest import Apps
from tests.acceptance.processes import Program
from tests.acceptance.support import (
    SOON,
    Gate,
    Tables,
    events_of,
    eventually,
    on_every_database,
    on_every_server,
    reaches,
    results_of,
)


async def test_R016_it_is_a_library_that_works_in_the_process_of_the_application(apps: Apps) -> None:
    @activity
    async def where_am_i(ctx: WorkflowContext) -> int:
        return os.getpid()

    @workflow
    async def asking(ctx: WorkflowContext) -> int:
        return await where_am_i(ctx)

    app = await apps.open()
    handle = await app.start(asking)
    assert await handle.result(timeout=SOON) == os.getpid()
    assert await results_of(handle) == {"where_am_i:1": os.getpid()}


@pytest.mark.process
def test_R017_a_crashed_workflow_recovers_by_replay_without_being_asked_to(program: Callable[[str], Program]) -> None:
    order = program("""
        @activity
        async def step(ctx: WorkflowContext, name: str) -> str:
            crash_once(name) if name == "ship" else None
            note(name)
            return name

        @workflow
        async def order(ctx: WorkflowContext) -> list[str]:
            return [await step(ctx, "reserve"), await step(ctx, "charge"), await step(ctx, "ship")]

        async def main():
            async with EddaApp(db_url=DB_URL) as app:
                if ROUND == 1:
                    await order.options(id="order-1").start()
                say(await app.handle("order-1").result(timeout=20))
    """)
    order.run_until_it_crashes()
    assert order.run() == ["['reserve', 'charge', 'ship']"]
    assert order.notes == ["reserve", "charge", "ship"]


@pytest.mark.process
def test_R018_a_long_workflow_loses_no_progress_whenever_its_process_dies(program: Callable[[str], Program]) -> None:
    long = program("""
        @activity
        async def step(ctx: WorkflowContext, number: int) -> int:
            crash_once(number) if number % 3 == 2 else None
            note(number)
            return number * number

        @workflow
        async def long(ctx: WorkflowContext) -> int:
            total = 0
            for number in range(9):
                total += await step(ctx, number)
                if number == 5:
                    await wait_timer(ctx, 0.2)
            return total

        async def main():
            async with EddaApp(db_url=DB_URL) as app:
                if ROUND == 1:
                    await long.options(id="long-1").start()
                say(await app.handle("long-1").result(timeout=20))
    """)
    for _ in range(3):
        long.run_until_it_crashes()
    assert long.run() == [str(sum(number * number for number in range(9)))]
    assert long.notes == [str(number) for number in range(9)]


async def test_R019_a_workflow_may_take_months(apps: Apps) -> None:
    @workflow
    async def subscription(ctx: WorkflowContext) -> str:
        await wait_timer(ctx, duration_seconds=timedelta(days=90).total_seconds())
        return "renewed"

    app = await apps.open()
    handle = await app.start(subscription)
    await reaches(handle, "waiting_for_timer")
    app = await apps.restart()
    assert await app.handle(handle).status() == "waiting_for_timer"
    with pytest.raises(TimeoutError):
        await app.handle(handle).result(timeout=0.1)
    assert not await events_of(app.handle(handle), "TimerFired")


@on_every_database
async def test_R020_all_state_is_in_the_shared_database(apps: Apps) -> None:
    @activity
    async def charge(ctx: WorkflowContext) -> str:
        return "charged"

    @workflow
    async def order(ctx: WorkflowContext) -> str:
        return await charge(ctx)

    handle = await (await apps.open()).start(order)
    assert await handle.result(timeout=SOON) == "charged"
    elsewhere = (await apps.restart()).handle(handle)
    assert await elsewhere.status() == "completed"
    assert await elsewhere.result(timeout=SOON) == "charged"
    assert await results_of(elsewhere) == {"charge:1": "charged"}


async def test_R021_a_workflow_is_started_by_its_start_method(apps: Apps) -> None:
    gate = Gate()

    @workflow
    async def order(ctx: WorkflowContext, order_id: str) -> str:
        await gate.pass_(ctx)
        return order_id

    await apps.open()
    handle = await order.start(order_id="ORD-1")
    assert await (await apps.restart_at(gate, handle)).result(timeout=SOON) == "ORD-1"


async def test_R021_a_workflow_is_started_by_a_cloudevent(apps: Apps, tables: Tables) -> None:
    started: list[str] = []

    @workflow(name="order.created", event_handler=True)
    async def on_order_created(ctx: WorkflowContext, order_id: str) -> None:
        started.append(order_id)

    app = await apps.open()
    assert await post(app, {"type": "order.created", "id": "1", "source": "shop"}, b'{"order_id": "ORD-1"}') == 202
    await eventually(lambda: started == ["ORD-1"])


async def post(app: object, attributes: dict[str, str], body: bytes) -> int:
    """POST a CloudEvent in binary mode to `/` of an ASGI app; the HTTP status."""
    headers = [(b"ce-specversion", b"1.0"), (b"content-type", b"application/json")]
    headers += [(f"ce-{name}".encode(), value.encode()) for name, value in attributes.items()]
    status: list[int] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            status.append(int(str(message["status"])))

    assert callable(app)
    scope = {"type": "http", "method": "POST", "path": "/", "root_path": "", "headers": headers, "query_string": b""}
    await app(scope, receive, send)
    return status[0]


@on_every_server
async def test_R022_several_workers_run_workflows_at_the_same_time(apps: Apps) -> None:
    present: set[str] = set()
    both = asyncio.Event()

    @activity
    async def meet(ctx: WorkflowContext) -> str:
        present.add(ctx.worker_id)
        if len(present) == 2:
            both.set()
        await asyncio.wait_for(both.wait(), SOON)
        return ctx.worker_id

    @workflow
    async def meeting(ctx: WorkflowContext) -> str:
        return await meet(ctx)

    one, two = await apps.open(), await apps.open()
    handles = [await one.start(meeting), await two.start(meeting)]
    results = [await handle.result(timeout=SOON) for handle in handles]
    assert set(results) == present
    assert len(present) == 2


@on_every_database
async def test_R023_an_instance_runs_on_one_worker_even_if_an_activity_outlasts_the_lease(apps: Apps) -> None:
    runs: list[str] = []

    @activity
    async def slow(ctx: WorkflowContext) -> str:
        runs.append(ctx.worker_id)
        await asyncio.sleep(2.5)
        return ctx.worker_id

    @workflow
    async def working(ctx: WorkflowContext) -> str:
        return await slow(ctx)

    options = {"lease_seconds": 1, "poll_seconds": 0.1}
    owner, _ = await apps.open(**options), await apps.open(**options)
    handle = await owner.start(working)
    result = await handle.result(timeout=SOON)
    assert runs == [result]
    assert await results_of(handle) == {"slow:1": result}


async def test_R024_waiting_holds_no_worker(apps: Apps) -> None:
    @workflow
    async def waiting(ctx: WorkflowContext) -> None:
        await wait_timer(ctx, duration_seconds=3600)

    @workflow
    async def quick(ctx: WorkflowContext) -> str:
        await wait_timer(ctx, duration_seconds=0)
        return "done"

    app = await apps.open(max_running=2)
    handles = [await app.start(waiting) for _ in range(10)]
    assert await (await app.start(quick)).result(timeout=SOON) == "done"
    for handle in handles:
        await reaches(handle, "waiting_for_timer")


@on_every_server
async def test_R025_any_worker_resumes_after_a_timer(apps: Apps) -> None:
    @activity
    async def where(ctx: WorkflowContext) -> str:
        return ctx.worker_id

    @workflow
    async def travelling(ctx: WorkflowContext) -> list[str]:
        before = await where(ctx)
        await wait_timer(ctx, duration_seconds=1.5)
        return [before, await where(ctx)]

    first = await apps.open()
    handle = await first.start(travelling)
    await reaches(handle, "waiting_for_timer")
    second = await apps.open(poll_seconds=0.1)
    await first.shutdown()
    before, after = await second.handle(handle).result(timeout=SOON)
    assert before != after


async def test_R025_any_worker_resumes_after_an_event(apps: Apps) -> None:
    @workflow
    async def payment(ctx: WorkflowContext) -> dict[str, object]:
        return (await wait_event(ctx, "payment.completed")).data

    handle = await (await apps.open()).start(payment)
    await reaches(handle, "waiting_for_event", "failed")
    app = await apps.restart()
    await send_event("payment.completed", "bank", {"amount": 5})
    assert await app.handle(handle).result(timeout=SOON) == {"amount": 5}


@pytest.mark.process
@on_every_server
def test_R026_the_work_of_a_frozen_worker_is_taken_over_and_the_worker_may_not_come_back(
    program: Callable[[str], Program],
) -> None:
    working = program("""
        @activity
        async def step(ctx: WorkflowContext, name: str) -> str:
            note(f"{name} by {ROLE}")
            if ROLE == "frozen":
                await forever() if name == "second" else None
            return f"{name} by {ROLE}"

        @workflow
        async def working(ctx: WorkflowContext) -> list[str]:
            return [await step(ctx, "first"), await step(ctx, "second")]

        async def main():
            async with EddaApp(
                db_url=DB_URL, lease_seconds=2, poll_seconds=0.2, shutdown_grace_seconds=0.1
            ) as app:
                if ROLE == "frozen":
                    await working.options(id="w-1").start()
                    while True:
                        events = await app.handle("w-1").history()
                        if any(event.event_type == "ActivityCompleted" for event in events):
                            say("one is done")
                            break
                        await asyncio.sleep(0.02)
                    await forever()
                say(await app.handle("w-1").result(timeout=20))
                events = await app.handle("w-1").history()
                say([event.activity_id for event in events if event.event_type == "ActivityCompleted"])
    """)
    frozen = working.start("frozen")
    frozen.wait_for("one is done")
    frozen.send(signal.SIGSTOP)
    try:
        said = working.run("healthy")
    finally:
        frozen.send(signal.SIGCONT)
    assert said == ["['first by frozen', 'second by healthy']", "['step:1', 'step:2']"]


async def test_R027_an_event_that_comes_before_the_wait_is_not_lost(apps: Apps) -> None:
    gate = Gate()

    @workflow
    async def payment(ctx: WorkflowContext) -> dict[str, object]:
        await gate.pass_(ctx)
        return (await wait_event(ctx, "payment.completed")).data

    handle = await (await apps.open()).start(payment)
    await gate.reached()
    await send_event("payment.completed", "bank", {"amount": 5})
    assert await (await apps.restart_at(gate, handle)).result(timeout=SOON) == {"amount": 5}
