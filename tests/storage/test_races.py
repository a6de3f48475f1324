"""What two transactions do to each other on real servers: each verb is stopped before each of its statements and before
COMMIT, while another one runs from another connection.

The laws: no write of a worker lands after it was declared dead, and declaring it dead never waits for ever; no wake
and no cancel is lost; nothing is claimed twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from edda.core.commit import Batch, Commit, End, Park, Verdict
from edda.core.event import CloudEvent, Receipt
from edda.core.history import WorkerId
from edda.core.lifecycle import Status
from edda.storage.port import Fenced, UnknownOutcome
from edda.storage.sql import commits, open_store
from edda.storage.sql.server_database import ServerDatabase
from edda.storage.sql.store import SqlStore
from tests.storage.support import FAR, W1, W2, World, commit, iid, message, new, select

SOON_SECONDS = 0.25
"""Long enough for a verb that waits for nobody, on a busy machine."""
PARK = Park(status=Status.WAITING_FOR_EVENT, reason="", due_us=None, seen_wakes=0)
END = End(status=Status.COMPLETED, output="1", unless_cancelled=True)


@dataclass
class Stop:
    """Holds one verb of a store before its n-th statement (COMMIT counts as one)."""

    verb: str
    place: int
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    passed: int = 0

    async def __call__(self, verb: str, statement: Any) -> None:
        if verb != self.verb:
            return
        if self.passed == self.place:
            self.reached.set()
            await self.go_on.wait()
        self.passed += 1


@dataclass
class Two:
    """Two processes on one database: `first` is stopped, `second` is not."""

    first: World
    second: World
    stops: list[Stop] = field(default_factory=list[Stop])

    def stop(self, verb: str, place: int) -> Stop:
        """Stop the first one's verb at this place."""
        stop = Stop(verb, place)
        self.stops.append(stop)
        self.first.store.on_statement = stop
        return stop

    @property
    def stores(self) -> tuple[SqlStore, SqlStore]:
        return self.first.store, self.second.store


@pytest.fixture
async def two(server_url: str) -> AsyncIterator[Two]:
    async with _opened(server_url) as first, _opened(server_url) as second:
        two = Two(World(first), World(second))
        await two.first.worker(W1)
        await two.second.worker(W2)
        try:
            yield two
        finally:
            two.first.store.on_statement = None
            for stop in two.stops:
                stop.go_on.set()
            await two.first.close()
            await two.second.close()


@contextlib.asynccontextmanager
async def _opened(url: str) -> AsyncGenerator[SqlStore]:
    store = open_store(url)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def stops(two: Two, verb: str, work: Callable[[], Awaitable[Any]]) -> int:
    """How many places a verb has to be stopped at."""
    counter = two.stop(verb, -1)
    await work()
    two.first.store.on_statement = None
    return counter.passed


async def interleave(
    two: Two, verb: str, place: int, stopped: Callable[[], Awaitable[Any]], other: Callable[[], Awaitable[Any]]
) -> tuple[Any, Any]:
    """Stop the first at a place, let the second run as far as it gets, let the first go on. Returns the answers."""
    stop = two.stop(verb, place)
    one = asyncio.ensure_future(answer(stopped()))
    reaching = asyncio.ensure_future(stop.reached.wait())
    await asyncio.wait({one, reaching}, return_when=asyncio.FIRST_COMPLETED)
    assert stop.reached.is_set(), one
    two_ = asyncio.ensure_future(answer(other()))
    await asyncio.wait({two_}, timeout=SOON_SECONDS)
    stop.go_on.set()
    answers = await asyncio.wait_for(asyncio.gather(one, two_), timeout=30)
    two.first.store.on_statement = None
    return answers[0], answers[1]


async def answer(work: Awaitable[Any]) -> Any:
    try:
        return await work
    except (Fenced, UnknownOutcome) as error:
        return type(error)


