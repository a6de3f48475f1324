"""What is owed: newest completion first, exactly what was recorded, each once."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edda.core.history import HistoryEvent, InstanceId, Kind
from edda.core.saga import compensation_id, failed_for_good, owed, undoing

Row = tuple[Kind, str] | tuple[Kind, str, str]
"""Kind, call id, and the compensation that was declared."""

COMPLETED, FAILED, UNKNOWN = Kind.ACTIVITY_COMPLETED, Kind.ACTIVITY_FAILED, Kind.ACTIVITY_UNKNOWN
REGISTERED, BEGUN = Kind.COMPENSATION_REGISTERED, Kind.COMPENSATION_STARTED
EXECUTED, GONE_WRONG, ATTEMPT = (
    Kind.COMPENSATION_EXECUTED,
    Kind.COMPENSATION_FAILED,
    Kind.COMPENSATION_ATTEMPT_FAILED,
)
RETRY = Kind.RETRY_REQUESTED


def history(*rows: Row) -> list[HistoryEvent]:
    return [
        HistoryEvent(
            instance_id=InstanceId("i"),
            seq=seq,
            claim=1,
            at_us=seq,
            kind=kind,
            call_id=call_id,
            name=call_id.partition(":")[0],
            meta=json.dumps({"undo": undo[0]}) if undo else None,
        )
        for seq, (kind, call_id, *undo) in enumerate(rows, 1)
    ]


def owed_ids(events: list[HistoryEvent]) -> list[str]:
    return [debt.call_id for debt in owed(events)]


A, B, C = (COMPLETED, "a:1", "undo_a"), (COMPLETED, "b:1", "undo_b"), (COMPLETED, "c:1", "undo_c")

CASES: dict[str, tuple[list[Row], list[str]]] = {
    "nothing happened": ([], []),
    "newest first": ([A, B, C], ["undo/c:1", "undo/b:1", "undo/a:1"]),
    "in the order of completion, not of the calls": (
        [(COMPLETED, "b:2", "undo_b"), (COMPLETED, "b:1", "undo_b")],
        ["undo/b:1", "undo/b:2"],
    ),
    "without a compensation": ([(COMPLETED, "a:1"), B], ["undo/b:1"]),
    "the one that failed is not undone": ([A, (FAILED, "b:1")], ["undo/a:1"]),
    "an attempt that failed is not undone": ([A, (Kind.ACTIVITY_ATTEMPT_FAILED, "b:1")], ["undo/a:1"]),
    "one activity twice": (
        [(COMPLETED, "a:1", "undo_a"), (COMPLETED, "a:2", "undo_a")],
        ["undo/a:2", "undo/a:1"],
    ),
    "an unknown effect, where the compensation wants to know": ([(UNKNOWN, "a:1", "undo_a"), B], [
        "undo/b:1", "undo/a:1",
    ]),
    "an unknown effect, where it does not": ([(UNKNOWN, "a:1"), B], ["undo/b:1"]),
    "registered in the body": ([A, (REGISTERED, "tidy:1", "tidy")], ["undo/tidy:1", "undo/a:1"]),
    "what ran is owed no longer": ([A, B, (BEGUN, ""), (EXECUTED, "undo/b:1")], ["undo/a:1"]),
    "what failed for good is owed no longer": ([A, B, (BEGUN, ""), (GONE_WRONG, "undo/b:1")], ["undo/a:1"]),
    "what failed once is still owed": ([A, (BEGUN, ""), (ATTEMPT, "undo/a:1")], ["undo/a:1"]),
    "what failed for good is owed again after a retry": (
        [A, B, (BEGUN, ""), (GONE_WRONG, "undo/b:1"), (EXECUTED, "undo/a:1"), (RETRY, "")],
        ["undo/b:1"],
    ),
    "and can fail again": (
        [A, (BEGUN, ""), (GONE_WRONG, "undo/a:1"), (RETRY, ""), (GONE_WRONG, "undo/a:1")],
        [],
    ),
    "what ran before a retry stays undone": (
        [A, B, (BEGUN, ""), (EXECUTED, "undo/b:1"), (GONE_WRONG, "undo/a:1"), (RETRY, ""), (EXECUTED, "undo/a:1")],
        [],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "expected"), CASES.values(), ids=CASES)
def test_what_is_owed(rows: list[Row], expected: list[str]) -> None:
    assert owed_ids(history(*rows)) == expected


def test_a_debt_names_its_compensation_and_the_record_that_it_undoes() -> None:
    events = history((COMPLETED, "a:1", "undo_a"))
    (debt,) = owed(events)
    assert (debt.compensation, debt.event, debt.failures) == ("undo_a", events[0], ())
    assert debt.call_id == compensation_id(events[0]) == "undo/a:1"


def test_failed_attempts_of_a_compensation_count_until_somebody_asks_to_retry() -> None:
    rows: list[Row] = [A, B, (BEGUN, ""), (ATTEMPT, "undo/b:1"), (ATTEMPT, "undo/a:1"), (ATTEMPT, "undo/b:1")]
    events = history(*rows)
    assert [debt.failures for debt in owed(events)] == [(events[3], events[5]), (events[4],)]
    assert [debt.failures for debt in owed(history(*rows, (GONE_WRONG, "undo/b:1"), (RETRY, "")))] == [(), ()]


@pytest.mark.parametrize(
    ("rows", "failed"),
    [
        ([A, (BEGUN, "")], ()),
        ([A, (BEGUN, ""), (ATTEMPT, "undo/a:1")], ()),
        ([A, B, (BEGUN, ""), (GONE_WRONG, "undo/b:1"), (EXECUTED, "undo/a:1")], ("undo/b:1",)),
        ([A, B, (BEGUN, ""), (GONE_WRONG, "undo/b:1"), (GONE_WRONG, "undo/a:1")], ("undo/b:1", "undo/a:1")),
        ([A, (BEGUN, ""), (GONE_WRONG, "undo/a:1"), (RETRY, "")], ()),
        ([A, (BEGUN, ""), (GONE_WRONG, "undo/a:1"), (RETRY, ""), (GONE_WRONG, "undo/a:1")], ("undo/a:1",)),
    ],
)
def test_what_failed_for_good_is_told_until_somebody_asks_to_retry(rows: list[Row], failed: tuple[str, ...]) -> None:
    assert failed_for_good(history(*rows)) == failed


def test_undoing_has_begun_when_history_says_so() -> None:
    events = history(A, (BEGUN, ""), (EXECUTED, "undo/a:1"))
    assert undoing(events) is events[1]
    assert undoing(events[:1]) is None


# -- laws ----------------------------------------------------------------------------------------------------------

CALLS = st.lists(st.tuples(st.sampled_from([COMPLETED, FAILED, UNKNOWN, REGISTERED]), st.booleans()), max_size=12)


def happened(calls: list[tuple[Kind, bool]]) -> list[Row]:
    return [(kind, f"a:{n}", "undo_a") if declared else (kind, f"a:{n}") for n, (kind, declared) in enumerate(calls)]


@given(CALLS)
def test_owed_is_the_reverse_of_the_order_of_completion(calls: list[tuple[Kind, bool]]) -> None:
    events = history(*happened(calls))
    seqs = [debt.event.seq for debt in owed(events)]
    assert seqs == sorted(seqs, reverse=True)
    assert {seq - 1 for seq in seqs} == {n for n, (kind, declared) in enumerate(calls) if declared and kind != FAILED}


@given(CALLS, st.data())
def test_a_crash_between_two_compensations_changes_neither_what_is_owed_nor_its_order(
    calls: list[tuple[Kind, bool]], data: st.DataObject
) -> None:
    rows = [*happened(calls), (BEGUN, "")]
    left = owed_ids(history(*rows))
    while left:
        assert owed_ids(history(*rows)) == left, "reading again changes nothing"
        rows += [(ATTEMPT, left[0])] * data.draw(st.integers(0, 2))
        assert owed_ids(history(*rows)) == left, "a failed attempt settles nothing"
        rows.append((data.draw(st.sampled_from([EXECUTED, GONE_WRONG])), left.pop(0)))
    assert owed(history(*rows)) == []


@given(CALLS, st.sets(st.integers(0, 11)))
def test_a_retry_owes_again_exactly_what_failed_for_good(calls: list[tuple[Kind, bool]], unlucky: set[int]) -> None:
    rows = [*happened(calls), (BEGUN, "")]
    order = owed_ids(history(*rows))
    rows += [(GONE_WRONG if place in unlucky else EXECUTED, call) for place, call in enumerate(order)]
    failed = [call for place, call in enumerate(order) if place in unlucky]
    assert list(failed_for_good(history(*rows))) == failed
    assert owed_ids(history(*rows, (RETRY, ""))) == failed
