"""Promises R89-R96: one transaction for the user's rows, the record and its events, and delivery guaranteed."""

import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable

import nats
import pytest
import redis.asyncio
from sqlalchemy import String, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from edda import RetryExhaustedError, WorkflowContext, activity, send_event, send_event_transactional, workflow
from tests.acceptance.conftest import Apps
from tests.acceptance.processes import Program
from tests.acceptance.support import (
    QUICK,
    SOON,
    Attempts,
    Gate,
    Tables,
    eventually,
    on_every_database,
    on_postgresql,
    results_of,
)
from tests.brokers import broker
from tests.outbox.web import web


class Base(DeclarativeBase): ...


class Payment(Base):
    """No unique column but the number given by the database: a row written twice shows."""

    __tablename__ = "payments"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    order_id: Mapped[str] = mapped_column(String(50))
    amount: Mapped[float]


PAYMENTS = "SELECT order_id, amount FROM payments ORDER BY number"


@pytest.fixture
async def shop(tables: Tables) -> Tables:
    """The tables, with one of the user's own."""
    await tables.create(Base.metadata)
    return tables


async def pay(ctx: WorkflowContext, order_id: str, amount: float) -> dict[str, str]:
    """The reference's `process_payment`: a row of the user's and an event."""
    session = ctx.session
    session.add(Payment(order_id=order_id, amount=amount))
    await send_event_transactional(
        ctx,
        event_type="payment.processed",
        event_source="payment-service",
        event_data={"order_id": order_id, "amount": amount},
    )
    return {"payment_id": f"PAY-{order_id}"}


@on_every_database
async def test_R089_an_activity_is_transactional_without_saying_so(apps: Apps, shop: Tables) -> None:
    attempts = Attempts()

    @activity
    async def process_payment(ctx: WorkflowContext) -> int:
        await ctx.session.execute(text("INSERT INTO payments (order_id, amount) VALUES ('ORD-1', 5)"))
        if attempts.begin() < 3:
            raise ConnectionError("after the row was written")
        return attempts.count

    @workflow
    async def order(ctx: WorkflowContext) -> int:
        return await process_payment(ctx)

    handle = await (await apps.open(default_retry_policy=QUICK)).start(order)
    assert await handle.result(timeout=SOON) == 3
    assert await shop.rows(PAYMENTS) == [("ORD-1", 5.0)]


@pytest.mark.process
@on_every_database
async def test_R090_rows_record_and_event_are_written_together_or_not_at_all_when_the_process_dies(
    program: Callable[[str], Program], shop: Tables
) -> None:
    paying = program("""
        from sqlalchemy import text

        @activity
        async def process_payment(ctx: WorkflowContext, number: int) -> int:
            await ctx.session.execute(text(f"INSERT INTO payments (order_id, amount) VALUES ('ORD-{number}', 5)"))
            await send_event_transactional(ctx, "payment.processed", "payments", {"number": number})
            crash_once("everything written, nothing committed") if number == 2 else None
            return number

        @workflow
        async def order(ctx: WorkflowContext) -> list[int]:
            done = [await process_payment(ctx, 1), await process_payment(ctx, 2)]
            crash_once("committed")
            return done

        async def main():
            async with EddaApp(db_url=DB_URL, outbox_enabled=True) as app:
                handle = await order.options(id="o-1").start()
                say(await handle.result(timeout=20))
    """)
    paying.run_until_it_crashes()
    assert await shop.rows(PAYMENTS) == [("ORD-1", 5.0)]
    assert len(await shop.outbox()) == 1
    assert await shop.rows("SELECT call_id FROM edda_history WHERE kind = 'ActivityCompleted'") == [
        ("process_payment:1",)
    ]
    paying.run_until_it_crashes()
    assert paying.run() == ["[1, 2]"]
    assert await shop.rows(PAYMENTS) == [("ORD-1", 5.0), ("ORD-2", 5.0)]
    assert [json.loads(row["data"]) for row in await shop.outbox()] == [{"number": 1}, {"number": 2}]


