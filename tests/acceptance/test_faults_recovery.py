"""Faults W1-W10 of the reference, each as a test that fails on an engine that has it: recovery, order, shutdown."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from edda import RetryPolicy, SerializationError, WorkflowContext, activity, compensation, on_failure, workflow
from tests.acceptance.conftest import Apps
from tests.acceptance.processes import Program
from tests.acceptance.support import (
    SOON,
    Attempts,
    Gate,
    elapsed,
    events_of,
    eventually,
    on_every_database,
    on_every_server,
    reaches,
    results_of,
)

WAITING = """
    @activity
    async def step(ctx: WorkflowContext, name: str) -> str:
        note(name)
        return name

    @workflow
    async def waiting(ctx: WorkflowContext) -> list[str]:
        done = [await step(ctx, "before")]
        await wait_timer(ctx, 1.5)
        crash_once("after the wait") if ROLE == "after" else None
        done.append(await step(ctx, "after"))
        return done

    async def main():
        async with EddaApp(db_url=DB_URL) as app:
            handle = await waiting.options(id="w-1").start()
            while ROUND == 1 and ROLE == "while" and await handle.status() != "waiting_for_timer":
                await asyncio.sleep(0.01)
            if ROUND == 1 and ROLE == "while":
                crash()
            say(await handle.result(timeout=20))
