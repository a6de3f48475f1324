"""Promises R85-R88: pydantic models as arguments and results."""

import pytest
from pydantic import BaseModel, Field, ValidationError

from edda import WorkflowContext, activity, workflow
from tests.acceptance.conftest import Apps
from tests.acceptance.support import SOON, Gate, Tables, events_of, on_every_database, results_of


class OrderItem(BaseModel):
    item_id: str
    quantity: int = Field(..., ge=1)
    price: float = Field(..., gt=0)


ITEMS = [OrderItem(item_id="pen", quantity=2, price=1.5), OrderItem(item_id="book", quantity=1, price=20)]


async def test_R085_a_list_of_models_arrives_as_models_on_the_first_run_and_on_replay(apps: Apps) -> None:
    gate, seen = Gate(), list[list[OrderItem]]()

    @workflow
    async def process_order(ctx: WorkflowContext, items: list[OrderItem]) -> float:
        seen.append(items)
        await gate.pass_(ctx)
        return sum(item.price * item.quantity for item in items)

    handle = await (await apps.open()).start(process_order, items=ITEMS)
    assert await (await apps.restart_at(gate, handle)).result(timeout=SOON) == 23.0
    assert seen == [ITEMS, ITEMS]
    assert all(isinstance(item, OrderItem) for items in seen for item in items)


@on_every_database
@pytest.mark.parametrize("wrong", [{"quantity": 0}, {"price": 0}, {"price": "cheap"}, {"item_id": None}])
async def test_R086_invalid_input_starts_nothing_and_leaves_no_trace(
    apps: Apps, tables: Tables, wrong: dict[str, object]
) -> None:
    entered: list[object] = []

    @workflow
    async def process_order(ctx: WorkflowContext, items: list[OrderItem]) -> None:
        entered.append(items)

    app = await apps.open()
    item = {"item_id": "pen", "quantity": 1, "price": 1.0} | wrong
    with pytest.raises(ValidationError):
        await app.start(process_order, items=[item])
    with pytest.raises((ValidationError, TypeError)):
        await app.start(process_order)
    assert await tables.count("edda_instance") == 0
    assert not entered


async def test_R087_single_models_are_stored_as_json_and_restored(apps: Apps, tables: Tables) -> None:
    gate, seen = Gate(), list[object]()

    class Receipt(BaseModel):
        item: OrderItem
        total: float
        note: str | None = None

    @activity
    async def charge(ctx: WorkflowContext, item: OrderItem) -> Receipt:
        assert isinstance(item, OrderItem)
        return Receipt(item=item, total=item.price * item.quantity)

    @workflow
    async def buying(ctx: WorkflowContext, item: OrderItem) -> Receipt:
        receipt = await charge(ctx, item)
        seen.append(receipt)
        await gate.pass_(ctx)
        return receipt

    handle = await (await apps.open()).start(buying, ITEMS[0])
    result = await (await apps.restart_at(gate, handle)).result(timeout=SOON)
    assert result == Receipt(item=ITEMS[0], total=3.0)
    assert seen == [result, result]
    assert isinstance(result, Receipt)
    ((stored,),) = await tables.rows("SELECT output FROM edda_history WHERE call_id = 'charge:1'")
    assert '"item_id"' in stored


async def test_R088_a_workflow_annotated_to_return_a_dict_returns_one(apps: Apps) -> None:
    @activity
    async def price(ctx: WorkflowContext, item: OrderItem) -> dict:  # type: ignore[type-arg]
        return {"item": item.item_id, "price": item.price}

    @workflow
    async def process_order(ctx: WorkflowContext, items: list[OrderItem]) -> dict:  # type: ignore[type-arg]
        priced = [await price(ctx, item) for item in items]
        return {"total": sum(each["price"] for each in priced), "item_count": len(items)}

    handle = await (await apps.open()).start(process_order, ITEMS)
    assert await handle.result(timeout=SOON) == {"total": 21.5, "item_count": 2}
    assert (await results_of(handle))["price:1"] == {"item": "pen", "price": 1.5}
    (event,) = await events_of(handle, "WorkflowCompleted")
    assert event.event_data["result"] == {"total": 21.5, "item_count": 2}
