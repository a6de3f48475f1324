"""What is owed when a workflow fails or is cancelled: read from its history, newest first.

An activity with a compensation is owed an undo exactly when its completion is recorded (or its effect is unknown and
the compensation wants to know). A compensation that ran, or failed for good, is owed no longer, until `retry()` asks
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edda.core.history import CallId, HistoryEvent, Kind

UNDO_KEY = "undo"
"""In `meta` of what is to be undone: the name of the compensation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """One compensation to run: `compensation` undoes what `event` recorded."""

    compensation: str
    event: HistoryEvent
    failures: tuple[HistoryEvent, ...]
    """Attempts that failed already."""

    @property
    def call_id(self) -> CallId:
        """The compensation's own id in history."""
        return compensation_id(self.event)


def compensation_id(event: HistoryEvent) -> CallId:
    return CallId(f"undo/{event.call_id}")


def owed(history: Sequence[HistoryEvent]) -> list[Owed]:
    """What has to be undone now, newest completion first."""
    candidates: dict[str, tuple[str, HistoryEvent]] = {}
    failures: dict[str, list[HistoryEvent]] = {}
    settled: dict[str, Kind] = {}
    for event in history:
        match event.kind:
            case Kind.ACTIVITY_COMPLETED | Kind.ACTIVITY_UNKNOWN | Kind.COMPENSATION_REGISTERED:
                name = event.details().get(UNDO_KEY) if event.meta and UNDO_KEY in event.meta else None
                if name is not None:
                    candidates[compensation_id(event)] = (name, event)
            case Kind.COMPENSATION_EXECUTED:
                settled[event.call_id] = Kind.COMPENSATION_EXECUTED
            case Kind.COMPENSATION_FAILED:
                settled[event.call_id] = Kind.COMPENSATION_FAILED
            case Kind.COMPENSATION_ATTEMPT_FAILED:
                failures.setdefault(event.call_id, []).append(event)
            case Kind.RETRY_REQUESTED:
                settled = {call: kind for call, kind in settled.items() if kind is Kind.COMPENSATION_EXECUTED}
                failures.clear()
            case _:
                pass
    return [
        Owed(compensation=name, event=event, failures=tuple(failures.get(call, ())))
        for call, (name, event) in reversed(candidates.items())
        if call not in settled
    ]


def failed_for_good(history: Sequence[HistoryEvent]) -> tuple[str, ...]:
    """Ids of the compensations that failed for good and were not asked for again."""
    failed: list[str] = []
    for event in history:
        if event.kind == Kind.COMPENSATION_FAILED:
            failed.append(event.call_id)
        elif event.kind == Kind.RETRY_REQUESTED:
            failed.clear()
    return tuple(failed)


def undoing(history: Sequence[HistoryEvent]) -> HistoryEvent | None:
    """The event that began the undoing, if it began: from then on the body is never entered again."""
    return next((event for event in history if event.kind == Kind.COMPENSATION_STARTED), None)
