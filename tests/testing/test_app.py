"""An app in memory: time that leaps where a test waits, events, and what does not come by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from edda import EddaApp, InstanceNotFoundError, WorkflowCancelledException, WorkflowContext, send_event, workflow
from edda.events import ReceivedEvent
from edda.testing import InMemoryApp, InstanceStuckError, fake
from tests.testing.workflows import ALL, NOTES, add, charge, everything, forever, months, paid, pay, undecided


@pytest.fixture
async def app() -> AsyncIterator[InMemoryApp]:
    async with InMemoryApp(workflows=ALL) as app:
        yield app


# -- time --------------------------------------------------------------------------------------------------------------


async def test_months_of_waiting_pass_while_a_result_is_waited_for(app: InMemoryApp) -> None:
    before = app.clock.now()
    assert await (await app.start(months, 12)).result() == [number + 30 for number in range(12)]
    assert timedelta(days=360) <= app.clock.now() - before < timedelta(days=361)


async def test_the_clock_begins_where_it_is_told_to() -> None:
    async with InMemoryApp(workflows=ALL, start_at=datetime(1999, 12, 31, 23, tzinfo=UTC)) as app:
        handle = await app.start(months, 1)
        await handle.result()
        (started, *_) = await handle.history()
    assert started.created_at.astimezone(UTC).replace(minute=0, second=0, microsecond=0) == datetime(
        1999, 12, 31, 23, tzinfo=UTC
    )


async def test_time_passes_by_itself_only_where_something_is_waited_for(app: InMemoryApp) -> None:
    handle = await app.start(paid)
    await app.settle()
    assert await handle.status() == "waiting_for_event"
    await app.deliver("testing.payment", {"cents": 5})
    assert await handle.result() == "got 5"


async def test_what_falls_due_on_the_way_happens_in_its_order(app: InMemoryApp) -> None:
    late, soon = await app.start(paid, timeout_seconds=7200), await app.start(paid, timeout_seconds=1800)
    await app.advance(minutes=29)
    assert {await late.status(), await soon.status()} == {"waiting_for_event"}
    await app.advance(timedelta(minutes=2))
    assert [await late.status(), await soon.status()] == ["waiting_for_event", "completed"]
    await app.advance_to(app.clock.now() + timedelta(hours=2))
    assert await late.status() == "completed"


async def test_a_chain_of_waits_is_gone_through_in_one_advance(app: InMemoryApp) -> None:
    handle = await app.start(months, 3)
    await app.advance(days=89)
    assert await handle.status() == "waiting_for_timer"
    await app.advance(days=2)
    assert await handle.status() == "completed"


async def test_retries_of_hours_take_no_time(app: InMemoryApp) -> None:
    before = app.clock.now()
    with fake(pay, outcomes=[ConnectionError("away"), ConnectionError("away"), "done"]) as paying:
        assert await (await app.start(charge, 5)).result() == "done"
    assert [call.attempt for call in paying.calls] == [1, 2, 3]
    assert app.clock.now() - before >= timedelta(hours=3)


async def test_time_does_not_pass_an_activity_that_runs(app: InMemoryApp) -> None:
    begun, going, before = asyncio.Event(), asyncio.Event(), app.clock.now()

    async def slowly(ctx: WorkflowContext, cents: int) -> str:
        begun.set()
        await going.wait()
        return "done"

    with fake(pay, by=slowly):
        waiting = await app.start(months, 1)
        running = await app.start(charge, 5)
        month = asyncio.ensure_future(waiting.result())
        await begun.wait()
        assert app.clock.now() - before < timedelta(days=1)
        going.set()
        assert await running.result() == "done"
        assert await month == [30]


async def test_an_advance_goes_past_an_activity_that_hangs(app: InMemoryApp) -> None:
    @workflow(name="testing.impatient")
    async def impatient(ctx: WorkflowContext) -> str:
        try:
            async with asyncio.timeout(3600):
                return await pay(ctx, 5)
        except TimeoutError:
            return "gave up"

    async def hang(ctx: WorkflowContext, cents: int) -> str:
        await asyncio.Event().wait()
        return ""

    async with InMemoryApp(workflows=[impatient]) as app:
        with fake(pay, by=hang):
            handle = await app.start(impatient)
            await app.advance(hours=2)
            assert await handle.result() == "gave up"


async def test_time_never_goes_back(app: InMemoryApp) -> None:
    with pytest.raises(ValueError, match="does not go back"):
        await app.advance(hours=-1)


# -- results that do not come ------------------------------------------------------------------------------------------


async def test_a_result_that_can_never_come_is_an_error_that_says_what_is_missing(app: InMemoryApp) -> None:
    handle = await app.start(forever)
    with pytest.raises(InstanceStuckError, match=r"testing.never.*brought about before"):
        await handle.result()


async def test_an_event_that_another_task_sends_soon_is_waited_for(app: InMemoryApp) -> None:
    handle = await app.start(forever)
    result = asyncio.ensure_future(handle.result())
    await app.settle()
    await app.deliver("testing.never", {})
    assert await result is None


async def test_code_that_cannot_be_replayed_is_found_out_by_its_first_wait(app: InMemoryApp) -> None:
    handle = await app.start(undecided)
    with pytest.raises(InstanceStuckError, match="nondeterministic") as caught:
        await handle.result()
    assert caught.value.instance_id == handle


async def test_a_timeout_is_in_real_seconds(app: InMemoryApp) -> None:
    async def hang(ctx: WorkflowContext, number: int, to: int = 1) -> int:
        await asyncio.Event().wait()
        return 0

    with fake(add, by=hang):
        handle = await app.start(months, 1)
        with pytest.raises(TimeoutError, match="running"):
            await handle.result(timeout=0.3)


async def test_an_unknown_instance_is_as_unknown_as_anywhere(app: InMemoryApp) -> None:
    with pytest.raises(InstanceNotFoundError):
        await app.handle("nobody").result()


async def test_a_cancelled_workflow_ends_as_cancelled(app: InMemoryApp) -> None:
    handle = await app.start(months, 3)
    await app.advance(days=31)
    await handle.cancel()
    with pytest.raises(WorkflowCancelledException):
        await handle.result()


# -- events ------------------------------------------------------------------------------------------------------------


async def test_an_event_that_comes_twice_counts_once(app: InMemoryApp) -> None:
    assert await app.deliver("testing.payment", {"cents": 5}, id="one") is True
    assert await app.deliver("testing.payment", {"cents": 5}, id="one") is False


async def test_an_event_may_be_for_one_instance(app: InMemoryApp) -> None:
    mine, other = await app.start(paid), await app.start(paid)
    await app.deliver("testing.payment", {"cents": 7}, to=mine)
    assert [await mine.result(), await other.result()] == ["got 7", "too late"]
    with pytest.raises(InstanceNotFoundError):
        await app.deliver("testing.payment", {"cents": 7}, to="nobody")


async def test_what_goes_out_is_seen_once_its_workflow_has_ended(app: InMemoryApp) -> None:
    await app.create_tables(NOTES)
    handle = await app.start(everything, 5)
    await app.advance(days=1, minutes=10)
    await app.deliver("testing.payment", {"cents": 5})
    await handle.result()
    (sent,) = app.sent
    assert isinstance(sent, ReceivedEvent)
    assert (sent.type, sent.source, sent.data) == ("testing.shipped", "/testing", {"cents": 5})


@pytest.mark.parametrize("broker", [False, True])
async def test_send_event_goes_where_it_would_go(broker: bool) -> None:
    async with InMemoryApp(workflows=ALL, broker=broker) as app:
        handle = await app.start(paid)
        await app.settle()
        await send_event("testing.payment", "/somewhere", {"cents": 9})
        await app.settle()
        assert await handle.result() == ("too late" if broker else "got 9")
        assert [event.data for event in app.sent] == ([{"cents": 9}] if broker else [])


async def test_it_takes_after_the_app_of_production() -> None:
    seen: list[str] = []

    class Hooks:
        async def on_workflow_complete(self, instance_id: str, workflow_name: str, result: object) -> None:
            seen.append(workflow_name)

    production = EddaApp(db_url="postgresql://nowhere/at-all", workflows=[charge], hooks=Hooks())

    @production.on_event("testing.like")
    async def hear(event: ReceivedEvent) -> None:
        seen.append(event.data["word"])

    async with InMemoryApp(like=production) as app:
        await (await app.start(charge, 5)).result()
        await app.deliver("testing.like", {"word": "heard"})
    assert seen[:2] == ["testing.charge", "heard"]


async def test_nothing_is_left_after_it_was_shut_down() -> None:
    app = InMemoryApp(workflows=ALL)
    handle = await app.start(charge, 5)
    await handle.result()
    await app.shutdown()
    with pytest.raises(InstanceNotFoundError):
        await app.handle(handle).status()
    await app.shutdown()
