"""The registry: one name, one function; two of one name are refused before history can confuse them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from edda.naming import NameTakenError, Registry


class Item(NamedTuple):
    name: str
    function: Callable[..., Any]


def function(qualname: str, module: str) -> Callable[..., Any]:
    def made() -> None: ...

    made.__qualname__, made.__module__ = qualname, module
    return made


SHOP = function("order", "shop")

AGAIN: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "the same function": (SHOP, SHOP),
    "the same place, imported again": (SHOP, function("order", "shop")),
    "the new one is local": (SHOP, function("test.<locals>.order", "tests")),
    "the known one is local": (function("test.<locals>.order", "tests"), SHOP),
    "both are local": (function("one.<locals>.order", "tests"), function("two.<locals>.order", "tests")),
    "the program, imported as a module, too": (function("order", "__main__"), SHOP),
    "a module, run as the program, too": (SHOP, function("order", "__main__")),
    "a callable without a place": (SHOP, object.__new__(type("Callable", (), {"__call__": lambda self: None}))),
}


@pytest.mark.parametrize(("known", "new"), AGAIN.values(), ids=AGAIN)
def test_the_latest_counts_where_both_may_be_the_same(known: Callable[..., Any], new: Callable[..., Any]) -> None:
    registry: Registry[Item] = Registry("workflow")
    latest = Item("order", new)
    registry.add(Item("order", known))
    registry.add(latest)
    assert registry.get("order") is latest
    assert list(registry) == [latest]


@pytest.mark.parametrize(("qualname", "module"), [("order", "billing"), ("Orders.order", "shop"), ("other", "shop")])
def test_two_functions_of_different_places_cannot_have_one_name(qualname: str, module: str) -> None:
    registry: Registry[Item] = Registry("workflow")
    first = Item("order", SHOP)
    registry.add(first)
    with pytest.raises(NameTakenError) as caught:
        registry.add(Item("order", function(qualname, module)))
    for words in (f"{module}.{qualname}", "shop.order", "one workflow 'order'", '@workflow(name="...")'):
        assert words in str(caught.value)
    assert registry.get("order") is first


@pytest.mark.parametrize("module", ["__main__", "shop"])
def test_a_program_has_one_function_of_a_name_too(module: str) -> None:
    registry: Registry[Item] = Registry("workflow")
    registry.add(Item("order", function("first", "__main__")))
    with pytest.raises(NameTakenError, match=rf"{module}\.second and __main__\.first have the same name"):
        registry.add(Item("order", function("second", module)))


def test_different_names_do_not_disturb_each_other() -> None:
    registry: Registry[Item] = Registry("activity")
    items = [Item(name, SHOP) for name in ("a", "b", "c")]
    for item in items:
        registry.add(item)
    assert list(registry) == items
    assert registry.get("b") is items[1]


def test_an_unknown_name_is_none() -> None:
    assert Registry[Item]("activity").get("a") is None


def test_a_registry_may_grow_while_it_is_walked_through() -> None:
    registry: Registry[Item] = Registry("activity")
    registry.add(Item("a", SHOP))
    for item in registry:
        registry.add(Item(f"{item.name}'", SHOP))
    assert sorted(item.name for item in registry) == ["a", "a'"]


def test_the_mapping_shows_what_is_declared_later() -> None:
    registry: Registry[Item] = Registry("activity")
    mapping = registry.by_name
    registry.add(Item("a", SHOP))
    assert list(mapping) == ["a"]


def test_registries_are_apart() -> None:
    registry: Registry[Item] = Registry("activity")
    registry.add(Item("a", SHOP))
    assert Registry[Item]("activity").get("a") is None
