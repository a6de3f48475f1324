"""How much of an event is taken. Each limit has a name, a default and a reason; each can be set."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from edda.core.options import check_count


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Beyond a limit an event is refused with status 413; beyond `json_depth` with 400."""

    body_bytes: int = 1024 * 1024
    """The largest body, batches included. Every receiver should take 64 KiB."""
    batch_events: int = 100
    """Events in one batch: what is stored in one transaction."""
    headers: int = 100
    """Header lines of a request, all of them."""
    headers_bytes: int = 16 * 1024
    """Names and values of all headers together."""
    attribute_bytes: int = 1024
    """One attribute's value in UTF-8."""
    id_chars: int = 255
    """Characters of an `id`: what every database can hold in a unique key."""
    type_chars: int = 255
    """Characters of a `type`: what every database can hold in an index."""
    extension_name_chars: int = 20
    """The longest name of an extension attribute. The specification asks producers for no more than 20."""
    json_depth: int = 64
    """Arrays and objects within each other in JSON data: far below what any reader's recursion bears."""

    def __post_init__(self) -> None:
        for limit in fields(self):
            check_count(f"{limit.name} of Limits", getattr(self, limit.name))
        if self.json_depth > JSON_DEPTH_MAX:
            raise ValueError(f"json_depth of Limits must be {JSON_DEPTH_MAX} or less, not {self.json_depth}")


JSON_DEPTH_MAX: Final = 190
"""pydantic's parser reads 200 levels; an event in a batch is in two of its own."""

LIMITS: Final = Limits()
