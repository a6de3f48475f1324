"""Section M of the promises, waiting, with semantics §6: events that come early, late, twice, to many and to one."""

import asyncio
from datetime import UTC, datetime

import pytest
from pydantic import BaseModel

from edda import (
    EddaApp,
    EventTimeoutError,
    ReceivedEvent,
    WorkflowContext,
    activity,
    send_event,
    wait_event,
    wait_timer,
    workflow,
)
from edda.core.event import CloudEvent
from edda.exceptions import InstanceEndedError, InstanceNotFoundError
from tests.acceptance.conftest import Apps
from tests.acceptance.support import QUICK, SOON, Gate, events_of, eventually, on_every_database, reaches


class Payment(BaseModel):
    order_id: str
    amount: int


@workflow
async def awaiting_payment(ctx: WorkflowContext) -> object:
    return (await wait_event(ctx, "payment.completed")).data


@workflow
async def awaiting_payment_of(ctx: WorkflowContext, order_id: str) -> object:
    event = await wait_event(ctx, "payment.completed", match={"order_id": order_id})
    return event.data["amount"]


@on_every_database
async def test_R108_send_event_needs_no_ctx_and_is_a_step_of_the_workflow(apps: Apps) -> None:
    @workflow
    async def asking(ctx: WorkflowContext) -> None:
        await send_event("payment.requested", "payment-service", {"order_id": "7"})

    @workflow
    async def listening(ctx: WorkflowContext) -> object:
        event = await wait_event(ctx, "payment.requested")
        return [event.source, event.data]

    app = await apps.open()
    listener = await app.start(listening)
    handle = await app.start(asking)
    await handle.result(timeout=SOON)
    assert await listener.result(timeout=SOON) == ["payment-service", {"order_id": "7"}]
    assert len(await events_of(handle, "EventSent")) == 1


@on_every_database
async def test_R109_wait_event_pauses_and_its_data_is_the_payload(apps: Apps) -> None:
    received: list[ReceivedEvent] = []

    @workflow
    async def waiting(ctx: WorkflowContext) -> None:
        received.append(await wait_event(ctx, "payment.completed"))

    handle = await (await apps.open()).start(waiting)
    assert await reaches(handle, "waiting_for_event") == "waiting_for_event"
    assert "payment.completed" in await handle.reason()
    event_id = await send_event("payment.completed", "bank", {"amount": 5, "nested": {"list": [1, 2.5, None, "ä"]}})
    await handle.result(timeout=SOON)
    (event,) = received
    assert event.data == {"amount": 5, "nested": {"list": [1, 2.5, None, "ä"]}}
    assert (event.type, event.source, event.id) == ("payment.completed", "bank", event_id)
    assert event.datacontenttype == "application/json"
    assert event.time is not None
    assert abs((datetime.now(UTC) - datetime.fromisoformat(event.time)).total_seconds()) < 60


async def test_R110_the_data_of_an_event_can_be_the_result(apps: Apps) -> None:
    handle = await (await apps.open()).start(awaiting_payment)
    await send_event("payment.completed", "bank", {"amount": 5})
    assert await handle.result(timeout=SOON) == {"amount": 5}


@on_every_database
async def test_R111_an_event_is_sent_once_per_workflow_however_often_that_is_replayed(apps: Apps) -> None:
    gate = Gate()

    @workflow
    async def asking(ctx: WorkflowContext) -> None:
        await send_event("payment.requested", "orders", {"order_id": "7"})
        await gate.pass_(ctx)

    @workflow
    async def counting(ctx: WorkflowContext) -> int:
        count = 0
        while True:
            try:
                await wait_event(ctx, "payment.requested", timeout_seconds=1.5)
            except EventTimeoutError:
                return count
            count += 1

    app = await apps.open()
    counter = await app.start(counting)
    handle = await app.start(asking)
    again = await apps.restart_at(gate, handle)
    await again.result(timeout=SOON)
    app = await apps.restart()
    assert await app.handle(counter).result(timeout=SOON) == 1


