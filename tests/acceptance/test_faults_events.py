"""Faults W20, W21 and W23-W29 of the reference, each as a test that fails on an engine that has it: events, timers."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel

from edda import (
    EddaApp,
    Event,
    ReceivedEvent,
    RetryPolicy,
    WorkflowContext,
    send_event,
    wait_event,
    wait_timer,
    workflow,
)
from tests.acceptance.conftest import Apps
from tests.acceptance.processes import Program
from tests.acceptance.support import (
    SOON,
    Gate,
    Tables,
    elapsed,
    events_of,
    eventually,
    on_every_database,
    on_every_server,
    reaches,
)


class Paid(BaseModel):
    order_id: str
    amount: int = 0


paid = Event[Paid]("w.paid", key="order_id")


@workflow
async def awaiting_paid(ctx: WorkflowContext, order_id: str) -> int:
    return (await paid.wait(ctx, key=order_id)).amount


def client_of(app: EddaApp) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://edda")


def headers_of(event_id: str, event_type: str, content_type: str = "application/json") -> dict[str, str]:
    attributes = {"specversion": "1.0", "id": event_id, "source": "/test", "type": event_type}
    return {f"ce-{name}": value for name, value in attributes.items()} | {"content-type": content_type}


@on_every_database
async def test_W20_an_event_is_not_sent_again_however_often_its_workflow_is_replayed(
    apps: Apps, tables: Tables
) -> None:
    @workflow
    async def payment(ctx: WorkflowContext) -> list[int]:
        received = []
        for number in range(4):
            await send_event("w20.requested", "payment-service", {"number": number})
            received.append((await wait_event(ctx, "w20.completed")).data["number"])
        return received

    app = await apps.open(max_residents=0)
    handle = await app.start(payment)
    for number in range(4):
        await eventually(lambda number=number: _count_is(tables, "w20.requested", number + 1))
        await reaches(app.handle(handle), "waiting_for_event")
        app = await apps.restart(max_residents=0)
        await send_event("w20.completed", "bank", {"number": number})
    assert await app.handle(handle).result(timeout=SOON) == [0, 1, 2, 3]
    assert await _count_is(tables, "w20.requested", 4)


async def _count_is(tables: Tables, event_type: str, count: int) -> bool:
    return len(await tables.rows(f"SELECT 1 FROM edda_inbox WHERE type = '{event_type}'")) == count


@on_every_database
async def test_W21_events_that_a_gather_waits_for_may_come_in_any_order_and_none_is_lost(apps: Apps) -> None:
    @workflow
    async def both(ctx: WorkflowContext) -> list[str]:
        waits = (paid.wait(ctx, key="1"), paid.wait(ctx, key="2"), wait_event(ctx, "w21.shipped"))
        one, two, _ = await asyncio.gather(*waits)
        return [one.order_id, two.order_id]

    app = await apps.open()
    handle = await app.start(both)
    await eventually(lambda: _waits(app, handle))
    await send_event("w21.shipped", "test", {})
    await paid.send(Paid(order_id="2"))
    app = await apps.restart()
    await paid.send(Paid(order_id="1"))
    assert await app.handle(handle).result(timeout=SOON) == ["1", "2"]


async def _waits(app: EddaApp, handle: str) -> bool:
    return await app.handle(handle).status() == "waiting_for_event"


@on_every_database
async def test_W21_a_clause_for_every_exception_does_not_swallow_the_wait_for_an_event(apps: Apps) -> None:
    swallowed: list[str] = []

    @workflow
    async def careless(ctx: WorkflowContext) -> object:
        while True:
            try:
                return (await wait_event(ctx, "w21.paid")).data
            except Exception as error:
                swallowed.append(repr(error))
                raise

    handle = await (await apps.open(max_residents=0)).start(careless)
    await reaches(handle, "waiting_for_event")
    app = await apps.restart(max_residents=0)
    await send_event("w21.paid", "test", {"n": 1})
    assert await app.handle(handle).result(timeout=SOON) == {"n": 1}
    assert swallowed == []


@on_every_database
@pytest.mark.parametrize("when", ["before the wait", "while nothing runs", "while it waits"])
async def test_W23_an_event_is_not_lost_whenever_it_comes(apps: Apps, when: str) -> None:
    gate = Gate()

    @workflow
    async def waiting(ctx: WorkflowContext) -> object:
        await gate.pass_(ctx)
        return (await wait_event(ctx, "w23.paid")).data

    app = await apps.open()
    handle = await app.start(waiting)
    await gate.reached()
    if when == "before the wait":  # the instance is locked by a worker, in an activity
        await send_event("w23.paid", "bank", {"n": 1})
    gate.open()
    if when != "before the wait":
        await reaches(handle, "waiting_for_event")
    if when == "while nothing runs":
        await app.shutdown()
        async with EddaApp(db_url=apps.db_url, workflows=[]) as receiver:
            await receiver.accept([])
            await send_event("w23.paid", "bank", {"n": 1})
        app = await apps.open()
    if when == "while it waits":
        await send_event("w23.paid", "bank", {"n": 1})
    assert await app.handle(handle).result(timeout=SOON) == {"n": 1}


@on_every_database
async def test_W23_no_event_falls_between_the_steps_by_which_a_workflow_begins_to_wait(apps: Apps) -> None:
    """Each event is sent as soon as the one before was received: at the moment when the next wait begins."""

    @workflow
    async def pinging(ctx: WorkflowContext) -> int:
        for number in range(40):
            await send_event("w23.ping", "test", {"number": number})
            await wait_event(ctx, "w23.pong", match={"number": number})
        return 40

    @workflow
    async def ponging(ctx: WorkflowContext) -> None:
        for number in range(40):
            await wait_event(ctx, "w23.ping", match={"number": number})
            await send_event("w23.pong", "test", {"number": number})

    app = await apps.open(poll_seconds=600)
    ponger, pinger = await app.start(ponging), await app.start(pinging)
    assert await pinger.result(timeout=2 * SOON) == 40
    await ponger.result(timeout=SOON)


@on_every_database
async def test_W24_an_event_completes_the_order_that_it_is_for_and_its_sender_knows_no_instance(apps: Apps) -> None:
    app = await apps.open()
    orders = {name: await app.start(awaiting_paid, name) for name in ("A", "B", "C")}
    for handle in orders.values():
        await reaches(handle, "waiting_for_event")
    async with client_of(app) as client:
        for order_id, amount in (("B", 2), ("nobody's", 9), ("B", 3)):
            body = json.dumps({"order_id": order_id, "amount": amount})
            response = await client.post("/", content=body, headers=headers_of(f"{order_id}{amount}", "w.paid"))
            assert response.status_code == 202
    assert await orders["B"].result(timeout=SOON) == 2
    assert [await orders[name].status() for name in "AC"] == ["waiting_for_event"] * 2
    assert [await events_of(orders[name], "EventReceived") for name in "AC"] == [[], []]


@pytest.mark.process
@on_every_database
def test_W25_what_was_answered_with_202_outlives_the_process_that_said_so(program: Callable[[str], Program]) -> None:
    receiving = program("""
        import httpx2

        @workflow
        async def waiting(ctx: WorkflowContext) -> object:
            return (await wait_event(ctx, "paid")).data

        async def main():
            async with EddaApp(db_url=DB_URL) as app:
                handle = await waiting.options(id="w-1").start()
                if ROUND == 1:
                    while await handle.status() != "waiting_for_event":
                        await asyncio.sleep(0.01)
                    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/x", "ce-type": "paid"}
                    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://x") as client:
                        response = await client.post("/", json={"n": 1}, headers=headers)
                    if response.status_code == 202:
                        crash()
                say(await handle.result(timeout=20))
    """)
    receiving.run_until_it_crashes()
    assert receiving.run() == ["{'n': 1}"]


@on_every_database
async def test_W25_an_event_that_is_delivered_three_times_starts_one_instance(apps: Apps, tables: Tables) -> None:
    @workflow(name="w25.ordered", event_handler=True)
    async def on_ordered(ctx: WorkflowContext, order_id: str) -> str:
        return order_id

    app = await apps.open()
    async with client_of(app) as client:
        for event_id in ("1", "1", "2", "1", "2"):
            body = json.dumps({"order_id": event_id})
            assert (
                await client.post("/", content=body, headers=headers_of(event_id, "w25.ordered"))
            ).status_code == 202
    await eventually(lambda: _all_completed(tables, 2))
    app = await apps.restart()
    async with client_of(app) as client:
        body = json.dumps({"order_id": "1"})
        assert (await client.post("/", content=body, headers=headers_of("1", "w25.ordered"))).status_code == 202
        assert (await client.post("/", content=body, headers=headers_of("3", "w25.ordered"))).status_code == 202
    await eventually(lambda: _all_completed(tables, 3))


async def _all_completed(tables: Tables, count: int) -> bool:
    return await tables.rows("SELECT status FROM edda_instance") == [("completed",)] * count


@on_every_database
async def test_W25_a_handler_that_fails_is_seen_and_not_only_printed(apps: Apps, tables: Tables) -> None:
    app = EddaApp(db_url=apps.db_url)

    @app.on_event("w25.broken", retry_policy=RetryPolicy(max_attempts=2, initial_interval=0.001))
    async def broken(event: ReceivedEvent) -> None:
        raise RuntimeError("the handler is broken")

    async with app:
        async with client_of(app) as client:
            assert (await client.post("/", content="{}", headers=headers_of("1", "w25.broken"))).status_code == 202
        await eventually(lambda: _has_failed(tables))
        ((instance_id,),) = await tables.rows("SELECT id FROM edda_instance")
        assert "the handler is broken" in await app.handle(instance_id).reason()


async def _has_failed(tables: Tables) -> bool:
    return await tables.rows("SELECT status FROM edda_instance") == [("failed",)]


@on_every_database
@pytest.mark.parametrize("payload", [bytes(range(256)), [1, "two", {"three": [3]}], "text", 7, None, {}, b""], ids=repr)
async def test_W26_whatever_was_sent_arrives_as_it_was_and_holds_nobody_up(apps: Apps, payload: Any) -> None:
    @workflow
    async def reading(ctx: WorkflowContext) -> list[object]:
        first = await wait_event(ctx, "w26.sent")
        await wait_event(ctx, "w26.go")
        return [first.data]

    app = await apps.open()
    handle = await app.start(reading)
    await reaches(handle, "waiting_for_event")
    is_bytes = isinstance(payload, bytes)
    async with client_of(app) as client:
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        kind = "application/octet-stream" if is_bytes else "application/json"
        assert (await client.post("/", content=body, headers=headers_of("1", "w26.sent", kind))).status_code == 202
    await eventually(lambda: _received(handle))
    app = await apps.restart()
    await send_event("w26.go", "test", b"\x00")
    assert await app.handle(handle).result(timeout=SOON) == [payload]


async def _received(handle: Any) -> bool:
    return bool(await events_of(handle, "EventReceived"))


@on_every_database
async def test_W27_neither_timers_nor_events_wait_for_a_poll(apps: Apps) -> None:
    """Nothing is polled within the time of this test; on an engine that polls it would take ten minutes."""

    @workflow
    async def short(ctx: WorkflowContext) -> str:
        await wait_timer(ctx, duration_seconds=0.3)
        await wait_timer(ctx, duration_seconds=1.2)  # long enough to be parked
        return "over"

    app = await apps.open(poll_seconds=600)
    with elapsed() as seconds:
        assert await (await app.start(short)).result(timeout=SOON) == "over"
        assert seconds() >= 1.5
    handle = await app.start(awaiting_paid, "W27")
    await reaches(handle, "waiting_for_event")
    await paid.send(Paid(order_id="W27", amount=1))
    assert await handle.result(timeout=SOON) == 1


@on_every_server
async def test_W27_a_long_rest_makes_no_worker_slow_to_hear_of_an_event_that_another_process_took(apps: Apps) -> None:
    """As many polls without any work as took the reference to back off to half a minute, at a tenth of the pace."""
    worker = await apps.open(poll_seconds=0.02)
    handle = await worker.start(awaiting_paid, "W27")
    await reaches(handle, "waiting_for_event")
    await asyncio.sleep(3)
    async with EddaApp(db_url=apps.db_url, workflows=[]) as receiver:
        with elapsed() as seconds:
            async with client_of(receiver) as client:
                body = json.dumps({"order_id": "W27", "amount": 1})
                assert (await client.post("/", content=body, headers=headers_of("1", "w.paid"))).status_code == 202
            assert await handle.result(timeout=SOON) == 1
        assert seconds() < 3  # less than the rest; it is about a poll


@on_every_database
async def test_W28_one_slow_workflow_holds_up_none_that_an_event_resumes_beside_it(apps: Apps) -> None:
    """The slow ones end only when the quick one has: on an engine that resumes one after the other it never does."""
    gate = Gate()

    @workflow
    async def slow(ctx: WorkflowContext) -> None:
        await wait_event(ctx, "w28.go")
        await gate.pass_(ctx)

    app = await apps.open()
    slow_ones = [await app.start(slow) for _ in range(10)]
    quick = await app.start(awaiting_paid, "W28")
    for handle in (*slow_ones, quick):
        await reaches(handle, "waiting_for_event")
    await send_event("w28.go", "test", {})
    await eventually(lambda: gate.arrivals == 10)
    await paid.send(Paid(order_id="W28", amount=1))
    assert await quick.result(timeout=SOON) == 1
    gate.open()
    for handle in slow_ones:
        await handle.result(timeout=SOON)


@workflow
async def known_elsewhere(ctx: WorkflowContext, number: int) -> int:
    await wait_event(ctx, "w28.foreign")
    return number


@on_every_database
async def test_W28_instances_that_a_worker_cannot_run_starve_none_of_those_that_it_can(apps: Apps) -> None:
    """They are woken, and wait for a worker that knows them."""
    async with EddaApp(db_url=apps.db_url, workflows=[known_elsewhere]) as elsewhere:
        foreign = [await elsewhere.start(known_elsewhere, number) for number in range(50)]
        for one in foreign:
            await reaches(one, "waiting_for_event")
    mine = await apps.open(workflows=[awaiting_paid], poll_seconds=0.1)
    await send_event("w28.foreign", "test", {})
    handle = await mine.start(awaiting_paid, "W28")
    await paid.send(Paid(order_id="W28", amount=1))
    assert await handle.result(timeout=SOON) == 1
    assert await mine.handle(foreign[0]).status() != "completed"
    await mine.shutdown()
    theirs = await apps.open(workflows=[known_elsewhere], poll_seconds=0.1)
    assert [await theirs.handle(one).result(timeout=SOON) for one in foreign] == list(range(50))


@pytest.mark.process
@on_every_database
def test_W29_an_event_outlives_a_crash_at_any_point_between_its_coming_and_its_use(
    program: Callable[[str], Program],
) -> None:
    """While it is read, right after it was read, and in the step that it is used in."""
    reading = program("""
        from pydantic import BaseModel, field_validator

        class Payment(BaseModel):
            amount: int

            @field_validator("amount")
            @classmethod
            def _read(cls, amount: int) -> int:
                crash_once(f"reading {amount}")
                return amount

        @activity
        async def book(ctx: WorkflowContext, amount: int) -> int:
            crash_once(f"booking {amount}")
            return amount

        @workflow
        async def waiting(ctx: WorkflowContext) -> list[int]:
            booked = []
            for _ in range(2):
                event = await wait_event(ctx, "paid", model=Payment)
                crash_once(f"got {event.data.amount}")
                booked.append(await book(ctx, event.data.amount))
            return booked

        async def main():
            if ROLE == "sender":
                async with EddaApp(db_url=DB_URL) as app:
                    handle = await waiting.options(id="w-1").start()
                    while await handle.status() != "waiting_for_event":
                        await asyncio.sleep(0.01)
                async with EddaApp(db_url=DB_URL, workflows=[]):
                    for amount in (1, 2):
                        await send_event("paid", "bank", {"amount": amount})
            else:
                async with EddaApp(db_url=DB_URL) as app:
                    say(await app.handle("w-1").result(timeout=20))
    """)
    reading.run("sender")
    for _ in range(6):
        reading.run_until_it_crashes()
    assert reading.run() == ["[1, 2]"]


@on_every_database
async def test_W29_what_was_read_is_kept_for_those_who_have_not_read_it_yet(apps: Apps) -> None:
    """One instance is far ahead of the other; the end of its reading deletes nothing of what the other has to read."""
    gate = Gate()

    @workflow
    async def reading(ctx: WorkflowContext, late: bool) -> list[int]:
        if late:
            await gate.pass_(ctx)
        return [(await wait_event(ctx, "w29.tick")).data["n"] for _ in range(10)]

    app = await apps.open(max_residents=0)
    late, early = await app.start(reading, True), await app.start(reading, False)
    for number in range(10):
        await send_event("w29.tick", "clock", {"n": number})
    assert await early.result(timeout=SOON) == list(range(10))
    again = await apps.restart_at(gate, late)
    assert await again.result(timeout=SOON) == list(range(10))
