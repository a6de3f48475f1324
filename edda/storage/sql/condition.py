"""Conditions of statements, with their parameters: pieces that are joined to what stands after `where`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Condition:
    """Text after `where`, and its parameters; empty text: none."""

    text: str = ""
    params: tuple[Any, ...] = ()

    def __and__(self, other: Condition) -> Condition:
        texts = [text for text in (self.text, other.text) if text]
        return Condition(" and ".join(texts), self.params + other.params)

    @property
    def where(self) -> str:
        return f" where {self.text}" if self.text else ""


def equal(column: str, value: Any) -> Condition:
    return Condition(f"{column} = ?", (value,)) if value not in ("", None) else Condition()


def behind(columns: tuple[str, str], place: tuple[Any, Any] | None) -> Condition:
    """What comes after a place in a list that goes down."""
    if place is None:
        return Condition()
    first, second = columns
    # The first comparison says where in the index to begin; what has an OR in it does not.
    text = f"{first} <= ? and ({first} < ? or {second} < ?)"
    return Condition(text, (place[0], place[0], place[1]))


def within_time(column: str, from_us: int | None, before_us: int | None) -> Condition:
    begin = Condition(f"{column} >= ?", (from_us,)) if from_us is not None else Condition()
    end = Condition(f"{column} < ?", (before_us,)) if before_us is not None else Condition()
    return begin & end
