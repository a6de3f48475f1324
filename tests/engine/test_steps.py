"""Steps under way: when they begin, what a crash resets (nothing), and how they are left behind."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edda.core.history import HistoryEvent, InstanceId, Kind
from edda.core.retry import GiveUp, RetryPolicy, TryAgain
from edda.engine.hook_queue import HookQueue
from edda.engine.plans import Code
from edda.engine.step import Step, exhausted_error
from edda.engine.steps import SETTLE_SECONDS, Steps
from edda.exceptions import TerminalError

CLIENT: Any = type("Client", (), {"instance_id": InstanceId("i"), "workflow_name": "w"})()
NO_HOOKS = HookQueue(None)


class FakeAttempt:
    def __init__(self, step: Step) -> None:
        self.step = step
        self.fate = ""

    def interrupt(self) -> None:
        self.fate += "interrupted"

    def forget(self) -> None:
        self.fate += "forgotten"


class FakeAttempts:
    """Runs nothing; remembers what it was asked to run."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    def run(self, client: object, step: Step) -> FakeAttempt:
        assert client is CLIENT
        self.begun.append(step.call_id)
        return FakeAttempt(step)


class Bench:
    def __init__(self) -> None:
        self.steps = Steps()
        self.attempts: Any = FakeAttempts()

    def add(self, *steps: Step) -> None:
        for step in steps:
            self.steps.add(step)

    def begin(self) -> list[str]:
        """Ids of the steps whose attempts begin now."""
        self.attempts.begun.clear()
        self.steps.begin(CLIENT, self.attempts, NO_HOOKS)
        return list(self.attempts.begun)


def a_step(call_id: str, policy: RetryPolicy | None = None, *, timeout: float | None = None, **fields: Any) -> Step:
    code = Code("a", print, is_async=True, takes_context=False, timeout=timeout)
    everything: dict[str, Any] = {
        "args": (), "kwargs": {}, "policy": policy or RetryPolicy(), "interruptible": True, "crashes": 0,
    }  # fmt: skip
    return Step(call_id, code, **{**everything, **fields})


def fate(step: Step) -> str:
    attempt: Any = step.attempt
    return attempt.fate


# -- beginning -----------------------------------------------------------------------------------------------------


def test_steps_begin_once_in_the_order_they_were_added() -> None:
    bench = Bench()
    bench.add(a_step("a:1"), a_step("a:2"))
    assert bench.steps.to_begin
    assert bench.begin() == ["a:1", "a:2"]
    assert bench.steps.running == 2
    assert bench.begin() == []
    assert not bench.steps.to_begin


def test_a_step_that_is_removed_before_it_begins_never_begins() -> None:
    bench = Bench()
    bench.add(a_step("a:1"), a_step("a:2"))
    bench.steps.remove("a:1")
    assert bench.begin() == ["a:2"]
    assert bench.steps.running == 1


def test_only_the_latest_step_of_an_id_begins() -> None:
    bench = Bench()
    old, new = a_step("a:1"), a_step("a:1")
    bench.add(old, new)
    assert bench.begin() == ["a:1"]
    assert (old.attempt, bench.steps.get("a:1")) == (None, new)


def test_a_step_in_its_back_off_begins_when_that_is_over_and_not_before() -> None:
    bench = Bench()
    bench.add(a_step("a:1", due_us=500), a_step("a:2", due_us=300), a_step("a:3"))
    assert bench.begin() == ["a:3"]
    assert bench.steps.earliest_due_us() == 300
    bench.steps.collect_due(299)
    assert bench.begin() == []
    bench.steps.collect_due(300)
    assert bench.begin() == ["a:2"]
    assert bench.steps.earliest_due_us() == 500
    bench.steps.collect_due(1_000)
    assert bench.begin() == ["a:1"]
    assert bench.steps.earliest_due_us() is None


def test_a_step_that_falls_due_before_it_was_looked_at_begins_once() -> None:
    bench = Bench()
    bench.add(a_step("a:1", due_us=500))
    bench.steps.collect_due(500)
    bench.steps.collect_due(500)
    assert bench.begin() == ["a:1"]
    assert bench.steps.running == 1


