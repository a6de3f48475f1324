"""The journal: completions in `seq` order, each once, and what was refused never happened."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edda.core.history import COMPLETIONS, HistoryEvent, InstanceId, Kind
from edda.core.journal import ANSWERS, REFUSABLE, CallKind, Journal, describe_call, describe_event, fits

KINDS = st.lists(st.sampled_from(Kind), max_size=30)


def event(seq: int, kind: Kind = Kind.ACTIVITY_COMPLETED, *, call_id: str = "", name: str = "a") -> HistoryEvent:
    return HistoryEvent(
        instance_id=InstanceId("i"), seq=seq, claim=1, at_us=seq, kind=kind, call_id=call_id or f"a:{seq}", name=name
    )


def history(kinds: Sequence[Kind]) -> list[HistoryEvent]:
    return [event(seq, kind) for seq, kind in enumerate(kinds, 1)]


def delivered(journal: Journal) -> list[HistoryEvent]:
    taken: list[HistoryEvent] = []
    while (completion := journal.next_completion()) is not None:
        taken.append(completion)
    return taken


# -- replay --------------------------------------------------------------------------------------------------------


@given(KINDS)
def test_completions_are_handed_out_in_the_order_of_seq_each_once_and_nothing_else_is(kinds: list[Kind]) -> None:
    recorded = history(kinds)
    journal = Journal.of(recorded)
    assert delivered(journal) == [one for one in recorded if one.kind in COMPLETIONS]
    assert journal.next_completion() is None


@given(KINDS)
def test_it_replays_exactly_while_completions_are_left(kinds: list[Kind]) -> None:
    journal = Journal.of(history(kinds))
    for left in range(sum(kind in COMPLETIONS for kind in kinds), 0, -1):
        assert journal.replaying, left
        journal.next_completion()
    assert not journal.replaying


@given(KINDS)
def test_after_its_close_nothing_is_handed_out(kinds: list[Kind]) -> None:
    journal = Journal.of(history(kinds))
    journal.close()
    assert not journal.replaying
    assert journal.next_completion() is None
    journal.append(event(len(kinds) + 1))


def test_the_first_row_says_when_the_body_was_entered() -> None:
    recorded = history([Kind.WORKFLOW_STARTED, Kind.TIMER_FIRED])
    assert Journal.of(recorded).started == recorded[0]
    assert Journal.of([]).started is None


def test_failed_attempts_are_found_by_the_call_they_belong_to() -> None:
    failed = Kind.ACTIVITY_ATTEMPT_FAILED
    recorded = [event(1, failed, call_id="a:1"), event(2, failed, call_id="b:1"), event(3, failed, call_id="a:1")]
    journal = Journal.of(recorded)
    assert journal.failures == {"a:1": [recorded[0], recorded[2]], "b:1": [recorded[1]]}
    later = event(4, failed, call_id="b:1")
    journal.append(later)
    assert journal.failures["b:1"] == [recorded[1], later]


def test_patches_are_remembered() -> None:
    journal = Journal.of([event(1, Kind.PATCHED, call_id="new-tax")])
    journal.append(event(2, Kind.PATCHED, call_id="new-fee"))
    assert journal.patches == {"new-tax", "new-fee"}


# -- live ----------------------------------------------------------------------------------------------------------


@given(KINDS, KINDS)
def test_a_live_row_counts_as_delivered(recorded: list[Kind], live: list[Kind]) -> None:
    journal = Journal.of(history(recorded))
    delivered(journal)
    for kind in live:
        journal.append(event(journal.next_seq, kind))
        assert not journal.replaying
        assert journal.next_completion() is None
    assert [one.seq for one in journal.events] == list(range(1, len(recorded) + len(live) + 1))


@pytest.mark.parametrize("seq", [1, 2, 4])
def test_a_live_row_takes_the_next_seq_and_no_other(seq: int) -> None:
    journal = Journal.of(history([Kind.WORKFLOW_STARTED, Kind.PATCHED]))
    assert journal.next_seq == 3
    with pytest.raises(AssertionError, match=f"seq {seq}"):
        journal.append(event(seq))


def test_a_live_row_before_the_end_of_the_replay_is_a_defect() -> None:
    journal = Journal.of(history([Kind.TIMER_FIRED]))
    with pytest.raises(AssertionError, match="before the recorded ones"):
        journal.append(event(2))


@given(KINDS, st.lists(st.sampled_from(Kind), min_size=1, max_size=10))
def test_what_is_withdrawn_never_happened(recorded: list[Kind], live: list[Kind]) -> None:
    untouched, journal = Journal.of(history(recorded)), Journal.of(history(recorded))
    for one in (untouched, journal):
        delivered(one)
    refused = [event(len(recorded) + place, kind) for place, kind in enumerate(live, 1)]
    for row in refused:
        journal.append(row)
    assert journal.withdraw(len(refused)) == refused
    assert journal.events == untouched.events
    assert journal.next_seq == untouched.next_seq
    assert journal.next_completion() is None


def test_only_the_newest_are_withdrawn_and_their_places_are_free_again() -> None:
    journal = Journal.of([])
    rows = history([Kind.WORKFLOW_STARTED, Kind.TIMER_FIRED, Kind.ACTIVITY_COMPLETED])
    for row in rows:
        journal.append(row)
    assert journal.withdraw(0) == []
    assert journal.withdraw(2) == rows[1:]
    journal.append(event(2, Kind.EVENT_SENT))
    assert [row.kind for row in journal.events] == [Kind.WORKFLOW_STARTED, Kind.EVENT_SENT]


@given(KINDS, st.lists(st.sampled_from(Kind), min_size=1, max_size=10))
def test_what_is_withdrawn_leaves_no_failed_attempt_and_no_patch(recorded: list[Kind], live: list[Kind]) -> None:
    untouched, journal = Journal.of(history(recorded)), Journal.of(history(recorded))
    delivered(journal)
    for place, kind in enumerate(live, 1):
        journal.append(event(len(recorded) + place, kind))
    journal.withdraw(len(live))
    assert journal.failures == untouched.failures
    assert journal.patches == untouched.patches


# -- calls and answers -----------------------------------------------------------------------------------------------


def test_every_completion_answers_one_kind_of_call_and_nothing_else_does() -> None:
    assert set(ANSWERS) == COMPLETIONS
    assert set(ANSWERS.values()) == set(CallKind)


@pytest.mark.parametrize("recorded", sorted(COMPLETIONS))
@pytest.mark.parametrize("asked", CallKind)
def test_a_completion_fits_a_call_of_its_kind_and_name(recorded: Kind, asked: CallKind) -> None:
    answer = event(1, recorded, name="charge")._replace(input="{}")
    assert fits(answer, kind=asked, name="charge") is (ANSWERS[recorded] is asked)
    assert not fits(answer, kind=asked, name="refund")


@pytest.mark.parametrize("asked", CallKind)
def test_a_call_that_was_refused_has_failed_as_an_activity_does(asked: CallKind) -> None:
    answer = event(1, Kind.ACTIVITY_FAILED, name="charge")
    assert answer.input is None
    assert fits(answer, kind=asked, name="charge") is (asked is CallKind.ACTIVITY or asked in REFUSABLE)


@pytest.mark.parametrize(
    ("kind", "call_id", "name", "words"),
    [
        (CallKind.ACTIVITY, "charge:1", "charge", "activity charge:1"),
        (CallKind.ACTIVITY, "my-id", "charge", "activity my-id (charge)"),
        (CallKind.CHILD_RESULT, "bill:2", "bill", "result of a child bill:2"),
    ],
)
def test_a_call_is_described_in_words(kind: CallKind, call_id: str, name: str, words: str) -> None:
    assert describe_call(kind, call_id, name) == words


def test_a_row_is_described_with_what_it_answers() -> None:
    assert describe_event(event(1, Kind.ACTIVITY_FAILED)) == "ActivityFailed, activity a:1"
    assert describe_event(event(1, Kind.WORKFLOW_STARTED)) == "WorkflowStarted"
