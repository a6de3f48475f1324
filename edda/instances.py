"""Instances as users list them: `async for entry in app.instances(status="failed")`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceEntry:
    """One instance in a list; `app.handle(entry.id)` leads to the rest. Times are in UTC."""

    id: str
    workflow: str
    status: str
    reason: str
    """What it waits for, in words; empty where it does not."""
    parent_id: str | None
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None
