"""A commit and its parts: values, with defaults that change nothing."""

import dataclasses
from typing import Any

import pytest

from edda.core.commit import (
    STAY,
    Batch,
    BatchOutcome,
    Commit,
    Creation,
    End,
    NewInstance,
    Park,
    Stay,
    Undo,
    Verdict,
)
from edda.core.history import InstanceId, WorkerId
from edda.core.lifecycle import Status

NEW = NewInstance(id=InstanceId("i"), workflow="w", input="{}", args_hash="h")
ME = WorkerId("me")


def test_a_new_instance_belongs_to_nobody_until_it_is_claimed() -> None:
    assert (NEW.owner, NEW.claim) == (None, 0)


def test_a_start_that_is_run_at_once_is_a_claim() -> None:
    mine = NEW.owned_by(ME)
    assert (mine.owner, mine.claim) == (ME, 1)
    assert mine._replace(owner=None) == NEW
    assert NEW.owner is None


def test_a_commit_leaves_everything_as_it_is_unless_it_says_so() -> None:
    commit = Commit(instance_id=InstanceId("i"), claim=1)
    assert commit.row is STAY
    assert not any((commit.records, commit.children, commit.outbox, commit.wakes, commit.cancels))


def test_an_end_yields_to_a_cancel_only_where_it_says_so() -> None:
    assert End(status=Status.COMPLETED).unless_cancelled is False


def test_an_empty_batch_carries_nothing() -> None:
    assert (Batch().commits, Batch().starts) == ((), ())
    outcome = BatchOutcome(now_us=1)
    assert (outcome.verdicts, outcome.creations) == ((), ())


VALUES: list[Any] = [
    NEW,
    Commit(instance_id=InstanceId("i"), claim=1),
    Stay(),
    Park(status=Status.WAITING_FOR_TIMER, reason="", due_us=None, seen_wakes=0),
    Undo(for_cancel=True),
    End(status=Status.COMPLETED),
    Creation(created=True),
    Batch(),
    BatchOutcome(now_us=1),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_what_travels_is_a_value_that_cannot_be_changed(value: Any) -> None:
    names = value._fields if isinstance(value, tuple) else [field.name for field in dataclasses.fields(value)]
    for name in names:
        with pytest.raises(AttributeError):
            setattr(value, name, getattr(value, name))
    assert hash(value) == hash(value)


def test_the_four_changes_of_a_row_are_told_apart() -> None:
    def name(change: Stay | Park | Undo | End) -> str:
        match change:
            case Stay():
                return "stay"
            case Park(due_us=due_us):
                return f"park until {due_us}"
            case Undo(for_cancel=for_cancel):
                return f"undo {for_cancel}"
            case End(status=status):
                return f"end {status}"

    park = Park(status=Status.WAITING_FOR_TIMER, reason="", due_us=7, seen_wakes=0)
    changes = (STAY, park, Undo(for_cancel=False), End(status=Status.FAILED))
    assert [name(change) for change in changes] == ["stay", "park until 7", "undo False", "end failed"]


def test_a_verdict_says_whether_anything_was_written() -> None:
    assert {verdict.name for verdict in Verdict} == {"COMMITTED", "WOKEN", "CANCEL_FIRST", "CLAIM_LOST"}
