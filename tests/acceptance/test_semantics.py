"""What semantics.md says beyond the numbered promises: crashes that are not the process's end, shutdown, ids."""

import asyncio

import pytest

from edda import WorkflowContext, activity, workflow
from tests.acceptance.conftest import Apps
from tests.acceptance.support import SOON, Attempts, Gate, on_every_database, reaches


@on_every_database
async def test_running_out_of_memory_is_a_crash_and_the_attempt_is_made_again(apps: Apps) -> None:
    attempts = Attempts()

    @activity
    async def load(ctx: WorkflowContext) -> int:
        if attempts.begin() == 1:
            raise MemoryError
        assert ctx.activity is not None
        return ctx.activity.attempt

    @workflow
    async def report(ctx: WorkflowContext) -> int:
        return await load(ctx)

    app = await apps.open(lease_seconds=1.5)
    before = app.worker_id
    handle = await app.start(report)
    assert await handle.result(timeout=SOON) == 2
    assert app.worker_id != before
    assert [entry.event_type for entry in await handle.history()] == [
        "WorkflowStarted",
        "ActivityCompleted",
        "WorkflowCompleted",
    ]


async def test_a_workflow_that_runs_out_of_memory_again_and_again_is_set_aside(apps: Apps) -> None:
    entries = Attempts()

    @workflow
    async def greedy(ctx: WorkflowContext) -> None:
        entries.begin()
        raise MemoryError

    app = await apps.open(lease_seconds=1.5)
    handle = await app.start(greedy)
    assert await reaches(handle, "quarantined") == "quarantined"
    assert 2 <= entries.count <= 10


async def test_whoever_shuts_down_meanwhile_waits_for_the_same_end(apps: Apps) -> None:
    gate = Gate()

    @workflow
    async def order(ctx: WorkflowContext) -> None:
        await gate.pass_(ctx)

    app = await apps.open(shutdown_grace_seconds=SOON)
    await app.start(order)
    await gate.reached()
    first, second = asyncio.create_task(app.shutdown()), asyncio.create_task(app.shutdown())
    await asyncio.sleep(0.05)
    assert app.running
    assert not first.done()
    assert not second.done()
    first.cancel()
    gate.open()
    await second
    assert not app.running


@pytest.mark.parametrize("instance_id", ["", "x" * 256, "order 7 ", "order\0seven", "half \ud83d"])
def test_an_id_that_some_database_cannot_keep_is_refused(instance_id: str) -> None:
    @workflow
    async def order(ctx: WorkflowContext) -> None: ...

    with pytest.raises(ValueError, match="an instance id"):
        order.options(id=instance_id)