@on_every_database
async def test_R091_an_activity_sends_an_event_with_its_type_source_and_data(apps: Apps, tables: Tables) -> None:
    @activity
    async def create_order(ctx: WorkflowContext, order_id: str) -> dict[str, str]:
        await send_event_transactional(
            ctx, event_type="order.created", event_source="order-service", event_data={"order_id": order_id}
        )
        return {"order_id": order_id}

    @workflow
    async def ordering(ctx: WorkflowContext) -> None:
        await create_order(ctx, "ORD-1")

    handle = await (await apps.open(outbox_enabled=True)).start(ordering)
    await handle.result(timeout=SOON)
    (row,) = await tables.outbox()
    assert (row["type"], row["source"], row["instance_id"]) == ("order.created", "order-service", handle)
    assert (json.loads(row["data"]), row["content_type"]) == ({"order_id": "ORD-1"}, "application/json")


@on_every_database
async def test_R092_a_failed_activity_publishes_nothing_and_its_rows_are_rolled_back(apps: Apps, shop: Tables) -> None:
    @activity
    async def process_payment(ctx: WorkflowContext, order_id: str) -> None:
        await pay(ctx, order_id, 5)
        if order_id == "bad":
            await ctx.session.flush()
            raise ConnectionError("the bank is away")

    @workflow
    async def order(ctx: WorkflowContext) -> None:
        await process_payment(ctx, "good")
        await process_payment(ctx, "bad")

    handle = await (await apps.open(default_retry_policy=QUICK)).start(order)
    with pytest.raises(RetryExhaustedError):
        await handle.result(timeout=SOON)
    assert await shop.rows(PAYMENTS) == [("good", 5.0)]
    assert [json.loads(row["data"])["order_id"] for row in await shop.outbox()] == ["good"]


@on_every_database
async def test_R093_ctx_session_is_a_sqlalchemy_session_on_the_same_database(apps: Apps, shop: Tables) -> None:
    @activity
    async def process_payment(ctx: WorkflowContext, order_id: str, amount: float) -> int:
        payment = Payment(order_id=order_id, amount=amount)
        ctx.session.add(payment)
        await ctx.session.flush()
        again = await ctx.session.get(Payment, payment.number)
        assert again is payment
        return payment.number

    @workflow
    async def order(ctx: WorkflowContext) -> int:
        return await process_payment(ctx, "ORD-1", 9.5)

    handle = await (await apps.open()).start(order)
    number = await handle.result(timeout=SOON)
    assert await shop.rows("SELECT number, order_id, amount FROM payments") == [(number, "ORD-1", 9.5)]


@on_every_database
async def test_R094_data_and_event_are_committed_without_being_asked(apps: Apps, shop: Tables) -> None:
    @activity
    async def process_payment(ctx: WorkflowContext, order_id: str, amount: float) -> dict[str, str]:
        return await pay(ctx, order_id, amount)

    @workflow
    async def order(ctx: WorkflowContext) -> dict[str, str]:
        return await process_payment(ctx, "ORD-1", 9.5)

    handle = await (await apps.open(outbox_enabled=True)).start(order)
    assert await handle.result(timeout=SOON) == {"payment_id": "PAY-ORD-1"}
    assert await shop.rows(PAYMENTS) == [("ORD-1", 9.5)]
    assert [row["type"] for row in await shop.outbox()] == ["payment.processed"]
    assert await results_of(handle) == {"process_payment:1": {"payment_id": "PAY-ORD-1"}}


