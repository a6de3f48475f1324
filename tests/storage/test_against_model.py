"""Random histories of verbs, done to a store and to the model: answers and contents must be equal.

The model's verbs are atomic and so are these, one after the other; what two transactions do to each other is tested in
`test_races`. Times differ between the two, so they are compared as *none*, *due* and *later*.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from edda.core.commit import STAY, Batch, Commit, Creation, End, NewInstance, Park, RowChange, Undo
from edda.core.history import HistoryEvent, InstanceId, Kind, WorkerId
from edda.core.lifecycle import Status
from edda.storage.memory import MemoryStore
from edda.storage.port import Claims, Fenced, InstanceRow, Reaped
from tests.storage.conftest import KINDS, opened, url_of
from tests.storage.support import FAR, LONG_AGO, World, iid, message, new, select, timeless

WORKERS = [WorkerId(f"w{number}") for number in range(3)]
NAMES = [iid(name) for name in ("a", "b", "c", "d", "e", "A")]
WORKFLOWS = ("order", "other")

EXAMPLES = {"sqlite": 10, "sqlite_memory": 60, "postgresql": 10, "mysql": 6}
"""How many histories of 30 steps; `EDDA_EXAMPLES=50` makes them fifty times as many."""

names = st.sampled_from(NAMES)
workers = st.sampled_from(WORKERS)
few_names = st.lists(names, max_size=3).map(tuple)
parks = st.builds(
    lambda status, due_us, late: (status, due_us, late),
    st.sampled_from([Status.WAITING_FOR_EVENT, Status.WAITING_FOR_TIMER, Status.RUNNING, Status.COMPENSATING]),
    st.sampled_from([None, LONG_AGO, FAR]),
    st.booleans(),
)
ends = st.builds(
    lambda status, unless: End(
        status=status, output="1", blob=b"\x00", error="e", unless_cancelled=unless and status in Status
    ),
    st.sampled_from(
        [
            Status.COMPLETED,
            Status.FAILED,
            Status.CANCELLED,
            Status.COMPENSATION_FAILED,
            Status.NONDETERMINISTIC,
            Status.QUARANTINED,
        ]
    ),
    st.booleans(),
)
changes = st.one_of(st.just(STAY), parks, ends, st.builds(Undo, for_cancel=st.booleans()))
kinds = st.sampled_from([Kind.ACTIVITY_COMPLETED, Kind.COMPENSATION_STARTED])
orders = st.fixed_dictionaries(
    {
        "change": changes,
        "rows": st.integers(0, 2),
        "kind": kinds,
        "stale": st.booleans().map(lambda yes: yes),
        "again": st.booleans(),
        "wakes": few_names,
        "cancels": few_names,
        "child": st.none() | names,
        "outbox": st.booleans(),
    }
)


class Both(RuleBasedStateMachine):
    """`real` is set by the test; everything is done to both and compared."""

    real: Any
    runner: asyncio.Runner
    reset: Callable[[], Awaitable[None]]

    def __init__(self) -> None:
        super().__init__()
        ticks = itertools.count(1_000_000, 10)
        self.model = MemoryStore(now_us=lambda: next(ticks))
        self.worlds = World(self.model), World(self.real)

    @initialize()
    def begin(self) -> None:
        self.run(self.reset())
        self.register(WORKERS[0])

    def run(self, work: Awaitable[Any]) -> Any:
        async def run() -> Any:
            try:
                return await work
            except Fenced:
                return Fenced

        return self.runner.run(run())

    def both(self, do: Callable[[World], Awaitable[Any]]) -> Any:
        """Do it to both; the answers must be equal. Returns the model's."""
        answers = [self.run(do(world)) for world in self.worlds]
        now_us = [self.run(world.store.next_due(()))[0] for world in self.worlds]
        expected, found = (comparable(answer, now) for answer, now in zip(answers, now_us, strict=True))
        assert found == expected
        return answers[0]

    def stores(self, do: Callable[[Any], Awaitable[Any]]) -> Any:
        return self.both(lambda world: do(world.store))

    # -- workers -----------------------------------------------------------------------------------------------------

    @rule(worker=workers)
    def register(self, worker: WorkerId) -> None:
        if worker not in self.model.workers:
            for world in self.worlds:
                self.run(world.worker(worker))

    @rule(worker=workers)
    def vanish(self, worker: WorkerId) -> None:
        """A process dies. One always stays: on SQLite it is the one with the lock file."""
        if worker in self.worlds[0].lines and len(self.worlds[0].lines) > 1:
            for world in self.worlds:
                self.run(world.leave(worker))

    @rule(worker=workers)
    def look_for_absentees_and_reap_them(self, worker: WorkerId) -> None:
        for gone in self.stores(lambda store: store.absentees(worker)):
            self.stores(lambda store, gone=gone: store.reap(gone))

    @rule(worker=workers)
    def reap_whoever_that_is(self, worker: WorkerId) -> None:
        self.stores(lambda store: store.reap(worker))

    @rule(worker=workers, sure=st.integers(0, 4))
    def retire(self, worker: WorkerId, sure: int) -> None:
        if sure == 0:
            self.stores(lambda store: store.retire(worker))

    # -- instances ---------------------------------------------------------------------------------------------------

    @rule(
        worker=workers,
        starts=st.lists(st.tuples(names, st.booleans(), st.sampled_from(WORKFLOWS)), max_size=3),
        parent=st.none() | names,
    )
    def start(self, worker: WorkerId, starts: list[tuple[InstanceId, bool, str]], parent: InstanceId | None) -> None:
        news = tuple(
            new(name, owner=worker if owned else None, workflow=workflow, parent_id=parent)
            for name, owned, workflow in starts
        )
        self.stores(lambda store: store.write(worker, Batch(starts=news)))

    @rule(name=names, workflow=st.sampled_from(WORKFLOWS))
    def create(self, name: InstanceId, workflow: str) -> None:
        self.stores(lambda store: store.create(new(name, workflow=workflow)))

    @rule(
        worker=workers,
        workflows=st.sampled_from([("order",), WORKFLOWS, ()]),
        limit=st.integers(0, 4),
        suspects=st.booleans(),
        ids=st.none() | few_names,
    )
    def claim(self, worker: WorkerId, workflows: Any, limit: int, suspects: bool, ids: Any) -> None:
        self.stores(lambda store: store.claim(worker, workflows=workflows, limit=limit, suspects=suspects, ids=ids))

    @rule(worker=workers, plan=st.dictionaries(names, orders, min_size=1, max_size=4))
    def write(self, worker: WorkerId, plan: dict[InstanceId, dict[str, Any]]) -> None:
        commits = tuple(self.commit(name, order) for name, order in plan.items())
        batch = Batch(commits=commits)
        outcome = self.stores(lambda store: store.write(worker, batch))
        if outcome is not Fenced:
            accepted = tuple(
                each
                for each, verdict in zip(commits, outcome.verdicts, strict=True)
                if verdict.value in ("committed", "woken")
            )
            self.stores(lambda store: store.settle(worker, Batch(commits=accepted)))

    def commit(self, name: InstanceId, order: dict[str, Any]) -> Commit:
        """A commit that fits the model's state; some are stale, and some repeat a row of history."""
        row = self.model.rows.get(name)
        length = len(self.model.history.get(name, ()))
        claim = (row.claim if row is not None else 0) + (1 if order["stale"] and order["again"] else 0)
        change: RowChange = order["change"] if not isinstance(order["change"], tuple) else STAY
        if isinstance(order["change"], tuple):
            status, due_us, late = order["change"]
            seen = (row.wakes if row is not None else 0) - (1 if late else 0)
            change = Park(status=status, reason="why", due_us=due_us, seen_wakes=seen)
        repeats = change == STAY and order["again"] and length > 0
        first = length if repeats else length + 1
        records = tuple(
            HistoryEvent(
                instance_id=name,
                seq=first + offset,
                claim=claim,
                at_us=1,
                kind=order["kind"].value,
                call_id="",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
                name="x",
            )
            for offset in range(order["rows"])
        )
        child = order["child"]
        return Commit(
            instance_id=name,
            claim=claim,
            records=records,
            row=change,
            children=(new(child, parent_id=name),) if child is not None else (),
            outbox=(message(name, first),) if order["outbox"] and records else (),
            wakes=order["wakes"],
            cancels=order["cancels"],
        )

    @rule(name=names)
    def cancel(self, name: InstanceId) -> None:
        self.stores(lambda store: store.cancel(name, by="somebody"))

    @rule(name=names)
    def retry(self, name: InstanceId) -> None:
        self.stores(lambda store: store.retry(name))

    # -- reading -----------------------------------------------------------------------------------------------------

    @rule(worker=workers, name=names, status=st.none() | st.sampled_from(Status), limit=st.integers(1, 4))
    def read(self, worker: WorkerId, name: InstanceId, status: Status | None, limit: int) -> None:
        self.stores(lambda store: store.notices(worker))
        self.stores(lambda store: store.children(name))
        self.stores(lambda store: store.list_instances(status=status, limit=limit))
        self.stores(lambda store: store.list_instances(workflow="order", limit=limit, before=name))

    @invariant()
    def contents_are_equal(self) -> None:
        self.stores(lambda store: store.instances(NAMES))
        self.stores(lambda store: store.histories(NAMES))

    def teardown(self) -> None:
        real = self.worlds[1]
        if self.model.outbox:
            sent = self.run(
                select(real.store, "select instance_id, seq, ordinal, id, status, attempts from edda_outbox")
            )
            expected = {(each.instance_id, each.seq, each.ordinal, each.id, "pending", 0) for each in self.model.outbox}
            assert set(sent) == expected
        for world in self.worlds:
            self.run(world.close())