@on_every_database
async def test_R112_a_waiting_workflow_is_in_the_database_and_nowhere_else(apps: Apps) -> None:
    handle = await (await apps.open(max_residents=0)).start(awaiting_payment)
    await reaches(handle, "waiting_for_event")
    app = await apps.restart()
    assert await app.handle(handle).status() == "waiting_for_event"


@on_every_database
async def test_R113_a_waiting_workflow_goes_on_when_the_event_comes_or_the_timer_expires(apps: Apps) -> None:
    @workflow
    async def patient(ctx: WorkflowContext, seconds: float) -> str:
        try:
            await wait_event(ctx, "payment.completed", timeout_seconds=seconds)
        except EventTimeoutError as error:
            return f"{error.event_type} after {error.timeout_seconds}"
        return "paid"

    app = await apps.open()
    paid, unpaid = await app.start(patient, 60), await app.start(patient, 0.3)
    assert await unpaid.result(timeout=SOON) == "payment.completed after 0.3"
    await send_event("payment.completed", "bank", {})
    assert await paid.result(timeout=SOON) == "paid"
    assert await send_event("payment.completed", "bank", {})


@on_every_database
async def test_R116_R118_no_event_is_lost_while_a_workflow_begins_to_wait(apps: Apps) -> None:
    """Events come in while a hundred workflows start, wait, park and are unloaded."""
    app = await apps.open(max_residents=3)
    orders = [f"o{n}" for n in range(100)]

    async def pay(order: str) -> None:
        await send_event("payment.completed", "bank", {"order_id": order, "amount": len(order)})

    first = [pay(order) for order in orders[::2]]
    starts = [app.start(awaiting_payment_of, order) for order in orders]
    started = (await asyncio.gather(*first, *starts))[len(first) :]
    await asyncio.gather(*(pay(order) for order in orders[1::2]))
    results = await asyncio.gather(*(handle.result(timeout=SOON) for handle in started if handle is not None))
    assert results == [len(order) for order in orders]


@on_every_database
async def test_R120_an_event_reaches_the_workflow_that_it_is_for(apps: Apps) -> None:
    app = await apps.open()
    a, b = await app.start(awaiting_payment_of, "A"), await app.start(awaiting_payment_of, "B")
    await reaches(a, "waiting_for_event")
    await reaches(b, "waiting_for_event")
    await send_event("payment.completed", "bank", {"order_id": "B", "amount": 2})
    assert await b.result(timeout=SOON) == 2
    assert await a.status() == "waiting_for_event"
    await send_event("payment.completed", "bank", {"order_id": "A", "amount": 1})
    assert await a.result(timeout=SOON) == 1


# -- beyond the numbered promises -----------------------------------------------------------------------------------


@on_every_database
async def test_without_correlation_everybody_who_waits_gets_a_copy(apps: Apps) -> None:
    app = await apps.open()
    handles = [await app.start(awaiting_payment) for _ in range(5)]
    await send_event("payment.completed", "bank", {"n": 1})
    assert [await handle.result(timeout=SOON) for handle in handles] == [{"n": 1}] * 5


@on_every_database
async def test_an_event_can_be_addressed_to_one_instance(apps: Apps) -> None:
    app = await apps.open()
    a, b = await app.start(awaiting_payment), await app.start(awaiting_payment)
    await send_event("payment.completed", "bank", {"n": 1}, to=b)
    assert await b.result(timeout=SOON) == {"n": 1}
    assert await a.status() in ("running", "waiting_for_event")
    with pytest.raises(InstanceNotFoundError):
        await send_event("payment.completed", "bank", {}, to="nobody")
    with pytest.raises(InstanceEndedError):
        await send_event("payment.completed", "bank", {}, to=b)


@on_every_database
async def test_a_workflow_receives_every_event_once_and_in_order(apps: Apps) -> None:
    @workflow
    async def collecting(ctx: WorkflowContext) -> list[int]:
        return [(await wait_event(ctx, "tick")).data["n"] for _ in range(30)]

    app = await apps.open(max_residents=0)
    handle = await app.start(collecting)
    for n in range(30):
        await send_event("tick", "clock", {"n": n})
    assert await handle.result(timeout=SOON) == list(range(30))
    assert len(await events_of(handle, "EventReceived")) == 30


