"""The committer, on the store in memory: a write takes 10 ms of virtual time, and fails as a test says."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from edda.core.commit import Batch, BatchOutcome, Commit, Creation, NewInstance, OutboxMessage, Park, Verdict
from edda.core.history import HistoryEvent, InstanceId, Kind, WorkerId
from edda.core.lifecycle import Status
from edda.engine import committer as module
from edda.engine.committer import Committer
from edda.engine.environment import DatabaseClock
from edda.exceptions import DatabaseUnavailableError, StorageError
from edda.storage.memory import MemoryStore
from edda.storage.port import Fenced, UnknownOutcome
from tests.engine.virtual_time import environment, in_virtual_time, now_us

ME = WorkerId("me")
WRITE_SECONDS = 0.01


class Answerless(Exception):
    """The batch is written, but nobody hears of it."""


class SlowStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__(now_us)
        self.batches: list[Batch] = []
        """Everything that was sent, also what failed."""
        self.faults: deque[BaseException] = deque()
        """What the next writes raise; nothing is written then, unless it is `Answerless`."""
        self.settle_faults: deque[BaseException] = deque()
        self.cursed: set[str] = set()
        """The database refuses every batch that holds one of these."""

    async def write(self, worker: WorkerId, batch: Batch) -> BatchOutcome:
        self.batches.append(batch)
        await asyncio.sleep(WRITE_SECONDS)
        if self.cursed.intersection(names(batch)):
            raise StorageError("refused")
        fault = self.faults.popleft() if self.faults else None
        if isinstance(fault, Answerless):
            self.write_now(worker, batch)
            raise UnknownOutcome
        if fault is not None:
            raise fault
        return self.write_now(worker, batch)

    async def settle(self, worker: WorkerId, batch: Batch) -> tuple[Verdict | None, ...]:
        if self.settle_faults:
            raise self.settle_faults.popleft()
        return await super().settle(worker, batch)


class Desk:
    """A committer, and what it told whom."""

    def __init__(self) -> None:
        self.store = SlowStore()
        self.told: list[tuple[str, Verdict | StorageError]] = []
        self.diary: list[str] = []
        self.fenced = 0
        self.clock = DatabaseClock(environment())
        self.committer = Committer(
            self.store,
            ME,
            clock=self.clock,
            environment=environment(),
            on_fenced=self._on_fenced,
            on_written=lambda commit: self.diary.append(f"spread {commit.instance_id}"),
        )

    def _on_fenced(self) -> None:
        self.fenced += 1
        self.committer.abandon()  # as the worker does

    def acknowledge(self, commit: Commit, verdict: Verdict | StorageError) -> None:
        self.told.append((commit.instance_id, verdict))
        self.diary.append(f"tell {commit.instance_id}")

    def submit(self, *commits: Commit) -> None:
        for one in commits:
            self.committer.submit(one, self.acknowledge)

    def start(self, name: str) -> asyncio.Task[tuple[Creation, bool]]:
        new = NewInstance(id=InstanceId(name), workflow="w", input="{}", args_hash="h", owner=ME)
        return asyncio.create_task(self.committer.start(new))

    @property
    def sent(self) -> list[list[str]]:
        return [names(batch) for batch in self.store.batches]


@asynccontextmanager
async def a_desk() -> AsyncIterator[Desk]:
    desk = Desk()
    await desk.store.lease_line().register(ME, service="s", lease_us=10**12)
    desk.committer.begin()
    yield desk
    desk.committer.abandon()


def names(batch: Batch) -> list[str]:
    return [commit.instance_id for commit in batch.commits] + [new.id for new in batch.starts]


def commit(name: str, seq: int = 1, *, input: str = "", output: str = "", blob: bytes | None = None) -> Commit:
    record = HistoryEvent(
        instance_id=InstanceId(name),
        seq=seq,
        claim=1,
        at_us=0,
        kind=Kind.ACTIVITY_COMPLETED,
        call_id=f"a:{seq}",
        name="a",
        input=input,
        output=output,
        blob=blob,
    )
    return Commit(instance_id=InstanceId(name), claim=1, records=(record,))


def posting(name: str, *, data: str | None = None, blob: bytes | None = None) -> Commit:
    message = OutboxMessage(
        id=name, instance_id=InstanceId(name), seq=1, ordinal=0, type="t", source="s", data=data, blob=blob,
        content_type="", at_us=0,
    )  # fmt: skip
    return Commit(instance_id=InstanceId(name), claim=1, outbox=(message,))


def many(count: int) -> list[Commit]:
    return [commit(f"i{number}") for number in range(count)]


async def quiet() -> None:
    """Long enough for whatever was asked for."""
    await asyncio.sleep(60)


# -- batches -------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_lonely_commit_is_sent_without_delay_and_told_of_when_it_is_durable() -> None:
    async with a_desk() as desk:
        desk.submit(commit("a"))
        await asyncio.sleep(WRITE_SECONDS * 0.9)
        assert (desk.sent, desk.told) == ([["a"]], [])
        await asyncio.sleep(WRITE_SECONDS * 0.2)
        assert desk.told == [("a", Verdict.COMMITTED)]
        assert len(desk.store.history[InstanceId("a")]) == 1


@in_virtual_time
async def test_what_arrives_during_a_write_travels_together_in_the_next_batch() -> None:
    async with a_desk() as desk:
        desk.submit(commit("a"))
        await asyncio.sleep(WRITE_SECONDS / 2)
        desk.submit(commit("b"), commit("c"))
        start = desk.start("d")
        await quiet()
        assert desk.sent == [["a"], ["b", "c", "d"]]
        assert (await start)[0].created
        assert desk.committer.batches == 2


@in_virtual_time
async def test_one_transaction_is_in_flight_at_a_time() -> None:
    async with a_desk() as desk:
        for one in many(20):
            desk.submit(one)
            await asyncio.sleep(WRITE_SECONDS / 3)
            flown = len(desk.store.batches) - desk.committer.batches
            assert flown <= 1
        await quiet()
        assert [name for batch in desk.sent for name in batch] == [f"i{number}" for number in range(20)]


@in_virtual_time
async def test_a_batch_holds_a_bounded_number_of_commits() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BATCH_COMMITS_MAX", 3)
        async with a_desk() as desk:
            desk.submit(*many(7))
            await quiet()
            assert [len(batch) for batch in desk.sent] == [3, 3, 1]
            assert len(desk.told) == 7


PAYLOADS: dict[str, Callable[[str, int], Commit]] = {
    "input": lambda name, size: commit(name, input="x" * size),
    "output": lambda name, size: commit(name, output="x" * size),
    "blob": lambda name, size: commit(name, blob=b"x" * size),
    "outbox data": lambda name, size: posting(name, data="x" * size),
    "outbox blob": lambda name, size: posting(name, blob=b"x" * size),
}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
@in_virtual_time
async def test_a_batch_holds_a_bounded_number_of_bytes(payload: Callable[[str, int], Commit]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BATCH_BYTES_MAX", 100)
        async with a_desk() as desk:
            desk.submit(*(payload(f"i{number}", 40) for number in range(5)))
            await quiet()
            assert desk.sent == [["i0", "i1"], ["i2", "i3"], ["i4"]]


@in_virtual_time
async def test_a_commit_larger_than_a_batch_goes_alone() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BATCH_BYTES_MAX", 100)
        async with a_desk() as desk:
            desk.submit(commit("small"), commit("large", output="x" * 500), commit("other"))
            await quiet()
            assert desk.sent == [["small"], ["large"], ["other"]]


@in_virtual_time
async def test_the_arguments_of_starts_count_as_bytes() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BATCH_BYTES_MAX", len("{}") * 2)
        async with a_desk() as desk:
            starts = [desk.start(name) for name in "abc"]
            await asyncio.gather(*starts)
            assert desk.sent == [["a", "b"], ["c"]]


# -- acknowledging -------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_acknowledgements_come_in_the_order_of_the_commits_and_before_the_news_of_them_spreads() -> None:
    async with a_desk() as desk:
        desk.submit(commit("a", 1), commit("b", 1))
        await asyncio.sleep(WRITE_SECONDS / 2)
        desk.submit(commit("b", 2), commit("a", 2))
        await quiet()
        assert desk.diary == [f"{what} {who}" for who in "abba" for what in ("tell", "spread")]


@in_virtual_time
async def test_the_next_batch_is_sent_before_the_last_is_told_of() -> None:
    async with a_desk() as desk:
        seen: list[int] = []

        def tell(commit: Commit, verdict: Verdict | StorageError) -> None:
            seen.append(len(desk.store.batches))

        desk.committer.submit(commit("a"), tell)
        await asyncio.sleep(WRITE_SECONDS / 2)
        desk.committer.submit(commit("b"), tell)
        await quiet()
        assert seen == [2, 2]  # of a, when b was under way; of b, when there was nothing more to send


@in_virtual_time
async def test_each_commit_of_a_batch_gets_its_own_verdict() -> None:
    async with a_desk() as desk:
        await desk.start("parks")
        parking = Park(status=Status.WAITING_FOR_EVENT, reason="", due_us=None, seen_wakes=7)
        desk.submit(
            commit("a"),
            Commit(instance_id=InstanceId("somebody else's"), claim=1, row=parking),
            Commit(instance_id=InstanceId("parks"), claim=1, row=parking),
            commit("b"),
        )
        await quiet()
        assert desk.told == [
            ("a", Verdict.COMMITTED),
            ("somebody else's", Verdict.CLAIM_LOST),
            ("parks", Verdict.WOKEN),
            ("b", Verdict.COMMITTED),
        ]
        assert [line for line in desk.diary if "spread" in line] == ["spread a", "spread parks", "spread b"]


@in_virtual_time
async def test_every_answer_sets_the_clock() -> None:
    async with a_desk() as desk:
        desk.store.now_us = lambda: 5_000_000_000
        desk.submit(commit("a"))
        await asyncio.sleep(WRITE_SECONDS * 1.5)
        assert desk.clock.at_least_us() <= 5_000_000_000 + WRITE_SECONDS * 1_000_000 <= desk.clock.at_most_us()


@in_virtual_time
async def test_a_starter_that_stopped_waiting_disturbs_nobody() -> None:
    async with a_desk() as desk:
        impatient, patient = desk.start("a"), desk.start("b")
        desk.submit(commit("c"))
        await asyncio.sleep(WRITE_SECONDS / 2)
        impatient.cancel()
        assert (await patient)[0].created
        await quiet()
        assert desk.told == [("c", Verdict.COMMITTED)]


# -- a database that refuses -----------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_refused_batch_is_tried_one_by_one_and_only_the_culprit_hears_of_it() -> None:
    async with a_desk() as desk:
        desk.store.cursed = {"i2"}
        desk.submit(*many(5))
        await quiet()
        assert [(name, type(verdict)) for name, verdict in desk.told] == [
            (f"i{number}", StorageError if number == 2 else Verdict) for number in range(5)
        ]
        assert desk.sent == [[f"i{number}" for number in range(5)], ["i0"], ["i1"], ["i2"], ["i3"], ["i4"]]
        assert InstanceId("i2") not in desk.store.history
        assert "spread i2" not in desk.diary


@in_virtual_time
async def test_a_refused_start_raises_where_it_was_asked_for() -> None:
    async with a_desk() as desk:
        desk.store.cursed = {"bad"}
        bad, good = desk.start("bad"), desk.start("good")
        with pytest.raises(StorageError, match="refused"):
            await bad
        assert (await good)[0].created


@in_virtual_time
async def test_a_database_that_is_away_is_waited_for_and_nobody_hears_a_thing(caplog: pytest.LogCaptureFixture) -> None:
    async with a_desk() as desk:
        desk.store.faults.extend(DatabaseUnavailableError() for _ in range(5))
        desk.submit(commit("a"))
        await asyncio.sleep(WRITE_SECONDS / 2)
        desk.submit(commit("b"))
        await asyncio.sleep(0.5)
        assert desk.told == []
        await quiet()
        assert desk.told == [("a", Verdict.COMMITTED), ("b", Verdict.COMMITTED)]
        assert desk.sent == [["a"]] * 6 + [["b"]]
        assert caplog.text.count("database is away") == 5


@in_virtual_time
async def test_attempts_to_reach_a_database_that_is_away_become_rarer_up_to_a_bound() -> None:
    async with a_desk() as desk:
        desk.store.faults.extend(DatabaseUnavailableError() for _ in range(1_000))
        desk.submit(commit("a"))
        await asyncio.sleep(60)
        first = len(desk.store.batches)
        await asyncio.sleep(600)
        later = len(desk.store.batches) - first
        assert first < 40
        assert 600 / (module.RETRY_SECONDS_MAX * 1.25 + 1) < later < 600 / (module.RETRY_SECONDS_MAX * 0.75)


# -- a COMMIT without an answer ---------------------------------------------------------------------------------------


@in_virtual_time
async def test_after_a_lost_answer_what_is_there_is_acknowledged_and_not_sent_again() -> None:
    async with a_desk() as desk:
        desk.store.faults.append(Answerless())
        desk.submit(commit("a"), commit("b"))
        await quiet()
        assert desk.told == [("a", Verdict.COMMITTED), ("b", Verdict.COMMITTED)]
        assert desk.sent == [["a", "b"]]
        assert desk.diary[:2] == ["tell a", "spread a"]


@in_virtual_time
async def test_after_a_lost_transaction_all_of_it_is_sent_again() -> None:
    async with a_desk() as desk:
        desk.store.faults.append(UnknownOutcome())
        desk.submit(commit("a"), commit("b"))
        await quiet()
        assert desk.told == [("a", Verdict.COMMITTED), ("b", Verdict.COMMITTED)]
        assert desk.sent == [["a", "b"]] * 2


@in_virtual_time
async def test_after_a_lost_answer_only_what_is_not_there_is_sent_again() -> None:
    async with a_desk() as desk:
        desk.store.write_now(ME, Batch(commits=(commit("lost")._replace(claim=9, records=commit("lost").records),)))
        record = commit("lost").records[0]._replace(claim=2)
        desk.store.faults.append(Answerless())
        desk.submit(commit("a"), Commit(instance_id=InstanceId("lost"), claim=2, records=(record,)), commit("b"))
        await quiet()
        assert desk.sent == [["a", "lost", "b"], ["lost"]]
        assert sorted(desk.told, key=str) == [
            ("a", Verdict.COMMITTED),
            ("b", Verdict.COMMITTED),
            ("lost", Verdict.CLAIM_LOST),
        ]


@in_virtual_time
async def test_answers_may_be_lost_again_and_again() -> None:
    async with a_desk() as desk:
        desk.store.faults.extend([UnknownOutcome(), UnknownOutcome(), Answerless()])
        desk.submit(commit("a"))
        await quiet()
        assert desk.told == [("a", Verdict.COMMITTED)]
        assert len(desk.sent) == 3


@in_virtual_time
async def test_a_start_whose_answer_was_lost_is_found_and_said_to_be_asked_twice() -> None:
    async with a_desk() as desk:
        desk.store.faults.append(Answerless())
        creation, asked_twice = await desk.start("a")
        assert (creation.created, creation.owner, asked_twice) == (False, ME, True)
        creation, asked_twice = await desk.start("a")
        assert (creation.created, asked_twice) == (False, False)


@in_virtual_time
async def test_what_became_of_a_commit_is_asked_until_the_database_can_tell() -> None:
    async with a_desk() as desk:
        desk.store.faults.append(Answerless())
        others = StorageError("settle was in the way of others")
        desk.store.settle_faults.extend([DatabaseUnavailableError(), UnknownOutcome(), others])
        desk.submit(commit("a"))
        await quiet()
        assert desk.told == [("a", Verdict.COMMITTED)]
        assert desk.sent == [["a"]]


# -- the end of a worker ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("while_settling", [False, True])
@in_virtual_time
async def test_a_fenced_worker_is_told_once_its_starts_fail_and_no_commit_is_acknowledged(while_settling: bool) -> None:
    async with a_desk() as desk:
        desk.store.faults.append(UnknownOutcome() if while_settling else Fenced())
        if while_settling:
            desk.store.settle_faults.append(Fenced())
        in_flight = desk.start("b")
        await asyncio.sleep(0)
        desk.submit(commit("a"))
        await asyncio.sleep(WRITE_SECONDS / 2)
        queued = desk.start("c")
        for start in (in_flight, queued):
            with pytest.raises(DatabaseUnavailableError, match="declared dead"):
                await start
        await quiet()
        assert (desk.fenced, desk.told, desk.sent) == (1, [], [["a", "b"]])


@in_virtual_time
async def test_an_abandoned_committer_fails_its_starts_and_acknowledges_nothing() -> None:
    async with a_desk() as desk:
        in_flight = desk.start("b")
        await asyncio.sleep(0)
        desk.submit(commit("a"))
        await asyncio.sleep(WRITE_SECONDS / 2)
        queued = desk.start("c")
        await asyncio.sleep(0)
        desk.committer.abandon()
        for start in (in_flight, queued):
            with pytest.raises(DatabaseUnavailableError):
                await start
        await quiet()
        assert (desk.told, desk.fenced, desk.sent) == ([], 0, [["a", "b"]])


@in_virtual_time
async def test_a_start_after_the_end_fails_at_once() -> None:
    async with a_desk() as desk:
        desk.committer.abandon()
        with pytest.raises(DatabaseUnavailableError):
            await desk.start("a")


@in_virtual_time
async def test_a_defect_while_writing_ends_the_worker_and_leaves_no_starter_waiting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_desk() as desk:
        desk.store.faults.append(RuntimeError("a defect"))
        with pytest.raises(DatabaseUnavailableError):
            await desk.start("a")
        await quiet()
        assert desk.fenced == 1
        assert "can write no more" in caplog.text


@pytest.mark.parametrize("beside_the_next_write", [False, True])
@in_virtual_time
async def test_a_defect_in_an_acknowledgement_ends_the_worker_rather_than_leave_the_others_waiting(
    beside_the_next_write: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(commit: Commit, verdict: Verdict | StorageError) -> None:
        raise RuntimeError("a defect")

    async with a_desk() as desk:
        desk.submit(commit("first"))
        await asyncio.sleep(WRITE_SECONDS / 2)
        desk.committer.submit(commit("a"), broken)
        start = desk.start("b")
        await asyncio.sleep(WRITE_SECONDS)
        if beside_the_next_write:
            desk.submit(commit("c"))
        with pytest.raises(DatabaseUnavailableError):
            await start
        await quiet()
        assert desk.fenced == 1
        assert "can write no more" in caplog.text
