"""What type checkers must reject: each line that ends with `# rejected`, and no other. Never run."""

from edda import (
    EddaApp,
    RetryPolicy,
    WorkflowContext,
    activity,
    compensation,
    on_failure,
    on_failure_with_result,
    register_compensation,
    send_event_transactional,
    wait_timer,
    workflow,
)
from edda.testing import crash_anywhere, fake


@compensation
async def release(ctx: WorkflowContext, item_id: str) -> None: ...


@compensation
async def refund(ctx: WorkflowContext, result: int, item_id: str) -> None: ...


@activity
@on_failure(release)
async def reserve(ctx: WorkflowContext, item_id: str) -> bool:
    return True


@workflow
async def order(ctx: WorkflowContext, item_id: str, amount: float) -> bool:
    await reserve(ctx, 7)  # rejected
    await reserve(ctx)  # rejected
    await reserve(ctx, "hat", "coat")  # rejected
    await reserve(ctx, item="hat")  # rejected
    await reserve("hat")  # rejected
    reserved: str = await reserve(ctx, "hat")  # rejected
    await ctx.run("length", len, 7)  # rejected
    await register_compensation(ctx, release, 7)  # rejected
    await register_compensation(ctx, release, item="hat")  # rejected
    await wait_timer(ctx, seconds=60)  # rejected
    await wait_timer(ctx, duration_seconds="a minute")  # rejected
    await send_event_transactional(ctx, "ordered", "shop", event_date={})  # rejected
    return reserved == "yes"


async def starting(app: EddaApp) -> None:
    await order.start("hat", amount="cheap")  # rejected
    await order.start(item_id="hat")  # rejected
    await order.start("hat", 9.5, "surplus")  # rejected
    await order.start(item_id="hat", amuont=9.5)  # rejected
    await order.run(7, 9.5)  # rejected
    await app.start(order, "hat", amount=None)  # rejected
    await app.start(order, "hat", amuont=9.5)  # rejected
    await order.options(id=7).start("hat", 9.5)  # rejected
    await order.options(idd="order-1").start("hat", 9.5)  # rejected
    await order.options(id="order-1").start(9.5, "hat")  # rejected
    text: str = await order.run("hat", 9.5)  # rejected
    handle = await order.start("hat", 9.5)
    number = len(await handle.result())  # rejected
    (await handle.result()).split()  # rejected
    print(text, number)


@activity
@on_failure(release)  # rejected
async def reserve_by_number(ctx: WorkflowContext, number: int) -> bool:
    return True


@activity
@on_failure_with_result(refund)  # rejected
async def charge(ctx: WorkflowContext, item_id: str) -> str:
    return "charged"


@activity(retry_policy=RetryPolicy(max_atempts=3))  # rejected
async def misspelt_policy(ctx: WorkflowContext) -> None: ...


@activity(retry=RetryPolicy())  # rejected
async def misspelt_option(ctx: WorkflowContext) -> None: ...


@activity  # rejected
async def without_context() -> None: ...


@workflow  # rejected
def not_async(ctx: WorkflowContext) -> None: ...


def constructing() -> None:
    EddaApp(db_ulr="sqlite:///shop.db")  # rejected
    EddaApp(default_retry_policy=5)  # rejected


async def testing() -> None:
    fake(order, returns=True)  # rejected
    fake(reserve)  # rejected
    fake(reserve, returns=True, raises=OSError())  # rejected
    fake(reserve, by=lambda ctx: True)  # rejected
    await crash_anywhere(order, "hat", amount="cheap")  # rejected
