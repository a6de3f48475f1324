"""Names under which functions are known in history, and the registry that finds them again after a restart.

A name is stored, so two functions of one name would silently get each other's work. Decorators register by import; two
functions of different modules with one name are refused at import, unless one of them is local to a function (tests,
notebooks), where the latest counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar

from edda.exceptions import EddaError


class NameTakenError(EddaError):
    """Two functions have the same name, under which history would confuse them."""


class Named(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def function(self) -> Callable[..., Any]: ...


T = TypeVar("T", bound=Named)


class Registry(Generic[T]):
    """The functions of one sort ("workflow", "activity", "compensation") by name."""

    def __init__(self, sort: str) -> None:
        self._sort = sort
        self._by_name: dict[str, T] = {}

    def add(self, item: T) -> None:
        known = self._by_name.get(item.name)
        if known is not None and _is_of_a_module(known.function) and _is_of_a_module(item.function):
            here, there = _place(item.function), _place(known.function)
            if here != there and "__main__" not in (item.function.__module__, known.function.__module__):
                raise NameTakenError(
                    f"{here} and {there} have the same name: there is one {self._sort} '{item.name}', and history "
                    f'knows it by that name only. Give one of them another: @{self._sort}(name="...").'
                )
        self._by_name[item.name] = item

    def get(self, name: str) -> T | None:
        return self._by_name.get(name)

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._by_name.values()))

    @property
    def by_name(self) -> Mapping[str, T]:
        """All of them, also those that are declared later."""
        return self._by_name


def _is_of_a_module(function: Callable[..., Any]) -> bool:
    return "<locals>" not in getattr(function, "__qualname__", "<locals>")


def _place(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"
