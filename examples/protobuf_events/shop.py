"""Events that carry protobuf: as JSON, which people can read, or as bytes, which stay bytes all the way."""

from __future__ import annotations

from google.protobuf import json_format

from edda import EddaApp, ReceivedEvent, WorkflowContext, activity, wait_event, workflow
from examples.protobuf_events.payments_pb2 import PaymentCompleted

app = EddaApp(db_url="sqlite:///payments.db")


@workflow(name="order.created", event_handler=True)
async def order(ctx: WorkflowContext, order_id: str) -> None:
    """The subject says which order an event is for: nobody can look into bytes for it."""
    event = await wait_event(ctx, "payment.completed", subject=order_id)
    payment = payment_of(event)
    await book(ctx, payment.order_id, payment.amount_cents, payment.bank_reference)


def payment_of(event: ReceivedEvent) -> PaymentCompleted:
    if isinstance(event.data, bytes):
        return PaymentCompleted.FromString(event.data)
    return json_format.ParseDict(event.data, PaymentCompleted())


@activity
async def book(ctx: WorkflowContext, order_id: str, cents: int, reference: str) -> None:
    print(f"{order_id}: {cents} cents, {reference}", flush=True)
