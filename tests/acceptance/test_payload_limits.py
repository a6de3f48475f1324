"""`max_payload_bytes`: what is too large to be stored is refused where it is produced, whatever way it would go in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from edda import (
    ConflictError,
    WorkflowContext,
    activity,
    compensation,
    on_failure,
    register_compensation,
    send_event,
    send_event_transactional,
    workflow,
)
from edda.exceptions import PayloadTooLargeError
from tests.acceptance.conftest import Apps
from tests.acceptance.support import SOON, Gate

LIMIT = 1000
LARGE = "x" * 2 * LIMIT
done: list[str] = []


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    done.clear()


@compensation
async def take_away(ctx: WorkflowContext, text: str = "") -> None:
    done.append("taken away")


@activity
async def keep(ctx: WorkflowContext, text: str) -> int:
    done.append("kept")
    return len(text)


@activity
@on_failure(take_away)
async def produce(ctx: WorkflowContext) -> str:
    done.append("produced")
    return LARGE


@activity
async def start_in_session(ctx: WorkflowContext, id: str, text: str) -> None:
    assert ctx.session is not None  # opens its transaction
    await keeper.options(id=id).start(text)


@activity
async def send_from_an_activity(ctx: WorkflowContext, how: str, times: int) -> None:
    data = {"text": "x" * times}
    if how == "direct":
        await send_event("sized.event", "tests", data)
    else:
        await send_event_transactional(ctx, "sized.event", "tests", data)


@workflow
async def keeper(ctx: WorkflowContext, text: str) -> int:
    return await keep(ctx, text)


async def an_activity(ctx: WorkflowContext, text: str) -> None:
    await keep(ctx, text)


async def a_child(ctx: WorkflowContext, text: str) -> None:
    await keeper.start(text)


async def an_undo(ctx: WorkflowContext, text: str) -> None:
    await register_compensation(ctx, take_away, text=text)


async def an_event(ctx: WorkflowContext, text: str) -> None:
    await send_event("sized.event", "tests", {"text": text})


WAYS: dict[str, Callable[[WorkflowContext, str], Awaitable[None]]] = {
    each.__name__: each for each in (an_activity, a_child, an_undo, an_event)
}


@pytest.mark.parametrize("way", WAYS)
async def test_what_a_workflow_calls_with_too_much_is_refused_there_and_in_every_replay(apps: Apps, way: str) -> None:
    gate = Gate()

    @workflow
    async def smaller_then(ctx: WorkflowContext) -> str:
        try:
            await WAYS[way](ctx, LARGE)
        except PayloadTooLargeError as error:
            await WAYS[way](ctx, "x")
            await gate.pass_(ctx)
            return str(error)
        return "taken"

    handle = await (await apps.open(max_payload_bytes=LIMIT)).start(smaller_then)
    heard = await (await apps.restart_at(gate, handle, max_payload_bytes=LIMIT)).result(timeout=SOON)
    assert f"of {handle} is called with has" in heard
    assert f"bytes as stored, more than max_payload_bytes={LIMIT}. Store it elsewhere" in heard


async def test_what_was_recorded_under_a_larger_limit_is_replayed_under_a_smaller_one(apps: Apps) -> None:
    gate = Gate()

    @workflow
    async def large_and_waiting(ctx: WorkflowContext) -> int:
        size = await keep(ctx, LARGE)
        await gate.pass_(ctx)
        return size

    handle = await (await apps.open()).start(large_and_waiting)
    handle = await apps.restart_at(gate, handle, max_payload_bytes=LIMIT)
    assert await handle.result(timeout=SOON) == 2 * LIMIT
    assert done == ["kept"]


@pytest.mark.parametrize("limit", [LIMIT, 100 * LIMIT], ids=["the same limit", "a larger one"])
@pytest.mark.parametrize("way", WAYS)
async def test_what_was_refused_stays_so(apps: Apps, way: str, limit: int) -> None:
    gate = Gate()

    @workflow
    async def insisting(ctx: WorkflowContext) -> str:
        try:
            await WAYS[way](ctx, LARGE)
        except PayloadTooLargeError:
            await keep(ctx, "instead")
        await gate.pass_(ctx)
        return "did without"

    handle = await (await apps.open(max_payload_bytes=LIMIT)).start(insisting)
    handle = await apps.restart_at(gate, handle, max_payload_bytes=limit)
    assert await handle.result(timeout=SOON) == "did without"
    assert done == ["kept"]


async def test_an_id_of_a_refused_call_is_taken(apps: Apps) -> None:
    gate = Gate()

    @workflow
    async def named_twice(ctx: WorkflowContext) -> str:
        with pytest.raises(PayloadTooLargeError):
            await keep(ctx, LARGE, activity_id="the one")
        await gate.pass_(ctx)
        with pytest.raises(ValueError, match="'the one' was used before"):
            await keep(ctx, "x", activity_id="the one")
        return "refused twice"

    handle = await (await apps.open(max_payload_bytes=LIMIT)).start(named_twice)
    assert await (await apps.restart_at(gate, handle)).result(timeout=SOON) == "refused twice"


async def test_of_branches_beside_each_other_one_may_be_refused(apps: Apps) -> None:
    gate = Gate()

    @workflow
    async def branching(ctx: WorkflowContext) -> list[str]:
        answers = await asyncio.gather(keep(ctx, LARGE), keep(ctx, "x"), a_child(ctx, LARGE), return_exceptions=True)
        await gate.pass_(ctx)
        return [type(answer).__name__ for answer in answers]

    handle = await (await apps.open(max_payload_bytes=LIMIT)).start(branching)
    handle = await apps.restart_at(gate, handle, max_payload_bytes=100 * LIMIT)
    assert await handle.result(timeout=SOON) == ["PayloadTooLargeError", "int", "PayloadTooLargeError"]


async def test_history_says_what_was_refused_and_does_not_hold_it(apps: Apps) -> None:
    @workflow
    async def asking_too_much(ctx: WorkflowContext) -> None:
        await keep(ctx, LARGE)

    handle = await (await apps.open(max_payload_bytes=LIMIT)).start(asking_too_much)
    with pytest.raises(PayloadTooLargeError):
        await handle.result(timeout=SOON)
    (refused,) = [event for event in await handle.history() if event.event_type == "ActivityFailed"]
    assert refused.event_data["error_type"] == "PayloadTooLargeError"
    assert LARGE not in str(refused.event_data)


async def test_a_start_with_too_much_stores_nothing(apps: Apps) -> None:
    app = await apps.open(max_payload_bytes=LIMIT)
    with pytest.raises(PayloadTooLargeError, match="the input of workflow keeper has"):
        await keeper.options(id="too-large").on(app).start(LARGE)
    assert [entry.id async for entry in app.instances()] == []


async def test_bytes_are_counted_and_not_characters(apps: Apps) -> None:
    app = await apps.open(max_payload_bytes=LIMIT)
    fits = "x" * (LIMIT // 2)
    assert await (await app.start(keeper, fits)).result(timeout=SOON) == LIMIT // 2
    with pytest.raises(PayloadTooLargeError):
        await app.start(keeper, fits.replace("x", "\N{BLACK HEART SUIT}"))


@workflow
async def producer(ctx: WorkflowContext, undone: bool) -> str:
    try:
        return await produce(ctx)
    except PayloadTooLargeError as error:
        if undone:
            raise
        return str(error)


@pytest.mark.parametrize("undone", [False, True])
async def test_a_result_that_is_too_large_has_happened_and_is_undone(apps: Apps, undone: bool) -> None:
    handle = await (await apps.open(max_payload_bytes=LIMIT)).start(producer, undone)
    if undone:
        with pytest.raises(PayloadTooLargeError, match=f"the result of produce:1 of {handle} has"):
            await handle.result(timeout=SOON)
        assert done == ["produced", "taken away"]
    else:
        assert f"the result of produce:1 of {handle} has" in await handle.result(timeout=SOON)
        assert done == ["produced"]


@workflow
async def large_end(ctx: WorkflowContext) -> str:
    return LARGE


async def test_the_result_of_a_workflow_that_is_too_large_fails_it(apps: Apps) -> None:
    handle = await (await apps.open(max_payload_bytes=LIMIT)).start(large_end)
    with pytest.raises(PayloadTooLargeError, match=f"the result of workflow instance {handle} has"):
        await handle.result(timeout=SOON)


@workflow
async def starting_in_session(ctx: WorkflowContext, id: str, text_length: int) -> None:
    await start_in_session(ctx, id, "x" * text_length)


async def test_a_start_in_the_transaction_of_an_activity_is_measured_and_compared(apps: Apps) -> None:
    app = await apps.open(max_payload_bytes=LIMIT)
    await (await app.start(starting_in_session, "in-session", 3)).result(timeout=SOON)
    assert await app.handle("in-session").result(timeout=SOON) == 3
    await (await app.start(starting_in_session, "in-session", 3)).result(timeout=SOON)  # the same start again
    with pytest.raises(ConflictError, match="was started with other arguments"):
        await (await app.start(starting_in_session, "in-session", 4)).result(timeout=SOON)


@workflow
async def sending_from_an_activity(ctx: WorkflowContext, how: str) -> None:
    await send_from_an_activity(ctx, how, 2 * LIMIT)


@pytest.mark.parametrize("how", ["direct", "transactional"])
async def test_an_event_that_an_activity_sends_is_measured(apps: Apps, how: str) -> None:
    handle = await (await apps.open(max_payload_bytes=LIMIT)).start(sending_from_an_activity, how)
    with pytest.raises(PayloadTooLargeError, match=rf"event 'sized\.event', which \S+:1 of {handle} sends, has"):
        await handle.result(timeout=SOON)


@workflow
async def asks(ctx: WorkflowContext) -> Any:
    answer = await ctx.callback()
    done.append(answer.token)
    return await answer.wait()


async def test_an_event_or_an_answer_from_outside_is_measured(apps: Apps) -> None:
    app = await apps.open(max_payload_bytes=LIMIT)
    with pytest.raises(PayloadTooLargeError, match=r"event 'sized\.event' has"):
        await send_event("sized.event", "tests", {"text": LARGE})
    handle = await app.start(asks)
    while not done:
        await handle.status()
    with pytest.raises(PayloadTooLargeError, match="the answer has"):
        await app.complete(done[0], LARGE)
    await app.complete(done[0], "yes")
    assert (await handle.result(timeout=SOON)) == "yes"