@on_every_database
async def test_waits_beside_each_other_get_an_event_each(apps: Apps) -> None:
    @workflow
    async def both(ctx: WorkflowContext) -> list[object]:
        events = await asyncio.gather(wait_event(ctx, "paid"), wait_event(ctx, "paid"), wait_event(ctx, "shipped"))
        return [event.data for event in events]

    handle = await (await apps.open()).start(both)
    await reaches(handle, "waiting_for_event")
    await send_event("shipped", "x", "c")  # type: ignore[arg-type]
    await send_event("paid", "x", "a")  # type: ignore[arg-type]
    app = await apps.restart()
    await send_event("paid", "x", "b")  # type: ignore[arg-type]
    assert await app.handle(handle).result(timeout=SOON) == ["a", "b", "c"]


async def test_an_event_in_time_beats_the_timeout_however_late_it_is_handled(apps: Apps) -> None:
    @workflow
    async def patient(ctx: WorkflowContext) -> str:
        try:
            return str((await wait_event(ctx, "paid", timeout_seconds=2)).data)
        except EventTimeoutError:
            return "too late"

    app = await apps.open()
    handle = await app.start(patient)
    await reaches(handle, "waiting_for_event")
    client = EddaApp(db_url=apps.db_url, workflows=[])
    await app.shutdown()
    async with client:
        await client.accept([_event("paid")])
        await asyncio.sleep(2.1)
    app = await apps.open()
    assert await app.handle(handle).result(timeout=SOON) == "{'n': 1}"


async def test_an_event_after_the_deadline_does_not_count(apps: Apps) -> None:
    @workflow
    async def patient(ctx: WorkflowContext) -> str:
        try:
            return str((await wait_event(ctx, "paid", timeout_seconds=1.2)).data)
        except EventTimeoutError:
            return "too late"

    app = await apps.open()
    handle = await app.start(patient)
    await reaches(handle, "waiting_for_event")
    await app.shutdown()
    await asyncio.sleep(1.5)
    async with EddaApp(db_url=apps.db_url, workflows=[]) as client:
        await client.accept([_event("paid")])
    app = await apps.open()
    assert await app.handle(handle).result(timeout=SOON) == "too late"


@on_every_database
async def test_an_event_that_does_not_fit_the_model_is_set_aside_and_the_wait_goes_on(apps: Apps) -> None:
    @workflow
    async def typed(ctx: WorkflowContext) -> Payment:
        event = await wait_event(ctx, "payment.completed", model=Payment)
        assert isinstance(event.data, Payment)
        return event.data

    app = await apps.open()
    handle = await app.start(typed)
    await send_event("payment.completed", "bank", {"order_id": "7"})
    await send_event("payment.completed", "bank", Payment(order_id="7", amount=3))
    assert await handle.result(timeout=SOON) == Payment(order_id="7", amount=3)
    (rejected,) = await events_of(handle, "EventRejected")
    assert "amount" in str(rejected.event_data)


@on_every_database
async def test_bytes_arrive_bit_for_bit(apps: Apps) -> None:
    blob = bytes(range(256)) * 4

    @workflow
    async def reading(ctx: WorkflowContext) -> bytes:
        event = await wait_event(ctx, "blob")
        assert event.datacontenttype == "application/x-protobuf"
        return bytes(event.data)

    handle = await (await apps.open()).start(reading)
    await send_event("blob", "x", blob, datacontenttype="application/x-protobuf")
    assert await handle.result(timeout=SOON) == blob


@on_every_database
async def test_a_wait_that_the_body_gave_up_takes_no_event_from_the_next(apps: Apps) -> None:
    @workflow
    async def impatient(ctx: WorkflowContext) -> object:
        try:
            async with asyncio.timeout(0.3):
                await wait_event(ctx, "paid")
        except TimeoutError:
            await wait_timer(ctx, 0.01)
        return (await wait_event(ctx, "paid")).data

    handle = await (await apps.open()).start(impatient)
    await reaches(handle, "waiting_for_event")
    await asyncio.sleep(0.4)
    await send_event("paid", "x", {"n": 1})
    assert await handle.result(timeout=SOON) == {"n": 1}


