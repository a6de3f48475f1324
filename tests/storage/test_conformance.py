"""What the port promises, for every back end: the model in memory, SQLite in a file and in memory, and the servers."""

from __future__ import annotations

from typing import Any

import pytest

from edda.core.commit import Batch, End, Park, Undo, Verdict
from edda.core.history import Kind, WorkerId
from edda.core.lifecycle import Status
from edda.storage.port import Fenced
from tests.storage.support import (
    FAR,
    LONG_AGO,
    NEVER,
    W1,
    W2,
    W3,
    World,
    commit,
    event,
    iid,
    message,
    new,
)

COMMITTED, WOKEN, CANCEL_FIRST, CLAIM_LOST = Verdict
PARKED = Park(status=Status.WAITING_FOR_EVENT, reason="event paid", due_us=NEVER, seen_wakes=0)
COMPLETED = End(status=Status.COMPLETED, output="42", unless_cancelled=True)
ODD = "ÄÖ😀 '\"\\%s ? \n\t€"


# -- starting -------------------------------------------------------------------------------------------------------


async def test_a_start_of_a_worker_is_its_own_at_once(world: World) -> None:
    (creation,) = await world.start(new("a", owner=W1))
    row = await world.row("a")
    assert creation.created
    assert (row.owner, row.claim, row.status, row.claimable_at_us) == (W1, 1, Status.RUNNING, None)


async def test_a_start_of_a_client_can_be_claimed_at_once(world: World) -> None:
    assert (await world.store.create(new("a"))).created
    row = await world.row("a")
    assert (row.owner, row.claim, row.claimable_at_us) == (None, 0, row.created_at_us)
    assert await world.claim() == ["a"]


@pytest.mark.parametrize("how", ["create", "write"])
async def test_a_second_start_with_the_same_id_tells_what_is_there(world: World, how: str) -> None:
    await world.start(new("a", owner=W1))
    await world.write(commit("a", row=COMPLETED))
    again = new("a", workflow="other")
    creation = await world.store.create(again) if how == "create" else (await world.start(new("b"), again))[1]
    assert not creation.created
    assert (creation.workflow, creation.args_hash, creation.status) == ("order", "hash", Status.COMPLETED)


async def test_the_owner_of_what_is_there_is_told_because_an_answer_may_have_been_lost(world: World) -> None:
    await world.start(new("a", owner=W1))
    (creation,) = await world.start(new("a", owner=W1))
    assert (creation.created, creation.owner) == (False, W1)


async def test_the_same_id_twice_in_a_batch_is_created_once(world: World) -> None:
    first, second, third = await world.start(new("a", owner=W1), new("a"), new("b"))
    assert (first.created, second.created, third.created) == (True, False, True)


async def test_ids_differ_by_case_and_keep_every_character(world: World) -> None:
    await world.start(new("id"), new("ID"), new(ODD))
    assert sorted(await world.claim()) == sorted(["id", "ID", ODD])


async def test_what_was_stored_comes_back_as_it_was(world: World) -> None:
    await world.start(new("a", owner=W1, parent_id=iid("p"), detached=True, source_hash=ODD, python="3.11"))
    records = (
        event("a", 1, input=ODD, output=None, blob=b"\x00\xff'\\", meta="{}"),
        event("a", 2, input=None, output="x" * 100_000, blob=b""),
    )
    end = End(status=Status.FAILED, output=None, blob=b"\x00" * 70_000, error=ODD)
    await world.write(commit("a", row=end))
    await world.store.write(W1, Batch(commits=(commit("a"),)))
    await world.write(commit("b"), commit("a", claim=1, row=PARKED))
    await world.store.write(W1, Batch(commits=(_with(records),)))
    row = await world.row("a")
    assert (row.blob, row.error, row.output, row.detached, row.parent_id) == (end.blob, ODD, None, True, "p")
    assert (row.source_hash, row.python, row.input, row.args_hash) == (ODD, "3.11", "{}", "hash")
    assert (await world.store.histories([iid("a")]))["a"] == list(records)


def _with(records: tuple[Any, ...]) -> Any:
    first = records[0]
    made = commit(first.instance_id)
    return type(made)(instance_id=first.instance_id, claim=1, records=records)


# -- steps ----------------------------------------------------------------------------------------------------------


