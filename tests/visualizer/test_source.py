"""The text that a diagram needs: found among living objects, kept in the database, without what may be secret."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

from edda import EddaApp, Event, WorkflowContext, activity, compensation, on_failure, wait_event, workflow
from edda.core.history import InstanceId
from edda.visualizer import NodeKind, diagram, diagram_of, draw
from edda.visualizer.source import source_of
from examples.agent.agent import agent
from tests.visualizer.corpus import told

SECRET = "the key of the bank"
PAID = "drawn.paid"
answered = Event[dict[str, Any]]("drawn.answered", key="n")


@compensation(name="drawn-undo")
async def undo(ctx: WorkflowContext, n: int) -> None:
    print(SECRET)


@activity(name="drawn-do")
@on_failure(undo)
async def do(ctx: WorkflowContext, n: int) -> str:
    return "what an activity does is nobody's business"


async def helper(ctx: WorkflowContext, n: int) -> None:
    await do(ctx, n)
    await asyncio.sleep(0.01)


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def call(*args: Any) -> Any:
        return await function(*args)

    return call


@workflow
@traced
async def drawn_with_helper(ctx: WorkflowContext, n: int) -> int:
    await helper(ctx, n)
    if n > 1:
        await wait_event(ctx, PAID, timeout_seconds=len(SECRET))
    return n


def test_the_text_stands_alone_and_holds_what_the_diagram_needs() -> None:
    text = source_of(drawn_with_helper)
    assert told(diagram(text)) == told(diagram_of(drawn_with_helper))
    kinds = {node.label: node.kind for node in diagram(text).nodes}
    assert kinds["drawn-do"] is NodeKind.ACTIVITY
    assert kinds["drawn-undo"] is NodeKind.COMPENSATION
    assert kinds["drawn.paid"] is NodeKind.EVENT_WAIT


def test_bodies_of_activities_and_constants_stay_out_of_it() -> None:
    text = source_of(drawn_with_helper)
    assert SECRET not in text
    assert "nobody's business" not in text
    assert "answered" not in text  # not needed


def test_what_other_modules_declare_is_known() -> None:
    labels = {node.label: node for node in diagram_of(agent).nodes}
    assert {"ask_model", "approval", "show", "callback"} <= set(labels)
    assert labels["ask_model"].certain


def test_a_workflow_inside_a_function_is_drawn_from_its_own_text() -> None:
    @workflow
    async def drawn_inside(ctx: WorkflowContext) -> None:
        await do(ctx, 1)

    assert "<svg" in draw(drawn_inside)


async def test_an_app_keeps_the_text_of_its_workflows_for_viewers() -> None:
    async with EddaApp(db_url="sqlite:///:memory:") as app:
        handle = await app.start(drawn_with_helper, 1)
        assert await handle.result(timeout=30) == 1
        engine = await app._ready()  # type: ignore[attr-defined]
        row = await engine.store.instance(InstanceId(handle.id))
        kept = await engine.store.source(row.workflow, row.source_hash)
        assert kept is not None
        assert kept.source_hash == row.source_hash
        assert kept.text == source_of(drawn_with_helper)
