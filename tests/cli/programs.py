"""Workflows that the tests of the command line start; each test has a database of its own."""

from __future__ import annotations

from edda import RetryPolicy, WorkflowContext, activity, compensation, on_failure, wait_event, workflow


@activity
async def cli_charge(ctx: WorkflowContext, order_id: str) -> str:
    return f"charged {order_id}"


@activity(retry_policy=RetryPolicy(max_attempts=3, initial_interval=60))
async def cli_ship(ctx: WorkflowContext, order_id: str) -> str:
    raise TimeoutError("the carrier does not answer")


@compensation
async def cli_put_back(ctx: WorkflowContext, order_id: str) -> None: ...


@activity
@on_failure(cli_put_back)
async def cli_reserve(ctx: WorkflowContext, order_id: str) -> None: ...


@workflow(name="cli_sold_out")
async def sold_out(ctx: WorkflowContext, order_id: str) -> None:
    await cli_reserve(ctx, order_id)
    raise LookupError(f"no more {order_id}")


@workflow(name="cli_order")
async def order(ctx: WorkflowContext, order_id: str, amount: float = 1.0) -> str:
    await cli_charge(ctx, order_id)
    event = await wait_event(ctx, "cli.paid", match={"order_id": order_id}, timeout_seconds=3600)
    return f"{order_id} paid by {event.data['by']}"


@workflow(name="cli_shipping")
async def shipping(ctx: WorkflowContext, order_id: str) -> str:
    return await cli_ship(ctx, order_id)


@workflow(name="cli_approval")
async def approval(ctx: WorkflowContext) -> object:
    callback = await ctx.callback()
    await ctx.run("tell", _tell, callback.token)
    return await callback.wait()


async def _tell(token: str) -> str:
    return token


NOT_A_WORKFLOW = 7
