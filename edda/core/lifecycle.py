"""Statuses of an instance and the table of transitions between them. The documentation is drawn from this table."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from edda.core.history import Kind


class Status(StrEnum):
    """The values are stored, shown and part of the public API."""

    RUNNING = "running"
    WAITING_FOR_EVENT = "waiting_for_event"
    WAITING_FOR_TIMER = "waiting_for_timer"
    COMPENSATING = "compensating"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    COMPENSATION_FAILED = "compensation_failed"
    """Ended, but something could not be undone. `retry()` runs again what is owed."""
    NONDETERMINISTIC = "nondeterministic"
    """Set aside: the code does not fit the history. `retry()` checks again, against today's code."""
    QUARANTINED = "quarantined"
    """Set aside: it cannot be read, or its body killed the worker again and again. `retry()` clears the count."""


ENDED: Final = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.COMPENSATION_FAILED})
"""`result()` has an answer, a parent hears of it, nothing will run by itself."""

SET_ASIDE: Final = frozenset({Status.NONDETERMINISTIC, Status.QUARANTINED})
"""Nothing will run by itself until somebody acts."""

CRASHES_TO_QUARANTINE: Final = 3
"""So many workers may die with an instance that wrote nothing meanwhile; then it is set aside."""

CRASHED_TOO_OFTEN: Final = (
    f"{CRASHES_TO_QUARANTINE} workers died one after the other while they ran it, before it had written anything new: "
    "find out what it does to them, then call handle.retry()"
)
"""The reason of such an instance."""

REPAIRABLE: Final = SET_ASIDE | {Status.COMPENSATION_FAILED}
"""`retry()` has something to do."""

CANCELLABLE: Final = frozenset(Status) - ENDED - {Status.COMPENSATING}
"""An accepted cancel can only end in `cancelled` or `compensation_failed`."""

_WAITING: Final = frozenset({Status.WAITING_FOR_EVENT, Status.WAITING_FOR_TIMER})
_ACTIVE: Final = _WAITING | {Status.RUNNING}

IDLE: Final = _WAITING | SET_ASIDE
"""A claim makes it `running`. (A set-aside one is claimed when it is to be cancelled.)"""

TRANSITIONS: Final[dict[Status, frozenset[Status]]] = {
    **{
        status: _ACTIVE | SET_ASIDE | {Status.COMPENSATING} | ENDED - {Status.COMPENSATION_FAILED} for status in _ACTIVE
    },
    Status.COMPENSATING: SET_ASIDE | {Status.COMPENSATING, Status.FAILED, Status.CANCELLED, Status.COMPENSATION_FAILED},
    Status.NONDETERMINISTIC: _ACTIVE | SET_ASIDE | {Status.COMPENSATING, Status.CANCELLED},
    Status.QUARANTINED: _ACTIVE | SET_ASIDE | {Status.COMPENSATING, Status.CANCELLED},
    Status.COMPENSATION_FAILED: frozenset({Status.COMPENSATING}),
    Status.COMPLETED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}
"""Which status may follow which."""

LAST_EVENT: Final[dict[Status, Kind]] = {
    Status.COMPLETED: Kind.WORKFLOW_COMPLETED,
    Status.FAILED: Kind.WORKFLOW_FAILED,
    Status.CANCELLED: Kind.WORKFLOW_CANCELLED,
    Status.COMPENSATION_FAILED: Kind.WORKFLOW_COMPENSATION_FAILED,
}
"""The history event that an ended instance ends with."""