@on_every_database
async def test_a_waiting_workflow_can_be_cancelled(apps: Apps) -> None:
    app = await apps.open()
    handle = await app.start(awaiting_payment)
    await reaches(handle, "waiting_for_event")
    await handle.cancel()
    assert await reaches(handle, "cancelled") == "cancelled"


@on_every_database
async def test_an_activity_sends_its_event_only_if_it_succeeds(apps: Apps) -> None:
    attempts: list[int] = []

    @activity
    async def charge(ctx: WorkflowContext) -> None:
        assert ctx.activity is not None
        attempts.append(ctx.activity.attempt)
        await send_event("payment.completed", "bank", {"attempt": ctx.activity.attempt})
        if len(attempts) < 3:
            raise RuntimeError("flaky")

    @workflow
    async def charging(ctx: WorkflowContext) -> None:
        await charge(ctx)

    app = await apps.open(default_retry_policy=QUICK)
    handle = await app.start(awaiting_payment)
    await app.start(charging)
    assert await handle.result(timeout=SOON) == {"attempt": 3}


async def test_an_event_that_waits_for_nobody_harms_nobody(apps: Apps) -> None:
    await apps.open()
    await send_event("nobody.waits", "x", {})


async def test_what_cannot_be_stored_is_refused_at_the_call(apps: Apps) -> None:
    await apps.open()
    for bad in ("a\ud800", "a\x00b"):
        with pytest.raises(ValueError, match=r"lone surrogate|control characters"):
            await send_event(bad, "x", {})
        with pytest.raises(ValueError, match=r"lone surrogate|control characters"):
            await send_event("paid", "x", {}, subject=bad)


@on_every_database
async def test_an_event_that_cannot_be_stored_harms_no_other(apps: Apps) -> None:
    """However it came in: whoever brought it hears of it, and the inbox of this process goes on."""
    app = await apps.open()
    good = [_event("paid")._replace(id=str(n)) for n in range(3)]
    bad = _event("paid")._replace(id="a\ud800")
    outcomes = await asyncio.gather(*(app.accept([one]) for one in (good[0], bad, good[1])), return_exceptions=True)
    assert [isinstance(one, Exception) for one in outcomes] == [False, True, False]
    assert await app.accept([good[2]])


@on_every_database
async def test_many_events_for_one_type_reach_their_instances(apps: Apps) -> None:
    app = await apps.open()
    handles = [await app.start(awaiting_payment_of, f"o{n}") for n in range(50)]
    await eventually(lambda: all_waiting(handles))
    await asyncio.gather(
        *(send_event("payment.completed", "bank", {"order_id": f"o{n}", "amount": n}) for n in reversed(range(50)))
    )
    assert [await handle.result(timeout=SOON) for handle in handles] == list(range(50))


async def test_hooks_hear_of_events_sent_and_received_once_each(apps: Apps) -> None:
    heard: list[tuple[str, ...]] = []

    class Hooks:
        async def on_event_sent(self, event_type: str, event_source: str, event_data: object) -> None:
            heard.append(("sent", event_type, event_source, str(event_data)))

        async def on_event_received(self, instance_id: str, event_type: str, event_data: object) -> None:
            heard.append(("received", event_type, str(event_data)))

    @workflow
    async def to_itself(ctx: WorkflowContext) -> object:
        await send_event("to.itself", "me", {"n": 1})
        return (await wait_event(ctx, "to.itself")).data

    handle = await (await apps.open(hooks=Hooks(), max_residents=0)).start(to_itself)
    assert await handle.result(timeout=SOON) == {"n": 1}
    await eventually(lambda: len(heard) == 2)
    assert sorted(heard) == [("received", "to.itself", "{'n': 1}"), ("sent", "to.itself", "me", "{'n': 1}")]


async def all_waiting(handles: list[object]) -> bool:
    return all([await handle.status() == "waiting_for_event" for handle in handles])  # type: ignore[attr-defined]


def _event(event_type: str) -> CloudEvent:
    return CloudEvent(id="1", source="x", type=event_type, json='{"n":1}')
