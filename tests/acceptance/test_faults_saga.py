"""Faults W11-W16 of the reference, each as a test that fails on an engine that has it: compensations and cancelling."""

import asyncio
import json
from collections.abc import Callable

import pytest

from edda import (
    CompensationFailedError,
    EventTimeoutError,
    RetryPolicy,
    WorkflowCancelledException,
    WorkflowContext,
    activity,
    compensation,
    on_failure,
    register_compensation,
    wait_event,
    wait_timer,
    workflow,
)
from edda.naming import NameTakenError
from tests.acceptance.conftest import Apps
from tests.acceptance.processes import Program
from tests.acceptance.support import QUICK, SOON, Gate, events_of, on_every_database, reaches


async def test_W11_the_readmes_saga_compensates_with_the_arguments_of_each_call(apps: Apps) -> None:
    log: list[str] = []

    @compensation
    async def cancel_reservation(ctx: WorkflowContext, item_id: str) -> dict[str, bool]:
        log.append(f"Cancelled reservation for {item_id}")
        return {"cancelled": True}

    @activity
    @on_failure(cancel_reservation)
    async def reserve_inventory(ctx: WorkflowContext, item_id: str) -> dict[str, bool]:
        return {"reserved": True}

    @compensation
    async def refund_payment(ctx: WorkflowContext, payment_id: str, amount: float) -> None:
        log.append(f"Refunded {amount} of {payment_id}")

    @activity
    @on_failure(refund_payment)
    async def charge_payment(ctx: WorkflowContext, amount: float) -> dict[str, str]:
        return {"payment_id": "PAY-1", "status": "completed"}

    @workflow
    async def order_workflow(ctx: WorkflowContext, item: str) -> None:
        await reserve_inventory(ctx, item)
        await charge_payment(ctx, 9.5)
        raise ValueError("the address does not exist")

    handle = await (await apps.open()).start(order_workflow, "hat")
    with pytest.raises(ValueError, match="address"):
        await handle.result(timeout=SOON)
    assert log == ["Refunded 9.5 of PAY-1", "Cancelled reservation for hat"]


async def test_the_error_of_what_was_undone_says_where_it_was_raised(apps: Apps) -> None:
    @compensation
    async def close_account(ctx: WorkflowContext) -> None: ...

    @activity
    @on_failure(close_account)
    async def open_account(ctx: WorkflowContext) -> None: ...

    def refuse() -> None:
        raise ValueError("no")

    @workflow
    async def opens_an_account(ctx: WorkflowContext) -> None:
        await open_account(ctx)
        refuse()

    handle = await (await apps.open()).start(opens_an_account)
    with pytest.raises(ValueError, match="no"):
        await handle.result(timeout=SOON)
    *_, last = await handle.history()
    assert last.event_type == "WorkflowFailed"
    assert "in refuse" in json.dumps(last.event_data)


async def test_W12_what_the_body_registers_is_owed_once_however_often_it_is_replayed(apps: Apps) -> None:
    gate, second_gate, log = Gate(), Gate("second_gate"), list[str]()

    @compensation
    async def refund(ctx: WorkflowContext, payment_id: str) -> None:
        log.append(f"refunded {payment_id}")

    @workflow
    async def order(ctx: WorkflowContext) -> None:
        await register_compensation(ctx, refund, payment_id="PAY-1")
        await gate.pass_(ctx)
        await second_gate.pass_(ctx)
        raise ValueError("no")

    handle = await (await apps.open()).start(order)
    handle = await apps.restart_at(gate, handle)
    handle = await apps.restart_at(second_gate, handle)
    with pytest.raises(ValueError, match="no"):
        await handle.result(timeout=SOON)
    assert log == ["refunded PAY-1"]


async def test_W13_a_cancel_during_an_activity_waits_for_it_and_undoes_it(apps: Apps) -> None:
    gate, log = Gate(), list[str]()

    @compensation
    async def refund(ctx: WorkflowContext, amount: int) -> None:
        log.append(f"refunded {amount}")

    @activity
    @on_failure(refund)
    async def charge(ctx: WorkflowContext, amount: int) -> None:
        log.append(f"charging {amount}")
        try:
            await gate.pass_.function(ctx)
        except BaseException:
            log.append("interrupted")
            raise
        log.append(f"charged {amount}")

    @workflow
    async def order(ctx: WorkflowContext) -> None:
        try:
            await charge(ctx, 5)
        except Exception as error:
            log.append(f"the body saw {error!r}")

    @activity
    async def without_undo(ctx: WorkflowContext) -> None:
        await asyncio.Event().wait()

    @workflow
    async def other(ctx: WorkflowContext) -> None:
        await without_undo(ctx)

    app = await apps.open()
    handle, interrupted = await app.start(order), await app.start(other)
    await gate.reached()
    await handle.cancel()
    await interrupted.cancel()
    await reaches(interrupted, "cancelled")  # so the first one, too, has heard of its cancel
    gate.open()
    with pytest.raises(WorkflowCancelledException):
        await handle.result(timeout=SOON)
    assert log == ["charging 5", "charged 5", "refunded 5"]
    assert await handle.status() == "cancelled"