@on_postgresql
async def test_R094_nobody_sees_a_part_of_it_before_the_activity_has_ended(apps: Apps, shop: Tables) -> None:
    gate = Gate()

    @activity
    async def process_payment(ctx: WorkflowContext) -> None:
        await pay(ctx, "ORD-1", 9.5)
        await ctx.session.flush()
        await gate.pass_.function(ctx)

    @workflow
    async def order(ctx: WorkflowContext) -> None:
        await process_payment(ctx)

    handle = await (await apps.open(outbox_enabled=True)).start(order)
    await gate.reached()
    assert (await shop.count("payments"), await shop.count("edda_outbox")) == (0, 0)
    gate.open()
    await handle.result(timeout=SOON)
    assert (await shop.count("payments"), await shop.count("edda_outbox")) == (1, 1)


async def test_R095_a_sent_event_is_stored_until_it_can_be_delivered(apps: Apps, tables: Tables) -> None:
    ids: list[str] = []

    @activity
    async def announce(ctx: WorkflowContext, number: int) -> None:
        ids.append(await send_event_transactional(ctx, "announced", "test", {"number": number}))

    @workflow
    async def announcing(ctx: WorkflowContext) -> None:
        for number in range(3):
            await announce(ctx, number)

    handle = await (await apps.open(outbox_enabled=True)).start(announcing)
    await handle.result(timeout=SOON)
    await apps.restart(outbox_enabled=True)
    rows = await tables.outbox()
    assert [(row["id"], row["status"]) for row in rows] == [(each, "pending") for each in ids]
    assert len(set(ids)) == 3


@on_every_database
async def test_R095_events_are_delivered_at_once_in_order_and_as_cloudevents(apps: Apps, shop: Tables) -> None:
    @activity
    async def process_payment(ctx: WorkflowContext, order_id: str) -> dict[str, str]:
        return await pay(ctx, order_id, 9.5)

    @activity
    async def ship(ctx: WorkflowContext, order_id: str) -> str:
        return await send_event_transactional(ctx, "order.shipped", "shipping-service", {"order_id": order_id})

    @workflow
    async def order(ctx: WorkflowContext, order_id: str) -> str:
        await process_payment(ctx, order_id)
        return await ship(ctx, order_id)

    async with web() as server:
        # Nothing is polled within the time of this test: the commit itself wakes the relayer.
        app = await apps.open(outbox_enabled=True, broker_url=server.url, poll_seconds=600)
        handles = [await app.start(order, f"ORD-{number}") for number in range(5)]
        shipped = [await handle.result(timeout=SOON) for handle in handles]
        await eventually(lambda: len(server.requests) == 10)
        await eventually(lambda: _all_are(shop, "delivered"))
        await app.shutdown()
        events = [json.loads(request.body) for request in server.requests]
    assert {request.header("content-type") for request in server.requests} == {"application/cloudevents+json"}
    for number, event_id in enumerate(shipped):
        mine = [event for event in events if event["data"]["order_id"] == f"ORD-{number}"]
        assert [event["type"] for event in mine] == ["payment.processed", "order.shipped"]
        assert mine[0]["source"] == "payment-service"
        assert mine[1]["id"] == event_id
        assert mine[0]["data"] == {"order_id": f"ORD-{number}", "amount": 9.5}
        assert mine[0]["time"].endswith("Z")


async def test_R095_an_event_stored_while_nobody_relayed_is_delivered_later(apps: Apps, tables: Tables) -> None:
    @workflow
    async def announcing(ctx: WorkflowContext) -> str:
        return await send_event_transactional(ctx, "announced", "test", {"from": "the body"})

    handle = await (await apps.open()).start(announcing)
    event_id = await handle.result(timeout=SOON)
    async with web() as server:
        app = await apps.restart(outbox_enabled=True, broker_url=server.url)
        await eventually(lambda: server.requests)
        await app.shutdown()
    assert json.loads(server.requests[0].body)["id"] == event_id


