"""Declared search fields, for every back end: found by terms, however many instances there are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edda.core.search import SearchField, terms_of
from edda.storage.reads import InstanceFilter
from tests.storage.support import W1, World, commit, new

ORDER_ID = SearchField("order_id", 0)
CITY = SearchField("customer.city", 1)


def order(name: str, order_id: object, *, city: str = "Leipzig", **more: Any) -> Any:
    """An instance that was started with its arguments by name, and has its terms."""
    text = json.dumps({"args": [], "kwargs": {"order_id": order_id, "customer": {"city": city}}})
    return new(name, owner=W1)._replace(input=text, terms=terms_of("order", text, [ORDER_ID, CITY]), **more)


async def found(world: World, path: str, value: object, **more: Any) -> list[str]:
    which = InstanceFilter(argument=(path, value), workflows=frozenset({"order"}), **more)
    return [row.id for row in (await world.store.instance_page(which)).rows]


@pytest.fixture
async def shop(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Twenty orders behind a search that may look at three, and the fields were declared before all but the first."""
    for module in ("edda.storage.reads", "edda.storage.sql.reads"):
        monkeypatch.setattr(f"{module}.SCANNED_MAX", 3)
    await world.start(order("old", "ORD-1")._replace(terms=()))
    await world.store.declare_search_fields({"order": ["order_id", "customer.city"]})
    await world.start(*(order(f"order-{number:02}", f"ORD-{number % 10}") for number in range(20)))
    return world


async def test_what_is_far_behind_the_newest_is_found_at_once(shop: World) -> None:
    assert await found(shop, "order_id", "ORD-7") == ["order-17", "order-07"]
    assert await found(shop, "customer.city", "Berlin") == []


async def test_what_was_started_before_the_field_was_declared_is_looked_at(shop: World) -> None:
    assert await found(shop, "order_id", "ORD-1") == ["order-11", "order-01", "old"]


async def test_pages_of_what_is_found_by_terms_go_on(shop: World) -> None:
    which = InstanceFilter(argument=("customer.city", "Leipzig"), workflows=frozenset({"order"}))
    ids: list[str] = []
    page: str | None = None
    while True:
        answer = await shop.store.instance_page(which, limit=3, page=page)
        ids += [row.id for row in answer.rows]
        page = answer.next_page
        if page is None:
            break
    assert ids == [f"order-{number:02}" for number in reversed(range(20))] + ["old"]


async def test_other_conditions_hold_as_well(shop: World) -> None:
    from edda.core.commit import End
    from edda.core.lifecycle import Status

    await shop.write(commit("order-07", 1, row=End(status=Status.COMPLETED, output="1")))
    assert await found(shop, "order_id", "ORD-7", statuses=frozenset({Status.COMPLETED})) == ["order-07"]
    assert await found(shop, "order_id", "ORD-7", id_prefix="order-1") == ["order-17"]
    created_us = (await shop.row("order-17")).created_at_us
    assert "order-17" not in await found(shop, "order_id", "ORD-7", created_before_us=created_us)


async def test_an_argument_that_was_passed_by_position_is_found_by_its_name(shop: World) -> None:
    text = '{"args":["ORD-99",{"city":"Ulm"}],"kwargs":{}}'
    await shop.start(new("by-position", owner=W1)._replace(input=text, terms=terms_of("order", text, [ORDER_ID, CITY])))
    assert await found(shop, "order_id", "ORD-99") == ["by-position"]
    assert await found(shop, "customer.city", "Ulm") == ["by-position"]
    assert await found(shop, "order_id", "ORD-99", id_prefix="by-") == ["by-position"]


async def test_equal_numbers_are_one_value_and_a_truth_is_no_number(shop: World) -> None:
    await shop.start(order("one", 1), order("yes", True))
    assert await found(shop, "order_id", 1.0) == ["one"]
    assert await found(shop, "order_id", True) == ["yes"]


async def test_without_one_workflow_that_declares_it_the_newest_are_looked_at(shop: World) -> None:
    await shop.start(new("another", owner=W1, workflow="refund"))
    answer = await shop.store.instance_page(InstanceFilter(argument=("order_id", "ORD-7")))
    assert not answer.scanned_all


async def test_a_field_that_is_declared_no_longer_is_looked_for_like_any_other(shop: World) -> None:
    await shop.store.declare_search_fields({"order": ["order_id"], "refund": []})
    which = InstanceFilter(argument=("customer.city", "Berlin"), workflows=frozenset({"order"}))
    assert not (await shop.store.instance_page(which)).scanned_all
    assert await found(shop, "order_id", "ORD-7") == ["order-17", "order-07"]


async def test_children_and_single_starts_have_terms(shop: World) -> None:
    child = order("child", "ORD-55")._replace(owner=None)
    await shop.write(commit("order-00", 1, children=(child,)))
    await shop.write(commit("order-00", 1, children=(child,)))  # by an earlier claim, as it were
    await shop.store.create(order("single", "ORD-55")._replace(owner=None))
    await shop.store.create(order("single", "ORD-66")._replace(owner=None))  # exists: nothing of it is written
    for number in range(5):
        await shop.start(order(f"later-{number}", "ORD-0"))
    assert set(await found(shop, "order_id", "ORD-55")) == {"child", "single"}
    assert await found(shop, "order_id", "ORD-66") == []


async def test_terms_are_forgotten_with_their_instance(shop: World) -> None:
    from edda.core.commit import End
    from edda.core.lifecycle import Status

    await shop.write(commit("order-07", 1, row=End(status=Status.COMPLETED, output="1")))
    pruned = await shop.store.prune(age_us=-1_000_000)
    assert pruned.instances == 1
    await shop.start(order("order-07", "ORD-8"))
    assert await found(shop, "order_id", "ORD-7") == ["order-17"]


async def test_what_a_field_found_before_it_was_declared_again_is_found_once(shop: World) -> None:
    await shop.store.declare_search_fields({"order": ["customer.city"]})
    await shop.store.declare_search_fields({"order": ["order_id", "customer.city"]})
    await shop.start(order("late", "ORD-9"))
    assert await found(shop, "order_id", "ORD-9") == ["late", "order-19"]


@pytest.mark.parametrize("recorded", ["1e16", "1e+16", "10000000000000000"])
async def test_a_number_is_found_however_it_was_written(shop: World, recorded: str) -> None:
    text = f'{{"args":[],"kwargs":{{"order_id":{recorded}}}}}'
    await shop.start(new("huge", owner=W1)._replace(input=text, terms=terms_of("order", text, [ORDER_ID])))
    assert await found(shop, "order_id", 10**16) == ["huge"]
    assert await found(shop, "order_id", 1e16) == ["huge"]


async def test_the_second_start_with_an_id_in_a_batch_is_not_found(shop: World) -> None:
    await shop.start(order("twice", "ORD-77"), order("twice", 7))
    assert await found(shop, "order_id", "ORD-77") == ["twice"]
    assert await found(shop, "order_id", 7) == []


async def test_a_child_whose_id_was_taken_is_not_found(shop: World) -> None:
    await shop.write(commit("order-00", 1, children=(order("order-19", 9)._replace(owner=None),)))
    assert await found(shop, "order_id", 9) == []
