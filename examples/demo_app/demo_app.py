"""An EddaApp is a web application of its own. Events start workflows here, and resume them."""

from __future__ import annotations

from edda import EddaApp, EventTimeoutError, ReceivedEvent, WorkflowContext, activity, wait_event, workflow

application = EddaApp(db_url="sqlite:///demo.db", service_name="demo")


@workflow(name="order.created", event_handler=True)
async def order(ctx: WorkflowContext, order_id: str) -> str:
    """Started by each event `order.created`; its data are the arguments."""
    await say(ctx, f"{order_id} waits for its payment")
    try:
        payment = await wait_event(ctx, "payment.completed", match={"order_id": order_id}, timeout_seconds=3600)
    except EventTimeoutError:
        return await say(ctx, f"{order_id} was never paid")
    return await say(ctx, f"{order_id} is paid: {payment.data['amount']}")


@activity
async def say(ctx: WorkflowContext, what: str) -> str:
    print(what, flush=True)
    return what


@application.on_event("customer.registered")
async def welcome(event: ReceivedEvent) -> None:
    """Called for each such event: at least once, with retries, and also if this process died in between."""
    print(f"welcome, {event.data['name']}", flush=True)