@on_every_database
async def test_R095_the_subject_and_the_addressee_of_an_event_go_with_it_through_a_broker(apps: Apps) -> None:
    @activity
    async def tell(ctx: WorkflowContext) -> None:
        await send_event("told", "test", {"in": "an activity"}, subject="ORD-1", to="over-there")

    @workflow
    async def telling_others(ctx: WorkflowContext) -> None:
        await tell(ctx)
        await send_event("told", "test", b"\xff", datacontenttype="text/plain", subject="ORD-2")

    async with web() as server:
        app = await apps.open(outbox_enabled=True, broker_url=server.url)
        await (await app.start(telling_others)).result(timeout=SOON)
        await eventually(lambda: len(server.requests) == 2)
        await app.shutdown()
    structured = json.loads(server.requests[0].body)
    assert (structured["subject"], structured["eddainstanceid"]) == ("ORD-1", "over-there")
    binary = server.requests[1]
    assert (binary.header("ce-subject"), binary.header("ce-eddainstanceid")) == ("ORD-2", None)


@pytest.mark.parametrize("kind", ["nats", "redis"])
async def test_R095_a_broker_is_chosen_by_its_url(apps: Apps, tables: Tables, kind: str) -> None:
    @workflow
    async def announcing(ctx: WorkflowContext) -> str:
        return await send_event_transactional(ctx, "announced", "test", {"from": "the body"})

    name = f"edda-test-{kind}-app-{os.getpid()}"
    async with (nats_stream if kind == "nats" else redis_stream)(broker(kind), name) as (url, read):
        app = await apps.open(outbox_enabled=True, broker_url=url, poll_seconds=0.05)
        event_id = await (await app.start(announcing)).result(timeout=SOON)
        await eventually(lambda: _all_are(tables, "delivered"))
        assert [json.loads(body)["id"] for body in await read()] == [event_id]
        await app.shutdown()


async def test_R096_a_broker_url_that_cannot_work_is_refused_when_the_app_is_initialised(apps: Apps) -> None:
    with pytest.raises(ValueError, match="no sink is known for broker_url='ftp://"):
        await apps.open(outbox_enabled=True, broker_url="ftp://example.org/events")


async def test_R096_without_a_broker_one_line_says_that_nothing_is_delivered(
    apps: Apps, caplog: pytest.LogCaptureFixture
) -> None:
    await apps.open(outbox_enabled=True)
    (said,) = [record.getMessage() for record in caplog.records if "broker_url" in record.getMessage()]
    assert said == "outbox_enabled=True without broker_url: events are stored, and nothing here delivers them"


async def test_R096_outbox_enabled_needs_no_broker_url(apps: Apps, tables: Tables) -> None:
    @workflow
    async def announcing(ctx: WorkflowContext) -> str:
        return await send_event_transactional(ctx, "announced", "test", {"from": "the body"})

    handle = await (await apps.open(outbox_enabled=True)).start(announcing)
    event_id = await handle.result(timeout=SOON)
    assert [row["id"] for row in await tables.outbox()] == [event_id]


async def _all_are(tables: Tables, status: str) -> bool:
    rows = await tables.outbox()
    return bool(rows) and {row["status"] for row in rows} == {status}


Read = Callable[[], Awaitable[list[bytes]]]


@contextlib.asynccontextmanager
async def nats_stream(url: str, name: str) -> AsyncIterator[tuple[str, Read]]:
    client = await nats.connect(url)
    stream = client.jetstream()
    await stream.add_stream(name=name, subjects=[name])

    async def read() -> list[bytes]:
        return [(await stream.get_msg(name, 1)).data or b""]

    try:
        yield f"{url}/{name}", read
    finally:
        await stream.delete_stream(name)
        await client.close()


@contextlib.asynccontextmanager
async def redis_stream(url: str, name: str) -> AsyncIterator[tuple[str, Read]]:
    client = redis.asyncio.Redis.from_url(url)

    async def read() -> list[bytes]:
        return [entry[b"data"] for _, entry in await client.xrange(name)]

    try:
        yield f"{url}/0?stream={name}", read
    finally:
        await client.delete(name)
        await client.aclose()
