"""Declared events and callbacks: the typed way to wait, to send, and to ask somebody outside."""

import pytest
from pydantic import BaseModel, ValidationError

from edda import Callback, Event, EventTimeoutError, WorkflowContext, activity, workflow
from tests.acceptance.conftest import Apps
from tests.acceptance.support import SOON, Gate, Tables, events_of, eventually, on_every_database, reaches
from tests.acceptance.test_promises_overview import post


class Paid(BaseModel):
    order_id: str
    amount: int


paid = Event[Paid]("declared.paid", key="order_id")
tokens: list[str] = []


@pytest.fixture(autouse=True)
def no_tokens_of_others() -> None:
    tokens.clear()


@workflow
async def paid_order(ctx: WorkflowContext, order_id: str) -> int:
    payment = await paid.wait(ctx, key=order_id, timeout_seconds=60)
    return payment.amount


@activity
async def ask_boss(ctx: WorkflowContext, token: str) -> None:
    tokens.append(token)


@workflow
async def approval(ctx: WorkflowContext, patience: float) -> object:
    callback = await ctx.callback("approval")
    await ask_boss(ctx, callback.token)
    try:
        return await callback.wait(timeout_seconds=patience)
    except EventTimeoutError:
        return "nobody answered"


@on_every_database
async def test_a_declared_event_is_waited_for_by_key_and_comes_typed(apps: Apps) -> None:
    app = await apps.open()
    a, b = await app.start(paid_order, "A"), await app.start(paid_order, "B")
    await paid.send(Paid(order_id="B", amount=2))
    assert await b.result(timeout=SOON) == 2
    await paid.send(Paid(order_id="A", amount=1))
    assert await a.result(timeout=SOON) == 1


async def test_an_event_declared_without_a_key_says_so(apps: Apps) -> None:
    plain = Event[Paid]("declared.plain")

    @workflow
    async def wrong(ctx: WorkflowContext) -> None:
        await plain.wait(ctx, key="x")

    handle = await (await apps.open()).start(wrong)
    with pytest.raises(TypeError, match="without key="):
        await handle.result(timeout=SOON)


@on_every_database
async def test_a_callback_is_answered_once_by_who_has_its_token(apps: Apps) -> None:
    app = await apps.open()
    handle = await app.start(approval, 60)
    token = await eventually(lambda: tokens and tokens[-1])
    await reaches(handle, "waiting_for_event")
    app = await apps.restart()
    assert await app.complete(token, {"approved": True})
    assert await app.handle(handle).result(timeout=SOON) == {"approved": True}
    assert not await app.complete(token, {"approved": False})
    assert len(await events_of(app.handle(handle), "EventReceived")) == 1


@on_every_database
async def test_who_knows_the_instance_but_not_the_token_answers_nothing(apps: Apps, tables: Tables) -> None:
    app = await apps.open()
    handle = await app.start(approval, 60)
    token = await eventually(lambda: tokens and tokens[-1])
    forged = "guessed." + token.partition(".")[2]
    with pytest.raises(ValueError, match="not the token"):
        await app.complete(forged, {"approved": True})
    assert await post(app, {}, b'{"approved": true}', path=f"/callback/{forged}") == 404
    assert await tables.rows("SELECT id FROM edda_inbox") == []
    assert await app.complete(token, {"approved": False})
    assert await handle.result(timeout=SOON) == {"approved": False}


async def test_the_first_answer_to_a_callback_counts(apps: Apps) -> None:
    gate = Gate("before the wait")

    @workflow
    async def late(ctx: WorkflowContext) -> object:
        callback: Callback = await ctx.callback()
        await ask_boss(ctx, callback.token)
        await gate.pass_(ctx)
        return await callback.wait()

    app = await apps.open()
    handle = await app.start(late)
    token = await eventually(lambda: tokens and tokens[-1])
    assert await app.complete(token, "first")
    assert not await app.complete(token, "second")
    gate.open()
    assert await handle.result(timeout=SOON) == "first"


@pytest.mark.parametrize("instance_id", ["approval-1", "approval-" + "1" * 246])
async def test_a_callback_can_be_answered_over_http(apps: Apps, instance_id: str) -> None:
    app = await apps.open()
    handle = await app.start(approval.options(id=instance_id), 60)
    token = await eventually(lambda: tokens and tokens[-1])
    assert await post(app, {}, b'{"approved": 1}', path=f"/callback/{token}") == 202
    assert await handle.result(timeout=SOON) == {"approved": 1}
    assert await post(app, {}, b"{}", path=f"/callback/{token}") == 202
    assert await post(app, {}, b"{}", path=f"/callback/other{token}") == 404
    assert await post(app, {}, b"{}", path="/callback/nonsense") == 404
    assert await post(app, {}, b"{", path=f"/callback/{token}") == 400


@on_every_database
async def test_an_answer_that_does_not_fit_is_an_error_in_the_workflow_which_may_ask_again(apps: Apps) -> None:
    """The first answer counts, so there will be no other to this question: going on waiting would be for ever."""

    @workflow
    async def persistent(ctx: WorkflowContext) -> object:
        while True:
            callback = await ctx.callback()
            await ask_boss(ctx, callback.token)
            try:
                return await callback.wait(model=Paid)
            except ValidationError:
                continue

    app = await apps.open()
    handle = await app.start(persistent)
    for number, answer in enumerate(({"order": "7"}, b"order_id=7", {"order_id": "7", "amount": "3"}), start=1):
        await eventually(lambda number=number: len(tokens) == number)
        await reaches(app.handle(handle), "waiting_for_event")
        app = await apps.restart()
        assert await app.complete(tokens[-1], answer)
    assert await app.handle(handle).result(timeout=SOON) == Paid(order_id="7", amount=3)


async def test_an_answer_that_does_not_fit_and_that_nobody_catches_fails_the_workflow(apps: Apps) -> None:
    @workflow
    async def asking(ctx: WorkflowContext) -> object:
        callback = await ctx.callback()
        await ask_boss(ctx, callback.token)
        return await callback.wait(model=Paid)

    app = await apps.open()
    handle = await app.start(asking)
    token = await eventually(lambda: tokens and tokens[-1])
    assert await app.complete(token, {"order": "7"})
    assert await reaches(handle, "failed") == "failed"
    assert "order_id" in await handle.reason()


async def test_a_callback_that_nobody_answers_times_out(apps: Apps) -> None:
    handle = await (await apps.open()).start(approval, 0.1)
    assert await handle.result(timeout=SOON) == "nobody answered"
    await eventually(lambda: tokens and tokens[-1])


async def test_what_is_no_token_is_refused(apps: Apps) -> None:
    app = await apps.open()
    for nonsense in ("", "x", "x.", "a.!!", "a.////"):
        with pytest.raises(Exception, match=r"no token|not the token|no workflow instance|There is no"):
            await app.complete(nonsense, {})
