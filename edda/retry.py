"""Retry policies: how often and how patiently a failing activity is tried."""

from __future__ import annotations

from typing import Final

from edda.core.retry import DEFAULT_RETRY_POLICY, RetryPolicy
from edda.exceptions import RetryExhaustedError, TerminalError

AGGRESSIVE_RETRY: Final = RetryPolicy(
    initial_interval=0.1, backoff_coefficient=1.5, max_interval=10.0, max_attempts=10, max_duration=60.0
)
"""Quick and often, for calls that fail briefly."""

CONSERVATIVE_RETRY: Final = RetryPolicy(
    initial_interval=5.0, backoff_coefficient=2.0, max_interval=300.0, max_attempts=3, max_duration=900.0
)
"""Few attempts, far apart, for calls that are expensive."""

INFINITE_RETRY: Final = RetryPolicy(
    initial_interval=1.0, backoff_coefficient=2.0, max_interval=60.0, max_attempts=None, max_duration=None
)
"""Until it works."""

__all__ = [
    "AGGRESSIVE_RETRY",
    "CONSERVATIVE_RETRY",
    "DEFAULT_RETRY_POLICY",
    "INFINITE_RETRY",
    "RetryExhaustedError",
    "RetryPolicy",
    "TerminalError",
]
