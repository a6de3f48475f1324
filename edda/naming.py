"""Names under which functions are known in history, and the registry that finds them again after a restart.

A name is stored, so two functions of one name would silently get each other's work. Decorators register by import; two
functions of different places with one name are refused at import, unless one of them is local to a function (tests),
where the latest counts. The same place again is no other function: a notebook's cell that is run twice, a module that
is run as a script and imported under its real name, too.
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
        if known is not None and _differ(known.function, item.function):
            raise NameTakenError(
                f"{_place(item.function)} and {_place(known.function)} have the same name: there is one {self._sort} "
                f"'{item.name}', and history knows it by that name only. Give one of them another: "
                f'@{self._sort}(name="...").'
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


def _differ(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """Whether these are two functions, for certain."""
    if not (_is_of_a_module(one) and _is_of_a_module(other)):
        return False
    return one.__qualname__ != other.__qualname__ or (
        one.__module__ != other.__module__ and "__main__" not in (one.__module__, other.__module__)
    )


def _place(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"
