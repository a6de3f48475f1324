"""One step under way: the attempts of one activity or compensation, over crashes and back-offs.

Its failed attempts are rows of history, so a crash resets nothing: a step is rebuilt from them and goes on counting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from edda.core.history import HistoryEvent
from edda.core.retry import GiveUp, RetryPolicy, TryAgain, after_failure
from edda.engine.attempts import Attempt
from edda.engine.codec import class_name, in_words, message_of
from edda.engine.plans import Code
from edda.exceptions import EddaError, RetryExhaustedError, TerminalError

MESSAGE_CHARS_MAX: Final = 2_000
FIRST_ERRORS: Final = 10
LAST_ERRORS: Final = 40
"""Of each failed attempt's message, and of the attempts, so much is written again into the last row of a step."""


@dataclass(slots=True, eq=False)
class Step:
    """What to run, and how it went so far."""

    call_id: str
    code: Code
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    policy: RetryPolicy
    interruptible: bool
    """It may be cancelled: what it did, if it did, need not be known."""
    crashes: int
    """Crashes since the last record: they count into the number of the attempt."""
    errors: Sequence[dict[str, Any]] = ()
    """One per failed attempt."""
    spent_us: int = 0
    """Attempts and delays so far."""
    due_us: int | None = None
    """When the next attempt may begin; None: now, or one is running."""
    attempt: Attempt | None = None

    def resume(self, failures: Sequence[HistoryEvent]) -> None:
        """Take up what history says of failed attempts."""
        for event in failures:
            details = event.details()
            error = details["error"]
            self.errors = (*self.errors, {**error, "message": _shortened(error["message"])})
            self.spent_us += details["duration_us"] + details["delay_us"]
            self.due_us = event.at_us + details["delay_us"]

    def __str__(self) -> str:
        """For people: which call, and how it went so far."""
        if not self.errors:
            return self.call_id
        last = self.errors[-1]
        return f"{self.call_id} (attempt {len(self.errors)} failed: {last['error_type']}: {last['message']})"

    @property
    def number(self) -> int:
        """Which attempt the next one is."""
        return 1 + len(self.errors) + self.crashes

    def failed(self, error: BaseException, *, duration_us: int, at_us: int) -> TryAgain | GiveUp:
        """Count a failed attempt and decide what follows."""
        how = {
            "attempt": len(self.errors) + 1,
            "error_type": class_name(error),
            "message": _shortened(message_of(error)),
            "timestamp_ms": at_us // 1000,
        }
        self.errors = (*self.errors, how)
        self.spent_us += duration_us
        hopeless = isinstance(error, TerminalError) or (isinstance(error, EddaError) and not error.retryable)
        retryable = not hopeless and self.policy.is_retryable(error)
        decision = after_failure(self.policy, attempts=len(self.errors), spent_us=self.spent_us, retryable=retryable)
        if isinstance(decision, TryAgain):
            self.spent_us += decision.delay_us
            self.due_us = at_us + decision.delay_us
        return decision

    def metadata(self, *, exhausted: bool, succeeded: bool) -> dict[str, Any]:
        """`retry_metadata` as it stands in history."""
        last = self.errors[-1] if self.errors else None
        return {
            "total_attempts": len(self.errors) + (1 if succeeded else 0),
            "total_duration_ms": self.spent_us // 1000,
            "exhausted": exhausted,
            **_not_too_many(self.errors),
            "last_error": {"error_type": last["error_type"], "message": last["message"]} if last else None,
        }


def _shortened(message: str) -> str:
    """The row of its attempt has it whole, as the error that it was."""
    return message if len(message) <= MESSAGE_CHARS_MAX else f"{message[:MESSAGE_CHARS_MAX]}…"


def _not_too_many(errors: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One row has to hold them, however often it was tried; each has a row of its own."""
    left_out = len(errors) - FIRST_ERRORS - LAST_ERRORS
    if left_out <= 0:
        return {"errors": list(errors)}
    return {"errors": [*errors[:FIRST_ERRORS], *errors[-LAST_ERRORS:]], "errors_left_out": left_out}


def exhausted_error(name: str, attempts: int, cause: BaseException) -> RetryExhaustedError:
    """What the caller of an activity gets when its policy has run out."""
    error = RetryExhaustedError(f"Activity {name} failed after {attempts} attempts: {in_words(cause)}")
    error.__cause__ = cause
    return error
