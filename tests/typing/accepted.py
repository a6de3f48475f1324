"""What type checkers must accept, and the types they must find. Never run."""

from typing import assert_type

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import Mount

from edda import (
    EddaApp,
    RetryPolicy,
    WorkflowContext,
    WorkflowHandle,
    activity,
    compensation,
    on_failure,
    on_failure_with_result,
    register_compensation,
    send_event_transactional,
    wait_timer,
    workflow,
)
from edda.http import BearerToken, FirstOf, Grant, HttpOptions, Portal, StandardWebhooks
from edda.testing import CrashPoint, CrashTest, Fake, InMemoryApp, crash_anywhere, fake


class Receipt(BaseModel):
    payment_id: str
    amount: float


@compensation
async def release(ctx: WorkflowContext, item_id: str) -> None: ...


@compensation
async def refund(ctx: WorkflowContext, result: Receipt, amount: float) -> None: ...


@activity
@on_failure(release)
async def reserve(ctx: WorkflowContext, item_id: str) -> bool:
    return True


@activity(retry_policy=RetryPolicy(max_attempts=3), timeout=30, name="charge_card")
@on_failure_with_result(refund)
async def charge(ctx: WorkflowContext, amount: float) -> Receipt:
    ctx.session.add(Receipt(payment_id="P-1", amount=amount))
    await send_event_transactional(ctx, "charged", "payments", {"amount": amount})
    return Receipt(payment_id="P-1", amount=amount)


@activity
def count_words(ctx: WorkflowContext, text: str, *, minimum: int = 0) -> int:
    return max(minimum, len(text.split()))


def area(width: int, height: int) -> int:
    return width * height


async def fetch(url: str) -> bytes:
    return url.encode()


@workflow
async def order(ctx: WorkflowContext, item_id: str, amount: float = 1.0) -> Receipt:
    assert_type(await reserve(ctx, item_id), bool)
    receipt = await charge(ctx, amount=amount)
    assert_type(receipt, Receipt)
    assert_type(await count_words(ctx, "a b", minimum=1), int)
    assert_type(await ctx.run("area", area, 2, 3), int)
    assert_type(await ctx.run("fetch", fetch, "https://example.com"), bytes)
    await register_compensation(ctx, release, item_id)
    await register_compensation(ctx, refund, receipt, amount=amount)
    await wait_timer(ctx, duration_seconds=60)
    return receipt


@workflow(name="shop.parent", event_handler=True)
async def parent(ctx: WorkflowContext, item_ids: list[str]) -> int:
    assert_type(await order.run(item_ids[0]), Receipt)
    child = await order.options(id="child", detached=True).start(item_ids[0], amount=2)
    assert_type(await child.result(), Receipt)
    return len(item_ids)


async def use() -> None:
    async with EddaApp("shop", "sqlite:///shop.db", default_retry_policy=RetryPolicy()) as app:
        handle = await order.start("hat", amount=9.5)
        assert_type(handle, WorkflowHandle[Receipt])
        assert_type(await handle.result(timeout=5), Receipt)
        assert_type(await handle.status(), str)
        assert_type(await app.start(parent, item_ids=["hat"]), WorkflowHandle[int])
        assert_type(await parent.run(["hat"]), int)
        assert_type(await order.options(id="order-1").start(item_id="hat"), WorkflowHandle[Receipt])
        instance_id: str = handle
        await app.handle(instance_id).cancel()
        await order.options(id="order-2").on(app).run("hat")
        assert_type([event.event_type for event in await handle.history()], list[str])


def serve() -> None:
    hooks = StandardWebhooks("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    tokens = BearerToken("token", Grant(token="another", name="billing", types=("payment.*",)))
    app = EddaApp(authorizer=FirstOf(hooks, tokens), http=HttpOptions(max_in_flight=200))
    FastAPI(lifespan=app.lifespan).mount("/workflows", app)
    Starlette(routes=[Mount("/workflows", app)], lifespan=app.lifespan)
    portal = Portal(app)
    handle = portal.start(order, "hat", amount=9.5)
    assert_type(handle, WorkflowHandle[Receipt])
    assert_type(portal.call(handle.result()), Receipt)


def count_letters(ctx: WorkflowContext, text: str, *, minimum: int = 0) -> int:
    return max(minimum, len(text))


async def testing(app: InMemoryApp) -> None:
    with fake(reserve, returns=False) as reserving:
        assert_type(reserving, Fake[bool])
    with fake(count_words, outcomes=[OSError("away"), 7]), fake(count_words, raises=OSError("away")):
        ...
    with fake(count_words, by=count_letters) as counting:
        assert_type(counting, Fake[int])
    assert_type(await crash_anywhere(order, "hat", amount=2.0), list[CrashPoint])
    assert_type(await CrashTest().run(order, "hat"), list[CrashPoint])
    assert_type(await (await app.start(order, "hat")).result(), Receipt)
