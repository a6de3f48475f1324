"""Faults W34-W37, W39, W46 and W47 of the reference, each as a test that fails on an engine that has it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from edda import (
    ConflictError,
    EddaApp,
    NoAppError,
    RetryExhaustedError,
    WorkflowCancelledException,
    WorkflowContext,
    activity,
    wait_timer,
    workflow,
)
from tests.acceptance.conftest import Apps
from tests.acceptance.processes import Program
from tests.acceptance.support import (
    QUICK,
    SOON,
    Gate,
    Tables,
    elapsed,
    events_of,
    eventually,
    on_every_database,
    on_mysql,
    reaches,
    results_of,
)
from tests.databases import fresh_database


async def test_W34_on_sqlite_the_end_of_one_app_does_not_release_what_another_one_runs(apps: Apps) -> None:
    gate = Gate()

    @workflow
    async def slow(ctx: WorkflowContext) -> str:
        await gate.pass_(ctx)
        return "slow"

    @workflow
    async def quick(ctx: WorkflowContext) -> str:
        return "quick"

    one, two, three = [await apps.open(poll_seconds=0.05) for _ in range(3)]
    handle = await one.start(slow)
    await gate.reached()
    assert await (await two.start(quick)).result(timeout=SOON) == "quick"
    await two.shutdown()
    assert await (await three.start(quick)).result(timeout=SOON) == "quick"
    gate.open()
    assert await handle.result(timeout=SOON) == "slow"
    assert gate.arrivals == 1


async def test_W35_in_memory_a_rollback_undoes_what_it_should_although_others_commit_meanwhile() -> None:
    writing, others_are_done = asyncio.Event(), asyncio.Event()

    @activity
    async def create_table(ctx: WorkflowContext) -> None:
        await ctx.session.execute(text("CREATE TABLE IF NOT EXISTS effects (name TEXT)"))

    @activity
    async def failing(ctx: WorkflowContext) -> None:
        await ctx.session.execute(text("INSERT INTO effects VALUES ('failing')"))
        writing.set()
        await asyncio.wait([asyncio.ensure_future(others_are_done.wait())], timeout=0.5)
        raise ConnectionError("away")

    @activity
    async def succeeding(ctx: WorkflowContext) -> None:
        await ctx.session.execute(text("INSERT INTO effects VALUES ('succeeding')"))

    @activity
    async def read(ctx: WorkflowContext) -> list[str]:
        return [row[0] for row in await ctx.session.execute(text("SELECT name FROM effects"))]

    @workflow
    async def preparing(ctx: WorkflowContext) -> None:
        await create_table(ctx)

    @workflow
    async def good(ctx: WorkflowContext) -> None:
        await succeeding(ctx)
        others_are_done.set()

    @workflow
    async def bad(ctx: WorkflowContext) -> None:
        await failing(ctx)

    @workflow
    async def reading(ctx: WorkflowContext) -> list[str]:
        return await read(ctx)

    async with EddaApp(db_url="sqlite:///:memory:", default_retry_policy=QUICK) as app:
        await (await app.start(preparing)).result(timeout=SOON)
        bad_one = await app.start(bad)
        await asyncio.wait_for(writing.wait(), SOON)
        good_one = await app.start(good)
        with pytest.raises(RetryExhaustedError):
            await bad_one.result(timeout=SOON)
        await good_one.result(timeout=SOON)
        assert await (await app.start(reading)).result(timeout=SOON) == ["succeeding"]


async def test_W35_a_long_transaction_of_an_activity_makes_no_other_call_fail(apps: Apps, tables: Tables) -> None:
    written = asyncio.Event()

    @activity
    async def prepare(ctx: WorkflowContext) -> None:
        await ctx.session.execute(text("CREATE TABLE effects (name TEXT)"))

    @activity
    async def slow(ctx: WorkflowContext) -> None:
        await ctx.session.execute(text("INSERT INTO effects VALUES ('slow')"))
        written.set()
        await asyncio.sleep(6)  # longer than the busy timeouts of SQLite that libraries choose

    @workflow
    async def writing(ctx: WorkflowContext) -> None:
        await prepare(ctx)
        await slow(ctx)

    @workflow
    async def other(ctx: WorkflowContext) -> str:
        return "done"

    app = await apps.open()
    handle = await app.start(writing)
    await asyncio.wait_for(written.wait(), SOON)
    started = await asyncio.gather(*(app.start(other) for _ in range(3)))
    assert [await each.result(timeout=SOON) for each in started] == ["done"] * 3
    await handle.result(timeout=SOON)
    assert await tables.rows("SELECT name FROM effects") == [("slow",)]


async def test_W36_with_two_apps_each_start_goes_to_the_one_that_is_meant(apps: Apps, tables: Tables) -> None:
    @workflow
    async def inner(ctx: WorkflowContext) -> str:
        return "inner"

    @activity
    async def starts_another(ctx: WorkflowContext) -> str:
        return await inner.start()

    @workflow
    async def outer(ctx: WorkflowContext) -> list[str]:
        return [await inner.run(), await starts_another(ctx)]

    with fresh_database("sqlite") as other_url:
        one = await apps.open()
        async with EddaApp(db_url=other_url) as two:
            with pytest.raises(NoAppError, match=r"app\.start"):
                await inner.start()
            here = await one.start(outer)
            there = await two.start(outer)
            assert (await here.result(timeout=SOON))[0] == (await there.result(timeout=SOON))[0] == "inner"
            assert await tables.count("edda_instance") == 3
            assert await Tables(other_url).count("edda_instance") == 3
            assert here != there


@on_mysql
async def test_W37_a_result_larger_than_64_kib_is_stored_on_mysql(apps: Apps) -> None:
    gate, large = Gate(), "naïve " * 12_000

    @activity
    async def fetch(ctx: WorkflowContext) -> str:
        return large

    @activity
    async def fetch_bytes(ctx: WorkflowContext) -> bytes:
        return large.encode()

    @workflow
    async def fetching(ctx: WorkflowContext, given: str) -> list[int]:
        sizes = [len(given), len(await fetch(ctx)), len(await fetch_bytes(ctx))]
        await gate.pass_(ctx)
        return sizes

    handle = await (await apps.open()).start(fetching, large)
    assert await (await apps.restart_at(gate, handle)).result(timeout=SOON) == [72_000, 72_000, 84_000]


@on_every_database
async def test_W39_a_start_with_an_id_of_ones_own_can_be_repeated(apps: Apps) -> None:
    runs: list[str] = []

    @activity
    async def charge(ctx: WorkflowContext, order_id: str) -> str:
        runs.append(order_id)
        return f"charged {order_id}"

    @workflow
    async def order(ctx: WorkflowContext, order_id: str, express: bool = False) -> str:
        return await charge(ctx, order_id)

    app = await apps.open()
    starts = await asyncio.gather(*(order.options(id="order-1").on(app).start(order_id="ORD-1") for _ in range(10)))
    assert set(starts) == {"order-1"}
    assert await starts[0].result(timeout=SOON) == "charged ORD-1"
    again = await order.options(id="order-1").on(await apps.restart()).start(order_id="ORD-1")
    assert await again.result(timeout=SOON) == "charged ORD-1"
    assert runs == ["ORD-1"]


async def test_W39_the_same_id_with_other_arguments_or_another_workflow_is_a_conflict(apps: Apps) -> None:
    @workflow
    async def order(ctx: WorkflowContext, order_id: str) -> str:
        return order_id

    @workflow
    async def invoice(ctx: WorkflowContext, order_id: str) -> str:
        return order_id

    app = await apps.open()
    await order.options(id="order-1").on(app).start("ORD-1")
    with pytest.raises(ConflictError, match="order-1"):
        await order.options(id="order-1").on(app).start("ORD-2")
    with pytest.raises(ConflictError, match="order-1"):
        await invoice.options(id="order-1").on(app).start("ORD-1")
    returned = await order.options(id="order-1", on_conflict="return").on(app).start("ORD-2")
    assert await returned.result(timeout=SOON) == "ORD-1"


async def test_W39_a_handle_tells_status_result_and_history_and_says_why_there_is_no_result_yet(apps: Apps) -> None:
    @workflow
    async def waiting(ctx: WorkflowContext) -> str:
        await wait_timer(ctx, 3600)
        return "done"

    app = await apps.open()
    handle = await app.start(waiting)
    await reaches(handle, "waiting_for_timer")
    with pytest.raises(TimeoutError, match="waiting_for_timer"):
        await handle.result(timeout=0.05)
    assert "timer" in await handle.reason()
    assert [event.event_type for event in await handle.history()] == ["WorkflowStarted"]


@on_every_database
async def test_W39_a_workflow_runs_others_as_its_children_and_waits_for_them_durably(apps: Apps) -> None:
    gate, runs = Gate(), list[str]()

    @workflow
    async def child(ctx: WorkflowContext, number: int) -> int:
        runs.append(ctx.instance_id)
        if number == 2:
            await gate.pass_(ctx)
        if number == 3:
            raise ValueError("three")
        return number * 10

    @workflow
    async def parent(ctx: WorkflowContext) -> list[str]:
        ends = await asyncio.gather(*(child.run(number) for number in (1, 2, 3)), return_exceptions=True)
        return [repr(end) for end in ends]

    handle = await (await apps.open()).start(parent)
    handle = await apps.restart_at(gate, handle)
    assert await handle.result(timeout=SOON) == ["10", "20", "ValueError('three')"]
    assert len(set(runs)) == 3
    assert all(child_id.startswith(f"{handle}/") for child_id in runs)


async def test_W39_children_are_cancelled_with_their_parent_unless_they_are_detached(apps: Apps) -> None:
    @workflow
    async def child(ctx: WorkflowContext, seconds: float) -> str:
        await wait_timer(ctx, seconds)
        return "survived"

    @workflow
    async def parent(ctx: WorkflowContext) -> None:
        await child.options(id="attached").start(3600)
        await child.options(id="detached", detached=True).start(2)
        await wait_timer(ctx, 3600)

    app = await apps.open()
    handle = await app.start(parent)
    await reaches(handle, "waiting_for_timer")
    await handle.cancel()
    with pytest.raises(WorkflowCancelledException):
        await handle.result(timeout=SOON)
    await reaches(app.handle("attached"), "cancelled")
    assert await app.handle("detached").result(timeout=SOON) == "survived"


async def test_W39_a_child_started_just_before_its_parent_fails_is_cancelled_too(apps: Apps) -> None:
    @workflow
    async def child(ctx: WorkflowContext) -> None:
        await wait_timer(ctx, 3600)

    @workflow
    async def parent(ctx: WorkflowContext) -> None:
        await child.options(id="late").start()
        raise ValueError("nothing was durable in between")

    app = await apps.open()
    handle = await app.start(parent)
    with pytest.raises(ValueError, match="nothing was durable"):
        await handle.result(timeout=SOON)
    await reaches(app.handle("late"), "cancelled")


@pytest.mark.process
def test_W46_the_library_installs_no_event_loop_and_prints_nothing(program: Callable[[str], Program]) -> None:
    quiet = program("""
        import logging, signal

        @activity(retry_policy=RetryPolicy(initial_interval=0.01))
        async def flaky(ctx: WorkflowContext) -> str:
            if first_time("the first attempt"):
                raise ConnectionError("away")
            return type(asyncio.get_running_loop()).__name__

        @workflow
        async def order(ctx: WorkflowContext) -> str:
            return await flaky(ctx)

        async def main():
            before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
            async with EddaApp(db_url=DB_URL) as app:
                handle = await order.options(id="o-1").start()
                say(await handle.result(timeout=20))
                say([event.event_type for event in await handle.history()])
                assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
            assert "uvloop" not in sys.modules
            assert not logging.getLogger().handlers
    """)
    process = quiet.start()
    history = "['WorkflowStarted', 'ActivityAttemptFailed', 'ActivityCompleted', 'WorkflowCompleted']"
    assert process.finish() == ["_UnixSelectorEventLoop", history]


class Observer:
    """All hooks; `told` is what they were told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [arguments for hook, *arguments in self.told if hook == name]  # type: ignore[misc]

    async def on_workflow_start(self, instance_id: str, workflow_name: str, input_data: dict[str, Any]) -> None:
        self.told.append(("start", instance_id, workflow_name, input_data))

    async def on_workflow_complete(self, instance_id: str, workflow_name: str, result: Any) -> None:
        self.told.append(("complete", instance_id, workflow_name, result))

    async def on_workflow_failed(self, instance_id: str, workflow_name: str, error: BaseException) -> None:
        self.told.append(("failed", instance_id, workflow_name, str(error)))

    async def on_workflow_cancelled(self, instance_id: str, workflow_name: str) -> None:
        self.told.append(("cancelled", instance_id, workflow_name))

    async def on_activity_complete(
        self, instance_id: str, activity_id: str, activity_name: str, result: Any, cache_hit: bool
    ) -> None:
        self.told.append(("activity", activity_id, activity_name, result, cache_hit))

    async def on_activity_retry(
        self, instance_id: str, activity_id: str, activity_name: str, error: BaseException, attempt: int, delay: float
    ) -> None:
        self.told.append(("retry", activity_id, str(error), attempt))


