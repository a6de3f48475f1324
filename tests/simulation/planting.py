"""How a planted bug is planted: each mutant is a context manager with a title, which replaces some attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

Mutant = Callable[[], Any]
MUTANTS: Final[dict[str, Mutant]] = {}


@contextmanager
def swapped(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Replace an attribute by `make(original)` for a while."""
    original = owner.__dict__[name] if isinstance(owner, type) else getattr(owner, name)
    setattr(owner, name, make(original))
    try:
        yield
    finally:
        setattr(owner, name, original)


def mutant(title: str) -> Callable[[Mutant], Mutant]:
    def add(plant: Mutant) -> Mutant:
        MUTANTS[title] = plant
        return plant

    return add
