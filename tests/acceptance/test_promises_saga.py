"""Promises R70-R78: compensations."""

from typing import Any

import pytest
from pydantic import BaseModel

from edda import TerminalError, WorkflowContext, WorkflowHandle, activity, compensation, on_failure, workflow
from tests.acceptance.conftest import Apps
from tests.acceptance.support import SOON, Gate, events_of, on_every_database


class Warehouse:
    """The reference's saga sample, and what it did to the world."""

    def __init__(self) -> None:
        self.log: list[str] = []
        log = self.log

        @compensation
        async def cancel_reservation(ctx: WorkflowContext, item_id: str) -> dict[str, bool]:
            log.append(f"cancelled {item_id}")
            return {"cancelled": True}

        @activity
        @on_failure(cancel_reservation)
        async def reserve_inventory(ctx: WorkflowContext, item_id: str) -> dict[str, bool]:
            if item_id == "sold out":
                raise TerminalError("sold out")
            log.append(f"reserved {item_id}")
            return {"reserved": True}

        @activity
        async def charge_payment(ctx: WorkflowContext) -> None:
            log.append("charge fails")
            raise TerminalError("card refused")

        @workflow
        async def order_workflow(ctx: WorkflowContext, item1: str, item2: str) -> None:
            await reserve_inventory(ctx, item1)
            await reserve_inventory(ctx, item2)
            await charge_payment(ctx)

        self.order_workflow = order_workflow


async def fails(handle: WorkflowHandle[Any], error: type[Exception] = TerminalError) -> None:
    with pytest.raises(error):
        await handle.result(timeout=SOON)
    assert await handle.status() == "failed"


@on_every_database
async def test_R070_when_a_workflow_fails_its_executed_activities_are_compensated(apps: Apps) -> None:
    warehouse = Warehouse()
    handle = await (await apps.open()).start(warehouse.order_workflow, "hat", "coat")
    await fails(handle)
    assert {"cancelled hat", "cancelled coat"} <= set(warehouse.log)
    assert len(await events_of(handle, "CompensationExecuted")) == 2


@on_every_database
async def test_R071_compensations_run_in_reverse_order(apps: Apps) -> None:
    log: list[int] = []

    @compensation
    async def undo(ctx: WorkflowContext, number: int) -> None:
        log.append(number)

    @activity
    @on_failure(undo)
    async def do(ctx: WorkflowContext, number: int) -> None: ...

    @workflow
    async def failing(ctx: WorkflowContext) -> None:
        for number in range(8):
            await do(ctx, number)
        raise ValueError("too much")

    handle = await (await apps.open()).start(failing)
    await fails(handle, ValueError)
    assert log == [7, 6, 5, 4, 3, 2, 1, 0]
    executed = await events_of(handle, "CompensationExecuted")
    assert [event.seq for event in executed] == sorted(event.seq for event in executed)
    assert len(executed) == 8


async def test_R072_only_completed_activities_are_compensated_and_not_the_failing_one(apps: Apps) -> None:
    warehouse = Warehouse()
    handle = await (await apps.open()).start(warehouse.order_workflow, "hat", "sold out")
    await fails(handle)
    assert warehouse.log == ["reserved hat", "cancelled hat"]


@on_every_database
async def test_R073_after_a_and_b_when_c_fails_b_is_undone_and_then_a(apps: Apps) -> None:
    log: list[str] = []

    def undo_of(name: str) -> Any:
        @compensation(name=f"undo_{name}")
        async def undo(ctx: WorkflowContext) -> None:
            log.append(f"undo {name}")

        return undo

    @activity
    @on_failure(undo_of("a"))
    async def a(ctx: WorkflowContext) -> None: ...

    @activity
    @on_failure(undo_of("b"))
    async def b(ctx: WorkflowContext) -> None: ...

    @activity
    @on_failure(undo_of("c"))
    async def c(ctx: WorkflowContext) -> None:
        raise TerminalError("c fails")

    @workflow
    async def abc(ctx: WorkflowContext) -> None:
        await a(ctx)
        await b(ctx)
        await c(ctx)

    await fails(await (await apps.open()).start(abc))
    assert log == ["undo b", "undo a"]


async def test_R074_a_compensation_may_return_a_dict(apps: Apps) -> None:
    warehouse = Warehouse()
    handle = await (await apps.open()).start(warehouse.order_workflow, "hat", "coat")
    await fails(handle)
    assert len(await events_of(handle, "CompensationExecuted")) == 2
    assert not await events_of(handle, "CompensationFailed")


async def test_R075_activity_over_on_failure_links_them_also_with_options(apps: Apps) -> None:
    log: list[str] = []

    @compensation
    async def release(ctx: WorkflowContext, room: int) -> None:
        log.append(f"released {room}")

    @activity(name="book_a_room", timeout=30)
    @on_failure(release)
    def book(ctx: WorkflowContext, room: int) -> int:
        return room

    @workflow
    async def travelling(ctx: WorkflowContext) -> None:
        await book(ctx, 7)
        raise ValueError("the flight is cancelled")

    await fails(await (await apps.open()).start(travelling), ValueError)
    assert log == ["released 7"]


async def test_R076_a_compensation_gets_arguments_passed_by_position_and_no_surplus_result_keys(apps: Apps) -> None:
    warehouse = Warehouse()
    handle = await (await apps.open()).start(warehouse.order_workflow, "hat", "coat")
    await fails(handle)
    assert warehouse.log[-1] == "cancelled hat"
    assert not await events_of(handle, "CompensationFailed")


class Booking(BaseModel):
    booking_id: str
    room: int


async def test_R076_a_compensation_may_take_result_keys_and_the_whole_result_too(apps: Apps) -> None:
    gate, log = Gate(), list[object]()

    @compensation
    async def cancel_booking(ctx: WorkflowContext, room: int, booking_id: str, result: Booking) -> None:
        log.append((room, booking_id, result))

    @activity
    @on_failure(cancel_booking)
    async def book(ctx: WorkflowContext, room: int) -> Booking:
        return Booking(booking_id=f"B-{room}", room=room + 1)

    @workflow
    async def travelling(ctx: WorkflowContext) -> None:
        await book(ctx, 7)
        await gate.pass_(ctx)
        raise ValueError("the flight is cancelled")

    handle = await (await apps.open()).start(travelling)
    await fails(await apps.restart_at(gate, handle), ValueError)
    assert log == [(7, "B-7", Booking(booking_id="B-7", room=8))]


@on_every_database
async def test_R077_an_activity_used_twice_is_undone_twice_each_with_its_own_argument(apps: Apps) -> None:
    warehouse = Warehouse()
    await fails(await (await apps.open()).start(warehouse.order_workflow, "hat", "coat"))
    assert warehouse.log == ["reserved hat", "reserved coat", "charge fails", "cancelled coat", "cancelled hat"]


async def test_R078_nothing_is_registered_by_hand(apps: Apps) -> None:
    gate, log = Gate(), list[str]()

    async def plain_function(ctx: WorkflowContext, item: str) -> None:
        log.append(f"put back {item}")

    @activity
    @on_failure(plain_function)
    async def take(ctx: WorkflowContext, item: str) -> None: ...

    @workflow
    async def shopping(ctx: WorkflowContext) -> None:
        await take(ctx, item="pear")
        await gate.pass_(ctx)
        raise ValueError("no money")

    handle = await (await apps.open()).start(shopping)
    await fails(await apps.restart_at(gate, handle), ValueError)
    assert log == ["put back pear"]
