"""Why an instance is where it is, in words: one sentence for every situation, and what to do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edda.core.history import CallId, HistoryEvent, InstanceId, Kind, WorkerId
from edda.core.lifecycle import Status
from edda.storage.port import InstanceRow
from edda.storage.reads import WorkerView
from edda.why import Situation, duration, error_in_words, why

NOW = 1_800_000_000_000_000
SECOND, MINUTE = 1_000_000, 60_000_000
ERROR = json.dumps({"error_type": "ValueError", "error_message": "no\nmoney", "stack_trace": "…"})


def row(**more: Any) -> InstanceRow:
    values: dict[str, Any] = {
        "id": "i", "workflow": "order", "status": Status.RUNNING, "reason": "", "owner": None, "claim": 1, "wakes": 0,
        "claimable_at_us": None, "cancel_requested_at_us": None, "cancelled_by": "", "crashes": 0, "input": "{}",
        "args_hash": "", "output": None, "blob": None, "error": None, "parent_id": None, "detached": False,
        "source_hash": "", "python": "", "created_at_us": NOW - 10 * MINUTE, "updated_at_us": NOW - 3 * MINUTE,
        "ended_at_us": None,
    }  # fmt: skip
    return InstanceRow(**values | more)


def worker(**more: Any) -> WorkerView:
    view = WorkerView(WorkerId("host-1-ab"), "shop", True, True, NOW + 8 * SECOND, NOW - MINUTE, 1, ("order",))
    return view._replace(**more)


def event(kind: Kind, call: str = "charge:1", **more: Any) -> HistoryEvent:
    values: dict[str, Any] = {"at_us": NOW - 2 * SECOND, "name": call.partition(":")[0].removeprefix("undo/")} | more
    return HistoryEvent(instance_id=InstanceId("i"), seq=1, claim=1, kind=kind.value, call_id=CallId(call), **values)


def failed_attempt(kind: Kind = Kind.ACTIVITY_ATTEMPT_FAILED, call: str = "charge:1") -> HistoryEvent:
    error = {"error_type": "TimeoutError", "message": "too slow"}
    return event(kind, call, meta=json.dumps({"error": error, "delay_us": 14 * SECOND}))


EVENT = Status.WAITING_FOR_EVENT
SENTENCES: dict[str, tuple[Situation, str]] = {
    "waits for an event": (
        Situation(
            now_us=NOW,
            row=row(status=EVENT, reason='event paid (order_id="7")', claimable_at_us=NOW + 57 * MINUTE),
        ),
        'has waited 3 min for event paid (order_id="7"), times out in 57 min',
    ),
    "waits for ever": (
        Situation(now_us=NOW, row=row(status=EVENT, reason="event paid")),
        "has waited 3 min for event paid, without a time limit",
    ),
    "waits for a timer": (
        Situation(
            now_us=NOW,
            row=row(status=Status.WAITING_FOR_TIMER, reason="timer sleep:1", claimable_at_us=NOW + MINUTE),
            workers=[worker()],
        ),
        "has waited 3 min for timer sleep:1, due in 1 min",
    ),
    "runs": (
        Situation(now_us=NOW, row=row(owner="host-1-ab"), workers=[worker()]),
        "runs on worker host-1-ab, lease 8.0 s left; nothing is recorded yet",
    ),
    "runs and recorded": (
        Situation(
            now_us=NOW,
            row=row(owner="host-1-ab"),
            workers=[worker()],
            history=[event(Kind.ACTIVITY_COMPLETED)],
        ),
        "runs on worker host-1-ab, lease 8.0 s left; last recorded 2.0 s ago: ActivityCompleted charge:1",
    ),
    "its worker is gone": (
        Situation(now_us=NOW, row=row(owner="host-1-ab"), workers=[worker(present=False)]),
        "belongs to worker host-1-ab, which is gone. No worker is alive: start one.",
    ),
    "its lease is over": (
        Situation(
            now_us=NOW,
            row=row(owner="host-1-ab"),
            workers=[worker(lease_until_us=NOW - 5 * SECOND), worker(id=WorkerId("other"))],
        ),
        "belongs to worker host-1-ab, whose lease ended 5.0 s ago. Another worker will take it over within seconds.",
    ),
    "nobody knows it": (
        Situation(now_us=NOW, row=row(claimable_at_us=NOW - 5 * SECOND), workers=[worker(workflows=("other",))]),
        "has been runnable for 5.0 s, but no alive worker knows workflow 'order'. Start one that does, or bring the "
        "code back.",
    ),
    "nobody is there, and it is no hurry": (
        Situation(now_us=NOW, row=row(status=Status.WAITING_FOR_TIMER, reason="timer x", claimable_at_us=NOW + MINUTE)),
        "has waited 3 min for timer x, due in 1 min. No worker is alive: start one that knows workflow 'order'.",
    ),
    "nobody is there": (
        Situation(now_us=NOW, row=row(claimable_at_us=NOW - 5 * SECOND)),
        "has been runnable for 5.0 s, but no worker is alive. Start one that knows workflow 'order'.",
    ),
    "all are busy": (
        Situation(now_us=NOW, row=row(claimable_at_us=NOW), workers=[worker()]),
        "has been runnable for 0 ms, and waits for a worker that has room.",
    ),
    "an older worker has not said what it runs": (
        Situation(now_us=NOW, row=row(claimable_at_us=NOW), workers=[worker(workflows=None)]),
        "has been runnable for 0 ms, and waits for a worker that has room.",
    ),
    "a retry": (
        Situation(
            now_us=NOW,
            row=row(reason="retry of charge:1", claimable_at_us=NOW + 12 * SECOND),
            history=[failed_attempt()] * 3,
            workers=[worker()],
        ),
        "attempt 4 of activity charge (charge:1) in 12 s, after TimeoutError: too slow.",
    ),
    "a retry that was answered is not told": (
        Situation(
            now_us=NOW,
            row=row(owner="host-1-ab"),
            history=[failed_attempt(), event(Kind.ACTIVITY_COMPLETED)],
            workers=[worker()],
        ),
        "runs on worker host-1-ab, lease 8.0 s left; last recorded 2.0 s ago: ActivityCompleted charge:1.",
    ),
    "a child": (
        Situation(
            now_us=NOW,
            row=row(reason="child i/a:1, i/b:1"),
            children=[row(id="i/b:1", status=EVENT)],
        ),
        "has waited 3 min for child i/a:1, i/b:1 (waiting_for_event).",
    ),
    "set aside": (
        Situation(now_us=NOW, row=row(status=Status.NONDETERMINISTIC, error=ERROR)),
        "set aside as nondeterministic 3 min ago: ValueError: no money. Make the code fit the history again "
        "(ctx.patched can branch), then: edda retry i.",
    ),
    "quarantined": (
        Situation(now_us=NOW, row=row(status=Status.QUARANTINED, reason="3 workers died")),
        "set aside as quarantined 3 min ago: 3 workers died. Correct what it does, then: edda retry i.",
    ),
    "compensating": (
        Situation(
            now_us=NOW,
            row=row(status=Status.COMPENSATING, owner="host-1-ab"),
            workers=[worker()],
            history=[
                *(event(Kind.ACTIVITY_COMPLETED, f"charge:{n}", meta='{"undo": "refund"}') for n in (1, 2, 3)),
                event(Kind.COMPENSATION_EXECUTED, "undo/charge:3"),
                event(Kind.COMPENSATION_EXECUTED, "undo/charge:2"),
            ],
        ),
        "compensating: 2 of 3 undone; runs on worker host-1-ab, lease 8.0 s left; last recorded 2.0 s ago: "
        "CompensationExecuted undo/charge:2.",
    ),
    "cancel asked for": (
        Situation(
            now_us=NOW,
            row=row(owner="host-1-ab", cancel_requested_at_us=NOW - SECOND, cancelled_by="ann"),
            workers=[worker()],
        ),
        "to be cancelled, asked for by ann 1.0 s ago; runs on worker host-1-ab, lease 8.0 s left; "
        "nothing is recorded yet.",
    ),
    "completed": (
        Situation(now_us=NOW, row=row(status=Status.COMPLETED, ended_at_us=NOW - MINUTE)),
        "completed 1 min ago, after 9 min.",
    ),
    "failed": (
        Situation(now_us=NOW, row=row(status=Status.FAILED, ended_at_us=NOW - MINUTE, error=ERROR)),
        "failed 1 min ago, after 9 min: ValueError: no money.",
    ),
    "cancelled": (
        Situation(now_us=NOW, row=row(status=Status.CANCELLED, ended_at_us=NOW, cancelled_by="ann")),
        "cancelled by ann, 0 ms ago, after 10 min.",
    ),
    "not undone": (
        Situation(
            now_us=NOW,
            row=row(status=Status.COMPENSATION_FAILED, ended_at_us=NOW - MINUTE, error=ERROR),
            history=[event(Kind.COMPENSATION_FAILED, "undo/charge:1")],
        ),
        "ended 1 min ago, and undo/charge:1 could not be undone: ValueError: no money. When the cause is gone, undo "
        "again what is owed: edda retry i.",
    ),
}


@pytest.mark.parametrize("case", SENTENCES)
def test_it_is_said_in_words(case: str) -> None:
    situation, sentence = SENTENCES[case]
    assert str(why(situation)) == sentence.rstrip(".") + "."


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (-1, "0 ms"), (999_000, "999 ms"), (8 * SECOND, "8.0 s"), (42 * SECOND, "42 s"), (90 * SECOND, "1 min 30 s"),
        (60 * MINUTE, "1 h"), (61 * MINUTE, "1 h 1 min"), (49 * 60 * MINUTE, "2 d 1 h"),
    ],
)  # fmt: skip
def test_durations_have_two_units_at_most(us: int, text: str) -> None:
    assert duration(us) == text


@pytest.mark.parametrize("text", [None, "", "{", "[]", "7", "{}"])
def test_an_error_that_nobody_can_read_is_said_to_be_none(text: str | None) -> None:
    assert error_in_words(text) == "no error is recorded"


def test_a_long_error_is_cut() -> None:
    assert len(error_in_words(json.dumps({"error_type": "E", "error_message": "x" * 5000}))) == 300
