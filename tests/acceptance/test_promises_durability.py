"""Promises R47-R54: durable execution. R52 says here: code at least once, its result at most once, never changed."""

from collections.abc import Callable

import pytest

from edda import WorkflowContext, activity, wait_timer, workflow
from tests.acceptance.conftest import Apps
from tests.acceptance.processes import Program
from tests.acceptance.support import SOON, Gate, Tables, on_every_database, results_of


@on_every_database
async def test_R047_activity_results_are_stored_in_a_history_table(apps: Apps, tables: Tables) -> None:
    @activity
    async def create_user(ctx: WorkflowContext, user_id: str) -> dict[str, str]:
        return {"email": f"{user_id}@example.com"}

    @workflow
    async def signup(ctx: WorkflowContext) -> None:
        await create_user(ctx, "u1")
        await create_user(ctx, "u2")

    handle = await (await apps.open()).start(signup)
    await handle.result(timeout=SOON)
    rows = await tables.rows(
        f"SELECT call_id, output FROM edda_history WHERE instance_id = '{handle}' AND name = 'create_user' ORDER BY seq"
    )
    assert [row[0] for row in rows] == ["create_user:1", "create_user:2"]
    assert "u2@example.com" in rows[1][1]


async def test_R048_recovery_resumes_at_the_last_checkpoint(apps: Apps) -> None:
    gate, effects = Gate(), list[str]()

    @activity
    async def step(ctx: WorkflowContext, name: str) -> str:
        effects.append(name)
        return name

    @workflow
    async def order(ctx: WorkflowContext) -> list[str]:
        done = [await step(ctx, "reserve"), await step(ctx, "charge")]
        await gate.pass_(ctx)
        return [*done, await step(ctx, "ship")]

    handle = await (await apps.open()).start(order)
    await gate.reached()
    before = await results_of(handle)
    handle = await apps.restart_at(gate, handle)
    assert await handle.result(timeout=SOON) == ["reserve", "charge", "ship"]
    assert before == {"step:1": "reserve", "step:2": "charge"}
    assert list(await results_of(handle)) == ["step:1", "step:2", "gate:1", "step:3"]


async def test_R049_an_executed_activity_returns_its_recorded_result_and_does_not_run_again(apps: Apps) -> None:
    gate, runs, seen = Gate(), list[int](), list[int]()

    @activity
    async def count(ctx: WorkflowContext) -> int:
        runs.append(1)
        return len(runs)

    @workflow
    async def counting(ctx: WorkflowContext) -> int:
        number = await count(ctx)
        seen.append(number)
        await gate.pass_(ctx)
        return number

    handle = await (await apps.open()).start(counting)
    assert await (await apps.restart_at(gate, handle)).result(timeout=SOON) == 1
    assert seen == [1, 1]
    assert runs == [1]


async def test_R050_new_activities_continue_from_there(apps: Apps) -> None:
    gate, effects = Gate(), list[str]()

    @activity
    async def step(ctx: WorkflowContext, name: str) -> str:
        effects.append(f"{name} by {ctx.worker_id}")
        return ctx.worker_id

    @workflow
    async def order(ctx: WorkflowContext) -> list[str]:
        before = await step(ctx, "charge")
        await gate.pass_(ctx)
        return [before, await step(ctx, "ship")]

    handle = await (await apps.open()).start(order)
    first, second = await (await apps.restart_at(gate, handle)).result(timeout=SOON)
    assert first != second
    assert effects == [f"charge by {first}", f"ship by {second}"]


@pytest.mark.process
@on_every_database
@pytest.mark.parametrize(
    "where",
    [
        "in the second activity, before its effect",
        pytest.param(
            "in the body", marks=pytest.mark.xfail(reason="the body is stepped before the result is recorded")
        ),
    ],
)
def test_R051_after_a_crash_between_two_activities_the_first_is_not_repeated(
    program: Callable[[str], Program], where: str
) -> None:
    signup = program("""
        @activity
        async def create_user(ctx: WorkflowContext, user_id: str) -> dict:
            note("create user")
            return {"email": f"{user_id}-{ROUND}@example.com"}

        @activity
        async def send_welcome_email(ctx: WorkflowContext, email: str) -> str:
            crash_once("between") if ROLE != "in the body" else None
            note(f"welcome {email}")
            return f"sent to {email}"

        @workflow
        async def long_running_workflow(ctx: WorkflowContext, user_id: str):
            result1 = await create_user(ctx, user_id)
            crash_once("between") if ROLE == "in the body" else None
            return await send_welcome_email(ctx, result1["email"])

        async def main():
            async with EddaApp(db_url=DB_URL) as app:
                if ROUND == 1:
                    await long_running_workflow.options(id="s-1").start("u")
                say(await app.handle("s-1").result(timeout=20))
    """)
    signup.run_until_it_crashes(where)
    assert signup.run(where) == ["sent to u-1@example.com"]
    assert signup.notes == ["create user", "welcome u-1@example.com"]


