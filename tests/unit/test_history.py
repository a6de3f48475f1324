"""History: what is stored never changes its name or place."""

import json

import pytest

from edda.core.history import COMPLETIONS, TERMINALS, HistoryEvent, InstanceId, Kind


def event(kind: str, meta: str | None = None) -> HistoryEvent:
    return HistoryEvent(
        instance_id=InstanceId("i"), seq=1, claim=1, at_us=0, kind=kind, call_id="a:1", name="a", meta=meta
    )


def test_the_kinds_are_stored_so_their_values_never_change() -> None:
    assert {kind.value for kind in Kind} == {
        "WorkflowStarted", "WorkflowCompleted", "WorkflowFailed", "WorkflowCancelled", "WorkflowCompensationFailed",
        "ActivityCompleted", "ActivityFailed", "ActivityAttemptFailed", "ActivityUnknown",
        "TimerFired", "EventReceived", "EventRejected", "EventTimedOut", "EventSent",
        "ChildStarted", "ChildCompleted", "ChildFailed", "ChildCancelled",
        "CompensationRegistered", "CompensationStarted", "CompensationExecuted", "CompensationFailed",
        "CompensationAttemptFailed", "RetryRequested", "Patched",
    }  # fmt: skip


def test_the_fields_are_the_columns_in_order() -> None:
    assert HistoryEvent._fields == (
        "instance_id", "seq", "claim", "at_us", "kind", "call_id", "name", "input", "output", "blob", "meta",
    )  # fmt: skip


@pytest.mark.parametrize("kind", Kind)
def test_a_kind_is_told_from_its_stored_text(kind: Kind) -> None:
    assert event(str(kind)).kind == kind
    assert Kind(event(kind.value).kind) is kind
    assert (event(kind.value).kind in COMPLETIONS) == (kind in COMPLETIONS)


@pytest.mark.parametrize(
    ("kind", "heard"),
    [
        (Kind.ACTIVITY_COMPLETED, True),
        (Kind.ACTIVITY_FAILED, True),
        (Kind.ACTIVITY_ATTEMPT_FAILED, False),
        (Kind.ACTIVITY_UNKNOWN, False),
        (Kind.PATCHED, False),
        (Kind.WORKFLOW_STARTED, False),
        (Kind.COMPENSATION_REGISTERED, True),
        (Kind.COMPENSATION_EXECUTED, False),
        (Kind.RETRY_REQUESTED, False),
    ],
)
def test_the_body_hears_of_answers_only(kind: Kind, heard: bool) -> None:
    assert (kind in COMPLETIONS) is heard


def test_what_ends_a_history_answers_no_call() -> None:
    assert not COMPLETIONS & TERMINALS


def test_details_are_the_meta_as_a_dict_and_empty_where_there_is_none() -> None:
    details = {"undo": "cancel", "delay_us": 5}
    assert event(Kind.TIMER_FIRED, json.dumps(details)).details() == details
    assert event(Kind.TIMER_FIRED).details() == {}
