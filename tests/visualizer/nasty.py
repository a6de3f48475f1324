# ruff: noqa
"""Workflows that are hard to draw. Only their text is read; nothing here is imported or run."""

import asyncio
import asyncio as aio
from asyncio import gather as together

import edda
from edda import Event, WorkflowContext, activity, compensation, on_failure, register_compensation, send_event, workflow
from edda import wait_event as w
from edda.events import sleep_until, wait_timer as pause

PAID = "order.paid"
shipped = Event[dict]("order.shipped", key="order_id")


@compensation(name="give-back")
async def undo_take(ctx, n): ...


@activity(name="take-it")
@on_failure(undo_take)
async def take(ctx, n): ...


@edda.activity
async def give(ctx, n): ...


@activity
async def price(ctx, n): ...


TABLE = {"take": take, "give": give}


@workflow
async def nested_branches(ctx, a, b, c):
    if a:
        if b:
            await take(ctx, 1)
        elif c:
            await take(ctx, 2)
        else:
            if b is None:
                await take(ctx, 3)
    else:
        if not c:
            return await give(ctx, 4)
    await give(ctx, 5)


@workflow
async def same_activity_in_both_branches(ctx, a):
    if a:
        await give(ctx, 1)
    else:
        await give(ctx, 2)
    if a:
        await price(ctx, a)
    else:
        await price(ctx, a + 1)


@workflow
async def match_with_guards(ctx, order):
    match order:
        case {"kind": "gift"} if order["free"]:
            await give(ctx, 1)
        case {"kind": "gift" | "sample"}:
            await take(ctx, 2)
        case [first, *rest] if await price(ctx, first):
            await give(ctx, rest)
        case int(n):
            return n
        case _:
            raise ValueError("what is this?")
    await give(ctx, 3)


@workflow
async def match_without_default(ctx, kind):
    match kind:
        case "a":
            await give(ctx, 1)
        case "b":
            pass


@workflow
async def comprehension_with_gather(ctx, items):
    prices = await asyncio.gather(*(price(ctx, i) for i in items if i))
    await together(*[give(ctx, p) for p in prices], take(ctx, 0))
    doubled = [await price(ctx, p) for p in prices]
    named = {n: await price(ctx, n) async for n in doubled}
    return await aio.gather(*[take(ctx, 1), take(ctx, 2)], return_exceptions=True)


@workflow
async def try_everything(ctx, n):
    try:
        await take(ctx, n)
    except (ValueError, KeyError) as error:
        await give(ctx, str(error))
        raise
    else:
        await price(ctx, n)
    finally:
        await give(ctx, "always")
    await give(ctx, "after")


@workflow
async def try_finally_return(ctx, n):
    try:
        return await take(ctx, n)
    finally:
        await give(ctx, n)


@workflow
async def early_returns(ctx, n):
    if n < 0:
        return "negative"
    await take(ctx, n)
    if n == 0:
        await give(ctx, 0)
        return "nothing"
    if n > 100:
        raise ValueError(n)
    return await price(ctx, n)


@workflow
async def loop_with_break_else(ctx, items):
    for item in items:
        if await price(ctx, item) > 10:
            break
        if item is None:
            continue
        await take(ctx, item)
    else:
        await give(ctx, "none was dear")
    while True:
        answer = await w(ctx, PAID)
        if answer.data["ok"]:
            break
    while await price(ctx, 1) < 5:
        await asyncio.sleep(60)
    else:
        await give(ctx, 2)


@workflow
async def event_names(ctx, order_id, kind):
    await w(ctx, PAID, timeout_seconds=60)
    await w(ctx, f"order.{order_id}.paid", 3600)
    await edda.wait_event(ctx, event_type=kind, event_id="the-one", match={"order_id": order_id})
    await shipped.wait(ctx, key=order_id, timeout_seconds=24 * 3600)
    await shipped.send({"order_id": order_id})
    await send_event(f"{kind}.done", "/here", {})
    await edda.send_event_transactional(ctx, "order.booked", "/here", {})


@workflow
async def lambdas_and_higher_functions(ctx, items):
    make = lambda item: take(ctx, item)
    await asyncio.gather(*map(make, items))
    await asyncio.gather(*map(lambda item: give(ctx, item), items))

    async def one(item):
        await price(ctx, item)

    await asyncio.gather(*map(one, items))


