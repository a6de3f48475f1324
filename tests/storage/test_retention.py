"""Forgetting, for every back end: whole instances, only what is over, nothing that somebody needs, in bounded steps."""

from __future__ import annotations

from typing import Any

import pytest

from edda.core.commit import End, EventWait, Park, Undo
from edda.core.event import CloudEvent
from edda.core.history import WorkerId
from edda.core.lifecycle import Status
from edda.core.routing import Criteria
from edda.storage import memory_retention
from edda.storage.outbox import Dead, Delivered, Settlement
from edda.storage.retention import Pruned, walk
from edda.storage.sql import retention as sql_retention
from edda.storage.sql.store import SqlStore
from tests.storage.support import FAR, NEVER, W1, World, commit, do, iid, message, new, select

NOW = -(10**9)
"""An age at which everything is old: a while in the future."""
COMPLETED = End(status=Status.COMPLETED, output="1")
PARKED = Park(status=Status.WAITING_FOR_EVENT, reason="event x", due_us=NEVER, seen_wakes=0)


async def gone(world: World, *names: str, age_us: int = NOW, dry: bool = False) -> list[str]:
    """Those of these instances that are no more after a whole walk."""
    async for _ in walk(world.store, age_us=age_us, dry=dry):
        pass
    left = await world.store.instances([iid(name) for name in names])
    return [name for name in names if name not in left]


async def test_what_completed_failed_or_was_cancelled_goes_and_the_rest_stays(world: World) -> None:
    names = [f"i{number}" for number in range(9)]
    await world.start(*(new(name, owner=W1) for name in names))
    await world.write(
        commit("i0", 1, row=COMPLETED),
        commit("i1", 1, row=End(status=Status.FAILED, error="{}")),
        commit("i2", 1, row=End(status=Status.CANCELLED)),
        commit("i3", 1, row=End(status=Status.COMPENSATION_FAILED, error="{}")),
        commit("i4", 1, row=End(status=Status.NONDETERMINISTIC, error="{}")),
        commit("i5", 1, row=End(status=Status.QUARANTINED, error="{}")),
        commit("i6", 1, row=Undo(for_cancel=False)),
        commit("i7", 1, row=PARKED),
        commit("i8", 1),
    )
    assert await gone(world, *names, age_us=10**12) == []
    assert await gone(world, *names, dry=True) == []
    assert await gone(world, *names) == ["i0", "i1", "i2"]