@pytest.mark.process
@on_every_database
def test_R052_code_runs_at_least_once_and_its_result_is_recorded_once_and_for_ever(
    program: Callable[[str], Program],
) -> None:
    paying = program("""
        import uuid

        @activity
        async def charge(ctx: WorkflowContext) -> str:
            note(f"charge {ctx.activity.attempt} {ctx.activity.idempotency_key}")
            crash_once("effect done, result not recorded")
            return str(uuid.uuid4())

        @activity
        async def confirm(ctx: WorkflowContext, receipt: str) -> str:
            note(f"confirmed {receipt}")
            crash_once("result recorded")
            return receipt

        @workflow
        async def paying(ctx: WorkflowContext) -> str:
            return await confirm(ctx, await charge(ctx))

        async def main():
            async with EddaApp(db_url=DB_URL) as app:
                handle = await paying.options(id="p-1").start()
                say(await handle.result(timeout=20))
                say(len([event for event in await handle.history() if event.event_type == "ActivityCompleted"]))
    """)
    paying.run_until_it_crashes()
    paying.run_until_it_crashes()
    receipt, completions = paying.run()
    assert completions == "2"
    first, second, *seen = paying.notes
    assert first.split()[:2] == ["charge", "1"]
    assert second.split()[:2] == ["charge", "2"]
    assert first.split()[2] == second.split()[2]
    assert seen == [f"confirmed {receipt}"] * 2


@pytest.mark.process
def test_R053_a_workflow_survives_crashes_at_arbitrary_points(program: Callable[[str], Program]) -> None:
    everywhere = program("""
        @activity
        async def step(ctx: WorkflowContext, number: int) -> int:
            crash_once(f"before the effect of {number}") if number == 1 else None
            note(f"step {number}")
            crash_once(f"after the effect of {number}") if number == 2 else None
            return number

        @workflow
        async def everywhere(ctx: WorkflowContext) -> list[int]:
            crash_once("at the beginning")
            done = [await step(ctx, 1)]
            done += await asyncio.gather(step(ctx, 2), step(ctx, 3))
            await wait_timer(ctx, 0.1)
            crash_once("after the timer")
            done.append(await step(ctx, 4))
            crash_once("at the end")
            return done

        async def main():
            async with EddaApp(db_url=DB_URL) as app:
                handle = await everywhere.options(id="e-1").start()
                if ROUND == 1:
                    say("started")
                say(await handle.result(timeout=20))
                kinds = [event.event_type for event in await handle.history()]
                say(f"{kinds.count('ActivityCompleted')} {kinds.count('TimerFired')} {kinds[-1]}")
    """)
    for _ in range(5):
        everywhere.run_until_it_crashes()
    assert everywhere.run() == ["[1, 2, 3, 4]", "4 1 WorkflowCompleted"]
    assert everywhere.notes.count("step 1") == 1
    assert all(1 <= everywhere.notes.count(f"step {number}") <= 2 for number in (2, 3, 4))


async def test_R054_local_variables_are_the_checkpoint(apps: Apps) -> None:
    gate = Gate()

    @activity
    async def price(ctx: WorkflowContext, item: str) -> int:
        return len(item)

    @workflow
    async def basket(ctx: WorkflowContext, items: list[str]) -> dict[str, int]:
        prices: dict[str, int] = {}
        for item in items:
            prices[item] = await price(ctx, item)
            if item == "book":
                await gate.pass_(ctx)
        await wait_timer(ctx, 0)
        return prices

    handle = await (await apps.open()).start(basket, ["pen", "book", "lamp shade"])
    result = await (await apps.restart_at(gate, handle)).result(timeout=SOON)
    assert result == {"pen": 3, "book": 4, "lamp shade": 10}