async def test_a_step_adds_history_and_leaves_the_row_alone(world: World) -> None:
    await world.start(new("a", owner=W1))
    before = await world.row("a")
    assert await world.write(commit("a", 1, 2), commit("b", 1)) == (COMMITTED, COMMITTED)
    assert await world.row("a") == before
    assert await world.history("a") == [1, 2]


async def test_an_empty_batch_is_a_look_at_the_clock(world: World) -> None:
    outcome = await world.outcome()
    assert outcome.now_us > 1_600_000_000_000_000
    assert outcome.verdicts == ()


async def test_a_history_row_that_exists_means_claim_lost_and_spoils_no_neighbour(world: World) -> None:
    await world.start(new("a", owner=W1), new("b", owner=W1), new("c", owner=W1))
    await world.write(commit("b", 1))
    verdicts = await world.write(
        commit("a", 1, row=PARKED),
        commit("b", 1, 2, wakes=(iid("a"),), outbox=(message("b", 1),), children=(new("b/child"),)),
        commit("c", 1),
    )
    assert verdicts == (COMMITTED, CLAIM_LOST, COMMITTED)
    assert await world.history("b") == [1]
    assert (await world.row("a")).wakes == 0
    assert await world.store.instance(iid("b/child")) is None


async def test_the_same_place_in_history_twice_in_a_batch_goes_to_the_first(world: World) -> None:
    assert await world.write(commit("a", 1), commit("a", 1), commit("b", 1)) == (COMMITTED, CLAIM_LOST, COMMITTED)


async def test_an_outbox_row_that_exists_means_claim_lost(world: World) -> None:
    first = commit("a", outbox=(message("a", 1),))
    assert await world.write(first) == (COMMITTED,)
    assert await world.write(first, commit("b", 1)) == (CLAIM_LOST, COMMITTED)


async def test_a_dead_or_unknown_worker_writes_nothing(world: World) -> None:
    await world.start(new("a", owner=W1))
    with pytest.raises(Fenced):
        await world.write(commit("a", 1), worker=W3)
    await world.store.retire(W1)
    for batch in (
        Batch(commits=(commit("a", 1),)),
        Batch(commits=(commit("a", 1, row=PARKED),)),
        Batch(starts=(new("b", owner=W1),)),
        Batch(commits=(commit("x", children=(new("c"),), outbox=(message("x", 1),)),)),
    ):
        with pytest.raises(Fenced):
            await world.store.write(W1, batch)
    with pytest.raises(Fenced):
        await world.claim()
    assert await world.history("a") == []
    assert [row.id for row in await world.store.list_instances()] == ["a"]


# -- the row --------------------------------------------------------------------------------------------------------


async def test_parking_gives_the_claim_back_until_it_is_due(world: World) -> None:
    await world.start(new("a", owner=W1), new("b", owner=W1))
    later = Park(status=Status.WAITING_FOR_TIMER, reason="timer", due_us=FAR, seen_wakes=0)
    due = Park(status=Status.RUNNING, reason="retry", due_us=LONG_AGO, seen_wakes=0)
    assert await world.write(commit("a", 1, row=later), commit("b", 1, row=due)) == (COMMITTED, COMMITTED)
    row = await world.row("a")
    assert (row.owner, row.claimable_at_us, row.status, row.reason) == (
        None,
        FAR,
        Status.WAITING_FOR_TIMER,
        "timer",
    )
    assert await world.claim() == ["b"]


async def test_a_park_that_missed_a_wake_is_claimable_at_once(world: World) -> None:
    await world.start(new("a", owner=W1))
    await world.write(commit("b", wakes=(iid("a"),)))
    assert await world.write(commit("a", row=PARKED)) == (WOKEN,)
    assert await world.claim() == ["a"]


async def test_a_wake_in_the_same_batch_as_the_park_is_not_lost(world: World) -> None:
    await world.start(new("a", owner=W1))
    await world.write(commit("b", 1, wakes=(iid("a"),)), commit("a", 1, row=PARKED))
    assert await world.claim() == ["a"]


async def test_a_wake_makes_a_waiting_instance_due_but_never_later(world: World) -> None:
    await world.start(new("a", owner=W1), new("b", owner=W1))
    due = Park(status=Status.RUNNING, reason="", due_us=LONG_AGO, seen_wakes=0)
    await world.write(commit("a", row=PARKED), commit("b", row=due))
    await world.write(commit("x", wakes=(iid("a"), iid("b"), iid("a"), iid("nobody"))))
    a, b = await world.row("a"), await world.row("b")
    assert a.claimable_at_us is not None
    assert (a.wakes, b.wakes, b.claimable_at_us) == (2, 1, LONG_AGO)