def batches(name: str) -> dict[str, Batch]:
    """Everything that a batch can consist of."""
    return {
        "step": Batch(commits=(commit(name, 1),)),
        "park": Batch(commits=(commit(name, 1, row=PARK),)),
        "end": Batch(commits=(commit(name, 1, row=END, outbox=(message(name, 1),)),)),
        "start": Batch(starts=(new(f"{name}/start", owner=W1),)),
        "wake": Batch(commits=(commit(name, 1, wakes=(iid("other"),), children=(new(f"{name}/child"),)),)),
    }


# -- a worker and its reaper ----------------------------------------------------------------------------------------


async def content(store: SqlStore) -> list[Any]:
    """What a dead worker may not change any more."""
    return [
        await select(store, "select instance_id, seq, claim from edda_history order by instance_id, seq"),
        await select(store, "select id, owner, claim, status, wakes from edda_instance order by id"),
        await select(store, "select instance_id, seq from edda_outbox order by instance_id, seq"),
    ]


async def write_in_transaction(store: SqlStore, worker: WorkerId, batch: Batch) -> Any:
    """As `ctx.session` does it, also on PostgreSQL: the batch is a statement of a transaction that goes on."""
    database = store.database
    assert isinstance(database, ServerDatabase)
    return await database.runner("commit").run(
        "write", lambda: commits.write(database.dialect, worker, batch), repeat=False, worker=worker
    )


@pytest.mark.parametrize("how", ["batch", "transaction"])
@pytest.mark.parametrize("what", ["step", "park", "end", "start", "wake"])
async def test_nothing_of_a_worker_lands_after_it_was_declared_dead(two: Two, what: str, how: str) -> None:
    """The worker hangs before a statement or before COMMIT; its presence is gone; another one reaps it."""
    zombie, reaper = two.stores
    write = SqlStore.write if how == "batch" else write_in_transaction
    await two.first.start(new("probe", owner=W1), new("other"))
    places = await stops(two, "write", lambda: write(zombie, W1, batches("probe")[what]))
    assert places >= 1
    for place in range(places):
        name, worker = f"i{place}", await two.first.worker(WorkerId(f"zombie-{place}"))
        await two.first.start(new(name, owner=worker), worker=worker)
        stop = two.stop("write", place)
        writing = asyncio.ensure_future(answer(write(zombie, worker, batches(name)[what])))
        await asyncio.wait_for(stop.reached.wait(), timeout=20)
        await two.first.leave(worker)
        reaped = await asyncio.wait_for(reaper.reap(worker), timeout=20)
        assert reaped is not None
        assert iid(name) in reaped.freed
        after = await content(reaper)
        stop.go_on.set()
        outcome = await asyncio.wait_for(writing, timeout=20)
        assert outcome in (Fenced, UnknownOutcome)
        assert await content(reaper) == after
        if outcome is UnknownOutcome:
            with pytest.raises(Fenced):
                await zombie.settle(worker, batches(name)[what])


@pytest.mark.parametrize("what", ["step", "park", "end"])
async def test_what_a_worker_was_writing_is_finished_before_it_is_dead(two: Two, what: str) -> None:
    """It is only slow: the reaper waits for the batch under way, and frees what is left."""
    await two.first.start(new("probe", owner=W1))
    places = await stops(two, "write", lambda: two.first.store.write(W1, batches("probe")[what]))
    for place in range(places):
        name, worker = f"i{place}", await two.first.worker(WorkerId(f"slow-{place}"))
        await two.first.start(new(name, owner=worker), worker=worker)
        await two.first.leave(worker)
        outcome, reaped = await interleave(
            two,
            "write",
            place,
            partial(two.first.store.write, worker, batches(name)[what]),
            partial(two.second.store.reap, worker),
        )
        assert reaped is not None
        if outcome is Fenced:
            assert await two.second.history(name) == []
            assert reaped.freed == (name,)
        else:
            assert await two.second.history(name) == [1]
            assert reaped.freed == ((name,) if what == "step" else ())


async def test_a_claim_and_a_reaper_do_not_leave_an_instance_with_the_dead(two: Two) -> None:
    await two.second.start(new("x"), worker=W2)
    places = await stops(two, "claim", lambda: two.first.claim(W1))
    for place in range(places):
        name, worker = f"i{place}", await two.first.worker(WorkerId(f"slow-{place}"))
        await two.second.start(new(name), worker=W2)
        await two.first.leave(worker)
        await interleave(two, "claim", place, partial(two.first.claim, worker), partial(two.second.store.reap, worker))
        assert (await select(two.second.store, "select id from edda_instance where owner = ?", worker)) == []
        assert name in await two.second.claim(W2)