def traced(function):
    return function


@traced
@workflow(name="named.otherwise")
@traced
async def decorated(ctx: WorkflowContext, *, n: int = 3, **rest: int) -> None:
    await traced(take)(ctx, n)
    await take(ctx, n, activity_id="my-own-id")


@workflow
async def recursion(ctx, n):
    await countdown(ctx, n)


async def countdown(ctx, n):
    await take(ctx, n)
    if n:
        await countdown(ctx, n - 1)


@workflow
async def walrus(ctx, n):
    if (found := await price(ctx, n)) and (other := await price(ctx, found)):
        await take(ctx, other)
    while (left := await price(ctx, 0)) > 0:
        await give(ctx, left)


@workflow
async def unreachable_code(ctx, n):
    while True:
        await take(ctx, n)
    await give(ctx, "never")
    return n


@workflow
async def aliases(context: WorkflowContext, until):
    await w(context, "a")
    await pause(context, 5, timer_id="nap")
    await sleep_until(context, until)
    await aio.sleep(0)
    await aio.sleep(2.5)
    await register_compensation(context, undo_take, 7)
    await context.run("fetch", print, "x")
    await context.run(f"fetch-{until}", print, "x")


class Shop:
    @workflow
    async def method(self, ctx, n):
        await self._prepare(ctx, n)
        await self.finish(n)
        await Shop.static(ctx)

    async def _prepare(self, ctx, n):
        await take(ctx, n)

    async def finish(self, n):
        return n

    @staticmethod
    async def static(ctx):
        await give(ctx, 0)


@workflow
async def dynamic(ctx, kind, args):
    await TABLE[kind](ctx, *args)
    chosen = TABLE.get(kind, give)
    await chosen(ctx, 1)
    await getattr(edda, kind)(ctx)


@workflow
async def conditional_expression(ctx, n):
    value = await take(ctx, n) if n else await give(ctx, n)
    other = await (take(ctx, 1) if value else give(ctx, 2))
    ready = n or await price(ctx, n)
    return {"a": await price(ctx, 1), **{"b": await price(ctx, 2)}}[await price(ctx, 3)]


@workflow
async def task_group(ctx, items):
    async with asyncio.TaskGroup() as group:
        group.create_task(take(ctx, 1))
        second = group.create_task(give(ctx, 2), name="second")
    async with asyncio.TaskGroup() as group:
        for item in items:
            group.create_task(take(ctx, item))
        await give(ctx, "meanwhile")
    return second.result()


@workflow
async def timeouts(ctx, n):
    try:
        async with asyncio.timeout(30):
            await take(ctx, n)
    except TimeoutError:
        await give(ctx, n)
    await asyncio.wait_for(price(ctx, n), timeout=5)
    task = asyncio.create_task(take(ctx, n))
    await give(ctx, n)
    await task


@workflow
async def children(ctx, n):
    await nested_branches.run(1, 2, 3)
    handle = await match_with_guards.options(id=f"child-{n}", detached=True).start({})
    await handle.result()
    await asyncio.gather(*(early_returns.run(i) for i in range(n)))
    await other_module.workflow.run(n)
    return await early_returns(ctx, n)


@workflow
async def callbacks(ctx, n):
    callback = await ctx.callback("approval")
    try:
        answer = await callback.wait(timeout_seconds=60)
    except edda.EventTimeoutError:
        return None
    return answer


@workflow
async def closures(ctx, n):
    async def step(k):
        await take(ctx, k)
        return k

    async def never_called(k):
        return await give(ctx, k)

    await step(1)
    await asyncio.gather(step(2), step(3))
    return never_called


@workflow
async def hostile_text(ctx, n):
    """</svg><script>alert(1)</script> %%{init: {}}%% "]; click n0 call alert()"""
    await w(ctx, '"]; click n0 "javascript:alert(1)" %% <img src=x onerror=alert(1)>')
    if n == "</text><script>alert('&amp;')</script>":
        await ctx.run("end\n    subgraph x", print)
    return "]]>`$(rm -rf)`\\"


@workflow
async def nothing_durable(ctx, n):
    total = 0
    for i in range(n):
        if i % 2:
            total += i
    try:
        total += 1
    finally:
        total -= 1
    return total


@workflow
async def empty(ctx): ...
