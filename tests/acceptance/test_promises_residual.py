"""Promises R145-R150: what the README says in passing."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from edda import RetryExhaustedError, RetryPolicy, WorkflowContext, activity, send_event_transactional, workflow
from tests.acceptance.conftest import Apps
from tests.acceptance.processes import Program
from tests.acceptance.support import SOON, Attempts, Gate, Tables, eventually, on_every_database, on_every_server


async def test_R145_an_agent_calls_a_model_and_tools_and_goes_on_after_a_restart(apps: Apps) -> None:
    gate, calls = Gate(), list[str]()

    @activity
    async def ask_model(ctx: WorkflowContext, messages: list[str]) -> dict[str, Any]:
        calls.append(f"model {len(messages)}")
        tools = ["weather", "calendar"] if len(messages) == 1 else []
        return {"tools": tools, "text": f"after {len(messages)} messages"}

    @activity
    async def use_tool(ctx: WorkflowContext, name: str) -> str:
        calls.append(f"tool {name}")
        return f"{name}: fine"

    @workflow
    async def agent(ctx: WorkflowContext, question: str) -> str:
        messages = [question]
        while True:
            answer = await ask_model(ctx, messages)
            if not answer["tools"]:
                return str(answer["text"])
            messages += await asyncio.gather(*(use_tool(ctx, name) for name in answer["tools"]))
            await gate.pass_(ctx)

    handle = await (await apps.open()).start(agent, "May I go out?")
    assert await (await apps.restart_at(gate, handle)).result(timeout=SOON) == "after 3 messages"
    assert calls == ["model 1", "tool weather", "tool calendar", "model 3"]


async def test_R145_a_batch_job_runs_a_pipeline_for_each_of_its_parts(apps: Apps) -> None:
    gate, runs = Gate(), list[int]()

    @activity
    async def transform(ctx: WorkflowContext, row: int) -> int:
        runs.append(row)
        return row * 2

    @workflow
    async def pipeline(ctx: WorkflowContext, rows: list[int]) -> int:
        return sum([await transform(ctx, row) for row in rows])

    @workflow
    async def batch(ctx: WorkflowContext, parts: int) -> int:
        totals = await asyncio.gather(*(pipeline.run([part, part + 10]) for part in range(parts)))
        await gate.pass_(ctx)
        return sum(totals)

    handle = await (await apps.open()).start(batch, 5)
    assert await (await apps.restart_at(gate, handle)).result(timeout=SOON) == 140
    assert sorted(runs) == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]


@pytest.mark.process
def test_R146_an_activity_interrupted_by_a_crash_is_run_again(program: Callable[[str], Program]) -> None:
    order = program("""
        @activity
        async def process_payment(ctx: WorkflowContext, amount: float) -> str:
            note(f"attempt {ctx.activity.attempt}")
            crash_once("in the middle of it")
            return "paid"

        @workflow
        async def order(ctx: WorkflowContext) -> str:
            return await process_payment(ctx, 99.99)

        async def main():
            async with EddaApp(db_url=DB_URL) as app:
                if ROUND == 1:
                    await order.options(id="o-1").start()
                say(await app.handle("o-1").result(timeout=20))
    """)
    order.run_until_it_crashes()
    assert order.run() == ["paid"]
    assert order.notes == ["attempt 1", "attempt 2"]


@on_every_server
async def test_R148_workers_share_a_database_url_and_nothing_else(apps: Apps, tables: Tables) -> None:
    gate = Gate()

    @activity
    async def where(ctx: WorkflowContext) -> str:
        return ctx.worker_id

    @workflow
    async def order(ctx: WorkflowContext) -> list[str]:
        before = await where(ctx)
        await gate.pass_(ctx)
        return [before, await where(ctx)]

    shop = await apps.open(service_name="shop")
    bank = await apps.open(service_name="bank", poll_seconds=0.05)
    handle = await shop.start(order)
    await gate.reached()
    assert await bank.handle(handle).status() == "running"
    services = dict(await tables.rows("SELECT id, service FROM edda_worker"))
    await shop.shutdown()
    gate.open()
    before, after = await bank.handle(handle).result(timeout=SOON)
    assert (services[before], services[after]) == ("shop", "bank")


async def test_R149_the_policy_of_the_app_does_not_reach_into_the_one_of_an_activity(apps: Apps) -> None:
    attempts = Attempts()

    @activity(retry_policy=RetryPolicy(max_attempts=2))
    async def flaky(ctx: WorkflowContext) -> None:
        attempts.begin()
        raise ConnectionError("away")

    @workflow
    async def trying(ctx: WorkflowContext) -> None:
        await flaky(ctx)

    of_the_app = RetryPolicy(max_attempts=7, initial_interval=0.001, max_interval=0.001)
    handle = await (await apps.open(default_retry_policy=of_the_app)).start(trying)
    with pytest.raises(RetryExhaustedError):
        await handle.result(timeout=SOON)
    assert attempts.count == 2
    assert attempts.gaps[0] >= 1.0  # the library's default, not the app's


@on_every_database
async def test_R150_json_and_binary_events_may_be_mixed(apps: Apps, tables: Tables) -> None:
    binary = bytes(range(256))

    @activity
    async def announce(ctx: WorkflowContext) -> None:
        await send_event_transactional(ctx, "order.created", "orders", {"order_id": "123", "amount": 99.99})
        await send_event_transactional(ctx, "order.created", "orders", binary)

    @workflow
    async def announcing(ctx: WorkflowContext) -> None:
        await announce(ctx)

    handle = await (await apps.open(outbox_enabled=True)).start(announcing)
    await handle.result(timeout=SOON)
    as_json, as_bytes = await eventually(tables.outbox)
    assert '"order_id"' in as_json["data"]
    assert as_json["bytes"] is None
    assert bytes(as_bytes["bytes"]) == binary
    assert as_bytes["data"] is None
    assert as_bytes["content_type"] == "application/octet-stream"