# -- wakes and cancels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopped", ["park", "wake"])
async def test_a_wake_is_never_lost_to_a_park(two: Two, stopped: str) -> None:
    def park(name: str) -> Callable[[], Awaitable[Any]]:
        store, worker = (two.first.store, W1) if stopped == "park" else (two.second.store, W2)
        return lambda: store.write(worker, Batch(commits=(commit(name, 1, row=PARK),)))

    def wake(name: str) -> Callable[[], Awaitable[Any]]:
        store, worker = (two.second.store, W2) if stopped == "park" else (two.first.store, W1)
        return lambda: store.write(worker, Batch(commits=(commit(f"{name}/w", 1, wakes=(iid(name),)),)))

    owner = W1 if stopped == "park" else W2
    first, second = (park, wake) if stopped == "park" else (wake, park)
    await two.first.start(new("probe", owner=owner), worker=W1)
    places = await stops(two, "write", first("probe"))
    for place in range(places):
        name = f"i{place}"
        await two.first.start(new(name, owner=owner))
        await interleave(two, "write", place, first(name), second(name))
        row = await two.first.row(name)
        assert (row.owner, row.wakes) == (None, 1)
        assert row.claimable_at_us is not None, f"lost at {place}"
        assert name in await two.first.claim(W1)


@pytest.mark.parametrize("stopped", ["end", "cancel"])
async def test_a_cancel_is_accepted_or_comes_too_late(two: Two, stopped: str) -> None:
    def end(name: str) -> Callable[[], Awaitable[Any]]:
        store, worker = (two.first.store, W1) if stopped == "end" else (two.second.store, W2)
        return lambda: store.write(worker, Batch(commits=(commit(name, 1, row=END),)))

    def cancel(name: str) -> Callable[[], Awaitable[Any]]:
        store = two.second.store if stopped == "end" else two.first.store
        return lambda: store.cancel(iid(name), by="alice")

    owner = W1 if stopped == "end" else W2
    first, second = (end, cancel) if stopped == "end" else (cancel, end)
    verb = "write" if stopped == "end" else "cancel"
    await two.first.start(new("probe", owner=owner))
    places = await stops(two, verb, first("probe"))
    for place in range(places):
        name = f"i{place}"
        await two.first.start(new(name, owner=owner))
        one, other = await interleave(two, verb, place, first(name), second(name))
        written, before = (one, other) if stopped == "end" else (other, one)
        row = await two.first.row(name)
        if written.verdicts == (Verdict.COMMITTED,):
            assert (before.status, row.status, row.cancel_requested_at_us) == (Status.COMPLETED, Status.COMPLETED, None)
        else:
            assert written.verdicts == (Verdict.CANCEL_FIRST,)
            assert row.cancel_requested_at_us is not None
            assert (row.owner, await two.first.history(name)) == (owner, [])


async def test_a_retry_finds_another_place_in_history_when_a_late_step_took_its_own(two: Two) -> None:
    failed = End(status=Status.COMPENSATION_FAILED, error="e")
    await two.first.start(new("probe", owner=W1))
    await two.first.write(commit("probe", 1, row=failed))
    places = await stops(two, "retry", lambda: two.first.store.retry(iid("probe")))
    for place in range(places):
        name = f"i{place}"
        await two.first.start(new(name, owner=W1))
        await two.first.write(commit(name, 1, row=failed))
        before, late = await interleave(
            two,
            "retry",
            place,
            partial(two.first.store.retry, iid(name)),
            partial(two.second.store.write, W1, Batch(commits=(commit(name, 2),))),
        )
        assert before.status == Status.COMPENSATION_FAILED
        assert (await two.first.row(name)).status == Status.COMPENSATING
        assert await two.first.history(name) == ([1, 2] if late.verdicts == (Verdict.CLAIM_LOST,) else [1, 2, 3])


