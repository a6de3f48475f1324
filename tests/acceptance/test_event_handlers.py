"""Handlers of events: workflows that an event starts, and functions that are called for each, durably and once."""

import asyncio
import json
from typing import Any

import pytest

from edda import EddaApp, InvalidEventError, ReceivedEvent, RetryPolicy, WorkflowContext, activity, send_event, workflow
from edda.core.event import JSON_TYPE, CloudEvent
from edda.core.routing import event_key
from edda.engine.plans import plan_of
from edda.naming import NameTakenError
from tests.acceptance.conftest import Apps
from tests.acceptance.support import SOON, eventually, on_every_database, reaches

handled: list[object] = []


@activity
async def handle_thing(ctx: WorkflowContext, order_id: str, amount: int) -> None:
    handled.append((order_id, amount))


@workflow(name="thing.ordered", event_handler=True)
async def thing_ordered(ctx: WorkflowContext, order_id: str, amount: int = 1) -> str:
    await handle_thing(ctx, order_id, amount)
    return order_id


def ordered(id: str, json: str = '{"order_id":"7","amount":2,"new":[]}') -> CloudEvent:
    return CloudEvent(id=id, source="/shop", type="thing.ordered", json=json, datacontenttype="application/json")


def started_by_event(id: str) -> str:
    return f"thing.ordered-{event_key(ordered(id))[:40]}"


@on_every_database
async def test_an_event_starts_the_workflow_of_its_name_once(apps: Apps) -> None:
    handled.clear()
    app = await apps.open()
    await app.accept([ordered("1")])
    await eventually(lambda: len(handled) == 1)
    await app.accept([ordered("1"), ordered("2", '{"order_id":"8"}')])
    await eventually(lambda: len(handled) == 2)
    await reaches(app.handle(started_by_event("2")), "completed")
    app = await apps.restart()
    await app.accept([ordered("2")])
    await asyncio.sleep(0.3)
    assert handled == [("7", 2), ("8", 1)]


async def test_an_event_whose_data_do_not_fit_is_set_aside_visibly(apps: Apps) -> None:
    app = await apps.open()
    event = ordered("3", '{"order":1}')
    await app.accept([event])
    handle = app.handle(started_by_event("3"))
    assert await eventually(lambda: there(handle))
    assert await reaches(handle, "quarantined") == "quarantined"
    assert "order_id" in await handle.reason()


@workflow(name="thing.paid", event_handler=True)
async def thing_paid(ctx: WorkflowContext, payment: Any) -> str:
    return repr(payment)


async def test_who_sends_an_event_does_not_choose_what_its_data_become(apps: Apps) -> None:
    """Our own mark for values that JSON cannot say is nothing but data where it comes from outside."""
    app = await apps.open()
    payment = '{"$edda":"decimal","v":"1"}'
    event = ordered("4", f'{{"payment":{payment}}}')._replace(type="thing.paid")
    await app.accept([event])
    handle = app.handle(f"thing.paid-{event_key(event)[:40]}")
    assert await eventually(lambda: there(handle))
    assert await handle.result(timeout=SOON) == repr(json.loads(payment))


@on_every_database
async def test_a_handler_is_called_for_each_event_and_retried(apps: Apps) -> None:
    calls: list[object] = []
    app = EddaApp(db_url=apps.db_url)

    @app.on_event("thing.paid", retry_policy=RetryPolicy(initial_interval=0.001))
    async def paid(event: ReceivedEvent) -> None:
        calls.append((event.id, event.source, event.data))
        if calls.count(calls[-1]) == 1 and event.data == {"n": 1}:
            raise RuntimeError("flaky")

    @app.on_event("thing.paid", name="thing.paid/in a thread")
    def paid_too(event: ReceivedEvent) -> None:
        calls.append("thread")

    async with app:
        first = await send_event("thing.paid", "bank", {"n": 1})
        await eventually(lambda: len(calls) == 3)
        assert sorted(map(str, calls)) == sorted(map(str, [(first, "bank", {"n": 1})] * 2 + ["thread"]))
        second = await send_event("thing.paid", "bank", b"\x00\xff", datacontenttype="application/x")
        await eventually(lambda: len(calls) == 5)
        assert (second, "bank", b"\x00\xff") in calls