async def test_W47_hooks_hear_of_the_end_also_after_a_resume_and_replays_are_cache_hits(apps: Apps) -> None:
    gate, observer = Gate(), Observer()

    @activity
    async def charge(ctx: WorkflowContext, amount: int) -> str:
        return f"charged {amount}"

    @workflow
    async def order(ctx: WorkflowContext, order_id: str) -> str:
        result = await charge(ctx, 5)
        await gate.pass_(ctx)
        return f"{order_id} {result}"

    handle = await (await apps.open(hooks=observer)).start(order, order_id="ORD-1")
    handle = await apps.restart_at(gate, handle, hooks=observer)
    await handle.result(timeout=SOON)
    await eventually(lambda: observer.of("complete"))
    assert observer.of("complete") == [[handle, "order", "ORD-1 charged 5"]]
    assert observer.of("start") == [[handle, "order", {"order_id": "ORD-1"}]] * 2
    assert [told for told in observer.of("activity") if told[1] == "charge"] == [
        ["charge:1", "charge", "charged 5", False],
        ["charge:1", "charge", "charged 5", True],
    ]


async def test_W47_hooks_hear_of_failures_retries_and_cancels(apps: Apps) -> None:
    observer = Observer()

    @activity
    async def flaky(ctx: WorkflowContext) -> None:
        raise ConnectionError("away")

    @workflow
    async def failing(ctx: WorkflowContext) -> None:
        await flaky(ctx)

    @workflow
    async def waiting(ctx: WorkflowContext) -> None:
        await wait_timer(ctx, 3600)

    app = await apps.open(hooks=observer, default_retry_policy=QUICK)
    with pytest.raises(RetryExhaustedError):
        await (await app.start(failing)).result(timeout=SOON)
    handle = await app.start(waiting)
    await reaches(handle, "waiting_for_timer")
    await handle.cancel()
    await eventually(lambda: observer.of("cancelled"))
    assert observer.of("cancelled") == [[handle, "waiting"]]
    assert [told[2] for told in observer.of("retry")] == [1, 2, 3, 4]
    assert len(observer.of("failed")) == 1


async def test_W47_hooks_may_raise_or_hang_or_be_missing_without_changing_anything(apps: Apps) -> None:
    class HangingHooks:
        async def on_workflow_start(self, instance_id: str, workflow_name: str, input_data: dict[str, Any]) -> None:
            await asyncio.Event().wait()

        async def on_activity_complete(self, *arguments: object) -> None:
            raise TypeError("wrong")

    @activity
    async def charge(ctx: WorkflowContext) -> str:
        return "charged"

    @workflow
    async def order(ctx: WorkflowContext) -> str:
        return await charge(ctx)

    app = await apps.open(hooks=HangingHooks())
    with elapsed() as seconds:
        handle = await app.start(order)
        assert await handle.result(timeout=SOON) == "charged"
    assert seconds() < 3
    assert await results_of(handle) == {"charge:1": "charged"}
    assert await events_of(handle, "WorkflowCompleted")