async def test_a_batch_waits_for_no_instance_but_its_own(two: Two) -> None:
    """Also in a table of so few rows that a database would rather read it whole."""
    await two.first.start(new("a", owner=W2), new("m", owner=W2), new("z", owner=W2))
    stop = two.stop("cancel", 3)
    cancelling = asyncio.ensure_future(two.first.store.cancel(iid("a"), by="alice"))
    await asyncio.wait_for(stop.reached.wait(), timeout=20)
    parks = two.second.write(commit("m", 1, row=PARK), commit("z", 1, row=PARK), worker=W2)
    assert await asyncio.wait_for(parks, timeout=5) == (Verdict.COMMITTED, Verdict.COMMITTED)
    assert not cancelling.done()
    stop.go_on.set()
    await cancelling


async def test_batches_that_wake_each_others_instances_do_not_deadlock_for_good(two: Two) -> None:
    await two.first.start(*(new(f"i{number}", owner=W1) for number in range(20)))

    def storm(world: World, worker: WorkerId, ids: list[int]) -> Awaitable[Any]:
        wakes = tuple(iid(f"i{number}") for number in ids)

        async def run() -> None:
            for seq in range(1, 21):
                await world.store.write(worker, Batch(commits=(commit(f"by-{worker}", seq, wakes=wakes),)))

        return run()

    await asyncio.gather(
        storm(two.first, W1, list(range(20))),
        storm(two.second, W2, list(reversed(range(20)))),
    )
    rows = await two.first.store.instances([iid(f"i{number}") for number in range(20)])
    assert {row.wakes for row in rows.values()} == {40}


# -- claims ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [3, 10])
async def test_two_claims_at_once_never_take_the_same(two: Two, limit: int) -> None:
    await two.first.start(new("probe"))
    places = await stops(two, "claim", lambda: two.first.claim(W1))
    for place in range(places):
        names = [f"i{place}-{number}" for number in range(8)]
        await two.first.start(*(new(name) for name in names))
        one, other = await interleave(
            two,
            "claim",
            place,
            lambda: two.first.claim(W1, limit=limit),
            lambda: two.second.claim(W2, limit=limit),
        )
        assert not set(one) & set(other)
        rest = await two.first.claim(W1)
        assert sorted([*one, *other, *rest]) == names
        assert len(one) == len(other) == 3 or limit == 10


async def test_many_claim_at_once_and_each_instance_goes_to_one(two: Two) -> None:
    names = [f"i{number:03}" for number in range(120)]
    await two.first.start(*(new(name) for name in names))

    async def claim_all(world: World, worker: WorkerId) -> list[str]:
        found: list[str] = []
        for _ in range(30):
            found += await world.claim(worker, limit=7)
        return found

    one, other = await asyncio.gather(claim_all(two.first, W1), claim_all(two.second, W2))
    assert sorted([*one, *other]) == names
    assert one
    assert other


# -- starts ---------------------------------------------------------------------------------------------------------


async def test_two_starts_with_one_id_create_one_instance(two: Two) -> None:
    async def start(world: World, worker: WorkerId) -> list[bool]:
        found: list[bool] = []
        for number in range(15):
            news = tuple(new(f"i{number}-{k}", owner=worker) for k in range(10))
            found += [creation.created for creation in await world.start(*news, worker=worker)]
        return found

    one, other = await asyncio.gather(start(two.first, W1), start(two.second, W2))
    assert all(a != b for a, b in zip(one, other, strict=True))
    rows = await two.first.store.list_instances(limit=1000)
    assert sum(row.owner == W1 for row in rows) == sum(one)
    assert len(rows) == 150


async def test_a_duplicate_in_flight_is_waited_for_and_then_lost(two: Two) -> None:
    """The second net: two claims write the same place of a history, the first of them is not yet committed."""
    places = await stops(two, "write", lambda: two.first.write(commit("probe", 1)))

    def write(world: World, worker: WorkerId) -> Callable[[], Awaitable[tuple[Verdict, ...]]]:
        mine: tuple[Commit, ...] = (commit("a", 1), commit(f"by-{worker}", 1))
        return lambda: world.write(*mine, worker=worker)

    one, other = await interleave(two, "write", places - 1, write(two.first, W1), write(two.second, W2))
    assert {one, other} == {
        (Verdict.COMMITTED, Verdict.COMMITTED),
        (Verdict.CLAIM_LOST, Verdict.COMMITTED),
    }


