"""edda: durable execution as a library. Ordinary async functions that survive crashes, in your own database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edda.activity import activity
from edda.callbacks import Callback
from edda.compensation import compensation, on_failure, on_failure_with_result, register_compensation
from edda.context import ActivityInfo, WorkflowContext
from edda.events import (
    Event,
    ReceivedEvent,
    send_event,
    send_event_transactional,
    sleep,
    sleep_until,
    wait_event,
    wait_timer,
    wait_until,
)
from edda.exceptions import (
    ActivityTimeoutError,
    CompensationFailedError,
    ConflictError,
    DeadLetterNotFoundError,
    EddaError,
    EventTimeoutError,
    ForbiddenInBody,
    InstanceEndedError,
    InstanceNotFoundError,
    InvalidEventError,
    NoAppError,
    NondeterminismError,
    NotCancellableError,
    NotRepairableError,
    RecordedError,
    RetryExhaustedError,
    SerializationError,
    TerminalError,
    WorkflowCancelledException,
)
from edda.hooks import HooksBase, WorkflowHooks
from edda.instances import InstanceEntry
from edda.retry import RetryPolicy
from edda.workflow import WorkflowHandle, workflow

if TYPE_CHECKING:
    from edda.app import EddaApp

__version__ = "0.1.0"

__all__ = [
    "ActivityInfo",
    "ActivityTimeoutError",
    "Callback",
    "CompensationFailedError",
    "ConflictError",
    "DeadLetterNotFoundError",
    "EddaApp",
    "EddaError",
    "Event",
    "EventTimeoutError",
    "ForbiddenInBody",
    "HooksBase",
    "InstanceEndedError",
    "InstanceEntry",
    "InstanceNotFoundError",
    "InvalidEventError",
    "NoAppError",
    "NondeterminismError",
    "NotCancellableError",
    "NotRepairableError",
    "ReceivedEvent",
    "RecordedError",
    "RetryExhaustedError",
    "RetryPolicy",
    "SerializationError",
    "TerminalError",
    "WorkflowCancelledException",
    "WorkflowContext",
    "WorkflowHandle",
    "WorkflowHooks",
    "activity",
    "compensation",
    "on_failure",
    "on_failure_with_result",
    "register_compensation",
    "send_event",
    "send_event_transactional",
    "sleep",
    "sleep_until",
    "wait_event",
    "wait_timer",
    "wait_until",
    "workflow",
]


def __getattr__(name: str) -> Any:
    """`EddaApp` brings the engine and pydantic with it, so it is imported when it is asked for."""
    if name == "EddaApp":
        from edda.app import EddaApp

        globals()[name] = EddaApp
        return EddaApp
    raise AttributeError(f"module 'edda' has no attribute {name!r}")