def test_after_a_failed_attempt_the_next_one_begins_when_its_back_off_is_over() -> None:
    bench = Bench()
    step = a_step("a:1", RetryPolicy(initial_interval=2.0))
    bench.add(step)
    assert bench.begin() == ["a:1"]
    assert bench.steps.outcome_taken("a:1") is step
    assert bench.steps.running == 0
    step.failed(ValueError(), duration_us=0, at_us=1_000_000)
    assert bench.begin() == []
    bench.steps.collect_due(2_999_999)
    assert bench.begin() == []
    bench.steps.collect_due(3_000_000)
    assert bench.begin() == ["a:1"]


def test_observers_hear_of_each_attempt() -> None:
    heard: list[object] = []
    hooks: Any = type("Hooks", (), {"call": lambda self, *args: heard.append(args)})()
    bench = Bench()
    bench.add(a_step("a:1"), a_step("a:2", due_us=1))
    bench.steps.begin(CLIENT, bench.attempts, hooks)
    assert heard == [("on_activity_start", "i", "a:1", "a", False)]


# -- leaving behind --------------------------------------------------------------------------------------------------


def test_when_nobody_waits_any_more_what_does_not_run_is_forgotten() -> None:
    bench = Bench()
    bench.add(a_step("running"), a_step("in its back-off", due_us=1))
    bench.begin()
    bench.add(a_step("to begin"))
    bench.steps.abandon()
    assert [step.call_id for step in bench.steps] == ["running"]
    bench.steps.collect_due(10)
    assert bench.begin() == []


@pytest.mark.parametrize(
    ("interruptible", "timeout", "patience", "expected"),
    [
        (True, None, 0.0, "interrupted"),
        (True, 5.0, 0.0, "interrupted"),
        (False, None, SETTLE_SECONDS, ""),
        (False, 5.0, 5.0, ""),
        (False, 500.0, 500.0, ""),
    ],
)
def test_an_attempt_that_may_have_to_be_undone_is_waited_for_and_others_are_interrupted(
    interruptible: bool, timeout: float | None, patience: float, expected: str
) -> None:
    bench, step = Bench(), a_step("a:1", interruptible=interruptible, timeout=timeout)
    bench.add(step)
    bench.begin()
    assert bench.steps.abandon() == patience
    assert fate(step) == expected
    assert bench.steps.running == 1  # its outcome still comes
    assert bench.steps.outcome_taken("a:1") is step


def test_the_longest_patience_counts() -> None:
    bench = Bench()
    bench.add(*(a_step(f"a:{n}", interruptible=False, timeout=n) for n in (3.0, 7.0, 5.0)), a_step("b:1", timeout=99.0))
    bench.begin()
    assert bench.steps.abandon() == 7.0


def test_an_attempt_that_has_not_ended_in_time_is_forgotten_and_named() -> None:
    bench, step = Bench(), a_step("a:1", interruptible=False)
    bench.add(step)
    bench.begin()
    bench.steps.abandon()
    assert bench.steps.stop_waiting() == [step]
    assert fate(step) == "forgotten"
    assert (bench.steps.running, bool(bench.steps)) == (0, False)
    assert bench.steps.stop_waiting() == []


def test_the_outcome_of_a_step_that_was_given_up_belongs_to_nobody() -> None:
    bench = Bench()
    bench.add(a_step("a:1"))
    bench.begin()
    bench.steps.remove("a:1")
    assert bench.steps.outcome_taken("a:1") is None
    assert bench.steps.running == 0


def test_without_the_claim_everything_is_forgotten() -> None:
    bench, running = Bench(), a_step("running")
    bench.add(running)
    bench.begin()
    bench.add(a_step("to begin"), a_step("in its back-off", due_us=1))
    bench.steps.forget()
    assert fate(running) == "forgotten"
    bench.steps.collect_due(10)
    assert (bench.begin(), bool(bench.steps), bench.steps.running, bench.steps.to_begin) == ([], False, 0, False)