async def test_a_wake_does_not_move_what_has_ended_or_is_set_aside(world: World) -> None:
    await world.start(new("a", owner=W1), new("b", owner=W1))
    await world.write(commit("a", row=COMPLETED), commit("b", row=End(status=Status.NONDETERMINISTIC, error="x")))
    await world.write(commit("x", wakes=(iid("a"), iid("b"))))
    assert ((await world.row("a")).wakes, (await world.row("b")).wakes) == (0, 0)
    assert await world.claim() == []


async def test_a_change_under_a_claim_that_is_not_held_is_refused(world: World) -> None:
    await world.worker(W2)
    await world.start(new("a", owner=W1), new("b", owner=W2))
    verdicts = await world.write(
        commit("a", 1, claim=2, row=PARKED), commit("b", 1, row=COMPLETED), commit("nobody", 1, row=COMPLETED)
    )
    assert verdicts == (CLAIM_LOST, CLAIM_LOST, CLAIM_LOST)
    assert await world.history("a") == []
    assert (await world.row("b")).status is Status.RUNNING


async def test_the_end_is_written_with_its_outcome(world: World) -> None:
    await world.start(new("a", owner=W1))
    assert await world.write(commit("a", 1, row=COMPLETED)) == (COMMITTED,)
    row = await world.row("a")
    assert (row.status, row.output, row.owner, row.claimable_at_us) == (Status.COMPLETED, "42", None, None)
    assert row.ended_at_us is not None


async def test_turning_to_undoing_keeps_the_claim(world: World) -> None:
    await world.start(new("a", owner=W1))
    assert await world.write(commit("a", 1, row=Undo(for_cancel=False))) == (COMMITTED,)
    row = await world.row("a")
    assert (row.status, row.owner, row.claim) == (Status.COMPENSATING, W1, 1)


async def test_children_and_messages_come_with_the_commit_or_not_at_all(world: World) -> None:
    await world.start(new("p", owner=W1))
    child = new("p/c", parent_id=iid("p"))
    await world.write(commit("p", 1, children=(child, new("p/d", parent_id=iid("p"), detached=True))))
    await world.write(commit("p", 2, claim=7, row=COMPLETED, children=(new("p/e", parent_id=iid("p")),)))
    assert (await world.row("p/c")).parent_id == "p"
    assert (await world.row("p/d")).detached
    assert await world.store.instance(iid("p/e")) is None
    await world.write(commit("p", 3, children=(child,)))
    assert (await world.row("p/c")).claim == 0


# -- cancelling and repairing ---------------------------------------------------------------------------------------


async def test_an_accepted_cancel_comes_before_the_end(world: World) -> None:
    await world.start(new("a", owner=W1), new("b", owner=W1))
    for name in ("a", "b"):
        before = await world.store.cancel(iid(name), by="alice")
        assert before.cancel_requested_at_us is None
    assert await world.write(commit("a", 1, row=COMPLETED)) == (CANCEL_FIRST,)
    assert await world.write(commit("b", 1, row=Undo(for_cancel=False))) == (CANCEL_FIRST,)
    assert await world.history("a") == []
    assert await world.write(commit("a", 1, row=Undo(for_cancel=True))) == (COMMITTED,)
    assert await world.write(commit("a", 2, row=End(status=Status.CANCELLED))) == (COMMITTED,)
    row = await world.row("a")
    assert (row.status, row.cancelled_by) == (Status.CANCELLED, "alice")


async def test_a_cancel_wakes_and_a_second_one_changes_nothing(world: World) -> None:
    await world.start(new("a", owner=W1))
    await world.write(commit("a", row=PARKED))
    await world.store.cancel(iid("a"), by="alice")
    first = await world.row("a")
    before = await world.store.cancel(iid("a"), by="bob")
    assert before == first == await world.row("a")
    assert await world.claim() == ["a"]


async def test_what_has_ended_or_is_being_undone_cannot_be_cancelled(world: World) -> None:
    await world.start(new("a", owner=W1), new("b", owner=W1))
    await world.write(commit("a", row=COMPLETED), commit("b", row=Undo(for_cancel=False)))
    for name in ("a", "b"):
        assert await world.store.cancel(iid(name), by="alice") == await world.row(name)
        assert (await world.row(name)).cancel_requested_at_us is None
    assert await world.store.cancel(iid("nobody"), by="alice") is None


