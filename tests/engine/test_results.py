"""Waiting for results: told at once of what runs here, one poller for all others."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from edda.core.commit import Batch, Commit, End, NewInstance
from edda.core.history import InstanceId, WorkerId
from edda.core.lifecycle import ENDED, SET_ASIDE, Status
from edda.engine import results as module
from edda.engine.results import POLL_SECONDS_MAX, Ending, Results
from edda.exceptions import DatabaseUnavailableError, InstanceNotFoundError, ShuttingDownError
from edda.storage.memory import MemoryStore
from edda.storage.port import InstanceRow
from tests.engine.virtual_time import environment, in_virtual_time, now_us

OTHER = WorkerId("other")
A, B = InstanceId("a"), InstanceId("b")


class CountingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__(now_us)
        self.looks: list[tuple[InstanceId, ...]] = []
        self.away = False
        self.read_seconds = 0.0
        """Between the moment that an answer is true of and its arrival."""

    async def instance(self, instance_id: InstanceId) -> InstanceRow | None:
        row = await super().instance(instance_id)
        await asyncio.sleep(self.read_seconds)
        return row

    async def instances(self, ids: Sequence[InstanceId]) -> Mapping[InstanceId, InstanceRow]:
        self.looks.append(tuple(ids))
        if self.away:
            raise DatabaseUnavailableError
        return await super().instances(ids)


class Bench:
    """Instances of another worker, unless a test puts them into `here`."""

    def __init__(self) -> None:
        self.store = CountingStore()
        self.here: set[InstanceId] = set()
        self.results = Results(self.store, environment(), runs_here=self.here.__contains__)

    async def has(self, *ids: InstanceId) -> None:
        await self.store.lease_line().register(OTHER, service="s", lease_us=10**12)
        new = (NewInstance(id=name, workflow="w", input="{}", args_hash="h", owner=OTHER) for name in ids)
        self.store.write_now(OTHER, Batch(starts=tuple(new)))

    def end_elsewhere(self, name: InstanceId, status: Status = Status.COMPLETED, output: str | None = '"done"') -> None:
        end = End(status=status, output=output)
        self.store.write_now(OTHER, Batch(commits=(Commit(instance_id=name, claim=1, row=end),)))

    def end_here(self, name: InstanceId, status: Status = Status.COMPLETED) -> None:
        driver: Any = SimpleNamespace(workflow_name="w", instance_id=name)
        self.results.ended(driver, End(status=status, output='"done"'))

    def wait(self, name: InstanceId) -> asyncio.Task[Ending]:
        return asyncio.create_task(self.results.wait(name))


DONE = Ending("w", Status.COMPLETED, '"done"', None, None)


async def a_moment() -> None:
    """Callbacks only: no time passes."""
    for _ in range(5):
        await asyncio.sleep(0)


@in_virtual_time
async def test_the_end_of_what_runs_here_is_told_at_once_to_all_who_wait_without_a_query() -> None:
    bench = Bench()
    bench.here.add(A)
    waiters = [bench.wait(A), bench.wait(A)]
    await asyncio.sleep(10)
    bench.end_here(A)
    await a_moment()
    assert [waiter.result() for waiter in waiters] == [DONE, DONE]
    assert bench.store.looks == []


@in_virtual_time
async def test_an_instance_that_has_ended_is_answered_at_once() -> None:
    bench = Bench()
    await bench.has(A)
    bench.end_elsewhere(A)
    waiter = bench.wait(A)
    await a_moment()
    assert waiter.result() == DONE


@in_virtual_time
async def test_an_end_that_comes_while_the_row_is_read_is_not_missed() -> None:
    bench = Bench()
    await bench.has(A)
    bench.store.read_seconds = 1
    waiter = bench.wait(A)
    await asyncio.sleep(0.5)
    bench.end_here(A)
    assert await waiter == DONE
    assert bench.store.looks == []


@in_virtual_time
async def test_a_shutdown_while_the_row_is_read_leaves_nobody_waiting() -> None:
    bench = Bench()
    await bench.has(A)
    bench.store.read_seconds = 1
    waiter = bench.wait(A)
    await asyncio.sleep(0.5)
    await bench.results.stop()
    with pytest.raises(ShuttingDownError):
        await waiter


@in_virtual_time
async def test_an_unknown_instance_is_an_error_at_once() -> None:
    bench = Bench()
    with pytest.raises(InstanceNotFoundError, match="nobody"):
        await bench.results.wait(InstanceId("nobody"))


@pytest.mark.parametrize("status", sorted(ENDED))
@in_virtual_time
async def test_the_end_of_what_runs_elsewhere_is_found(status: Status) -> None:
    bench = Bench()
    await bench.has(A)
    waiter = bench.wait(A)
    await asyncio.sleep(10)
    bench.end_elsewhere(A, status)
    await asyncio.sleep(POLL_SECONDS_MAX * 1.3)
    assert waiter.done()
    assert waiter.result().status is status


@pytest.mark.parametrize("status", sorted(SET_ASIDE))
@in_virtual_time
async def test_an_instance_that_is_set_aside_has_no_result_yet(status: Status) -> None:
    bench = Bench()
    await bench.has(A, B)
    bench.here.add(B)
    waiters = [bench.wait(A), bench.wait(B)]
    bench.end_elsewhere(A, status)
    await a_moment()
    bench.end_here(B, status)
    await asyncio.sleep(10)
    assert not any(waiter.done() for waiter in waiters)
    await bench.store.retry(A)
    bench.end_here(B)
    await a_moment()
    assert [waiter.done() for waiter in waiters] == [False, True]
    await bench.results.stop()
    with pytest.raises(ShuttingDownError):
        await waiters[0]


@in_virtual_time
async def test_one_query_serves_all_who_wait() -> None:
    bench = Bench()
    await bench.has(A, B)
    waiters = [bench.wait(name) for name in (A, B, A, B)]
    await asyncio.sleep(5)
    assert {tuple(sorted(ids)) for ids in bench.store.looks} == {(A, B)}
    bench.end_elsewhere(A)
    bench.end_elsewhere(B)
    assert await asyncio.gather(*waiters) == [DONE] * 4


@in_virtual_time
async def test_only_what_does_not_run_here_is_asked_for() -> None:
    bench = Bench()
    await bench.has(A, B)
    bench.here.add(A)
    waiters = [bench.wait(A), bench.wait(B)]
    await asyncio.sleep(5)
    assert set(bench.store.looks) == {(B,)}
    bench.here.remove(A)  # parked, and taken up by another worker
    bench.end_elsewhere(A)
    bench.end_elsewhere(B)
    assert await asyncio.gather(*waiters) == [DONE] * 2


@in_virtual_time
async def test_a_query_asks_for_a_bounded_number() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", 2)
        bench = Bench()
        names = [InstanceId(str(number)) for number in range(5)]
        await bench.has(*names)
        waiters = [bench.wait(name) for name in names]
        await asyncio.sleep(1)
        assert {len(ids) for ids in bench.store.looks} == {1, 2}
        for name in names:
            bench.end_elsewhere(name)
        assert await asyncio.gather(*waiters) == [DONE] * 5


@in_virtual_time
async def test_looks_become_rarer_up_to_a_bound_and_frequent_again_when_somebody_new_waits() -> None:
    bench = Bench()
    await bench.has(A, B)
    waiters = [bench.wait(A)]
    await asyncio.sleep(60)
    bench.store.looks.clear()
    await asyncio.sleep(100)
    rare = len(bench.store.looks)
    assert 100 / (POLL_SECONDS_MAX * 1.25) - 1 <= rare <= 100 / (POLL_SECONDS_MAX * 0.75) + 1
    bench.store.looks.clear()
    waiters.append(bench.wait(B))
    await asyncio.sleep(0.2)
    assert len(bench.store.looks) >= 3
    bench.end_elsewhere(A)
    bench.end_elsewhere(B)
    await asyncio.gather(*waiters)


@in_virtual_time
async def test_nothing_is_asked_when_nobody_waits_any_more() -> None:
    bench = Bench()
    await bench.has(A)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await bench.results.wait(A)
    await asyncio.sleep(2)
    bench.store.looks.clear()
    await asyncio.sleep(60)
    assert bench.store.looks == []
    waiter = bench.wait(A)
    bench.end_elsewhere(A)
    assert await waiter == DONE


@in_virtual_time
async def test_a_waiter_that_gives_up_leaves_the_others_waiting() -> None:
    bench = Bench()
    bench.here.add(A)
    impatient, patient = bench.wait(A), bench.wait(A)
    await a_moment()
    impatient.cancel()
    await a_moment()
    bench.end_here(A)
    assert await patient == DONE


@in_virtual_time
async def test_a_database_that_is_away_delays_the_answer_only() -> None:
    bench = Bench()
    await bench.has(A)
    waiter = bench.wait(A)
    await a_moment()
    bench.store.away = True
    bench.end_elsewhere(A)
    await asyncio.sleep(10)
    assert not waiter.done()
    bench.store.away = False
    assert await waiter == DONE


@in_virtual_time
async def test_after_a_shutdown_all_who_wait_hear_that_there_is_no_answer_here() -> None:
    bench = Bench()
    await bench.has(A)
    bench.here.add(B)
    waiters = [bench.wait(A), bench.wait(B)]
    await asyncio.sleep(5)
    await bench.results.stop()
    for waiter, name in zip(waiters, (A, B), strict=True):
        with pytest.raises(ShuttingDownError, match=f"'{name}'"):
            await waiter
    assert asyncio.all_tasks() == {asyncio.current_task()}


@in_virtual_time
async def test_a_shutdown_with_nobody_waiting_is_quiet() -> None:
    await Bench().results.stop()
