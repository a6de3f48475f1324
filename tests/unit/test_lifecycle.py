"""Statuses and their transitions: laws over the whole table."""

import pytest

from edda.core.history import TERMINALS
from edda.core.lifecycle import (
    CANCELLABLE,
    ENDED,
    IDLE,
    LAST_EVENT,
    REPAIRABLE,
    SET_ASIDE,
    TRANSITIONS,
    Status,
)


def reachable(start: Status, *, without: frozenset[Status] = frozenset()) -> set[Status]:
    """Statuses that may follow, at once or later, on ways that avoid some."""
    found: set[Status] = set()
    ahead = [start]
    while ahead:
        new = TRANSITIONS[ahead.pop()] - found - without
        found |= new
        ahead += new
    return found


def test_the_statuses_are_public_so_their_values_never_change() -> None:
    assert {status.value for status in Status} == {
        "running", "waiting_for_event", "waiting_for_timer", "compensating", "completed", "failed", "cancelled",
        "compensation_failed", "nondeterministic", "quarantined",
    }  # fmt: skip


def test_every_status_is_in_the_table() -> None:
    assert set(TRANSITIONS) == set(Status)


def test_every_status_can_be_reached() -> None:
    assert reachable(Status.RUNNING) == set(Status)


@pytest.mark.parametrize("status", sorted(set(Status) - ENDED))
def test_whatever_has_not_ended_can_reach_an_end(status: Status) -> None:
    assert reachable(status) & ENDED


@pytest.mark.parametrize("status", sorted(ENDED))
def test_an_end_is_final_unless_something_is_left_to_be_undone(status: Status) -> None:
    assert TRANSITIONS[status] == ({Status.COMPENSATING} if status is Status.COMPENSATION_FAILED else set())


def test_once_undoing_the_body_is_never_entered_again() -> None:
    after = reachable(Status.COMPENSATING, without=SET_ASIDE)  # from those, retry() leads back to undoing
    assert after == {Status.COMPENSATING, Status.FAILED, Status.CANCELLED, Status.COMPENSATION_FAILED}


def test_what_could_not_be_undone_is_only_known_after_undoing() -> None:
    before = {status for status, following in TRANSITIONS.items() if Status.COMPENSATION_FAILED in following}
    assert before == {Status.COMPENSATING}


@pytest.mark.parametrize(
    ("status", "cancellable"),
    [
        (Status.RUNNING, True),
        (Status.WAITING_FOR_EVENT, True),
        (Status.WAITING_FOR_TIMER, True),
        (Status.NONDETERMINISTIC, True),
        (Status.QUARANTINED, True),
        (Status.COMPENSATING, False),
        (Status.COMPLETED, False),
        (Status.FAILED, False),
        (Status.CANCELLED, False),
        (Status.COMPENSATION_FAILED, False),
    ],
)
def test_only_what_has_neither_ended_nor_begun_to_undo_is_cancellable(status: Status, cancellable: bool) -> None:
    assert (status in CANCELLABLE) is cancellable


@pytest.mark.parametrize("status", sorted(CANCELLABLE))
def test_an_accepted_cancel_can_become_cancelled_or_compensation_failed(status: Status) -> None:
    assert Status.CANCELLED in TRANSITIONS[status]
    assert Status.COMPENSATION_FAILED in reachable(status, without=ENDED - {Status.COMPENSATION_FAILED})


@pytest.mark.parametrize("status", sorted(IDLE))
def test_a_claim_makes_what_is_idle_run(status: Status) -> None:
    assert Status.RUNNING in TRANSITIONS[status]


def test_there_is_a_way_out_for_people_of_the_parked_ones_and_of_no_other() -> None:
    assert {Status.COMPENSATION_FAILED, Status.NONDETERMINISTIC, Status.QUARANTINED} == REPAIRABLE


def test_the_groups_of_statuses_do_not_overlap() -> None:
    assert not ENDED & SET_ASIDE
    assert not IDLE & ENDED
    assert Status.RUNNING not in IDLE | ENDED | SET_ASIDE


def test_every_end_has_its_own_last_event() -> None:
    assert set(LAST_EVENT) == ENDED
    assert sorted(LAST_EVENT.values()) == sorted(TERMINALS)