async def test_a_commit_can_cancel_children(world: World) -> None:
    await world.start(new("p", owner=W1), new("c"), new("d", owner=W1))
    await world.write(commit("d", row=COMPLETED))
    end = End(status=Status.FAILED, error="x", unless_cancelled=True)
    await world.write(commit("p", 1, row=end, cancels=(iid("c"), iid("d"))))
    c, d = await world.row("c"), await world.row("d")
    assert (c.cancel_requested_at_us is not None, c.cancelled_by, c.wakes) == (True, "p", 1)
    assert d.cancel_requested_at_us is None


async def test_cancelling_what_is_set_aside_makes_it_run(world: World) -> None:
    await world.start(new("a", owner=W1), new("b", owner=W1))
    aside = End(status=Status.NONDETERMINISTIC, error="differs")
    await world.write(commit("a", row=aside))
    assert await world.claim() == []
    await world.store.cancel(iid("a"), by="alice")
    assert await world.claim() == ["a"]
    await world.store.cancel(iid("b"), by="alice")
    await world.write(commit("b", row=aside))
    assert await world.claim() == ["b"]


@pytest.mark.parametrize("status", [Status.NONDETERMINISTIC, Status.QUARANTINED])
@pytest.mark.parametrize("undoing", [False, True])
async def test_retrying_what_is_set_aside_goes_on_where_it_was(world: World, status: Status, undoing: bool) -> None:
    await world.start(new("a", owner=W1))
    kind = Kind.COMPENSATION_STARTED if undoing else Kind.WORKFLOW_STARTED
    await world.write(_with((event("a", 1, kind=kind),)))
    await world.write(commit("a", row=End(status=status, error="why")))
    before = await world.store.retry(iid("a"))
    assert before.status is status
    row = await world.row("a")
    assert row.status is (Status.COMPENSATING if undoing else Status.RUNNING)
    assert (row.error, row.ended_at_us) == (None, None)
    assert await world.history("a") == [1]
    assert await world.claim() == ["a"]


async def test_retrying_failed_compensations_is_recorded(world: World) -> None:
    await world.start(new("a", owner=W1))
    await world.write(commit("a", 1, row=End(status=Status.COMPENSATION_FAILED, error="x")))
    await world.store.retry(iid("a"))
    assert (await world.row("a")).status is Status.COMPENSATING
    last = (await world.store.histories([iid("a")]))["a"][-1]
    assert (last.seq, last.kind, last.claim) == (2, Kind.RETRY_REQUESTED, 1)


async def test_retry_does_nothing_where_nothing_is_broken(world: World) -> None:
    await world.start(new("a", owner=W1))
    row = await world.row("a")
    assert await world.store.retry(iid("a")) == row == await world.row("a")
    assert await world.store.retry(iid("nobody")) is None


# -- claiming -------------------------------------------------------------------------------------------------------


async def test_the_earliest_due_is_claimed_first_and_only_of_known_workflows(world: World) -> None:
    await world.start(*(new(name, owner=W1) for name in "abc"), new("d", workflow="other"))
    for name, due_us in (("a", 30), ("b", 10), ("c", 20)):
        park = Park(status=Status.WAITING_FOR_TIMER, reason="timer", due_us=due_us, seen_wakes=0)
        await world.write(commit(name, row=park))
    assert await world.claim(limit=2) == ["b", "c"]
    assert await world.claim(workflows=("order", "other", "unknown"), limit=5) == ["a", "d"]
    assert await world.claim(workflows=()) == []
    row = await world.row("b")
    assert (row.owner, row.claim, row.status, row.reason) == (W1, 2, Status.RUNNING, "")


async def test_a_claim_of_certain_ids_takes_only_those_that_are_due(world: World) -> None:
    await world.start(new("a"), new("b"), new("c", owner=W1), new("d", workflow="other"))
    names = [iid(name) for name in ("a", "c", "d", "nobody")]
    assert await world.claim(ids=names) == ["a"]
    assert await world.claim(ids=[]) == []
    assert await world.claim(ids=[iid("b")], limit=0) == []


async def test_a_claimed_instance_is_claimed_by_nobody_else(world: World) -> None:
    await world.worker(W2)
    await world.start(new("a"))
    assert await world.claim(W1) == ["a"]
    assert await world.claim(W2) == []