def comparable(answer: Any, now_us: int) -> Any:
    """An answer without the times in it."""
    match answer:
        case InstanceRow():
            return timeless(answer, now_us)
        case Claims(rows=rows):
            return [timeless(row, now_us) for row in rows]
        case Reaped():
            return answer
        case dict():
            return {name: comparable(each, now_us) for name, each in answer.items()}
        case HistoryEvent():
            return answer._replace(at_us=0)
        case Creation() | NewInstance():
            return answer
        case tuple() | list():
            return [comparable(each, now_us) for each in answer]
        case _ if hasattr(answer, "verdicts"):
            return replace(answer, now_us=0)
        case _:
            return answer


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_store_answers_like_the_model(kind: str, urls: dict[str, str]) -> None:
    url = url_of(urls, kind)
    examples = EXAMPLES[kind] * int(os.environ.get("EDDA_EXAMPLES", "1"))
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        store = runner.run(stack.enter_async_context(opened(url)))

        async def reset() -> None:
            from tests.storage.support import wipe

            await wipe(store)

        class Machine(Both):
            pass

        Machine.real, Machine.runner, Machine.reset = store, runner, staticmethod(reset)
        try:
            run_state_machine_as_test(
                Machine,
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=30,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                    print_blob=True,
                ),
            )
        finally:
            runner.run(stack.aclose())
