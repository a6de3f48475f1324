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
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from edda.core.commit import STAY, Batch, Commit, End, Park, RowChange, Undo, Verdict
from edda.core.history import InstanceId, Kind, WorkerId
from edda.core.lifecycle import ENDED, SET_ASIDE, Status
from edda.storage.memory import ACCEPTED, MemoryStore
from edda.storage.port import Fenced
from tests.storage.conftest import KINDS, opened, url_of
from tests.storage.support import FAR, LONG_AGO, World, comparable, event, iid, message, new, select, wipe

NAMES = [iid(name) for name in ("a", "b", "c", "d", "e", "A")]
WORKFLOWS = ("order", "other")
EXAMPLES = {"sqlite": 5, "sqlite_memory": 120, "postgresql": 8, "mysql": 5}
"""How many histories of 40 steps; `EDDA_EXAMPLES=50` makes them fifty times as many."""

names = st.sampled_from(NAMES)
places = st.integers(0, 9)
few_names = st.lists(names, max_size=3).map(tuple)
seldom = st.integers(0, 9).map(lambda number: number == 9)
parks = st.builds(
    Park,
    status=st.sampled_from([Status.WAITING_FOR_EVENT, Status.WAITING_FOR_TIMER, Status.RUNNING]),
    reason=st.just("why"),
    due_us=st.sampled_from([None, LONG_AGO, FAR]),
    seen_wakes=st.sampled_from([0, -1]),  # how many less than there were
)
ends = st.builds(
    End,
    status=st.sampled_from([*sorted(ENDED), *sorted(SET_ASIDE), *sorted(SET_ASIDE)]),
    output=st.just("1"),
    blob=st.just(b"\x00"),
    error=st.just("e"),
    unless_cancelled=st.booleans(),
)
undos = st.builds(Undo, for_cancel=st.booleans())
changes = st.one_of(st.just(STAY), parks, parks, parks, ends, undos)
orders = st.fixed_dictionaries(
    {
        "change": changes,
        "rows": st.integers(0, 2),
        "kind": st.sampled_from([Kind.ACTIVITY_COMPLETED, Kind.ACTIVITY_COMPLETED, Kind.COMPENSATION_STARTED]),
        "stale": seldom,
        "repeats": seldom,
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
    seen: set[str]
    """The verdicts that came up in all histories, so that nobody tests nothing."""

    def __init__(self) -> None:
        super().__init__()
        ticks = itertools.count(1_000_000, 10)
        self.model = MemoryStore(now_us=lambda: next(ticks))
        self.worlds = World(self.model), World(self.real)
        self.steps = 0

    @initialize()
    def begin(self) -> None:
        self.run(self.reset())
        for _ in range(2):
            self.register()
        first, second = self.alive
        news = [
            new(name, owner=first, workflow=workflow)
            for name, workflow in zip(NAMES[:3], ["order", "other", "order"], strict=True)
        ]
        self.stores(lambda store: store.write(first, Batch(starts=tuple(news))))
        self.stores(lambda store: store.write(second, Batch(starts=(new(NAMES[3], owner=second), new(NAMES[4])))))

    @property
    def alive(self) -> list[WorkerId]:
        return list(self.worlds[0].lines)

    def worker_at(self, place: int) -> WorkerId:
        """One of the workers; at the places from 7 on one that is dead, if any is."""
        dead = [worker for worker, state in self.model.workers.items() if not state.alive]
        some = dead if dead and place >= 9 else self.alive
        return some[place % len(some)]

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
        assert comparable(answers[1]) == comparable(answers[0])
        return answers[0]

    def stores(self, do: Callable[[Any], Awaitable[Any]]) -> Any:
        return self.both(lambda world: do(world.store))

    # -- workers -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.alive) < 3)
    @rule()
    def register(self) -> None:
        worker = WorkerId(f"w{len(self.model.workers)}")
        for world in self.worlds:
            self.run(world.worker(worker))

    @precondition(lambda self: len(self.alive) > 1)
    @rule(place=places)
    def crash(self, place: int) -> None:
        """A process dies, and is found out. One always stays: on SQLite it is the one with the lock file."""
        gone = self.alive[place % len(self.alive)]
        for world in self.worlds:
            self.run(world.leave(gone))
        if place % 3 == 0:  # it is not found out yet, and may write
            self.stores(lambda store: store.claim(gone, workflows=WORKFLOWS, limit=2))
        witness = self.alive[0]
        for absentee in self.stores(lambda store: store.absentees(witness)):
            self.stores(lambda store, absentee=absentee: store.reap(absentee))

    @rule(place=places)
    def reap_one_that_is_alive_or_dead_already(self, place: int) -> None:
        worker = self.worker_at(place)
        self.stores(lambda store: store.reap(worker))

    @precondition(lambda self: len(self.alive) > 2)
    @rule(place=places)
    def retire(self, place: int) -> None:
        worker = self.alive[place % len(self.alive)]
        self.stores(lambda store: store.retire(worker))
        for world in self.worlds:
            self.run(world.leave(worker))

    # -- instances ---------------------------------------------------------------------------------------------------

    @rule(
        place=places,
        starts=st.lists(st.tuples(names, st.booleans(), st.sampled_from(WORKFLOWS)), max_size=3),
        parent=st.none() | names,
    )
    def start(self, place: int, starts: list[tuple[InstanceId, bool, str]], parent: InstanceId | None) -> None:
        worker = self.worker_at(place)
        news = tuple(
            new(name, owner=worker if owned else None, workflow=workflow, parent_id=parent)
            for name, owned, workflow in starts
        )
        self.stores(lambda store: store.write(worker, Batch(starts=news)))

    @rule(name=names, workflow=st.sampled_from(WORKFLOWS))
    def create(self, name: InstanceId, workflow: str) -> None:
        self.stores(lambda store: store.create(new(name, workflow=workflow)))

    @rule(place=places, limit=st.integers(0, 4), suspects=st.booleans(), ids=st.none() | few_names)
    def claim_some(self, place: int, limit: int, suspects: bool, ids: Any) -> None:
        worker, workflows = self.worker_at(place), WORKFLOWS[: place % 3]
        self.stores(lambda store: store.claim(worker, workflows=workflows, limit=limit, suspects=suspects, ids=ids))

    @rule(place=places)
    def claim_all(self, place: int) -> None:
        worker = self.worker_at(place)
        self.stores(lambda store: store.claim(worker, workflows=WORKFLOWS, limit=9))

    @rule(place=places, plan=st.dictionaries(names, orders, min_size=1, max_size=4))
    def write(self, place: int, plan: dict[InstanceId, dict[str, Any]]) -> None:
        worker = self.worker_at(place)
        self.write_as(worker, plan)

    def write_as_the_owner(self, plan: dict[InstanceId, dict[str, Any]]) -> None:
        owners = [self.model.rows[name].owner for name in plan if name in self.model.rows]
        for owner in {owner for owner in owners if owner is not None}:
            mine = {name: order for name, order in plan.items() if self.owner(name) in (owner, None)}
            self.write_as(owner, mine)

    @rule(plan=st.dictionaries(names, orders, min_size=1, max_size=4))
    def write_by_owners(self, plan: dict[InstanceId, dict[str, Any]]) -> None:
        self.write_as_the_owner(plan)

    @rule(plan=st.dictionaries(names, orders, min_size=2, max_size=4))
    def write_more_by_owners(self, plan: dict[InstanceId, dict[str, Any]]) -> None:
        self.write_as_the_owner(plan)

    def owner(self, name: InstanceId) -> WorkerId | None:
        return self.model.rows[name].owner if name in self.model.rows else None

    def write_as(self, worker: WorkerId, plan: dict[InstanceId, dict[str, Any]]) -> None:
        commits = tuple(self.commit(name, order) for name, order in plan.items())
        outcome = self.stores(lambda store: store.write(worker, Batch(commits=commits)))
        if outcome is not Fenced:
            self.seen.update(verdict.value for verdict in outcome.verdicts)
            accepted = tuple(
                each for each, verdict in zip(commits, outcome.verdicts, strict=True) if verdict in ACCEPTED
            )
            self.stores(lambda store: store.settle(worker, Batch(commits=accepted)))

    def commit(self, name: InstanceId, order: dict[str, Any]) -> Commit:
        """A commit that fits the model's state; some are stale, and some repeat a row of history."""
        row = self.model.rows.get(name)
        length = len(self.model.history.get(name, ()))
        claim = (row.claim if row is not None else 0) + order["stale"]
        change: RowChange = order["change"]
        if isinstance(change, Park):
            change = change._replace(seen_wakes=change.seen_wakes + (row.wakes if row is not None else 0))
        repeats = change == STAY and order["repeats"] and length > 0
        first = length if repeats else length + 1
        records = tuple(event(name, first + offset, claim, order["kind"]) for offset in range(order["rows"]))
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

    @rule(place=places, name=names, status=st.none() | st.sampled_from(Status), limit=st.integers(1, 4))
    def read(self, place: int, name: InstanceId, status: Status | None, limit: int) -> None:
        worker = self.worker_at(place)
        self.stores(lambda store: store.notices(worker))
        self.stores(lambda store: store.held(worker))
        self.stores(lambda store: store.list_instances(status=status, limit=limit))
        self.stores(lambda store: store.list_instances(workflow="order", limit=limit, before=name))

    @invariant()
    def contents_stay_equal(self) -> None:
        self.steps += 1
        if self.steps % 4 == 0:
            self.compare_contents()

    def compare_contents(self) -> None:
        self.stores(lambda store: store.instances(NAMES))
        self.stores(lambda store: store.histories(NAMES))

    def teardown(self) -> None:
        try:
            self.compare_contents()
            self.compare_outboxes()
        finally:
            for world in self.worlds:
                self.run(world.close())

    def compare_outboxes(self) -> None:
        text = "select instance_id, seq, ordinal, id, status, attempts from edda_outbox"
        sent = self.run(select(self.worlds[1].store, text))
        expected = {(each.instance_id, each.seq, each.ordinal, each.id, "pending", 0) for each in self.model.outbox}
        assert set(sent) == expected


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_store_answers_like_the_model(kind: str, urls: dict[str, str]) -> None:
    url = url_of(urls, kind)
    examples = EXAMPLES[kind] * int(os.environ.get("EDDA_EXAMPLES", "1"))
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        store = runner.run(stack.enter_async_context(opened(url)))

        async def reset() -> None:
            await wipe(store)

        class Machine(Both):
            pass

        Machine.real, Machine.runner, Machine.reset, Machine.seen = store, runner, staticmethod(reset), set()
        try:
            run_state_machine_as_test(
                Machine,
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=40,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                    print_blob=True,
                ),
            )
            if examples >= 100:
                assert Machine.seen == {verdict.value for verdict in Verdict}
        finally:
            runner.run(stack.aclose())