async def _crash(world: World, worker: WorkerId) -> Any:
    """The worker dies, and another finds it out."""
    await world.leave(worker)
    return await world.store.reap(worker)


async def _suspects(world: World, *names: str) -> None:
    """Instances whose workers crashed twice without a sign of progress."""
    await world.start(*(new(name) for name in names))
    for number in range(2):
        worker = await world.worker(WorkerId(f"victim-{number}"))
        await world.claim(worker, ids=[iid(name) for name in names], suspects=False)
        await _crash(world, worker)


async def test_one_suspect_at_a_time_and_it_stands_in_nobodys_way(world: World) -> None:
    await _suspects(world, "s1", "s2", "s3")
    await world.start(new("z1"), new("z2"))
    assert (await world.row("s1")).crashes == 2
    assert await world.claim(suspects=False, limit=1) == ["z1"]
    assert await world.claim(limit=2) == ["s1", "z2"]
    assert await world.claim(limit=5) == ["s2"]


async def test_progress_clears_the_count_of_crashes(world: World) -> None:
    await _suspects(world, "a")
    await world.worker(W2)
    assert await world.claim(W2) == ["a"]
    assert (await world.row("a")).crashes == 2
    claim = (await world.row("a")).claim
    await world.write(commit("a", 1, claim=claim), worker=W2)
    assert (await _crash(world, W2)).freed == ("a",)
    assert (await world.row("a")).crashes == 1
    await world.claim(W1)
    assert (await world.row("a")).crashes == 0


async def test_three_crashes_without_progress_quarantine_and_retry_begins_anew(world: World) -> None:
    await _suspects(world, "a")
    await world.worker(W2)
    assert await world.claim(W2) == ["a"]
    assert (await _crash(world, W2)).quarantined == ("a",)
    await world.store.retry(iid("a"))
    assert (await world.row("a")).crashes == 0
    await world.worker(W3)
    assert await world.claim(W3) == ["a"]


async def test_notices_tell_of_wakes_and_cancels_since_the_claim(world: World) -> None:
    await world.start(new("a", owner=W1), new("b", owner=W1), new("c", owner=W1))
    await world.write(commit("x", wakes=(iid("a"),)))
    await world.store.cancel(iid("b"), by="alice")
    told = [(notice.instance_id, notice.wakes, notice.cancel_requested) for notice in await world.store.notices(W1)]
    assert told == [("a", 1, False), ("b", 1, True)]
    await world.write(commit("a", row=PARKED))
    await world.claim()
    assert [notice.instance_id for notice in await world.store.notices(W1)] == ["b"]


async def test_what_a_worker_holds_is_known(world: World) -> None:
    await world.worker(W2)
    await world.start(new("a", owner=W1), new("b", owner=W1), new("c", owner=W2), new("d"))
    await world.write(commit("b", row=COMPLETED))
    assert await world.store.held(W1) == {"a": 1}


# -- workers --------------------------------------------------------------------------------------------------------


async def test_a_worker_with_lease_and_presence_is_left_alone(world: World) -> None:
    await world.worker(W2)
    assert await world.store.absentees(W1) == ()
    assert await world.store.reap(W2) is None
    assert await world.store.reap(WorkerId("nobody")) is None
    assert (await world.lines[W2].renew(W2, lease_us=1)).alive


@pytest.mark.parametrize("how", ["presence", "lease"])
async def test_a_worker_that_is_gone_is_reaped_once(world: World, how: str) -> None:
    await world.worker(W2, lease_us=-1 if how == "lease" else 10**12)
    await world.start(new("a", owner=W2), new("b", owner=W1), worker=W2)
    if how == "presence":
        await world.leave(W2)
    assert await world.store.absentees(W1) == (W2,)
    reaped = await world.store.reap(W2)
    assert (reaped.freed, reaped.quarantined) == (("a",), ())
    assert await world.store.reap(W2) is None
    assert await world.store.absentees(W1) == ()
    row = await world.row("a")
    assert (row.owner, row.crashes) == (None, 1)
    assert await world.claim() == ["a"]
    with pytest.raises(Fenced):
        await world.write(commit("a", 1), worker=W2)


async def test_a_late_renewal_saves_a_worker_that_nobody_has_declared_dead(world: World) -> None:
    await world.worker(W2, lease_us=-1)
    assert (await world.lines[W2].renew(W2, lease_us=10**12)).alive
    assert await world.store.absentees(W1) == ()
    assert await world.store.reap(W2) is None


