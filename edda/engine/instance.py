"""One claimed instance in the memory of its worker: what all phases of its life share."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from edda.core.commit import OutboxMessage, Post
from edda.core.history import HistoryEvent
from edda.core.journal import Journal
from edda.engine.attempts import Outcome
from edda.engine.body_run import Call
from edda.engine.draft import Draft
from edda.engine.house import House
from edda.engine.steps import Steps
from edda.storage.port import InstanceRow
from edda.workflow import Workflow

if TYPE_CHECKING:
    from edda.engine.telemetry import Slice


class TimerDue(NamedTuple):
    """A timer whose time has come."""

    timer_id: str
    due_us: int


class NoEventInTime(NamedTuple):
    """The deadline of a wait for an event has passed, and the inbox was looked at after it."""

    call: Call


class ChildEnded(NamedTuple):
    """A child that has ended, for the call that waits for it."""

    call: Call
    row: InstanceRow


class Survivor(NamedTuple):
    """A completed activity that was never acknowledged, because the worker was declared dead first.

    If the same process gets the instance back before anybody else ran it, the result is recorded, not made again.
    """

    event: HistoryEvent
    outbox: tuple[OutboxMessage, ...]
    posts: tuple[Post, ...]


Arrival = Outcome | TimerDue | ChildEnded | NoEventInTime | Survivor
"""Something that happened and is not recorded yet."""


class Instance:
    """State without behaviour: the driver and the phases act on it."""

    def __init__(
        self, house: House, row: InstanceRow, history: list[HistoryEvent], workflow: Workflow[..., Any]
    ) -> None:
        self.house = house
        self.id = row.id
        self.row = row
        self.workflow = workflow
        self.seen_wakes = row.wakes
        """Wakes that were looked after."""
        self.cancel_requested = row.cancel_requested_at_us is not None
        self.journal = Journal.of(history)
        self.draft = Draft(row.id, self.journal)
        self.draft.claim = row.claim
        # A body before this one may have stored waits that ours never asks for again: it may be cancelled first.
        self.draft.may_wait = self.journal.started is not None
        self.calls: dict[str, Call] = {}
        """Every call the body made; they outlive it, because their attempts do."""
        self.steps = Steps()
        self.arrived: deque[Arrival] = deque()
        self.survivors: dict[str, Survivor] = {}
        """By call id: what this process did under the claim before, unacknowledged."""
        self.slice: Slice | None = None
        """This stay, where somebody watches."""

    @property
    def claim(self) -> int:
        return self.row.claim

    @property
    def trace(self) -> str | None:
        """The trace context of this stay, for what it causes."""
        return self.slice.trace if self.slice is not None else None

    def reclaimed(self, row: InstanceRow) -> None:
        """Under a new claim, which directly follows the one given back."""
        assert row.claim == self.claim + 1, f"{row.id}: claim {row.claim} does not follow {self.claim}"
        self.row = row
        self.draft.claim = row.claim
        self.seen_wakes = row.wakes
        self.cancel_requested = row.cancel_requested_at_us is not None

    def outcome_arrived(self, outcome: Outcome) -> None:
        """What is recorded already has its `seq`, so it goes before everything that has none yet."""
        if outcome.recorded is None:
            self.arrived.append(outcome)
        else:
            place = sum(isinstance(arrival, Outcome) and arrival.recorded is not None for arrival in self.arrived)
            self.arrived.insert(place, outcome)

    def tell(self, hook: str, *args: Any, **kwargs: Any) -> None:
        """Tell observers of what is drafted, once it is durable."""
        if self.house.hooks.wants(hook):
            self.draft.tell(hook, *args, **kwargs)

    def now_us(self) -> int:
        """The date of what is recorded now; it never goes back, even if the knowledge of the clock was corrected."""
        now_us = self.house.clock.at_most_us()
        events = self.journal.events
        return events[-1].at_us if events and events[-1].at_us > now_us else now_us


def about(instance: Instance, *, activity: str = "", attempt: int = 0) -> dict[str, object]:
    """The fields of a line of the log that concerns it, as `extra`."""
    return {
        "instance_id": instance.id,
        "workflow": instance.workflow.name,
        "worker": instance.house.id,
        "claim": instance.claim,
        "activity": activity,
        "attempt": attempt,
    }
