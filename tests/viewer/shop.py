"""Workflows to look at, and a database that holds one instance of each kind of fate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal

from pydantic import BaseModel, Field

from edda import (
    EddaApp,
    RetryPolicy,
    TerminalError,
    WorkflowContext,
    activity,
    compensation,
    on_failure,
    send_event,
    wait_event,
    wait_timer,
    workflow,
)


class Item(BaseModel):
    sku: str
    quantity: int


class Order(BaseModel):
    id: str
    customer: str
    city: str
    items: list[Item]
    total: Decimal
    placed_at: datetime
    note: str = ""


QUICK = RetryPolicy(initial_interval=0.05, max_interval=0.2, max_attempts=4)
FLAKY: dict[str, int] = {}


@compensation
async def release(ctx: WorkflowContext, sku: str, quantity: int) -> None:
    await asyncio.sleep(0.01)


@activity
@on_failure(release)
async def reserve(ctx: WorkflowContext, sku: str, quantity: int) -> dict[str, Any]:
    await asyncio.sleep(0.02 + quantity / 100)
    return {"sku": sku, "reserved": quantity, "warehouse": "Leipzig"}


@compensation
async def pay_back(ctx: WorkflowContext, order_id: str, total: Decimal) -> None:
    await asyncio.sleep(0.03)


@activity(retry_policy=QUICK)
@on_failure(pay_back)
async def pay(ctx: WorkflowContext, order_id: str, total: Decimal) -> str:
    await asyncio.sleep(0.05)
    FLAKY[order_id] = FLAKY.get(order_id, 0) + 1
    if FLAKY[order_id] < 3 and order_id.endswith("7"):
        raise ConnectionError("the bank's gateway answered 503 Service Unavailable")
    return f"bank-{order_id}"


@activity
async def ship(ctx: WorkflowContext, order_id: str, city: str) -> str:
    await asyncio.sleep(0.04)
    if city == "Longyearbyen":
        raise TerminalError(f"no carrier goes to {city}")
    return f"parcel of {order_id}"


@activity
async def send_mail(ctx: WorkflowContext, recipient: str, text: str) -> None:
    await asyncio.sleep(0.01)


@workflow(name="shop.order")
async def order(ctx: WorkflowContext, order: Order) -> dict[str, Any]:
    """Reserve everything, take the money, ship. Or undo what was done."""
    await asyncio.gather(*(reserve(ctx, item.sku, item.quantity) for item in order.items))
    reference = await pay(ctx, order.id, order.total)
    parcel = await ship(ctx, order.id, order.city)
    await send_mail(ctx, order.customer, f"{parcel} is on its way")
    await send_event("order.shipped", "/shop", {"order_id": order.id, "parcel": parcel})
    return {"order_id": order.id, "reference": reference, "parcel": parcel, "total": order.total}


@activity
async def write_to_the_boss(ctx: WorkflowContext, text: str) -> None:
    await asyncio.sleep(0.01)


@workflow(name="shop.approval")
async def approval(ctx: WorkflowContext, expense_id: str, cents: int) -> str:
    await write_to_the_boss(ctx, f"Please look at {expense_id}")
    decision = await wait_event(ctx, "expense.decided", match={"expense_id": expense_id})
    return f"{expense_id}: {decision.data}"


@workflow(name="shop.reminder")
async def reminder(ctx: WorkflowContext, who: str, seconds: float) -> str:
    await send_mail(ctx, who, "first")
    await wait_timer(ctx, seconds)
    await send_mail(ctx, who, "second")
    return who


@workflow(name="shop.campaign")
async def campaign(ctx: WorkflowContext, people: list[str]) -> int:
    for who in people:
        await reminder.start(who, 3600.0)
    return len(people)


@compensation(retry_policy=RetryPolicy(max_attempts=1))
async def cannot(ctx: WorkflowContext) -> None:
    raise TerminalError("the partner's interface is gone")


@activity
@on_failure(cannot)
async def book_trip(ctx: WorkflowContext) -> str:
    return "booked"


@workflow(name="shop.trip")
async def trip(ctx: WorkflowContext, number: int) -> None:
    await book_trip(ctx)
    raise ValueError(f"there is no hotel for {number}")


@activity
async def grind(ctx: WorkflowContext, until: str) -> str:
    while until not in OPEN_GATES:  # noqa: ASYNC110 - opened from other threads
        await asyncio.sleep(0.02)
    return until


OPEN_GATES: set[str] = set()


@workflow(name="shop.slow")
async def slow(ctx: WorkflowContext, gate: str) -> str:
    await send_mail(ctx, "somebody", "it begins")
    return await grind(ctx, gate)


@activity(retry_policy=RetryPolicy(initial_interval=600.0, max_interval=600.0, max_attempts=None, max_duration=None))
async def call_partner(ctx: WorkflowContext) -> None:
    raise TimeoutError("the partner did not answer within 10 s")


@workflow(name="shop.stubborn")
async def stubborn(ctx: WorkflowContext) -> None:
    await call_partner(ctx)


class Speed(Enum):
    SLOW = "slow"
    FAST = "fast"


class Gift(BaseModel):
    text: str
    wrapped: bool = True


class Wish(BaseModel):
    """Something of everything that a form can ask for."""

    recipient: str
    day: date
    urgency: Literal["low", "high"]
    quantity: int = Field(1, ge=1, le=10)
    weight: float | None = None
    price: Decimal = Decimal("9.90")
    speed: Speed = Speed.SLOW
    gift: Gift | None = None
    tags: list[str] = []
    items: list[Item] = Field(default_factory=list[Item], max_length=3)
    extra: dict[str, int] = {}
    insured: bool = False
    friendly: bool | None = None


@workflow(name="shop.delivery")
async def delivery(ctx: WorkflowContext, wish: Wish, copies: int = 1, *, note: str | None = None) -> dict[str, Any]:
    return {"wish": wish, "copies": copies, "note": note}


WORKFLOWS = (order, approval, reminder, campaign, trip, slow, stubborn, delivery)


@asynccontextmanager
async def app_on(url: str, **options: Any) -> AsyncIterator[EddaApp]:
    app = EddaApp("shop", url, workflows=WORKFLOWS, poll_seconds=0.2, shutdown_grace_seconds=0.5, **options)
    async with app:
        yield app


def an_order(number: int, *, city: str = "Leipzig", note: str = "") -> Order:
    return Order(
        id=f"ORD-{number}",
        customer=f"person{number}@example.org",
        city=city,
        items=[Item(sku="teapot", quantity=1), Item(sku="cup", quantity=4 + number % 3), Item(sku="spoon", quantity=2)],
        total=Decimal("49.90") + number,
        placed_at=datetime(2026, 11, 22, 12, tzinfo=UTC),
        note=note,
    )


async def fill(app: EddaApp, *, orders: int = 12) -> None:
    """One instance of each fate, and some orders."""
    handles = [
        await app.start(
            order.options(id=f"order-{n:04d}"), an_order(n, city="Longyearbyen" if n % 5 == 4 else "Leipzig")
        )
        for n in range(1, orders + 1)
    ]
    await app.start(approval.options(id="approval-1"), "EXP-1", 12_500)
    await app.start(reminder.options(id="reminder-1"), "ada@example.org", 86_400.0)
    await app.start(campaign.options(id="campaign-1"), ["ada", "grace"])
    await app.start(slow.options(id="slow-1"), "gate-1")
    await app.start(stubborn.options(id="stubborn-1"))
    trips = await app.start(trip.options(id="trip-1"), 7)
    to_cancel = await app.start(approval.options(id="approval-2"), "EXP-2", 990)
    await until(lambda: is_at(app, "approval-2", "waiting_for_event"))
    await to_cancel.cancel()
    for handle in [*handles, trips, to_cancel]:
        await until(lambda handle=handle: has_ended(app, str(handle.id)))  # type: ignore[misc]
    for instance_id, status in (
        ("approval-1", "waiting_for_event"),
        ("reminder-1", "waiting_for_timer"),
    ):
        await until(lambda i=instance_id, s=status: is_at(app, i, s))  # type: ignore[misc]
    await until(lambda: _reason_has(app, "stubborn-1", "retry"))


async def until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - a database has no event to wait for
            await asyncio.sleep(0.02)


async def is_at(app: EddaApp, instance_id: str, status: str) -> bool:
    return await app.handle(instance_id).status() == status


async def has_ended(app: EddaApp, instance_id: str) -> bool:
    return await app.handle(instance_id).status() in ("completed", "failed", "cancelled", "compensation_failed")


async def _reason_has(app: EddaApp, instance_id: str, word: str) -> bool:
    return word in await app.handle(instance_id).reason()
