"""Crashes of an app in memory: where they are planned, and everywhere."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from edda import WorkflowContext, WorkflowHandle, activity, workflow
from edda.testing import CrashFoundError, CrashTest, InMemoryApp, crash_anywhere, fake
from tests.testing.workflows import ALL, NOTES, add, charge, everything, forgetful, months, pay, undone


@pytest.fixture
async def app() -> AsyncIterator[InMemoryApp]:
    async with InMemoryApp(workflows=ALL) as app:
        yield app


def make_app() -> InMemoryApp:
    return InMemoryApp(workflows=ALL)


async def bring_payment(app: InMemoryApp, handle: WorkflowHandle[Any]) -> None:
    await app.advance(days=1, minutes=30)
    await app.deliver("testing.payment", {"cents": 5}, id="the-one")


async def make_tables(app: InMemoryApp) -> None:
    await app.create_tables(NOTES)


async def lines(app: InMemoryApp) -> list[str]:
    return [line for (line,) in await app.sql("select line from testing_notes order by rowid")]


async def test_what_was_done_but_not_recorded_is_done_again(app: InMemoryApp) -> None:
    with fake(add, returns=1) as adding:
        app.crash_at(4, "before")  # start, park, timer, and then the activity
        assert await (await app.start(months, 1)).result() == [1]
    assert (app.crashes, len(adding.calls)) == (1, 2)


async def test_what_is_recorded_is_not_done_again(app: InMemoryApp) -> None:
    with fake(add, returns=1) as adding:
        app.crash_at(4, "after")
        assert await (await app.start(months, 1)).result() == [1]
    assert (app.crashes, len(adding.calls)) == (1, 1)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_start_that_was_not_answered_is_asked_for_again_and_starts_once(app: InMemoryApp, when: Any) -> None:
    app.crash_at(1, when)
    handle = await app.start(charge, 5)
    assert await handle.result() == "paid 5"
    assert app.crashes == 1
    assert await app.sql("select id from edda_instance") == [(handle.id,)]


async def test_a_process_may_die_at_any_moment_and_again(app: InMemoryApp) -> None:
    handle = await app.start(months, 3)
    for _ in range(3):
        await app.advance(days=10)
        await app.crash()
    assert await handle.result() == [30, 31, 32]
    assert app.crashes == 3


async def test_an_activity_that_runs_at_the_crash_is_cut_off_and_begins_anew(app: InMemoryApp) -> None:
    reached, attempts = asyncio.Event(), Counter[str]()

    async def stop_at_first(ctx: WorkflowContext, cents: int) -> str:
        attempts["begun"] += 1
        reached.set()
        if attempts["begun"] == 1:
            await asyncio.Event().wait()
        attempts["ended"] += 1
        return f"attempt {ctx.activity.attempt}"

    with fake(pay, by=stop_at_first):
        handle = await app.start(charge, 5)
        await reached.wait()
        await app.crash()
        assert await handle.result() == "attempt 2"
    assert attempts == {"begun": 2, "ended": 1}


async def test_a_workflow_of_everything_comes_to_the_same_end_wherever_it_dies() -> None:
    async def check(app: InMemoryApp) -> None:
        assert await lines(app) == ["sum 9"]
        assert [event.type for event in app.sent] == ["testing.shipped"]

    points = await CrashTest(prepare=make_tables, meanwhile=bring_payment, check=check, make_app=make_app).run(
        everything, 5
    )
    assert {point.when for point in points} == {"before", "after"}
    told = " ".join(point.what for point in points)
    for word in ("start of", "testing.add:1", "testing.note:1", "TimerFired", "EventReceived", "WorkflowCompleted"):
        assert word in told


async def test_what_is_owed_is_undone_wherever_it_dies() -> None:
    async def check(app: InMemoryApp) -> None:
        assert await lines(app) == ["begins", "unbooked c", "unbooked b", "unbooked a"]

    points = await CrashTest(prepare=make_tables, check=check, make_app=make_app).run(undone, ["a", "b", "c"])
    assert any("CompensationExecuted" in point.what for point in points)


async def test_the_same_error_is_the_same_end() -> None:
    with fake(pay, raises=ValueError("never")) as paying:
        points = await CrashTest(make_app=make_app).run(charge, 5)
    assert len(points) >= 8
    assert 3 <= len(paying.calls) <= 4


async def test_what_only_the_process_remembers_is_found_out() -> None:
    with pytest.raises(CrashFoundError, match=r"testing.forgetful: crash .* without a crash it is") as caught:
        await CrashTest(make_app=make_app).run(forgetful)
    assert caught.value.point.commit >= 1
    assert caught.value.expected != caught.value.found


async def test_a_broken_promise_says_after_which_crash_it_was_broken() -> None:
    effects: list[str] = []

    @activity(name="testing.not_idempotent")
    async def not_idempotent(ctx: WorkflowContext) -> None:
        effects.append(ctx.instance_id)

    @workflow(name="testing.twice")
    async def twice(ctx: WorkflowContext) -> None:
        await not_idempotent(ctx)

    async def once(app: InMemoryApp) -> None:
        assert Counter(effects).most_common(1)[0][1] == 1

    with pytest.raises(AssertionError) as caught:
        await CrashTest(check=once, make_app=lambda: InMemoryApp(workflows=[twice])).run(twice)
    (place,) = caught.value.__notes__
    assert "crash before commit 2" in place


async def test_fakes_begin_anew_in_each_run() -> None:
    with fake(pay, outcomes=[ConnectionError("away"), "done"]):
        points = await CrashTest(make_app=make_app).run(charge, 5)
    assert points


async def test_crash_anywhere_needs_nothing_but_the_workflow() -> None:
    assert len(await crash_anywhere(months, 1)) >= 8


async def test_a_crash_is_planned_for_a_commit_that_comes(app: InMemoryApp) -> None:
    with pytest.raises(ValueError, match="the next commit is number 1"):
        app.crash_at(0)