# -- the same event, twice at once -----------------------------------------------------------------------------------


async def test_an_event_that_two_store_at_once_is_stored_and_found_once(two: Two) -> None:
    """And expires whole: a route with another time than the event's would stay for ever."""
    number = 0
    for place in range(await stops(two, "accept", lambda: two.first.store.accept([_paid("count")]))):
        event = _paid(str(number := number + 1))
        receipts = await interleave(
            two,
            "accept",
            place,
            lambda event=event: two.first.store.accept([event]),
            lambda event=event: two.second.store.accept([event]),
        )
        assert (Receipt.STORED,) in receipts
    routed = await select(two.second.store, "select event_key, count(*) from edda_inbox_route group by event_key")
    assert [count for _, count in routed] == [1] * (number + 1)
    assert await two.second.store.expire(before_us=FAR, limit=100) == number + 1
    assert await select(two.second.store, "select * from edda_inbox_route") == []


async def test_an_event_that_comes_again_after_it_expired_stays(two: Two) -> None:
    """Two let it expire at once, and one of them looked before it was stored anew."""
    newest = "select coalesce(max(accepted_at_us), 0) from edda_inbox"

    async def expire(store: SqlStore, before_us: int) -> int:
        return await store.expire(before_us=before_us, limit=100)

    async def expire_and_accept(event: CloudEvent, before_us: int) -> None:
        await expire(two.second.store, before_us)
        assert await two.second.store.accept([event]) == (Receipt.STORED,)

    await two.second.store.accept([_paid("before")])
    places = await stops(two, "expire", lambda: expire(two.first.store, FAR))
    assert places > 2
    for place in range(places):
        event = _paid(f"again-{place}")
        await two.second.store.accept([event])
        before_us = (await select(two.second.store, newest))[0][0] + 1
        await asyncio.sleep(0.001)
        await interleave(
            two,
            "expire",
            place,
            lambda before_us=before_us: expire(two.first.store, before_us),
            lambda event=event, before_us=before_us: expire_and_accept(event, before_us),
        )
        assert await select(two.second.store, "select id from edda_inbox") == [(event.id,)], place
        await expire(two.second.store, FAR)


def _paid(name: str) -> CloudEvent:
    return CloudEvent(name, "/shop", "order.paid")


# -- forgetting -----------------------------------------------------------------------------------------------------

EVERYTHING_US = -(10**9)
"""An age at which everything is old: a while in the future."""


async def test_an_id_that_is_used_again_is_not_forgotten_with_what_it_was_before(two: Two) -> None:
    """Two forget at once, and one of them looked before the id was taken anew."""

    async def ended(name: str) -> None:
        await two.second.start(new(name, owner=W2), worker=W2)
        await two.second.write(commit(name, 1, row=END), worker=W2)

    async def forget(store: SqlStore) -> int:
        return (await store.prune(age_us=EVERYTHING_US)).instances

    async def forget_and_use_again(name: str) -> None:
        await forget(two.second.store)
        await two.second.start(new(name, owner=W2), worker=W2)
        await two.second.write(commit(name, 1, 2), worker=W2)

    await ended("before")
    places = await stops(two, "prune", lambda: forget(two.first.store))
    assert places > 5
    for place in range(places):
        name = f"a{place}"
        await ended(name)
        await interleave(
            two, "prune", place, lambda: forget(two.first.store), lambda name=name: forget_and_use_again(name)
        )
        row = (await two.second.store.instances([iid(name)])).get(iid(name))
        assert row is not None, f"forgotten while it ran, at {place}"
        assert row.status is Status.RUNNING
        assert await two.second.history(name) == [1, 2], place
        await two.second.write(commit(name, 3, row=END), worker=W2)