# -- one step over its attempts --------------------------------------------------------------------------------------

FAILURES = st.lists(st.tuples(st.integers(0, 40_000_000), st.integers(0, 5_000_000)), max_size=12)
"""How long each attempt took, and how much later than due the next one began."""


@given(FAILURES, st.integers(0, 3))
def test_a_step_rebuilt_from_history_goes_on_as_if_there_had_been_no_crash(
    failures: list[tuple[int, int]], crashes: int
) -> None:
    patient = RetryPolicy(max_attempts=None, max_duration=None)
    live, now_us, history = a_step("a:1", patient, crashes=crashes), 0, list[HistoryEvent]()
    for duration_us, late_us in failures:
        now_us = (live.due_us or now_us) + late_us + duration_us
        decision = live.failed(ValueError("no"), duration_us=duration_us, at_us=now_us)
        assert isinstance(decision, TryAgain)
        meta = {"error": live.errors[-1], "duration_us": duration_us, "delay_us": decision.delay_us}
        history.append(
            HistoryEvent(InstanceId("i"), 1, 1, now_us, Kind.ACTIVITY_ATTEMPT_FAILED, "a:1", "a", meta=json.dumps(meta))
        )
    rebuilt = a_step("a:1", patient, crashes=crashes)
    rebuilt.resume(history)
    assert (rebuilt.spent_us, rebuilt.due_us, rebuilt.errors) == (live.spent_us, live.due_us, live.errors)
    assert rebuilt.number == live.number
    assert rebuilt.number == 1 + len(history) + crashes


def test_attempts_and_back_offs_count_towards_the_duration_and_time_without_a_worker_does_not() -> None:
    step = a_step("a:1", RetryPolicy(initial_interval=10.0, max_duration=30.0, max_attempts=None))
    decisions = [
        step.failed(ValueError(), duration_us=5_000_000, at_us=at_us) for at_us in (5_000_000, 900_000_000, 10**15)
    ]
    assert decisions == [TryAgain(delay_us=10_000_000), TryAgain(delay_us=20_000_000), GiveUp(exhausted=True)]
    assert step.spent_us == 45_000_000


@pytest.mark.parametrize(
    ("error", "decision"),
    [
        (ValueError(), TryAgain(delay_us=1_000_000)),
        (TerminalError("no use"), GiveUp(exhausted=False)),
        (KeyError(), GiveUp(exhausted=False)),
        (BaseException(), GiveUp(exhausted=False)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_follows_a_failure_depends_on_its_kind(error: BaseException, decision: object) -> None:
    step = a_step("a:1", RetryPolicy(non_retryable_error_types=(KeyError,)))
    assert step.failed(error, duration_us=0, at_us=0) == decision


def test_the_metadata_tells_of_all_failed_attempts_and_counts_the_success() -> None:
    step = a_step("a:1")
    step.failed(ValueError("first"), duration_us=2_000, at_us=7_000_000)
    step.failed(KeyError("second"), duration_us=3_000, at_us=9_000_000)
    assert step.metadata(exhausted=False, succeeded=True) == {
        "total_attempts": 3,
        "total_duration_ms": 3_005,
        "exhausted": False,
        "errors": [
            {"attempt": 1, "error_type": "ValueError", "message": "first", "timestamp_ms": 7_000},
            {"attempt": 2, "error_type": "KeyError", "message": "'second'", "timestamp_ms": 9_000},
        ],
        "last_error": {"error_type": "KeyError", "message": "'second'"},
    }
    assert step.metadata(exhausted=True, succeeded=False)["total_attempts"] == 2


def test_an_exhausted_policy_names_the_activity_the_attempts_and_the_last_error() -> None:
    cause = ValueError("no")
    error = exhausted_error("charge", 5, cause)
    assert str(error) == "Activity charge failed after 5 attempts: ValueError: no"
    assert error.__cause__ is cause
