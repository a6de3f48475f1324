"""How a status looks and is called. One table: pages, plots and diagrams speak alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from edda.core.lifecycle import Status


class Look(NamedTuple):
    """`tone` is a class of the style sheet, `icon` a symbol of the page's sprite: nothing is told by colour alone."""

    label: str
    tone: str
    icon: str


LOOKS: Final[Mapping[Status, Look]] = {
    Status.RUNNING: Look("Running", "running", "play"),
    Status.WAITING_FOR_EVENT: Look("Waiting for event", "waiting", "event"),
    Status.WAITING_FOR_TIMER: Look("Waiting for timer", "waiting", "clock"),
    Status.COMPENSATING: Look("Undoing", "undoing", "undo"),
    Status.COMPLETED: Look("Completed", "completed", "check"),
    Status.FAILED: Look("Failed", "failed", "cross"),
    Status.CANCELLED: Look("Cancelled", "cancelled", "stop"),
    Status.COMPENSATION_FAILED: Look("Undo failed", "failed grave", "alert"),
    Status.NONDETERMINISTIC: Look("Code changed", "aside", "alert"),
    Status.QUARANTINED: Look("Quarantined", "aside", "alert"),
}

GROUPS: Final[tuple[tuple[str, str, str, frozenset[Status]], ...]] = (
    ("running", "Running", "running", frozenset({Status.RUNNING})),
    ("waiting", "Waiting", "waiting", frozenset({Status.WAITING_FOR_EVENT, Status.WAITING_FOR_TIMER})),
    ("undoing", "Undoing", "undoing", frozenset({Status.COMPENSATING})),
    ("completed", "Completed", "completed", frozenset({Status.COMPLETED})),
    ("failed", "Failed", "failed", frozenset({Status.FAILED, Status.COMPENSATION_FAILED})),
    ("cancelled", "Cancelled", "cancelled", frozenset({Status.CANCELLED})),
    ("aside", "Set aside", "aside", frozenset({Status.NONDETERMINISTIC, Status.QUARANTINED})),
)
"""What people ask for: the word in the address, the label, the tone, and what it comprises."""


def look_of(status: Status | str) -> Look:
    """Of a status that this version may not know, too."""
    try:
        return LOOKS[Status(status)]
    except ValueError:
        return Look(str(status), "cancelled", "alert")


RETRYING: Final = Look("Retrying", "aside", "refresh")


def look_now(status: Status | str, *, reason: str, owned: bool) -> Look:
    """Of an instance: one that waits for its next attempt is running by its status, and is not what people call so."""
    if status == Status.RUNNING and not owned and reason.startswith("retry of "):
        return RETRYING
    return look_of(status)


def chosen(words: str) -> frozenset[Status]:
    """The statuses that a word in the address means: of a group, or of one status."""
    found: set[Status] = set()
    for word in words.split(","):
        for name, _, _, statuses in GROUPS:
            if name == word:
                found |= statuses
        found |= {status for status in Status if status.value == word}
    return frozenset(found)
