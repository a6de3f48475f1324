"""When to try again: a policy, and the decision after a recorded failure. Pure: time is passed in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from edda.core.options import check_number, check_whole


@dataclass(kw_only=False)
class RetryPolicy:
    """How often and how patiently an activity is tried. All intervals are in seconds.

    The delay after attempt n is `initial_interval * backoff_coefficient ** (n - 1)`, at most `max_interval`.
    `max_attempts` counts the first attempt too; None means for ever. `max_duration` limits attempts and delays together
    (not time without a worker) and is checked after a failed attempt; None means no limit. Errors that are not of
    `retryable_error_types`, or are of `non_retryable_error_types`, or are `TerminalError`, end it at once.
    """

    initial_interval: float = 1.0
    backoff_coefficient: float = 2.0
    max_interval: float = 60.0
    max_attempts: int | None = 5
    max_duration: float | None = 300.0
    retryable_error_types: tuple[type[Exception], ...] = (Exception,)
    non_retryable_error_types: tuple[type[Exception], ...] = ()

    def __post_init__(self) -> None:
        self._check_kinds()
        if not (0 <= self.initial_interval < math.inf and self.max_interval >= 0):
            raise ValueError(f"intervals must be numbers of seconds, 0 or more: {self}")
        if not 1 <= self.backoff_coefficient < math.inf:
            raise ValueError(f"backoff_coefficient must be a number, 1 or more: {self}")
        if self.max_attempts is not None and self.max_attempts < 1:
            raise ValueError(f"max_attempts must be at least 1, or None for no limit: {self}")
        if self.max_duration is not None and not self.max_duration >= 0:
            raise ValueError(f"max_duration must be a number of seconds, 0 or more: {self}")

    def _check_kinds(self) -> None:
        for option in ("initial_interval", "backoff_coefficient", "max_interval"):
            check_number(f"{option} of a RetryPolicy", getattr(self, option))
        if self.max_duration is not None:
            check_number("max_duration of a RetryPolicy", self.max_duration, what="a number of seconds, or None")
        if self.max_attempts is not None:
            check_whole("max_attempts of a RetryPolicy", self.max_attempts, what="a whole number, or None")
        for option in ("retryable_error_types", "non_retryable_error_types"):
            types: Any = getattr(self, option)
            try:
                isinstance(None, types)
            except TypeError:
                raise TypeError(
                    f"{option} of a RetryPolicy must be a tuple of exception types, as (ValueError,) is, not {types!r}"
                ) from None

    def is_retryable(self, error: BaseException) -> bool:
        """Whether this kind of error may be tried again (`TerminalError` is decided by the caller)."""
        if isinstance(error, self.non_retryable_error_types):
            return False
        return isinstance(error, self.retryable_error_types)

    def calculate_delay(self, attempt: int) -> float:
        """Seconds to wait after attempt number `attempt` (1 is the first)."""
        try:
            return min(self.initial_interval * self.backoff_coefficient ** (attempt - 1), self.max_interval)
        except OverflowError:
            return self.max_interval if self.initial_interval else 0.0


def check_policy(option: str, value: object) -> None:
    """A policy or None, else TypeError."""
    if value is not None and not isinstance(value, RetryPolicy):
        raise TypeError(f"{option} must be a RetryPolicy(...) or None, not {value!r}")


DEFAULT_RETRY_POLICY: Final = RetryPolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class TryAgain:
    """Another attempt, after this delay."""

    delay_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """No further attempt."""

    exhausted: bool
    """The policy ran out, as against an error that is not to be retried."""


def after_failure(policy: RetryPolicy, *, attempts: int, spent_us: int, retryable: bool) -> TryAgain | GiveUp:
    """Decide after `attempts` failed attempts that took, with the delays between them, `spent_us`."""
    if not retryable:
        return GiveUp(exhausted=False)
    if policy.max_attempts is not None and attempts >= policy.max_attempts:
        return GiveUp(exhausted=True)
    if policy.max_duration is not None and spent_us >= policy.max_duration * 1_000_000:
        return GiveUp(exhausted=True)
    return TryAgain(delay_us=round(policy.calculate_delay(attempts) * 1_000_000))
