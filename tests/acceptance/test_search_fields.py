"""`@workflow(search_fields=[...])`: whatever way an instance was started, it is found by its declared arguments."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from uuid import UUID

import pytest
from pydantic import BaseModel
from sqlalchemy import text

from edda import EddaApp, WorkflowContext, activity, workflow


class Buyer(BaseModel):
    city: str


@workflow(search_fields=["order_id", "buyer.city"])
async def searched(ctx: WorkflowContext, order_id: str, buyer: Buyer | None = None) -> str:
    return order_id


@activity
async def start_searched(ctx: WorkflowContext, order_id: str) -> None:
    await ctx.session.execute(text("select 1"))
    await searched.options(id=f"of-an-activity-{order_id}").start(order_id)


@workflow
async def starts_searched(ctx: WorkflowContext, order_id: str) -> None:
    await searched.options(id=f"child-{order_id}").run(order_id, Buyer(city="Jena"))
    await start_searched(ctx, order_id)


async def test_every_start_is_found_by_its_search_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("edda.storage.reads", "edda.storage.sql.reads"):
        monkeypatch.setattr(f"{module}.SCANNED_MAX", 2)
    app = EddaApp("t", db_url=f"sqlite:///{tmp_path / 'e.db'}", workflows=[searched, starts_searched])
    async with app:
        await app.start(searched.options(id="by-position"), "A-1", Buyer(city="Ulm"))
        await app.start(searched.options(id="by-name"), order_id="A-1")
        await (await app.start(starts_searched, "A-1")).result()
        for number in range(5):
            await app.start(searched, order_id=f"B-{number}")

        async def found(path: str, value: object) -> list[str]:
            return [one.id async for one in app.instances(workflow="searched", argument=(path, value))]

        assert await found("order_id", "A-1") == ["of-an-activity-A-1", "child-A-1", "by-name", "by-position"]
        assert await found("buyer.city", "Jena") == ["child-A-1"]
        assert await found("buyer.city", "Ulm") == ["by-position"]
        assert await found("buyer.city", "Rome") == []


class Colour(Enum):
    RED = "red"


@workflow(search_fields=["colour", "at", "key", "price"])
async def searched_by_odd_values(
    ctx: WorkflowContext, colour: Colour, at: datetime, key: UUID, price: Decimal
) -> None: ...


async def test_values_are_found_by_what_they_are_in_code(tmp_path: Path) -> None:
    values = {
        "colour": Colour.RED,
        "at": datetime(2026, 1, 31, 12, tzinfo=UTC),
        "key": UUID("00000000-0000-0000-0000-000000000007"),
        "price": Decimal("9.50"),
    }
    app = EddaApp("t", db_url=f"sqlite:///{tmp_path / 'e.db'}", workflows=[searched_by_odd_values])
    async with app:
        started = await app.start(searched_by_odd_values, **values)  # type: ignore[arg-type]
        for path, value in values.items():
            assert [one.id async for one in app.instances(argument=(path, value))] == [started]
        with pytest.raises(ValueError, match="compares with one value"):
            await anext(app.instances(argument=("colour", [1])))


def test_what_could_never_be_found_is_refused() -> None:
    with pytest.raises(ValueError, match="'city', which is none of its parameters: order_id"):

        @workflow(search_fields=["city"])
        async def without_city(ctx: WorkflowContext, order_id: str) -> None: ...

    with pytest.raises(TypeError, match=r'search_fields=\["order_id"\]'):

        @workflow(search_fields="order_id")
        async def with_a_text(ctx: WorkflowContext, order_id: str) -> None: ...

    with pytest.raises(ValueError, match="has 17 search fields; it may have 16"):

        @workflow(search_fields=[f"order_id.{number}" for number in range(17)])
        async def with_many(ctx: WorkflowContext, order_id: str) -> None: ...

    with pytest.raises(ValueError, match="1 to 255 characters"):

        @workflow(search_fields=["order_id." + "x" * 255])
        async def with_a_long_one(ctx: WorkflowContext, order_id: str) -> None: ...

    with pytest.raises(TypeError, match="handles events"):

        @workflow(event_handler=True, search_fields=["event"])
        async def handles(ctx: WorkflowContext, event: object) -> None: ...