async def test_an_instance_goes_whole_and_nothing_of_another_goes_with_it(world: World) -> None:
    wait = EventWait("x:1", "x", Criteria.of("x").route)
    for name in ("a", "b"):
        await world.start(new(name, owner=W1))
        await world.store.accept([CloudEvent(f"e-{name}", "/s", "x", json="{}", extensions={"eddainstanceid": name})])
        await world.write(commit(name, 1, 2, 3, waits=(wait,), outbox=(message(name, 1),)))
    await world.store.accept([CloudEvent("e", "/s", "x", json="{}")])
    claims = await world.store.claim_outbox("r", limit=10, lease_us=FAR // 10**6)
    await world.store.settle_outbox([Settlement(one, Delivered()) for one in claims.leased])
    await world.write(commit("a", 4, row=COMPLETED))
    assert await gone(world, "a", "b") == ["a"]
    assert (await world.store.histories([iid("a")]))[iid("a")] == []
    assert await world.history("b") == [1, 2, 3]
    assert [one.instance_id for one in (await world.store.wait_page()).rows] == ["b"]
    assert {view.event.id for view in (await world.store.event_page()).rows} == {"e-b", "e"}
    assert [view.message.instance_id for view in (await world.store.outbox_page(status="delivered")).rows] == ["b"]


async def test_its_id_is_free_afterwards(world: World) -> None:
    await world.start(new("a", owner=W1))
    await world.write(commit("a", 1, row=COMPLETED))
    assert await gone(world, "a") == ["a"]
    assert (await world.store.create(new("a"))).created


async def test_a_family_that_can_still_run_is_kept_together(world: World) -> None:
    await world.start(new("parent", owner=W1), new("child", owner=W1, parent_id=iid("parent")))
    await world.write(commit("child", 1, row=COMPLETED))
    assert await gone(world, "parent", "child") == []
    await world.write(commit("parent", 1, row=End(status=Status.COMPENSATION_FAILED, error="{}")))
    assert await gone(world, "parent", "child") == []
    await world.start(new("father", owner=W1), new("son", owner=W1, parent_id=iid("father"), detached=True))
    await world.write(commit("father", 1, row=COMPLETED))
    assert await gone(world, "father", "son") == []
    await world.write(commit("son", 1, row=COMPLETED))
    assert await gone(world, "father", "son") == ["father", "son"]


async def test_undelivered_messages_keep_their_instance(world: World) -> None:
    for name in ("pending", "dead", "delivered"):
        await world.start(new(name, owner=W1))
        await world.write(commit(name, 1, outbox=(message(name, 1),), row=COMPLETED))
    claims = await world.store.claim_outbox("r", limit=10, lease_us=1)
    outcomes: dict[str, Any] = {"dead": Dead("404"), "delivered": Delivered()}
    await world.store.settle_outbox(
        [
            Settlement(one, outcomes[one.message.instance_id])
            for one in claims.leased
            if one.message.instance_id in outcomes
        ]
    )
    assert await gone(world, "pending", "dead", "delivered") == ["delivered"]


async def test_steps_are_bounded_and_miss_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (memory_retention, sql_retention):
        monkeypatch.setattr(module, "LOOKED_AT_MAX", 4)
        monkeypatch.setattr(module, "ROWS_MAX", 5)
    names = [f"i{number:02}" for number in range(11)]
    await world.start(*(new(name, owner=W1) for name in names))
    await world.write(*(commit(name, *range(1, 4), row=COMPLETED) for name in names if name != "i05"))
    await world.write(commit("i07", *range(4, 11)))
    steps: list[Pruned] = [step async for step in walk(world.store, age_us=NOW)]
    assert all(step.rows <= 5 or step.instances == 1 for step in steps)
    assert sum(step.instances for step in steps) == 10
    assert sum(step.rows for step in steps) == 37
    assert [row.id for row in (await world.store.instance_page()).rows] == ["i05"]


async def test_a_dry_walk_counts_what_a_real_one_removes(world: World) -> None:
    names = [f"i{number}" for number in range(5)]
    await world.start(*(new(name, owner=W1) for name in names))
    await world.write(*(commit(name, 1, 2, row=COMPLETED) for name in names))
    dry = [step async for step in walk(world.store, age_us=NOW, dry=True)]
    assert [(step.instances, step.rows) for step in dry] == [(5, 10)]
    assert [step async for step in walk(world.store, age_us=NOW)] == dry


async def test_dead_workers_that_hold_nothing_are_forgotten(world: World) -> None:
    for name in ("gone", "crashed"):
        await world.worker(WorkerId(name))
    await world.start(new("a", owner=WorkerId("crashed")), worker=WorkerId("crashed"))
    await world.store.retire(WorkerId("gone"))
    await world.leave(WorkerId("gone"))
    assert await world.store.forget_workers(age_us=10**15) == 0
    assert await world.store.forget_workers(age_us=-(10**13)) == 1
    assert {one.id for one in (await world.store.worker_views()).rows} == {W1, "crashed"}


class Crash(BaseException):
    """The process dies."""


async def test_a_crash_at_any_statement_removes_nothing_or_all(sql_store: SqlStore) -> None:
    world = World(sql_store)
    await world.worker(W1)
    await world.start(new("a", owner=W1))
    await world.write(commit("a", 1, 2, outbox=(message("a", 1),)))
    claims = await sql_store.claim_outbox("r", limit=10, lease_us=10**9)
    await sql_store.settle_outbox([Settlement(one, Delivered()) for one in claims.leased])
    await world.write(commit("a", 3, row=COMPLETED))
    before = await _contents(sql_store)
    place = 0
    while await _crashes_at(sql_store, place):
        assert await _contents(sql_store) == before, place
        place += 1
    assert place > 6
    assert await _contents(sql_store) == [0, 0, 0]
    await world.close()


async def _contents(store: SqlStore) -> list[int]:
    counts = [
        await select(store, f"select count(*) from {table}")
        for table in ("edda_instance", "edda_history", "edda_outbox")
    ]
    return [int(rows[0][0]) for rows in counts]


async def _crashes_at(store: SqlStore, place: int) -> bool:
    passed = 0

    def at_once(verb: str, _: Any) -> None:
        nonlocal passed
        if verb == "prune":
            passed += 1
            if passed > place:
                raise Crash

    async def later(verb: str, statement: Any) -> None:
        at_once(verb, statement)

    store.on_statement = at_once if store.database.dialect.name == "sqlite" else later
    try:
        await store.prune(age_us=NOW)
    except Crash:
        return True
    finally:
        store.on_statement = None
    return False


async def test_work_goes_on_while_much_is_forgotten(sql_store: SqlStore) -> None:
    """No lock of a step reaches what others do: a claim in the middle of one takes what is due."""
    if sql_store.database.dialect.name == "sqlite":
        pytest.skip("there is one writer, and a step is one transaction")
    world = World(sql_store)
    await world.worker(W1)
    await world.start(*(new(f"i{number:02}", owner=W1) for number in range(20)))
    await world.write(*(commit(f"i{number:02}", 1, row=COMPLETED) for number in range(20)))
    await sql_store.create(new("due"))
    claimed: list[str] = []

    async def in_the_middle(verb: str, statement: Any) -> None:
        if verb == "prune" and statement == "COMMIT":
            await other.open()
            claimed.extend(await World(other).claim())

    from edda.storage.sql import open_store

    other = open_store(sql_store.database.url.dsn)
    sql_store.on_statement = in_the_middle
    await sql_store.prune(age_us=NOW)
    sql_store.on_statement = None
    await other.close()
    assert claimed == ["due"]
    await do(sql_store, "select 1")
    await world.close()
