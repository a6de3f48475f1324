"""Every error that edda raises to its users.

An error says what happened, to which instance, and what to do; ids are attributes. The class docstring is the default
message. Control flow of the engine (`Evicted`, `LeaseLost`) is not here: it derives from `BaseException` and user code
never needs its name.
"""

from __future__ import annotations

import inspect
from typing import ClassVar


class EddaError(Exception):
    """Something went wrong in edda."""

    retryable: ClassVar[bool] = True
    """False for wrong use of edda: raised in an activity, it is not retried, as no attempt would go better."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.cleandoc(type(self).__doc__ or "").partition("\n\n")[0])


# -- raised by user code, or on its behalf -------------------------------------------------------------------------


class TerminalError(Exception):
    """Raise it in an activity to fail at once: no retry will help."""


class RetryExhaustedError(EddaError):
    """An activity failed in every attempt its retry policy allows. `__cause__` is the last error."""


class EventTimeoutError(EddaError):
    """The awaited event did not arrive in time."""

    def __init__(self, event_type: str, timeout_seconds: float) -> None:
        super().__init__(f"Event '{event_type}' did not arrive within {timeout_seconds} seconds")
        self.event_type = event_type
        self.timeout_seconds = timeout_seconds


class WorkflowCancelledException(EddaError):
    """The workflow instance was cancelled."""

    def __init__(self, message: str | None = None, *, instance_id: str = "", unknown: tuple[str, ...] = ()) -> None:
        super().__init__(message or (f"Workflow instance {instance_id} was cancelled" if instance_id else None))
        self.instance_id = instance_id
        self.unknown = unknown
        """Ids of activities whose effect is not known: they were under way and gave no answer."""


class CompensationFailedError(EddaError):
    """The workflow failed, and undoing it failed too: someone has to look. `handle.retry()` runs again what is owed."""

    def __init__(self, message: str | None = None, *, instance_id: str = "", failed: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.instance_id = instance_id
        self.failed = failed
        """Ids of the compensations that failed for good."""


class ActivityTimeoutError(EddaError):
    """An attempt of an activity took longer than its `timeout`."""


class RecordedError(EddaError):
    """An error read back from history whose class is not known in this process."""

    def __init__(self, error_type: str, error_message: str, stack_trace: str = "") -> None:
        super().__init__(f"{error_type}: {error_message}")
        self.error_type = error_type
        self.error_message = error_message
        self.stack_trace = stack_trace


# -- wrong use ------------------------------------------------------------------------------------------------------


class NoAppError(EddaError):
    """No EddaApp is running here, or several are. Use `await app.start(workflow, ...)`, or `async with app:` first."""

    retryable = False


class ShuttingDownError(EddaError):
    """This EddaApp is shutting down: it takes no more work."""


class WrongLoopError(EddaError):
    """This EddaApp was initialised in another event loop or process. Use it there, or `await app.shutdown()` first."""

    retryable = False


class ConflictError(EddaError):
    """An instance with this id exists, and was started with another workflow or other arguments."""

    retryable = False

    def __init__(self, message: str | None = None, *, instance_id: str = "") -> None:
        super().__init__(message)
        self.instance_id = instance_id


class InstanceNotFoundError(EddaError):
    """There is no workflow instance with this id (it was never started, or retention has deleted it)."""

    def __init__(self, instance_id: str) -> None:
        super().__init__(f"There is no workflow instance '{instance_id}' (never started, or deleted by retention)")
        self.instance_id = instance_id


class NotCancellableError(EddaError):
    """The instance has ended or is already undoing its work, so it cannot be cancelled any more."""

    def __init__(self, instance_id: str, status: str) -> None:
        super().__init__(f"Workflow instance '{instance_id}' is {status}: it cannot be cancelled any more")
        self.instance_id = instance_id
        self.status = status


class InstanceEndedError(EddaError):
    """The event is addressed to an instance that has ended, and was not stored."""

    def __init__(self, instance_id: str) -> None:
        super().__init__(f"Workflow instance '{instance_id}' has ended: it receives no more events")
        self.instance_id = instance_id


class NotRepairableError(EddaError):
    """`retry()` has nothing to do for an instance in this status."""

    def __init__(self, instance_id: str, status: str) -> None:
        super().__init__(
            f"Workflow instance '{instance_id}' is {status}; retry() is for compensation_failed, nondeterministic "
            "and quarantined instances"
        )
        self.instance_id = instance_id
        self.status = status


class InvalidEventError(EddaError, ValueError):
    """The event breaks a rule of CloudEvents: no receiver would take it, so it is not sent."""

    retryable = False

    def __init__(self, message: str | None = None, *, instance_id: str = "") -> None:
        super().__init__(f"{message} (workflow instance '{instance_id}')" if instance_id else message)
        self.instance_id = instance_id
        """Of the workflow that wanted to send it; empty outside of workflows."""


class DeadLetterNotFoundError(EddaError):
    """There is no dead letter with this id."""

    def __init__(self, event_id: str) -> None:
        super().__init__(
            f"There is no dead letter with the id '{event_id}': it was never refused for good, or is requeued "
            "already. app.dead_letters() lists those there are."
        )
        self.event_id = event_id


class SerializationError(EddaError):
    """A value cannot be stored."""

    retryable = False


class PayloadTooLargeError(SerializationError):
    """A value is larger than the limit for one payload."""


class ForbiddenInBody(EddaError):
    """A workflow function did something that could not be replayed."""

    retryable = False

    def __init__(self, *, what: str, where: str) -> None:
        super().__init__(
            f"{what} at {where} cannot be replayed after a crash. "
            'Move it into an activity, or call it through ctx.run("name", function).'
        )
        self.what = what
        self.where = where


class NondeterminismError(EddaError):
    """The workflow code no longer does what its history says."""

    def __init__(self, *, instance_id: str, seq: int, recorded: str, found: str) -> None:
        super().__init__(
            f"Workflow instance '{instance_id}' does not replay: its history says at {seq}: {recorded}; "
            f"the code now has: {found}. The code was changed while this instance was under way, or it decides by "
            "something that is not recorded (random, the time, a global; use ctx.random(), ctx.now() or an activity). "
            'Deploy code that makes the recorded calls (branch with ctx.patched("...")), then call handle.retry().'
        )
        self.instance_id = instance_id
        self.seq = seq
        self.recorded = recorded
        self.found = found


class ForbiddenError(EddaError):
    """Who asks is known, but may not do this. An authorizer raises it; its text is sent to the client."""

    retryable = False


# -- the world ------------------------------------------------------------------------------------------------------


class MissingExtraError(EddaError, ImportError):
    """An optional package is needed."""

    retryable = False

    def __init__(self, *, what: str, package: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the package '{package}', which is not installed: pip install 'edda-framework[{extra}]'"
        )
        self.extra = extra


class StorageError(EddaError):
    """The database refused or could not be reached, and repeating did not help."""


class DatabaseUnavailableError(StorageError):
    """The database cannot be reached now. Nothing was written; what waits for it goes on when it is back."""


class SchemaError(StorageError):
    """The tables in the database do not fit this version of edda."""


class SessionUnavailableError(EddaError, RuntimeError):
    """ctx.session can only be used inside an activity written with `async def`."""

    retryable = False
