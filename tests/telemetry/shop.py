"""A worker process of a shop, traced as a user would: a global provider that exports to an OTLP receiver, and no more.

`python -m tests.telemetry.shop DATABASE SINK RECEIVER` serves its app on a free port, and says which.
"""

from __future__ import annotations

import asyncio
import sys

import uvicorn
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from edda import EddaApp, WorkflowContext, activity, send_event_transactional, wait_event, workflow


@activity
async def charge_traced(ctx: WorkflowContext, order_id: str) -> str:
    await send_event_transactional(ctx, "order.charged", "shop", {"order_id": order_id})
    return "charged"


@activity
async def ship_traced(ctx: WorkflowContext, order_id: str) -> str:
    await send_event_transactional(ctx, "order.shipped", "shop", {"order_id": order_id})
    return "shipped"


@workflow(name="order.placed", event_handler=True)
async def traced_order(ctx: WorkflowContext, order_id: str) -> str:
    await charge_traced(ctx, order_id)
    await wait_event(ctx, "payment.received", match={"order_id": order_id})
    return await ship_traced(ctx, order_id)


class Announced(uvicorn.Server):
    """Says on which port it is, when it is up."""

    async def startup(self, sockets: list[object] | None = None) -> None:
        await super().startup(sockets)  # type: ignore[arg-type]
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)


async def main(database: str, sink: str, receiver: str) -> None:
    provider = TracerProvider()
    # At once, so that nothing is lost when this process is killed.
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=receiver)))
    trace.set_tracer_provider(provider)
    app = EddaApp(service_name="shop", db_url=database, outbox_enabled=True, broker_url=sink, poll_seconds=0.1)
    async with app:
        await Announced(uvicorn.Config(app, port=0, lifespan="off", log_level="warning")).serve()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