async def test_a_renewal_tells_the_dead(world: World) -> None:
    await world.worker(W2, lease_us=-1)
    await world.store.reap(W2)
    assert not (await world.lines[W2].renew(W2, lease_us=10**12)).alive


async def test_three_crashes_without_progress_are_quarantined(world: World) -> None:
    await _suspects(world, "a")
    await world.worker(W2)
    await world.claim(W2)
    reaped = await _crash(world, W2)
    assert (reaped.freed, reaped.quarantined) == ((), ("a",))
    row = await world.row("a")
    assert (row.status, row.crashes, row.claimable_at_us) == (Status.QUARANTINED, 3, None)
    assert await world.claim() == []
    await world.store.retry(iid("a"))
    assert (await world.row("a")).crashes == 0
    assert await world.claim() == ["a"]


async def test_retiring_frees_everything_and_counts_no_crash(world: World) -> None:
    await world.worker(W2)
    await world.start(new("a", owner=W2), worker=W2)
    await world.store.retire(W2)
    await world.store.retire(W2)
    row = await world.row("a")
    assert (row.owner, row.crashes) == (None, 0)
    assert await world.claim() == ["a"]
    assert not (await world.lines[W2].renew(W2, lease_us=1)).alive


# -- after a lost answer --------------------------------------------------------------------------------------------


async def test_settling_tells_what_is_there(world: World) -> None:
    await world.start(*(new(name, owner=W1) for name in "abcdefgh"))
    there = (
        commit("a", 1, 2),
        commit("b", 1, row=PARKED),
        commit("c", row=PARKED),
        commit("d", row=COMPLETED),
        commit("e", row=Undo(for_cancel=False)),
        commit("x", outbox=(message("x", 1),)),
    )
    absent = (
        commit("f", 1),
        commit("f", row=PARKED),
        commit("g", row=COMPLETED),
        commit("h", row=Undo(for_cancel=False)),
        commit("y", outbox=(message("y", 1),)),
    )
    await world.write(*there)
    assert await world.store.settle(W1, Batch(commits=(*there, *absent))) == (COMMITTED,) * 6 + (None,) * 5
    await world.write(commit("x", wakes=(iid("b"),)))
    await world.claim(limit=1)
    assert await world.store.settle(W1, Batch(commits=there[1:2])) == (WOKEN,)
    await world.store.retire(W1)
    with pytest.raises(Fenced):
        await world.store.settle(W1, Batch(commits=there))


# -- reading --------------------------------------------------------------------------------------------------------


async def test_the_list_is_newest_first_in_pages(world: World) -> None:
    for name in ("a", "b", "c"):
        await world.start(new(name))
    await world.start(new("e", workflow="other"), new("d"))
    names = [row.id for row in await world.store.list_instances(limit=3)]
    assert names == ["e", "d", "c"]
    assert [row.id for row in await world.store.list_instances(limit=3, before=names[-1])] == ["b", "a"]
    assert [row.id for row in await world.store.list_instances(workflow="order", limit=2)] == ["d", "c"]
    await world.claim(limit=1, ids=[iid("b")])
    await world.write(commit("b", row=COMPLETED))
    assert [row.id for row in await world.store.list_instances(status=Status.COMPLETED)] == ["b"]
    assert await world.store.list_instances(before="nobody") == ()


async def test_large_outcomes_of_one_batch_are_all_stored(world: World) -> None:
    names = [f"i{number}" for number in range(12)]
    await world.start(*(new(name, owner=W1) for name in names))
    ends = [End(status=Status.COMPLETED, output="'" * 700_000, blob=bytes(700_000)) for _ in names]
    await world.write(*(commit(name, 1, row=end) for name, end in zip(names, ends, strict=True)))
    rows = await world.store.instances([iid(name) for name in names])
    assert {(row.output, row.blob) for row in rows.values()} == {("'" * 700_000, bytes(700_000))}


async def test_many_are_read_at_once(world: World) -> None:
    await world.start(*(new(f"i{number:04}", owner=W1) for number in range(1200)))
    names = [iid(f"i{number:04}") for number in range(1300)]
    assert len(await world.store.instances(names)) == 1200
    await world.write(*(commit(name, 1, row=PARKED) for name in names[:1200]))
    histories = await world.store.histories(names)
    assert [len(histories[name]) for name in (names[0], names[1199], names[1250])] == [1, 1, 0]
    assert await world.store.instances([]) == {}
    assert await world.store.histories([]) == {}
