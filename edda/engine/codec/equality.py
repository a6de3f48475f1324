"""Whether a value came back: equality in type *and* value, all the way down.

`==` is not enough: 1 == 1.0 == True, -0.0 == 0.0, Decimal("1") == Decimal("1.0"), and a StrEnum equals its text.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from datetime import datetime, time, tzinfo
from decimal import Decimal
from enum import Enum
from typing import Any, cast
from zoneinfo import ZoneInfo

from pydantic import BaseModel

from edda.engine.codec.tagged import is_dataclass_instance, stored_fields

BY_EQUALITY = frozenset[type]({str, int, bool, type(None), bytes})


def same(first: object, second: object) -> bool:
    kind = type(first)
    if kind is not type(second):
        return False
    if kind in BY_EQUALITY:
        return first == second
    if kind is float:
        return _same_float(cast(float, first), cast(float, second))
    if kind is dict:
        return _same_dict(cast("dict[object, object]", first), cast("dict[object, object]", second))
    if kind is list or kind is tuple:
        return _same_items(cast("list[object]", first), cast("list[object]", second))
    return _same_object(first, second)


def makes_objects(given: object, seen: object) -> bool:
    """Whether validation turned data (a dict, say) into a model or dataclass: even strictly, pydantic does."""
    if isinstance(seen, BaseModel) or is_dataclass_instance(seen):
        return not isinstance(given, type(seen))
    if isinstance(seen, dict) and isinstance(given, dict):
        ours, theirs = cast("dict[object, object]", given), cast("dict[object, object]", seen)
        return any(map(makes_objects, ours.values(), theirs.values()))
    if isinstance(seen, list | tuple) and isinstance(given, list | tuple):
        return any(map(makes_objects, cast("list[object]", given), cast("list[object]", seen)))
    return False


def _same_float(first: float, second: float) -> bool:
    """NaN and the infinities never count as the same: they may not be stored."""
    return first == second and math.isfinite(first) and math.copysign(1.0, first) == math.copysign(1.0, second)


def _same_dict(first: dict[object, object], second: dict[object, object]) -> bool:
    """The order counts: it is part of what the user sees."""
    return len(first) == len(second) and all(
        same(key, other_key) and same(item, other)
        for (key, item), (other_key, other) in zip(first.items(), second.items(), strict=True)
    )


def _same_items(first: Iterable[object], second: Iterable[object]) -> bool:
    ours, theirs = list(first), list(second)
    return len(ours) == len(theirs) and all(map(same, ours, theirs))


def _same_object(first: object, second: object) -> bool:
    if isinstance(first, Enum):
        return first == second
    if isinstance(first, BaseModel):
        return _same_model(first, cast(BaseModel, second))
    if is_dataclass_instance(first):
        return all(
            same(getattr(first, field.name, None), getattr(second, field.name, None))
            for field in dataclasses.fields(cast(Any, first))
        )
    if isinstance(first, set | frozenset):
        return _same_unordered(cast("set[object]", first), cast("set[object]", second))
    if isinstance(first, dict):
        factory = getattr(cast(object, first), "default_factory", None)
        return factory is getattr(second, "default_factory", None) and _same_dict(
            cast("dict[object, object]", first), cast("dict[object, object]", second)
        )
    if isinstance(first, datetime | time):
        other = cast("datetime | time", second)
        return first == other and first.fold == other.fold and _same_zone(first.tzinfo, other.tzinfo)
    if isinstance(first, Decimal):
        return first.is_finite() and first.as_tuple() == cast(Decimal, second).as_tuple()
    if isinstance(first, Iterable):
        return _same_iterable(cast("Iterable[object]", first), second)
    return _equal(first, second)


def _same_model(first: BaseModel, second: BaseModel) -> bool:
    """By their author's choice, private attributes and fields with `exclude=True` are not data at rest."""
    return all(
        same(first.__dict__.get(name), second.__dict__.get(name)) for name in stored_fields(type(first))
    ) and same(first.__pydantic_extra__, second.__pydantic_extra__)


def _same_unordered(first: set[object], second: set[object]) -> bool:
    if len(first) != len(second) or first != second:
        return False
    theirs = {item: item for item in second}
    return all(same(item, theirs[item]) for item in first)


def _same_zone(first: tzinfo | None, second: tzinfo | None) -> bool:
    """The moments are equal, so the offsets are; only a named zone is more than its offset."""
    return first is second or not (isinstance(first, ZoneInfo) or isinstance(second, ZoneInfo))


def _same_iterable(first: Iterable[object], second: object) -> bool:
    """deque, namedtuple and the like; an iterator is used up by looking, so it never counts."""
    if iter(first) is first or isinstance(first, str | bytes | bytearray):
        return _equal(first, second) and not hasattr(first, "__next__")
    return _equal(first, second) and _same_items(first, cast("Iterable[object]", second))


def _equal(first: object, second: object) -> bool:
    """Where a class has no equality of its own, its author's schema is trusted: same type, validated."""
    if type(first).__eq__ is object.__eq__:
        return True
    try:
        return bool(first == second)
    except Exception:
        return False
