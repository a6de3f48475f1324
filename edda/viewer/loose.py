"""JSON of which nobody knows what it is, in types. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, cast


def read(text: str | None) -> Any:
    """What JSON text says; None for what is no JSON, too."""
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None


def as_object(value: object) -> dict[str, Any] | None:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def as_list(value: object) -> list[Any] | None:
    return [*cast("Iterable[Any]", value)] if isinstance(value, list) else None


def text_of(record: dict[str, Any], key: str) -> str:
    """Empty where there is none."""
    value = record.get(key)
    return value if isinstance(value, str) else ""