"""


@pytest.mark.process
@on_every_database
@pytest.mark.parametrize("when", ["while", "after"])
def test_W01_a_crash_while_waiting_and_one_after_the_wait_are_recovered(
    program: Callable[[str], Program], when: str
) -> None:
    waiting = program(WAITING)
    waiting.run_until_it_crashes(when)
    assert waiting.run(when) == ["['before', 'after']"]
    assert waiting.notes == ["before", "after"]


@pytest.mark.process
def test_W02_a_crash_right_after_the_start_is_recovered(program: Callable[[str], Program]) -> None:
    order = program("""
        @workflow
        async def order(ctx: WorkflowContext) -> str:
            note("entered")
            return "done"

        async def main():
            async with EddaApp(db_url=DB_URL) as app:
                if ROUND == 1:
                    await order.options(id="o-1").start()
                    crash()
                say(await app.handle("o-1").result(timeout=20))
    """)
    order.run_until_it_crashes()
    assert order.run() == ["done"]


@pytest.mark.process
@on_every_server
def test_W03_an_activity_that_blocks_its_process_for_longer_than_the_lease_runs_once(
    program: Callable[[str], Program],
) -> None:
    working = program("""
        import time

        @activity
        async def blocking(ctx: WorkflowContext) -> str:
            note(f"blocking in {ROLE}")
            time.sleep(2.5)
            return ROLE

        @workflow
        async def working(ctx: WorkflowContext) -> str:
            return await blocking(ctx)

        async def main():
            async with EddaApp(db_url=DB_URL, lease_seconds=1, poll_seconds=0.1) as app:
                if ROLE == "owner":
                    await working.options(id="w-1").start()
                    say("started")
                else:
                    say("ready")
                say(await app.handle("w-1").result(timeout=20))
                say(await app.handle("w-1").status())
    """)
    owner = working.start("owner")
    owner.wait_for("started")
    rival = working.start("rival")
    assert owner.finish() == ["started", "owner", "completed"]
    assert rival.finish() == ["ready", "owner", "completed"]
    assert working.notes == ["blocking in owner"]


async def test_W04_a_result_that_cannot_be_stored_is_no_reason_to_repeat_the_effect(apps: Apps) -> None:
    effects: list[str] = []

    @compensation
    async def undo(ctx: WorkflowContext, order_id: str) -> None:
        effects.append(f"undone {order_id}")

    @activity
    @on_failure(undo)
    async def charge(ctx: WorkflowContext, order_id: str) -> object:
        effects.append(f"charged {order_id}")
        return object()

    @workflow
    async def order(ctx: WorkflowContext) -> None:
        await charge(ctx, "ORD-1")

    handle = await (await apps.open()).start(order)
    with pytest.raises(SerializationError):
        await handle.result(timeout=SOON)
    assert effects == ["charged ORD-1", "undone ORD-1"]


async def test_W04_a_second_call_with_the_same_id_does_not_repeat_the_effect(apps: Apps) -> None:
    effects: list[int] = []

    @activity
    async def charge(ctx: WorkflowContext, number: int) -> int:
        effects.append(number)
        return number

    @workflow
    async def order(ctx: WorkflowContext) -> list[int]:
        first = await charge(ctx, 1, activity_id="charge")  # type: ignore[call-arg]
        return [first, await charge(ctx, 2, activity_id="charge")]  # type: ignore[call-arg]

    handle = await (await apps.open()).start(order)
    await reaches(handle, "failed")
    assert effects == [1]
    assert len(await events_of(handle, "ActivityCompleted")) == 1


async def test_W04_a_hook_that_raises_does_not_repeat_the_effect(apps: Apps) -> None:
    effects: list[str] = []

    class BadHooks:
        def __getattr__(self, name: str) -> Any:
            async def hook(*args: object, **kwargs: object) -> None:
                raise ConnectionError(f"{name}: the observer is away")

            return hook

    @activity
    async def charge(ctx: WorkflowContext) -> str:
        effects.append("charged")
        return "charged"

    @workflow
    async def order(ctx: WorkflowContext) -> str:
        return await charge(ctx)

    handle = await (await apps.open(hooks=BadHooks())).start(order)
    assert await handle.result(timeout=SOON) == "charged"
    assert effects == ["charged"]


@pytest.mark.process
def test_W05_a_crash_during_the_back_off_does_not_reset_the_number_of_attempts(
    program: Callable[[str], Program],
) -> None:
    trying = program("""
        @activity(retry_policy=RetryPolicy(max_attempts=3, initial_interval=1.0, backoff_coefficient=1.0))
        async def flaky(ctx: WorkflowContext) -> None:
            note(f"attempt {ctx.activity.attempt}")
            raise ConnectionError("away")

        @workflow
        async def trying(ctx: WorkflowContext) -> None:
            await flaky(ctx)

        async def main():
            async with EddaApp(db_url=DB_URL) as app:
                handle = await trying.options(id="t-1").start()
                while ROUND == 1:
                    if any(event.event_type == "ActivityAttemptFailed" for event in await handle.history()):
                        crash()
                    await asyncio.sleep(0.01)
                try:
                    await handle.result(timeout=20)
                except RetryExhaustedError:
                    say("exhausted")
    """)
    trying.run_until_it_crashes()
    assert trying.run() == ["exhausted"]
    assert trying.notes == ["attempt 1", "attempt 2", "attempt 3"]


async def test_W05_a_long_back_off_holds_no_worker(apps: Apps) -> None:
    attempts = Attempts()

    @activity(retry_policy=RetryPolicy(initial_interval=60))
    async def flaky(ctx: WorkflowContext) -> None:
        attempts.begin()
        raise ConnectionError("away")

    @workflow
    async def trying(ctx: WorkflowContext) -> None:
        await flaky(ctx)

    @workflow
    async def quick(ctx: WorkflowContext) -> str:
        return "done"

    app = await apps.open(max_running=1)
    handle = await app.start(trying)
    await eventually(lambda: events_of(handle, "ActivityAttemptFailed"))
    assert await (await app.start(quick)).result(timeout=SOON) == "done"
    assert await handle.status() == "running"
    assert "retry" in await handle.reason()
    assert attempts.count == 1


@on_every_database
async def test_W06_the_first_starts_of_a_workflow_may_all_come_at_once(apps: Apps) -> None:
    @workflow
    async def never_seen_before(ctx: WorkflowContext, number: int) -> int:
        return number

    app = await apps.open()
    handles = await asyncio.gather(*(app.start(never_seen_before, number) for number in range(20)))
    assert [await handle.result(timeout=SOON) for handle in handles] == list(range(20))
    assert len(set(handles)) == 20


@on_every_database
async def test_W07_shutdown_lets_an_activity_end_and_the_next_worker_goes_on_at_once(apps: Apps) -> None:
    runs: list[str] = []
    begun = asyncio.Event()

    @activity
    async def slow(ctx: WorkflowContext) -> str:
        runs.append("slow")
        begun.set()
        await asyncio.sleep(0.3)
        return "slow"

    @activity
    async def quick(ctx: WorkflowContext) -> str:
        runs.append("quick")
        return "quick"

    gate = Gate()

    @workflow
    async def working(ctx: WorkflowContext) -> list[str]:
        first = await slow(ctx)
        await gate.pass_(ctx)
        return [first, await quick(ctx)]

    handle = await (await apps.open(shutdown_grace_seconds=2)).start(working)
    await asyncio.wait_for(begun.wait(), SOON)
    app = await apps.restart()
    gate.open()
    with elapsed() as seconds:
        assert await app.handle(handle).result(timeout=SOON) == ["slow", "quick"]
    assert seconds() < 5
    assert runs == ["slow", "quick"]


@on_every_database
async def test_W08_many_workers_may_boot_at_once_on_an_empty_database(apps: Apps) -> None:
    @workflow
    async def hello(ctx: WorkflowContext) -> str:
        return "hello"

    workers = await asyncio.gather(*(apps.open() for _ in range(8)))
    handles = [await worker.start(hello) for worker in workers]
    assert [await handle.result(timeout=SOON) for handle in handles] == ["hello"] * 8
    assert all([await events_of(handle, "WorkflowCompleted") for handle in handles])


@on_every_database
async def test_W09_history_is_in_the_order_in_which_things_happened_even_within_a_second(apps: Apps) -> None:
    undone: list[int] = []

    @compensation
    async def undo(ctx: WorkflowContext, number: int) -> int:
        undone.append(number)
        return number

    @activity
    @on_failure(undo)
    async def do(ctx: WorkflowContext, number: int) -> int:
        return number

    @workflow
    async def failing(ctx: WorkflowContext) -> None:
        for number in range(12):
            await do(ctx, number)
        raise ValueError("enough")

    handle = await (await apps.open()).start(failing)
    with pytest.raises(ValueError, match="enough"):
        await handle.result(timeout=SOON)
    assert list((await results_of(handle)).values()) == list(range(12))
    assert undone == list(reversed(range(12)))
    executed = await events_of(handle, "CompensationExecuted")
    assert [event.activity_id for event in executed] == [f"undo/do:{number + 1}" for number in undone]
    history = await handle.history()
    assert [event.seq for event in history] == list(range(1, len(history) + 1))
    assert [event.created_at for event in history] == sorted(event.created_at for event in history)


@pytest.mark.process
@on_every_database
def test_W10_a_crash_while_a_cancelled_instance_is_undone_leaves_it_cancelled(
    program: Callable[[str], Program],
) -> None:
    order = program("""
        @compensation
        async def undo(ctx: WorkflowContext, number: int) -> None:
            crash_once("before the second undo") if number == 2 else None
            note(f"undone {number}")

        @activity
        @on_failure(undo)
        async def do(ctx: WorkflowContext, number: int) -> None:
            note(f"done {number}")

        @workflow
        async def order(ctx: WorkflowContext) -> None:
            for number in (1, 2, 3):
                await do(ctx, number)
            await wait_timer(ctx, 3600)

        async def main():
            async with EddaApp(db_url=DB_URL) as app:
                handle = await order.options(id="o-1").start()
                if ROUND == 1:
                    while await handle.status() != "waiting_for_timer":
                        await asyncio.sleep(0.01)
                    await handle.cancel()
                try:
                    await handle.result(timeout=20)
                except Exception as error:
                    say(type(error).__name__)
                say(await handle.status())
    """)
    order.run_until_it_crashes()
    assert order.run() == ["WorkflowCancelledException", "cancelled"]
    assert order.notes == ["done 1", "done 2", "done 3", "undone 3", "undone 2", "undone 1"]
