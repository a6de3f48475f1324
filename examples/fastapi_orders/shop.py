"""A shop in FastAPI. An order holds its goods until it is paid, for half an hour at most, or until it is cancelled."""

from __future__ import annotations

import os

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from edda import (
    EddaApp,
    Event,
    InstanceNotFoundError,
    NotCancellableError,
    WorkflowContext,
    activity,
    compensation,
    on_failure,
    workflow,
)

PAY_WITHIN_SECONDS = float(os.environ.get("PAY_WITHIN_SECONDS", "1800"))


class Payment(BaseModel):
    order_id: str
    cents: int


paid = Event[Payment]("order.paid", key="order_id")


# -- what happens to an order ------------------------------------------------------------------------------------------


@workflow
async def order(ctx: WorkflowContext, order_id: str, item: str) -> str:
    await reserve(ctx, order_id, item)
    payment = await paid.wait(ctx, key=order_id, timeout_seconds=PAY_WITHIN_SECONDS)
    return await ship(ctx, order_id, payment.cents)


@compensation
async def release(ctx: WorkflowContext, order_id: str, item: str) -> None:
    print(f"{order_id}: {item} is for sale again", flush=True)


@activity
@on_failure(release)
async def reserve(ctx: WorkflowContext, order_id: str, item: str) -> None:
    print(f"{order_id}: {item} is reserved", flush=True)


@activity
async def ship(ctx: WorkflowContext, order_id: str, cents: int) -> str:
    print(f"{order_id}: shipped, for {cents} cents", flush=True)
    return f"parcel-{order_id}"


# -- the web -----------------------------------------------------------------------------------------------------------

edda = EddaApp(db_url=os.environ.get("DATABASE_URL", "sqlite:///shop.db"))
api = FastAPI(lifespan=edda.lifespan)
api.mount("/workflows", edda)  # takes the payments: CloudEvents from the bank


@api.put("/orders/{order_id}", status_code=202)
async def place(order_id: str, item: str) -> dict[str, str]:
    """As often as you like: the order's id is the workflow's, so it is started once."""
    await edda.start(order.options(id=order_id), order_id, item)
    return await look(order_id)


@api.get("/orders/{order_id}")
async def look(order_id: str) -> dict[str, str]:
    handle = edda.handle(order_id)
    try:
        return {"status": await handle.status(), "reason": await handle.reason()}
    except InstanceNotFoundError as error:
        raise HTTPException(404, "no such order") from error


@api.delete("/orders/{order_id}", status_code=202)
async def cancel(order_id: str) -> dict[str, str]:
    try:
        await edda.handle(order_id).cancel()
    except InstanceNotFoundError as error:
        raise HTTPException(404, "no such order") from error
    except NotCancellableError as error:
        raise HTTPException(409, "too late") from error
    return {"status": "cancelling"}
