"""JSON values as trees: what they are, for type checkers too, and the way down to a member."""

from __future__ import annotations

from typing import Any, Final, TypeGuard

MISSING: Final = object()
"""There is no such member."""
PLACE_DIGITS_MAX: Final = 9
"""No list is longer; and Python reads no number of more than 4,300 digits."""


def member_of(tree: object, name: str) -> Any:
    """The member of an object or the element of a list, or `MISSING`."""
    if is_object(tree):
        return tree.get(name, MISSING)
    if is_list(tree) and is_place(name) and int(name) < len(tree):
        return tree[int(name)]
    return MISSING


def is_place(name: str) -> bool:
    """Whether an element of a list may be named so. `²` is a digit to Python, and no number."""
    return name.isascii() and name.isdecimal() and len(name) <= PLACE_DIGITS_MAX


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)
