"""Retry policies: the numbers that are promised, and laws over all policies."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edda.core.retry import GiveUp, TryAgain, after_failure
from edda.retry import AGGRESSIVE_RETRY, CONSERVATIVE_RETRY, DEFAULT_RETRY_POLICY, INFINITE_RETRY, RetryPolicy

NAN, INFINITE = float("nan"), float("inf")
SECONDS = st.floats(0, 10_000)
POLICIES = st.builds(
    RetryPolicy,
    initial_interval=SECONDS,
    backoff_coefficient=st.floats(1, 100),
    max_interval=SECONDS,
    max_attempts=st.none() | st.integers(1, 50),
    max_duration=st.none() | SECONDS,
)
ATTEMPTS = st.integers(1, 3_000)


def delays(policy: RetryPolicy, *, attempt_seconds: float = 0.0) -> tuple[list[float], GiveUp]:
    """The delays of an activity that always fails, in seconds, and how it ends."""
    found: list[float] = []
    spent_us = 0
    for attempts in range(1, 10_000):
        spent_us += round(attempt_seconds * 1_000_000)
        decision = after_failure(policy, attempts=attempts, spent_us=spent_us, retryable=True)
        if isinstance(decision, GiveUp):
            return found, decision
        found.append(decision.delay_us / 1_000_000)
        spent_us += decision.delay_us
    raise AssertionError("it never gives up")


# -- what is promised ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (DEFAULT_RETRY_POLICY, [1, 2, 4, 8]),
        (RetryPolicy(), [1, 2, 4, 8]),
        (RetryPolicy(max_attempts=3, initial_interval=0.5, max_interval=10.0, max_duration=60.0), [0.5, 1]),
        (RetryPolicy(max_attempts=10, initial_interval=2.0), [2, 4, 8, 16, 32, 60, 60, 60, 60]),
        (RetryPolicy(max_attempts=1), []),
        (RetryPolicy(max_attempts=4, initial_interval=0), [0, 0, 0]),
        (RetryPolicy(max_attempts=4, initial_interval=3, backoff_coefficient=1), [3, 3, 3]),
        (RetryPolicy(max_attempts=3, initial_interval=100, max_interval=7), [7, 7]),
        (CONSERVATIVE_RETRY, [5, 10]),
    ],
)
def test_the_delays_of_an_activity_that_fails_at_once(policy: RetryPolicy, expected: list[float]) -> None:
    assert delays(policy) == (expected, GiveUp(exhausted=True))


@pytest.mark.parametrize(
    ("attempt_seconds", "attempts"),
    [(0, 5), (50, 5), (71, 5), (71.25, 5), (75, 4), (149, 3), (299, 2), (300, 1)],
)
def test_five_minutes_of_attempts_and_back_offs_are_enough(attempt_seconds: float, attempts: int) -> None:
    assert len(delays(DEFAULT_RETRY_POLICY, attempt_seconds=attempt_seconds)[0]) + 1 == attempts


@pytest.mark.parametrize("policy", [INFINITE_RETRY, RetryPolicy(max_attempts=None, max_duration=None)])
def test_without_limits_it_never_gives_up(policy: RetryPolicy) -> None:
    assert after_failure(policy, attempts=10**9, spent_us=10**18, retryable=True) == TryAgain(delay_us=60_000_000)


def test_an_error_that_is_not_to_be_retried_ends_it_at_once() -> None:
    assert after_failure(INFINITE_RETRY, attempts=1, spent_us=0, retryable=False) == GiveUp(exhausted=False)


class Special(ValueError):
    pass


@pytest.mark.parametrize(
    ("retryable", "non_retryable", "error", "expected"),
    [
        ((Exception,), (), ValueError(), True),
        ((Exception,), (ValueError,), ValueError(), False),
        ((Exception,), (ValueError,), Special(), False),
        ((Exception,), (Special,), ValueError(), True),
        ((ValueError,), (), Special(), True),
        ((ValueError,), (), KeyError(), False),
        ((ValueError,), (Special,), Special(), False),
        ((), (), ValueError(), False),
        ((Exception,), (), BaseException(), False),
        ((Exception,), (), KeyboardInterrupt(), False),
    ],
)
def test_which_errors_are_retried(retryable: Any, non_retryable: Any, error: BaseException, expected: bool) -> None:
    policy = RetryPolicy(retryable_error_types=retryable, non_retryable_error_types=non_retryable)
    assert policy.is_retryable(error) is expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"initial_interval": -1}, "intervals"),
        ({"initial_interval": NAN}, "intervals"),
        ({"initial_interval": INFINITE}, "intervals"),
        ({"max_interval": -0.1}, "intervals"),
        ({"max_interval": NAN}, "intervals"),
        ({"backoff_coefficient": 0.99}, "backoff_coefficient"),
        ({"backoff_coefficient": NAN}, "backoff_coefficient"),
        ({"backoff_coefficient": INFINITE}, "backoff_coefficient"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"max_duration": -1}, "max_duration"),
        ({"max_duration": NAN}, "max_duration"),
    ],
)
def test_a_policy_without_sense_is_refused_when_it_is_made(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RetryPolicy(**fields)


@pytest.mark.parametrize("policy", [AGGRESSIVE_RETRY, CONSERVATIVE_RETRY, DEFAULT_RETRY_POLICY])
def test_every_preset_but_the_infinite_one_gives_up(policy: RetryPolicy) -> None:
    assert delays(policy, attempt_seconds=1)[1] == GiveUp(exhausted=True)


# -- laws ----------------------------------------------------------------------------------------------------------


@given(POLICIES, ATTEMPTS)
def test_a_delay_lies_between_the_first_and_the_longest(policy: RetryPolicy, attempt: int) -> None:
    first = min(policy.initial_interval, policy.max_interval)
    assert first <= policy.calculate_delay(attempt) <= policy.max_interval


@given(POLICIES, ATTEMPTS)
def test_delays_never_become_shorter(policy: RetryPolicy, attempt: int) -> None:
    assert policy.calculate_delay(attempt) <= policy.calculate_delay(attempt + 1)


@given(POLICIES, ATTEMPTS)
def test_without_a_first_delay_there_is_none_later(policy: RetryPolicy, attempt: int) -> None:
    policy.initial_interval = 0
    assert policy.calculate_delay(attempt) == 0


@given(POLICIES, ATTEMPTS, st.integers(0, 10**12))
def test_another_attempt_follows_only_within_the_limits(policy: RetryPolicy, attempts: int, spent_us: int) -> None:
    within = (policy.max_attempts is None or attempts < policy.max_attempts) and (
        policy.max_duration is None or spent_us < policy.max_duration * 1_000_000
    )
    decision = after_failure(policy, attempts=attempts, spent_us=spent_us, retryable=True)
    if within:
        assert decision == TryAgain(delay_us=round(policy.calculate_delay(attempts) * 1_000_000))
    else:
        assert decision == GiveUp(exhausted=True)


@given(POLICIES.filter(lambda policy: policy.max_attempts is not None), st.floats(0, 100))
def test_the_attempts_are_never_more_than_allowed(policy: RetryPolicy, attempt_seconds: float) -> None:
    assert policy.max_attempts is not None
    found, _ = delays(policy, attempt_seconds=attempt_seconds)
    assert len(found) + 1 <= policy.max_attempts
    if policy.max_duration is not None:
        before_the_last = sum(found[:-1]) + attempt_seconds * len(found)
        assert not found or before_the_last <= policy.max_duration + 0.001


@given(POLICIES, ATTEMPTS, st.integers(0, 10**12))
def test_once_given_up_more_of_the_same_changes_nothing(policy: RetryPolicy, attempts: int, spent_us: int) -> None:
    if isinstance(after_failure(policy, attempts=attempts, spent_us=spent_us, retryable=True), GiveUp):
        later = after_failure(policy, attempts=attempts + 1, spent_us=spent_us + 1, retryable=True)
        assert later == GiveUp(exhausted=True)
