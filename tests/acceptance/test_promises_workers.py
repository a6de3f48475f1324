"""Promises R79-R84: several workers. The lease is 30 seconds, and a dead process is noticed within one."""

import asyncio
import time
from collections.abc import Callable

import pytest

from edda import EddaApp, WorkflowContext, activity, workflow
from tests.acceptance.conftest import Apps
from tests.acceptance.processes import Program
from tests.acceptance.support import (
    SOON,
    Gate,
    Tables,
    eventually,
    on_every_database,
    on_every_server,
    on_postgresql,
    results_of,
)

WORKER = """
    @activity
    async def step(ctx: WorkflowContext, name: str) -> str:
        note(f"{name} by {ROLE}")
        if name == "second" and ROLE == "victim":
            say("in the middle")
            await forever()
        return f"{name} by {ROLE}"

    @workflow
    async def order(ctx: WorkflowContext) -> list[str]:
        return [await step(ctx, "first"), await step(ctx, "second")]

    async def main():
        async with EddaApp(db_url=DB_URL, service_name=f"service {ROLE}") as app:
            if ROLE == "victim":
                await order.options(id="order-1").start()
            say("ready")
            say(await app.handle("order-1").result(timeout=60))
            if ROLE.startswith("heir"):
                await allowed("end")
"""


@on_every_server
async def test_R079_the_database_alone_coordinates_the_workers(apps: Apps, tables: Tables) -> None:
    gate = Gate()

    @workflow
    async def order(ctx: WorkflowContext) -> str:
        await gate.pass_(ctx)
        return "done"

    one, two = await apps.open(), await apps.open()
    handle = await one.start(order)
    await gate.reached()
    assert await tables.count("edda_instance WHERE owner IS NOT NULL") == 1
    assert await tables.count("edda_worker WHERE state = 'alive'") == 2
    gate.open()
    assert await two.handle(handle).result(timeout=SOON) == "done"
    assert await tables.count("edda_instance WHERE owner IS NOT NULL") == 0


@on_every_database
async def test_R080_only_one_worker_gets_an_instance(apps: Apps) -> None:
    gate, runs = Gate(), list[str]()

    @activity
    async def step(ctx: WorkflowContext) -> str:
        runs.append(ctx.instance_id)
        await asyncio.sleep(0.01)
        return ctx.worker_id

    @workflow
    async def order(ctx: WorkflowContext) -> str:
        await gate.pass_(ctx)
        return await step(ctx)

    leaving = await apps.open()
    handles = [await leaving.start(order) for _ in range(30)]
    await eventually(lambda: gate.arrivals == 30)
    rivals = await asyncio.gather(*(apps.open(poll_seconds=0.05) for _ in range(3)))
    await leaving.shutdown()
    gate.open()
    for handle in handles:
        instance = rivals[0].handle(handle)
        winner = await instance.result(timeout=SOON)
        assert await results_of(instance) == {"gate:1": None, "step:1": winner}
    assert sorted(runs) == sorted(handles)


@pytest.mark.process
@on_every_server
def test_R081_when_a_worker_crashes_another_one_resumes(program: Callable[[str], Program]) -> None:
    workers = program(WORKER)
    victim = workers.start("victim")
    victim.wait_for("in the middle")
    heir = workers.start("heir")
    heir.wait_for("ready")
    victim.kill()
    heir.wait_for("['first by victim', 'second by heir']", within_seconds=20)
    assert workers.notes == ["first by victim", "second by victim", "second by heir"]


@on_postgresql
async def test_R082_the_readmes_way_to_construct_a_worker_works(db_url: str, tables: Tables) -> None:
    @activity
    async def where(ctx: WorkflowContext) -> str:
        return ctx.worker_id

    @workflow
    async def order(ctx: WorkflowContext) -> str:
        return await where(ctx)

    app = EddaApp(db_url=db_url, service_name="order-service")
    async with app:
        handle = await app.start(order)
        worker = await handle.result(timeout=SOON)
        assert await tables.rows("SELECT id, service FROM edda_worker") == [(worker, "order-service")]
        assert await results_of(handle) == {"where:1": worker}


@pytest.mark.process
@on_every_server
def test_R083_a_crashed_worker_is_noticed_long_before_its_lease_ends(program: Callable[[str], Program]) -> None:
    workers = program(WORKER)
    victim = workers.start("victim")
    victim.wait_for("in the middle")
    heir = workers.start("heir")
    heir.wait_for("ready")
    victim.kill()
    died = time.monotonic()
    heir.wait_for("['first by victim', 'second by heir']")
    assert time.monotonic() - died < 5  # a second and a poll on a quiet machine; the lease would be 30


@pytest.mark.process
@on_postgresql
def test_R084_a_crashed_workflow_resumes_on_any_of_the_others(program: Callable[[str], Program]) -> None:
    workers = program(WORKER)
    victim = workers.start("victim")
    victim.wait_for("in the middle")
    heirs = [workers.start(f"heir{number}") for number in (1, 2)]
    for heir in heirs:
        heir.wait_for("ready")
    victim.kill()
    workers.allow("end")
    said = [heir.finish()[-1] for heir in heirs]
    assert said[0] == said[1]
    assert said[0] in [f"['first by victim', 'second by heir{number}']" for number in (1, 2)]
