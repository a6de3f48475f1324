"""History as users see it: `await handle.history()`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from edda.core.history import HistoryEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One thing that happened to an instance."""

    seq: int
    event_type: str
    """In the past tense, such as `ActivityCompleted`."""
    activity_id: str
    """Which call, such as `charge:1`; empty for what concerns the whole instance."""
    name: str
    """Of the activity, workflow, compensation or event type."""
    event_data: dict[str, Any]
    """The details: `activity_name`, `input`, `result` or `error_type` and `error_message`, `retry_metadata` ..."""
    created_at: datetime


def entry_of(event: HistoryEvent) -> HistoryEntry:
    """The public form of a stored row. Values are as stored: JSON, not decoded into their types."""
    data: dict[str, Any] = {"activity_name": event.name} if event.call_id else {"workflow_name": event.name}
    if event.input is not None:
        data["input"] = json.loads(event.input)
    if event.output is not None and ("Failed" in event.kind or "Cancelled" in event.kind):
        error: dict[str, Any] = json.loads(event.output)
        data.update(error)
    elif event.output is not None:
        data["result"] = json.loads(event.output)
    elif event.blob is not None:
        data["result"] = event.blob
    elif event.kind == "ActivityCompleted":
        data["result"] = None
    data.update(event.details())
    return HistoryEntry(
        seq=event.seq,
        event_type=event.kind,
        activity_id=event.call_id,
        name=event.name,
        event_data=data,
        created_at=datetime.fromtimestamp(event.at_us / 1_000_000, UTC),
    )
