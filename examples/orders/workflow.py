"""What happens to an order: reserve the goods, take the money, ship, write to the customer. Or undo what was done.

`fulfil` is an ordinary async function. Each call of an activity is a step: its result is recorded, together with the
rows that it wrote through `ctx.session`. After a crash the function runs again from the top, recorded steps return what
they returned, and it goes on where it was. If it fails, the compensations of what it completed run, newest first.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

from pydantic import BaseModel

from edda import (
    RetryPolicy,
    WorkflowContext,
    activity,
    compensation,
    on_failure,
    on_failure_with_result,
    workflow,
)
from examples.orders.bank import Bank
from examples.orders.models import Mail, Movement, Payment, Shipment, Stock
from examples.orders.order import Order
from examples.orders.refusals import OrderRefused, OutOfStock, Undeliverable

BANK_FILE = "ORDERS_BANK_FILE"
"""Environment variable: where the bank is."""

PATIENT_WITH_THE_BANK = RetryPolicy(initial_interval=0.02, max_interval=0.5, max_attempts=10)

NOT_SERVED = {"Longyearbyen"}
"""Cities that the carrier does not go to."""


class Receipt(BaseModel):
    """The result of a fulfilled order."""

    order_id: str
    bank_reference: str
    parcel: str


@workflow
async def fulfil(ctx: WorkflowContext, order: Order) -> Receipt:
    try:
        for item in order.items:
            await reserve(ctx, order.id, item.sku, item.quantity)
        bank_reference = await charge(ctx, order.id, order.card, order.total_cents)
        parcel = await ship(ctx, order.id, order.city)
    except OrderRefused as refusal:
        await send_mail(ctx, order.id, order.email, "apology", f"Dear {order.customer}, we are sorry: {refusal}.")
        raise
    await send_mail(ctx, order.id, order.email, "confirmation", f"Dear {order.customer}, {parcel} is on its way.")
    return Receipt(order_id=order.id, bank_reference=bank_reference, parcel=parcel)


# -- goods -------------------------------------------------------------------------------------------------------------


@compensation
async def release(ctx: WorkflowContext, order_id: str, sku: str, quantity: int) -> None:
    await work()
    stock = await ctx.session.get_one(Stock, sku, with_for_update=True)
    stock.available += quantity
    ctx.session.add(Movement(order_id=order_id, kind="released", sku=sku, quantity=quantity))


@activity
@on_failure(release)
async def reserve(ctx: WorkflowContext, order_id: str, sku: str, quantity: int) -> None:
    await work()
    stock = await ctx.session.get_one(Stock, sku, with_for_update=True)
    if stock.available < quantity:
        raise OutOfStock(f"we cannot send you {quantity} × {sku}")
    stock.available -= quantity
    ctx.session.add(Movement(order_id=order_id, kind="reserved", sku=sku, quantity=quantity))


# -- money -------------------------------------------------------------------------------------------------------------


@compensation(retry_policy=PATIENT_WITH_THE_BANK)
async def refund(ctx: WorkflowContext, result: str, order_id: str, card: str, amount_cents: int) -> None:
    """`result` is what `charge` returned."""
    reference = await bank().refund(card, amount_cents, key=ctx.activity.idempotency_key)
    text = f"{reference} for {result}"
    ctx.session.add(Payment(order_id=order_id, kind="refunded", amount_cents=amount_cents, bank_reference=text))


@activity(retry_policy=PATIENT_WITH_THE_BANK)
@on_failure_with_result(refund)
async def charge(ctx: WorkflowContext, order_id: str, card: str, amount_cents: int) -> str:
    """Take the money; returns the bank's reference.

    The bank is outside of the transaction. If this process is killed after the bank has answered, the step runs again,
    with the same key, and gets the same reference.
    """
    reference = await bank().capture(card, amount_cents, key=ctx.activity.idempotency_key)
    ctx.session.add(Payment(order_id=order_id, kind="captured", amount_cents=amount_cents, bank_reference=reference))
    return reference


def bank() -> Bank:
    return Bank(Path(os.environ[BANK_FILE]))


# -- parcels and mails -------------------------------------------------------------------------------------------------


@activity
async def ship(ctx: WorkflowContext, order_id: str, city: str) -> str:
    """Hand it to the carrier; returns the parcel's number, the same however often this step is tried."""
    await work()
    if city in NOT_SERVED:
        raise Undeliverable(f"no carrier goes to {city}, and you get your money back")
    parcel = f"parcel {ctx.uuid().hex[:12]}"
    ctx.session.add(Shipment(order_id=order_id, city=city, parcel=parcel))
    return parcel


@activity
async def send_mail(ctx: WorkflowContext, order_id: str, recipient: str, kind: str, text: str) -> None:
    await work()
    ctx.session.add(Mail(order_id=order_id, recipient=recipient, kind=kind, text=text))


async def work() -> None:
    """What a warehouse, a carrier or a mail server takes. Before the first statement: a transaction should be short."""
    await asyncio.sleep(random.uniform(0.005, 0.035))
