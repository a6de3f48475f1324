"""Promises R28-R46: the quick start, the databases, and what workflows and activities are."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from edda import EddaApp, WorkflowContext, activity, wait_timer, workflow
from tests.acceptance.conftest import Apps
from tests.acceptance.processes import Program
from tests.acceptance.support import (
    SOON,
    Gate,
    Tables,
    events_of,
    eventually,
    on_every_database,
    on_mysql,
    on_postgresql,
    reaches,
    results_of,
)

# --- C. quick start --------------------------------------------------------------------------------


async def test_R028_an_app_needs_only_a_database_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @activity
    async def charge(ctx: WorkflowContext) -> str:
        return "charged"

    @workflow
    async def order(ctx: WorkflowContext) -> str:
        return await charge(ctx)

    monkeypatch.chdir(tmp_path)
    async with EddaApp(db_url="sqlite:///workflow.db") as app:
        handle = await app.start(order)
        assert await handle.result(timeout=SOON) == "charged"
        assert await results_of(handle) == {"charge:1": "charged"}
    assert (tmp_path / "workflow.db").exists()


async def test_R029_an_activity_is_recorded_by_itself(apps: Apps) -> None:
    @activity
    async def process_payment(ctx: WorkflowContext, amount: float) -> dict[str, Any]:
        return {"status": "paid", "amount": amount}

    @workflow
    async def order(ctx: WorkflowContext) -> None:
        await process_payment(ctx, 99.99)

    handle = await (await apps.open()).start(order)
    await handle.result(timeout=SOON)
    (event,) = await events_of(handle, "ActivityCompleted")
    assert event.event_data["activity_name"] == "process_payment"
    assert event.event_data["result"] == {"status": "paid", "amount": 99.99}


async def test_R030_a_workflow_takes_typed_arguments_and_keeps_them_for_the_replay(apps: Apps) -> None:
    gate, seen = Gate(), list[tuple[str, float]]()

    @workflow
    async def order_workflow(ctx: WorkflowContext, order_id: str, amount: float) -> float:
        seen.append((order_id, amount))
        await gate.pass_(ctx)
        return amount

    handle = await (await apps.open()).start(order_workflow, "ORD-1", amount=5)
    result = await (await apps.restart_at(gate, handle)).result(timeout=SOON)
    assert (result, type(result)) == (5.0, float)
    assert seen == [("ORD-1", 5.0), ("ORD-1", 5.0)]


async def test_R031_start_returns_the_instance_id(apps: Apps) -> None:
    @workflow
    async def order_workflow(ctx: WorkflowContext, order_id: str, amount: float) -> str:
        return ctx.instance_id

    await apps.open()
    instance_id = await order_workflow.start(order_id="ORD-123", amount=99.99)
    assert isinstance(instance_id, str)
    assert instance_id.startswith("order_workflow")
    anywhere = (await apps.restart()).handle(str(instance_id))
    assert await anywhere.result(timeout=SOON) == instance_id


async def test_R032_the_result_of_an_activity_is_used_inline(apps: Apps) -> None:
    gate = Gate()

    @activity
    async def process_payment(ctx: WorkflowContext, amount: float) -> dict[str, Any]:
        return {"status": "paid", "amount": amount}

    @workflow
    async def order_workflow(ctx: WorkflowContext, order_id: str, amount: float) -> dict[str, Any]:
        result = await process_payment(ctx, amount)
        await gate.pass_(ctx)
        return {"order_id": order_id, **result}

    handle = await (await apps.open()).start(order_workflow, order_id="ORD-123", amount=99.99)
    result = await (await apps.restart_at(gate, handle)).result(timeout=SOON)
    assert result == {"order_id": "ORD-123", "status": "paid", "amount": 99.99}


async def test_R033_initialize_makes_the_database_ready(db_url: str, tables: Tables) -> None:
    @workflow
    async def order(ctx: WorkflowContext) -> str:
        return "done"

    app = EddaApp(db_url=db_url)
    await app.initialize()
    try:
        assert await tables.count("edda_instance") == 0
        handle = await app.start(order)
        assert await handle.result(timeout=SOON) == "done"
        assert await tables.count("edda_instance") == 1
    finally:
        await app.shutdown()


async def test_R034_shutdown_leaves_nothing_running_and_everything_to_the_next_app(apps: Apps) -> None:
    gate, threads = Gate(), set(threading.enumerate())
    tasks = asyncio.all_tasks()

    @workflow
    async def order(ctx: WorkflowContext) -> str:
        await gate.pass_(ctx)
        return "done"

    app = await apps.open()
    handle = await app.start(order)
    await gate.reached()
    await app.shutdown()
    assert asyncio.all_tasks() <= tasks
    await eventually(lambda: {each for each in threading.enumerate() if each.name.startswith("edda")} <= threads)
    await app.shutdown()
    gate.open()
    assert await (await apps.open()).handle(handle).result(timeout=SOON) == "done"
    assert gate.arrivals == 2


@pytest.mark.process
def test_R035_after_a_crash_the_quick_start_goes_on_from_its_last_checkpoint(program: Callable[[str], Program]) -> None:
    order = program("""
        @activity
        async def process_payment(ctx: WorkflowContext, amount: float):
            note(f"Processing payment: ${amount}")
            return {"status": "paid", "amount": amount}

        @activity
        async def ship(ctx: WorkflowContext, order_id: str):
            crash_once("after the payment")

        @workflow
        async def order_workflow(ctx: WorkflowContext, order_id: str, amount: float):
            result = await process_payment(ctx, amount)
            await ship(ctx, order_id)
            return {"order_id": order_id, **result}

        async def main():
            async with EddaApp(db_url=DB_URL) as app:
                if ROUND == 1:
                    await order_workflow.options(id="order-1").start(order_id="ORD-123", amount=99.99)
                say(await app.handle("order-1").result(timeout=20))
    """)
    order.run_until_it_crashes()
    assert order.run() == ["{'order_id': 'ORD-123', 'status': 'paid', 'amount': 99.99}"]
    assert order.notes == ["Processing payment: $99.99"]


# --- D. databases ----------------------------------------------------------------------------------


async def test_R036_on_sqlite_several_apps_and_many_workflows_share_one_process(apps: Apps) -> None:
    runs: list[str] = []

    @activity
    async def step(ctx: WorkflowContext, number: int) -> int:
        runs.append(f"{ctx.instance_id} {number}")
        return number

    @workflow
    async def counting(ctx: WorkflowContext) -> int:
        return await step(ctx, 1) + await step(ctx, 2)

    one, two = await apps.open(), await apps.open()
    handles = [await app.start(counting) for _ in range(20) for app in (one, two)]
    for handle in handles:
        assert await handle.result(timeout=SOON) == 3
        assert await results_of(handle) == {"step:1": 1, "step:2": 2}
    assert sorted(runs) == sorted(f"{handle} {number}" for handle in handles for number in (1, 2))


async def test_R037_a_sqlite_url_works_as_it_is_written(tmp_path: Path) -> None:
    @workflow
    async def order(ctx: WorkflowContext) -> str:
        return "done"

    path = tmp_path / "some where" / "orders.db"
    path.parent.mkdir()
    async with EddaApp(db_url=f"sqlite:///{path}") as app:
        handle = await app.start(order)
        assert await handle.result(timeout=SOON) == "done"
    assert path.stat().st_size > 0


async def many_workers(apps: Apps) -> None:
    """Workers that start at the same time on an empty database, and are all asked for the same instances."""
    runs: list[str] = []

    @activity
    async def step(ctx: WorkflowContext, number: int) -> str:
        runs.append(f"{ctx.instance_id} {number}")
        return ctx.worker_id

    @workflow
    async def counting(ctx: WorkflowContext, to: int) -> list[str]:
        return [await step(ctx, number) for number in range(to)]

    workers = await asyncio.gather(*(apps.open() for _ in range(4)))
    starts = [counting.options(id=f"c-{number}").on(worker).start(3) for number in range(10) for worker in workers]
    for handle in await asyncio.gather(*starts):
        assert len(await handle.result(timeout=SOON)) == 3
        assert list(await results_of(handle)) == ["step:1", "step:2", "step:3"]
    assert sorted(runs) == sorted(f"c-{number} {step}" for number in range(10) for step in range(3))


@on_postgresql
async def test_R038_on_postgresql_workers_boot_and_run_side_by_side(apps: Apps) -> None:
    await many_workers(apps)


@on_mysql
async def test_R039_on_mysql_workers_boot_and_run_side_by_side(apps: Apps) -> None:
    await many_workers(apps)


@on_postgresql
async def test_R040_a_postgresql_url_without_a_driver_or_a_port_works(
    db_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @workflow
    async def order(ctx: WorkflowContext) -> str:
        return "done"

    server = make_url(db_url)
    for variable, value in (("PGPORT", server.port), ("PGUSER", server.username), ("PGPASSWORD", server.password)):
        if value:
            monkeypatch.setenv(variable, str(value))
    async with EddaApp(db_url=f"postgresql://localhost/{server.database}") as app:
        handle = await app.start(order)
        assert await handle.result(timeout=SOON) == "done"
        assert await events_of(handle, "WorkflowCompleted")


# --- E. workflows and activities -------------------------------------------------------------------


async def test_R041_the_result_of_an_activity_is_in_the_history(apps: Apps) -> None:
    @activity
    async def send_email(ctx: WorkflowContext, email: str, message: str) -> dict[str, bool]:
        return {"sent": True}

    @workflow
    async def user_signup(ctx: WorkflowContext, email: str) -> dict[str, str]:
        await send_email(ctx, email, "Welcome!")
        return {"status": "completed"}

    handle = await (await apps.open()).start(user_signup, "a@example.com")
    assert await handle.result(timeout=SOON) == {"status": "completed"}
    assert await results_of(handle) == {"send_email:1": {"sent": True}}


@pytest.mark.process
def test_R042_a_workflow_is_replayed_from_its_history_after_a_crash(program: Callable[[str], Program]) -> None:
    signup = program("""
        @activity
        async def send_email(ctx: WorkflowContext, email: str) -> int:
            note(f"email by process {ROUND}")
            return ROUND

        @workflow
        async def user_signup(ctx: WorkflowContext, email: str) -> list[int]:
            note(f"body in process {ROUND}, replaying: {ctx.is_replaying}")
            first = await send_email(ctx, email)
            await wait_timer(ctx, 1.5)
            return [first, await send_email(ctx, email)]

        async def main():
            async with EddaApp(db_url=DB_URL) as app:
                handle = await user_signup.options(id="u-1").start("a@example.com")
                while ROUND == 1 and await handle.status() != "waiting_for_timer":
                    await asyncio.sleep(0.01)
                if ROUND == 1:
                    crash()
                say(await handle.result(timeout=20))
    """)
    signup.run_until_it_crashes()
    assert signup.run() == ["[1, 2]"]
    assert signup.notes == [
        "body in process 1, replaying: False",
        "email by process 1",
        "body in process 2, replaying: True",
        "email by process 2",
    ]


async def test_R043_activities_are_numbered_by_their_name(apps: Apps) -> None:
    @activity
    async def send_email(ctx: WorkflowContext, to: str) -> str:
        return ctx.activity.id

    @activity
    async def log(ctx: WorkflowContext) -> str:
        return ctx.activity.id

    @workflow
    async def mailing(ctx: WorkflowContext) -> list[str]:
        return [await send_email(ctx, "a"), await log(ctx), await send_email(ctx, "b")]

    handle = await (await apps.open()).start(mailing)
    ids = await handle.result(timeout=SOON)
    assert ids == ["send_email:1", "log:1", "send_email:2"]
    assert await results_of(handle) == {each: each for each in ids}


async def test_R044_no_ids_are_needed_in_loops_branches_and_gathers(apps: Apps) -> None:
    gate, runs = Gate(), list[str]()

    @activity
    async def fetch(ctx: WorkflowContext, what: str, seconds: float) -> str:
        runs.append(what)
        await asyncio.sleep(seconds)
        return what.upper()

    @workflow
    async def gathering(ctx: WorkflowContext) -> list[str]:
        together = await asyncio.gather(fetch(ctx, "slow", 0.2), fetch(ctx, "middle", 0.1), fetch(ctx, "fast", 0.0))
        for letter in ("a", "b"):
            if letter == "b":
                together.append(await fetch(ctx, letter, 0.0))
        await gate.pass_(ctx)
        return together

    handle = await (await apps.open()).start(gathering)
    handle = await apps.restart_at(gate, handle)
    assert await handle.result(timeout=SOON) == ["SLOW", "MIDDLE", "FAST", "B"]
    recorded = await results_of(handle)
    assert list(recorded) == ["fetch:3", "fetch:2", "fetch:1", "fetch:4", "gate:1"]
    assert runs == ["slow", "middle", "fast", "b"]


async def test_R045_a_gather_with_ids_of_ones_own_replays_to_the_same(apps: Apps) -> None:
    gate, runs = Gate(), list[str]()

    @activity
    async def fetch(ctx: WorkflowContext, what: str, seconds: float) -> str:
        runs.append(what)
        await asyncio.sleep(seconds)
        return f"{what} as {ctx.activity.id}"

    @workflow
    async def gathering(ctx: WorkflowContext) -> list[str]:
        together = await asyncio.gather(
            fetch(ctx, "slow", 0.2, activity_id="fetch:slow"),  # type: ignore[call-arg]
            fetch(ctx, "fast", 0.0, activity_id="fetch:fast"),  # type: ignore[call-arg]
        )
        await gate.pass_(ctx)
        return together

    handle = await (await apps.open()).start(gathering)
    handle = await apps.restart_at(gate, handle)
    assert await handle.result(timeout=SOON) == ["slow as fetch:slow", "fast as fetch:fast"]
    assert list(await results_of(handle)) == ["fetch:fast", "fetch:slow", "gate:1"]
    assert runs == ["slow", "fast"]


JSON_VALUES = (
    *(None, True, 12345678901234567890, 1.5, "", "naïve 🜲 \x00", []),
    [1, {"a": [None]}],
    {"status": "completed", "n": {}, "b": 1, "a": 2},
)


@on_every_database
async def test_R046_a_workflow_returns_any_json_value(apps: Apps) -> None:
    @workflow
    async def returning(ctx: WorkflowContext, number: int) -> Any:
        return JSON_VALUES[number]

    app = await apps.open()
    handles = [await app.start(returning, number) for number in range(len(JSON_VALUES))]
    for handle in handles:
        await reaches(handle, "completed")
    app = await apps.restart()
    stored = [await app.handle(handle).result(timeout=SOON) for handle in handles]
    assert repr(stored) == repr(list(JSON_VALUES))


async def test_R046_the_result_is_stored_with_the_instance(apps: Apps) -> None:
    @workflow
    async def returning(ctx: WorkflowContext) -> dict[str, str]:
        await wait_timer(ctx, 0)
        return {"status": "completed"}

    handle = await (await apps.open()).start(returning)
    await handle.result(timeout=SOON)
    (event,) = await events_of(handle, "WorkflowCompleted")
    assert event.event_data["result"] == {"status": "completed"}
