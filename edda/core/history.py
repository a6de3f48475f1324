"""What is remembered about an instance: its history, one immutable row per thing that happened.

A history event is named in the past tense and never changes once stored. `seq` runs 1, 2, 3 ... without a gap; the body
receives completions in that order, live and on replay alike. Values are already encoded (JSON text, or a blob for
bytes): this module knows nothing of codecs, databases or clocks.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any, Final, NamedTuple, NewType

InstanceId = NewType("InstanceId", str)
WorkerId = NewType("WorkerId", str)
CallId = NewType("CallId", str)
"""The name of one durable call within its instance, such as `send_email:1`; fixed when the call is made."""


class Kind(StrEnum):
    """What happened. The values are stored and shown, so they never change."""

    WORKFLOW_STARTED = "WorkflowStarted"
    """The body was first entered. Carries the time that `loop.time()` starts from."""

    ACTIVITY_COMPLETED = "ActivityCompleted"
    ACTIVITY_FAILED = "ActivityFailed"
    ACTIVITY_ATTEMPT_FAILED = "ActivityAttemptFailed"
    """One attempt failed and another one will follow; the body does not hear of it."""
    ACTIVITY_UNKNOWN = "ActivityUnknown"
    """Cancelled while an attempt was under way that never answered: its effect may have happened."""

    TIMER_FIRED = "TimerFired"
    EVENT_RECEIVED = "EventReceived"
    EVENT_TIMED_OUT = "EventTimedOut"
    EVENT_REJECTED = "EventRejected"
    """An event came that the model of its wait does not accept: it is passed over, and the wait goes on."""
    EVENT_SENT = "EventSent"

    CHILD_STARTED = "ChildStarted"
    CHILD_COMPLETED = "ChildCompleted"
    CHILD_FAILED = "ChildFailed"
    CHILD_CANCELLED = "ChildCancelled"

    PATCHED = "Patched"
    """`ctx.patched(id)` answered yes here; on replay it answers as it did."""

    COMPENSATION_REGISTERED = "CompensationRegistered"
    COMPENSATION_STARTED = "CompensationStarted"
    """The body is over (failed or cancelled); from here on only what is owed is undone."""
    COMPENSATION_EXECUTED = "CompensationExecuted"
    COMPENSATION_FAILED = "CompensationFailed"
    COMPENSATION_ATTEMPT_FAILED = "CompensationAttemptFailed"

    RETRY_REQUESTED = "RetryRequested"
    """Somebody called `retry()`; failed compensations before it are owed again."""

    WORKFLOW_COMPLETED = "WorkflowCompleted"
    WORKFLOW_FAILED = "WorkflowFailed"
    WORKFLOW_CANCELLED = "WorkflowCancelled"
    WORKFLOW_COMPENSATION_FAILED = "WorkflowCompensationFailed"


class HistoryEvent(NamedTuple):
    """One row of history; the fields are the columns, in order.

    A named tuple rather than a dataclass because rows go to the drivers as they are, thousands per second.
    """

    instance_id: InstanceId
    seq: int
    claim: int
    """The claim number under which it was written: proof of who wrote it."""
    at_us: int
    """When, in microseconds since 1970 on the database's clock, as well as the worker knew it."""
    kind: str
    call_id: str
    """Which durable call; empty for what concerns the whole instance."""
    name: str
    """Name of the activity, workflow, event type or compensation."""
    input: str | None = None
    """JSON text of the arguments, `{"args": [...], "kwargs": {...}}`."""
    output: str | None = None
    """JSON text of the result, or of the error where the kind says that something failed."""
    blob: bytes | None = None
    """The result where it is `bytes`."""
    meta: str | None = None
    """JSON text of what else is known: attempts, the compensation owed, the delay before the next attempt."""

    def details(self) -> dict[str, Any]:
        """`meta` as a dict; empty where there is none."""
        return json.loads(self.meta) if self.meta else {}


COMPLETIONS: Final = frozenset(
    {
        Kind.ACTIVITY_COMPLETED,
        Kind.ACTIVITY_FAILED,
        Kind.TIMER_FIRED,
        Kind.EVENT_RECEIVED,
        Kind.EVENT_TIMED_OUT,
        Kind.EVENT_SENT,
        Kind.CHILD_STARTED,
        Kind.CHILD_COMPLETED,
        Kind.CHILD_FAILED,
        Kind.CHILD_CANCELLED,
        Kind.COMPENSATION_REGISTERED,
    }
)
"""The kinds that answer a call of the body, and so are delivered to it on replay."""

TERMINALS: Final = frozenset(
    {
        Kind.WORKFLOW_COMPLETED,
        Kind.WORKFLOW_FAILED,
        Kind.WORKFLOW_CANCELLED,
        Kind.WORKFLOW_COMPENSATION_FAILED,
    }
)
"""The kinds that end a history. Only `retry()` may add to it afterwards."""
