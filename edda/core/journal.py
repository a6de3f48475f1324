"""The reading of one instance's history: what the body is told next, and whether its calls fit what was recorded.

The body is a function of its code and of the completions delivered to it, one at a time, in `seq` order. So the journal
hands out completions in that order, and compares each with the call that the body made under the same id. What was
asked but never answered leaves no trace here: after a crash the body simply asks again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from edda.core.history import COMPLETIONS, HistoryEvent, Kind


class CallKind(StrEnum):
    """What a body can ask for."""

    ACTIVITY = "activity"
    TIMER = "timer"
    CHILD_START = "start of a child"
    CHILD_RESULT = "result of a child"
    EVENT_WAIT = "wait for an event"
    EVENT_SEND = "sending of an event"
    COMPENSATION = "registration of a compensation"


ANSWERS: Final[Mapping[str, CallKind]] = {
    Kind.ACTIVITY_COMPLETED: CallKind.ACTIVITY,
    Kind.ACTIVITY_FAILED: CallKind.ACTIVITY,
    Kind.TIMER_FIRED: CallKind.TIMER,
    Kind.CHILD_STARTED: CallKind.CHILD_START,
    Kind.CHILD_COMPLETED: CallKind.CHILD_RESULT,
    Kind.CHILD_FAILED: CallKind.CHILD_RESULT,
    Kind.CHILD_CANCELLED: CallKind.CHILD_RESULT,
    Kind.EVENT_RECEIVED: CallKind.EVENT_WAIT,
    Kind.EVENT_TIMED_OUT: CallKind.EVENT_WAIT,
    Kind.EVENT_SENT: CallKind.EVENT_SEND,
    Kind.COMPENSATION_REGISTERED: CallKind.COMPENSATION,
}
"""Which kind of call a recorded completion answers."""

REFUSABLE: Final = frozenset({CallKind.CHILD_START, CallKind.EVENT_SEND, CallKind.COMPENSATION})
"""Calls that have no row for their failure, and fail only where they bring more than may be stored."""


@dataclass(slots=True)
class Journal:
    """The history of one instance while it runs here: recorded rows first, then what this run adds."""

    events: list[HistoryEvent]
    position: int = 0
    """Everything before it has been delivered (or needs no delivery)."""
    failures: dict[str, list[HistoryEvent]] = field(default_factory=dict[str, list[HistoryEvent]])
    """Failed attempts by call id, for those calls that may still be waiting for another attempt."""
    patches: set[str] = field(default_factory=set[str])
    _left: int = 0

    @classmethod
    def of(cls, events: Iterable[HistoryEvent]) -> Journal:
        journal = cls(events=list(events))
        for event in journal.events:
            journal._index(event)
            journal._left += event.kind in COMPLETIONS
        return journal

    def _index(self, event: HistoryEvent) -> None:
        if event.kind == Kind.ACTIVITY_ATTEMPT_FAILED:
            self.failures.setdefault(event.call_id, []).append(event)
        elif event.kind == Kind.PATCHED:
            self.patches.add(event.call_id)

    def _unindex(self, event: HistoryEvent) -> None:
        if event.kind == Kind.ACTIVITY_ATTEMPT_FAILED:
            left = self.failures[event.call_id]
            left.remove(event)
            if not left:
                del self.failures[event.call_id]
        elif event.kind == Kind.PATCHED:
            self.patches.discard(event.call_id)

    @property
    def next_seq(self) -> int:
        return len(self.events) + 1

    @property
    def replaying(self) -> bool:
        """Recorded completions are left that the body has not received."""
        return self._left > 0

    @property
    def started(self) -> HistoryEvent | None:
        """The `WorkflowStarted` row, if the body was ever entered."""
        return self.events[0] if self.events else None

    def next_completion(self) -> HistoryEvent | None:
        """The next recorded completion for the body, None at the end of history."""
        while self.position < len(self.events):
            event = self.events[self.position]
            self.position += 1
            if event.kind in COMPLETIONS:
                self._left -= 1
                return event
        return None

    def close(self) -> None:
        """The body will not be entered again: what it has not received counts as delivered."""
        self.position = len(self.events)
        self._left = 0

    def append(self, event: HistoryEvent) -> None:
        """Add a live row. It counts as delivered: the driver delivers it right away."""
        assert event.seq == self.next_seq, f"{event.instance_id}: seq {event.seq} after {len(self.events)}"
        assert self._left == 0, f"{event.instance_id}: a live row before the recorded ones were delivered"
        self.events.append(event)
        self.position = event.seq
        self._index(event)

    def withdraw(self, count: int) -> list[HistoryEvent]:
        """Take back the newest `count` rows, which were refused by storage and so never happened."""
        taken = self.events[len(self.events) - count :]
        del self.events[len(self.events) - count :]
        self.position = len(self.events)
        for event in taken:
            self._unindex(event)
        return taken


def describe_call(kind: CallKind, call_id: str, name: str) -> str:
    """A call in words, for error messages."""
    return f"{kind} {call_id}" if call_id.startswith(name) else f"{kind} {call_id} ({name})"


def describe_event(event: HistoryEvent) -> str:
    """A recorded completion in words, for error messages."""
    kind = ANSWERS.get(event.kind)
    return f"{event.kind}, {describe_call(kind, event.call_id, event.name)}" if kind else str(event.kind)


def fits(event: HistoryEvent, *, kind: CallKind, name: str) -> bool:
    """Whether a recorded completion answers a call of this kind and name. What is refused has failed as an activity."""
    refused = event.kind == Kind.ACTIVITY_FAILED and event.input is None and kind in REFUSABLE
    return event.name == name and (refused or ANSWERS[event.kind] is kind)