@on_every_database
async def test_a_handler_that_fails_for_good_is_a_failed_instance(apps: Apps) -> None:
    app = EddaApp(db_url=apps.db_url)

    @app.on_event("thing.broken", retry_policy=RetryPolicy(max_attempts=1))
    async def broken(event: ReceivedEvent) -> None:
        raise RuntimeError("for good")

    async with app:
        event = CloudEvent(id="1", source="x", type="thing.broken")
        await app.accept([event])
        handle = app.handle(f"thing.broken/broken-{event_key(event)[:40]}")
        await eventually(lambda: there(handle))
        assert await reaches(handle, "failed") == "failed"
        assert "for good" in await handle.reason()


@on_every_database
async def test_what_a_receiver_stored_is_handled_by_who_knows_how(apps: Apps) -> None:
    """The receiver knows no handlers; they were announced by a worker that is gone meanwhile."""
    handled.clear()
    await (await apps.open()).shutdown()
    async with EddaApp(db_url=apps.db_url, workflows=[]) as receiver:
        await receiver.accept([ordered("9")])
        await asyncio.sleep(0.2)
    assert handled == []
    app = await apps.open()
    await eventually(lambda: handled == [("7", 2)], within_seconds=SOON)
    assert await app.accept([ordered("9")])


@workflow(name="thing.shared", event_handler=True)
async def thing_shared(ctx: WorkflowContext, number: int = 0) -> int:
    return number


async def test_an_event_starts_the_workflow_of_its_name_and_the_handlers_of_its_type(apps: Apps) -> None:
    app = EddaApp(db_url=apps.db_url)
    heard: list[str] = []

    @app.on_event("thing.shared")
    async def listening(event: ReceivedEvent) -> None:
        heard.append(event.id)

    async with app:
        event = CloudEvent(
            id="1", source="x", type="thing.shared", datacontenttype=JSON_TYPE, json='{"number":7,"new":1}'
        )
        await app.accept([event])
        handle = app.handle(f"thing.shared-{event_key(event)[:40]}")
        await eventually(lambda: there(handle))
        assert await handle.result(timeout=SOON) == 7
        await eventually(lambda: heard == ["1"])


async def test_members_that_only_a_newer_version_takes_are_passed_over() -> None:
    """While a deployment rolls, the newer processes say what is taken, and older ones may get it."""
    text = json.dumps({"args": [], "kwargs": {"number": 7, "new": 1}, "foreign": True})
    assert plan_of(thing_shared).signature.decode(text) == ((), {"number": 7})


async def there(handle: object) -> bool:
    from edda.exceptions import InstanceNotFoundError

    try:
        await handle.status()  # type: ignore[attr-defined]
    except InstanceNotFoundError:
        return False
    return True


def test_a_handler_that_cannot_be_called_is_refused_where_it_is_declared() -> None:
    app = EddaApp(db_url="sqlite:///:memory:")

    async def takes_nothing() -> None: ...
    async def handles(event: ReceivedEvent) -> None: ...

    nothing: Any = takes_nothing
    with pytest.raises(TypeError, match=r"the handler takes_nothing of 'handlers\.odd' is called with the event"):
        app.on_event("handlers.odd")(nothing)
    for event_type in ("", "two words", "half\ud800", "t" * 256):
        with pytest.raises(InvalidEventError, match="event_type"):
            app.on_event(event_type)(handles)


def test_one_name_is_not_for_handlers_of_two_types() -> None:
    app = EddaApp(db_url="sqlite:///:memory:")

    async def handles(event: ReceivedEvent) -> None: ...

    app.on_event("handlers.one", name="handles either")(handles)
    app.on_event("handlers.one", name="handles either")(handles)
    with pytest.raises(NameTakenError, match=r"for events of type 'handlers\.one' already"):
        app.on_event("handlers.two", name="handles either")(handles)