@pytest.mark.process
@on_every_database
def test_W14_an_instance_whose_worker_died_can_be_cancelled_and_is_undone(program: Callable[[str], Program]) -> None:
    order = program("""
        @compensation
        async def refund(ctx: WorkflowContext, amount: int) -> None:
            note(f"refunded {amount}")

        @activity
        @on_failure(refund)
        async def charge(ctx: WorkflowContext, amount: int) -> None:
            note(f"charged {amount}")

        @activity
        async def stuck(ctx: WorkflowContext) -> None:
            if ROUND == 1:
                crash()
            await forever()

        @workflow
        async def order(ctx: WorkflowContext) -> None:
            await charge(ctx, 5)
            await stuck(ctx)

        async def main():
            async with EddaApp(db_url=DB_URL, shutdown_grace_seconds=0.1) as app:
                if ROUND == 1:
                    await order.options(id="o-1").start()
                    await forever()
                handle = app.handle("o-1")
                await handle.cancel()
                try:
                    await handle.result(timeout=20)
                except Exception as error:
                    say(type(error).__name__)
                say(await handle.status())
    """)
    order.run_until_it_crashes()
    assert order.run() == ["WorkflowCancelledException", "cancelled"]
    assert order.notes == ["charged 5", "refunded 5"]


async def test_W15_the_timeout_of_an_event_can_be_caught_and_leaves_compensations_intact(apps: Apps) -> None:
    log: list[str] = []

    @compensation
    async def refund(ctx: WorkflowContext) -> None:
        log.append("refunded")

    @activity
    @on_failure(refund)
    async def charge(ctx: WorkflowContext) -> None: ...

    @workflow
    async def order(ctx: WorkflowContext) -> None:
        await charge(ctx)
        try:
            await wait_event(ctx, "never.sent", timeout_seconds=0.1)
        except EventTimeoutError:
            log.append("caught")
            raise

    handle = await (await apps.open()).start(order)
    with pytest.raises(EventTimeoutError):
        await handle.result(timeout=SOON)
    assert log == ["caught", "refunded"]


async def test_W16_a_failing_compensation_is_retried(apps: Apps) -> None:
    log: list[str] = []

    @compensation
    async def refund(ctx: WorkflowContext) -> None:
        log.append("refund")
        if len(log) < 3:
            raise ConnectionError("away")

    @activity
    @on_failure(refund)
    async def charge(ctx: WorkflowContext) -> None: ...

    @workflow
    async def order(ctx: WorkflowContext) -> None:
        await charge(ctx)
        raise ValueError("no")

    handle = await (await apps.open(default_retry_policy=QUICK)).start(order)
    with pytest.raises(ValueError, match="no"):
        await handle.result(timeout=SOON)
    assert log == ["refund"] * 3
    assert await handle.status() == "failed"


@on_every_database
async def test_W16_a_compensation_that_fails_for_good_is_seen_stops_no_other_and_can_be_repeated(apps: Apps) -> None:
    log: list[str] = []
    bank_is_open = False

    @compensation(retry_policy=RetryPolicy(max_attempts=2, initial_interval=0.001))
    async def undo(ctx: WorkflowContext, name: str) -> None:
        if name == "charge" and not bank_is_open:
            raise ConnectionError("the bank is closed")
        log.append(f"undone {name}")

    @activity
    @on_failure(undo)
    async def do(ctx: WorkflowContext, name: str) -> None: ...

    @workflow
    async def order(ctx: WorkflowContext) -> None:
        for name in ("reserve", "charge", "ship"):
            await do(ctx, name)
        raise ValueError("no")

    handle = await (await apps.open()).start(order)
    with pytest.raises(CompensationFailedError):
        await handle.result(timeout=SOON)
    assert await handle.status() == "compensation_failed"
    assert log == ["undone ship", "undone reserve"]
    assert len(await events_of(handle, "CompensationFailed")) == 1
    bank_is_open = True
    handle = (await apps.restart()).handle(handle)
    await handle.retry()
    await reaches(handle, "failed")
    assert log == ["undone ship", "undone reserve", "undone charge"]
    with pytest.raises(ValueError, match="no"):
        await handle.result(timeout=SOON)


@pytest.mark.parametrize("sort", ["workflow", "activity", "compensation"])
def test_W16_functions_of_one_name_in_two_modules_are_refused_when_they_are_imported(sort: str) -> None:
    def import_module(name: str) -> None:
        source = f"from edda import {sort}\n@{sort}\nasync def doubly_named_{sort}(ctx): ...\n"
        exec(source, {"__name__": name})

    import_module("shop.orders")
    with pytest.raises(NameTakenError, match=r"shop\.invoices.*shop\.orders"):
        import_module("shop.invoices")


async def test_W16_a_cancelled_wait_is_undone_and_the_body_cannot_swallow_it(apps: Apps) -> None:
    log: list[str] = []

    @compensation
    async def undo(ctx: WorkflowContext) -> None:
        log.append("undone")

    @activity
    @on_failure(undo)
    async def do(ctx: WorkflowContext) -> None: ...

    @workflow
    async def order(ctx: WorkflowContext) -> str:
        await do(ctx)
        try:
            await wait_timer(ctx, 3600)
        except Exception:
            log.append("swallowed")
        return "went on"

    handle = await (await apps.open()).start(order)
    await reaches(handle, "waiting_for_timer")
    await handle.cancel()
    with pytest.raises(WorkflowCancelledException):
        await handle.result(timeout=SOON)
    assert log == ["undone"]
