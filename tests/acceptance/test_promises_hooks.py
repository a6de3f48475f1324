"""Section O of the promises, hooks: any object with some of the methods hears what happens, and bends nothing."""

import subprocess
import sys
from typing import Any

from edda import WorkflowContext, WorkflowHooks, activity, send_event, wait_event, workflow
from tests.acceptance.conftest import Apps
from tests.acceptance.processes import ROOT
from tests.acceptance.support import SOON, Gate, eventually, on_every_database, reaches


class Three:
    """The README's `MyHooks`: a plain class with three of the methods."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    async def on_workflow_start(self, instance_id: str, workflow_name: str, input_data: dict[str, Any]) -> None:
        self.heard.append(("start", instance_id, workflow_name, input_data))

    async def on_workflow_complete(self, instance_id: str, workflow_name: str, result: Any) -> None:
        self.heard.append(("complete", instance_id, workflow_name, result))

    async def on_activity_complete(
        self, instance_id: str, activity_id: str, activity_name: str, result: Any, cache_hit: bool
    ) -> None:
        self.heard.append(("activity", instance_id, activity_id, activity_name, result, cache_hit))

    def of(self, what: str) -> list[tuple[Any, ...]]:
        return [heard[1:] for heard in self.heard if heard[0] == what]


@activity
async def charge(ctx: WorkflowContext, cents: int) -> dict[str, int]:
    return {"paid": cents}


@workflow
async def charging_with_hooks(ctx: WorkflowContext, cents: int) -> dict[str, int]:
    return await charge(ctx, cents)


async def test_R126_any_object_with_the_methods_will_do(apps: Apps) -> None:
    hooks = Three()
    assert WorkflowHooks not in type(hooks).__mro__
    handle = await (await apps.open(hooks=hooks)).start(charging_with_hooks, 5)
    await handle.result(timeout=SOON)
    await eventually(lambda: [heard[0] for heard in hooks.heard] == ["start", "activity", "complete"])


async def test_R127_an_object_may_have_some_of_the_methods_only(apps: Apps) -> None:
    """Much happens here that it has no method for: an event sent and received, and a workflow that is cancelled."""

    @workflow
    async def talking(ctx: WorkflowContext) -> None:
        await send_event("said", "test", {})
        await wait_event(ctx, "answered")
        await wait_event(ctx, "said.again")

    hooks = Three()
    handle = await (await apps.open(hooks=hooks)).start(talking)
    await send_event("answered", "test", {})
    await eventually(lambda: _reason_is(handle, "said.again"))
    await handle.cancel()
    await reaches(handle, "cancelled")
    assert {heard[0] for heard in hooks.heard} == {"start"}


async def _reason_is(handle: Any, what: str) -> bool:
    return what in await handle.reason()


async def test_R128_the_start_is_told_with_the_input(apps: Apps) -> None:
    hooks = Three()
    handle = await (await apps.open(hooks=hooks)).start(charging_with_hooks, cents=5)
    await handle.result(timeout=SOON)
    await eventually(lambda: hooks.of("complete"))
    ((instance_id, name, given),) = hooks.of("start")
    assert (instance_id, name) == (handle, "charging_with_hooks")
    assert given == {"cents": 5}


@on_every_database
async def test_R129_the_end_is_told_once_also_after_a_resume(apps: Apps) -> None:
    gate = Gate()

    @workflow
    async def interrupted(ctx: WorkflowContext) -> dict[str, int]:
        paid = await charge(ctx, 5)
        await gate.pass_(ctx)
        return paid

    before, after = Three(), Three()
    handle = await (await apps.open(hooks=before)).start(interrupted)
    again = await apps.restart_at(gate, handle, hooks=after)
    assert await again.result(timeout=SOON) == {"paid": 5}
    await eventually(lambda: after.of("complete"))
    assert before.of("complete") == []
    assert after.of("complete") == [(handle, "interrupted", {"paid": 5})]


@on_every_database
async def test_R130_the_end_of_an_activity_is_told_and_whether_it_was_replayed(apps: Apps) -> None:
    gate = Gate()

    @workflow
    async def interrupted(ctx: WorkflowContext) -> None:
        await charge(ctx, 5)
        await gate.pass_(ctx)

    before, after = Three(), Three()
    handle = await (await apps.open(hooks=before)).start(interrupted)
    await eventually(lambda: before.of("activity"))
    again = await apps.restart_at(gate, handle, hooks=after)
    await again.result(timeout=SOON)
    await eventually(lambda: after.of("complete"))
    assert before.of("activity") == [(handle, "charge:1", "charge", {"paid": 5}, False)]
    assert after.of("activity") == [
        (handle, "charge:1", "charge", {"paid": 5}, True),
        (handle, "gate:1", "gate", None, False),
    ]


def test_R131_hooks_are_tied_to_no_tool_and_an_example_shows_them() -> None:
    tools = ("opentelemetry", "logfire", "sentry_sdk", "prometheus_client", "datadog", "structlog")
    code = f"""
import sys
from edda import EddaApp, WorkflowHooks
from examples.orders.worker import Announcer

hooks = {{name for name in vars(Announcer) if name.startswith("on_")}}
assert hooks and hooks <= set(dir(WorkflowHooks))
EddaApp(db_url="sqlite:///never.db", hooks=Announcer())
assert not [name for name in {tools} if name in sys.modules]
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
