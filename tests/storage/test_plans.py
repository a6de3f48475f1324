"""Every statement goes by an index: each verb runs once on tables with some thousand rows; what it sent is explained.

On SQLite, PostgreSQL and the MySQL family alike. Where a claim sorts before it locks, a second worker finds nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from edda.core.commit import Batch, End, NewInstance, Park, Undo
from edda.core.history import WorkerId
from edda.core.lifecycle import Status
from edda.core.search import term_of
from edda.storage.outbox import Again, Dead, Delivered, Settlement
from edda.storage.reads import InstanceFilter
from edda.storage.sql.store import SqlStore
from edda.storage.sql.verb import Statement
from tests.storage.support import FAR, W1, W2, World, commit, do, iid, message, new, select

ROWS = 3000
PARK = Park(status=Status.WAITING_FOR_TIMER, reason="", due_us=FAR, seen_wakes=0)


@pytest.fixture
async def world(sql_store: SqlStore) -> AsyncIterator[World]:
    """Many instances: some due, most waiting or ended, as in a database that has lived for a while."""
    world = World(sql_store)
    await world.worker(W1)
    await world.store.declare_search_fields({"w1": ["order_id"]})
    for start in range(0, ROWS, 500):
        names = [f"i{number:05}" for number in range(start, start + 500)]
        await world.start(*(some(number, name) for number, name in enumerate(names)))
        ended = End(status=Status.COMPLETED, output="1")
        parked = Park(status=Status.WAITING_FOR_TIMER, reason="", due_us=5, seen_wakes=0)
        changes = [ended, ended, ended, PARK, parked]
        await world.write(
            *(commit(name, 1, row=changes[number % 5], outbox=(message(name, 1),)) for number, name in enumerate(names))
        )
        await world.write(*(commit(name, 2, 3) for name in names))
    match sql_store.database.dialect.name:
        case "mysql":
            await select(sql_store, "analyze table edda_instance, edda_history, edda_outbox, edda_worker, edda_search")
        case _:
            await do(sql_store, "analyze")
    try:
        yield world
    finally:
        await world.close()


def some(number: int, name: str) -> NewInstance:
    """One of three workflows, and each is found by a value of its own."""
    workflow = f"w{number % 3}"
    term = term_of(workflow, "order_id", name)
    assert term is not None
    return new(name, owner=W1, workflow=workflow, terms=(term,))


async def sent_by(world: World, name: str) -> list[Statement]:
    """The statements of one verb, each with the parameters it had."""
    sent: list[Statement] = []

    async def later(_: str, statement: Any) -> None:
        at_once(_, statement)

    def at_once(_: str, statement: Any) -> None:
        if isinstance(statement, Statement) and not statement.text.startswith("insert"):
            sent.append(statement)

    sqlite = world.store.database.dialect.name == "sqlite"
    world.store.on_statement = at_once if sqlite else later
    try:
        await (VERBS | READS)[name](world)
    finally:
        world.store.on_statement = None
    assert sent
    return sent


async def _crash(world: World) -> None:
    worker = await world.worker(WorkerId("gone"))
    await world.claim(worker, workflows=("w0",), limit=5)
    assert (await world.store.claim_outbox(worker, limit=5, lease_us=FAR)).leased
    await world.leave(worker)
    assert await world.store.reap(worker) is not None


async def _retire(world: World) -> None:
    await world.worker(W2)
    await world.claim(W2, workflows=("w0",), limit=5)
    await world.store.retire(W2)


async def _change_rows(world: World) -> None:
    await world.start(new("x", owner=W1), new("y", owner=W1), new("z", owner=W1))
    await world.write(
        commit("x", 1, row=PARK, wakes=(iid("i00003"),), cancels=(iid("i00008"),)),
        commit("y", 1, row=End(status=Status.FAILED, error="x")),
        commit("z", 1, row=Undo(for_cancel=False)),
    )


async def _relay(world: World) -> None:
    """Claim, settle, requeue and purge; the page is full of messages that wait for others."""
    store = world.store
    await world.write(*(commit("i00000", 4 + n, outbox=(message("i00000", 4 + n, at_us=1),)) for n in range(250)))
    claims = await store.claim_outbox("r1", limit=3, lease_us=FAR)
    claims = await store.claim_outbox("r1", limit=3, lease_us=FAR)
    outcomes = [Delivered(), Dead("400"), Again(FAR, "503")]
    settlements = [Settlement(leased, outcome) for leased, outcome in zip(claims.leased, outcomes, strict=True)]
    assert all(await store.settle_outbox(settlements))
    (letter,) = await store.dead_letters()
    assert await store.requeue(letter.message.id)
    await store.purge_outbox(age_us=-FAR)


VERBS: dict[str, Callable[[World], Any]] = {
    "claim": lambda world: world.claim(workflows=("w0", "w1", "unknown"), limit=20),
    "claim without suspects": lambda world: world.claim(workflows=("w0", "w2"), limit=20, suspects=False),
    "claim of ids": lambda world: world.claim(workflows=("w0", "w1"), ids=[iid("i00004"), iid("i00009")]),
    "notices": lambda world: world.store.notices(W1),
    "held": lambda world: world.store.held(W1),
    "change rows": _change_rows,
    "settle": lambda world: world.store.settle(W1, Batch(commits=(commit("i00001", 1), commit("i00003", row=PARK)))),
    "cancel": lambda world: world.store.cancel(iid("i00003"), by="x"),
    "retry": lambda world: world.store.retry(iid("i00003")),
    "reap": _crash,
    "retire": _retire,
    "instances": lambda world: world.store.instances([iid("i00001"), iid("i00002")]),
    "histories": lambda world: world.store.histories([iid("i00001"), iid("i00002")]),
    "list": lambda world: world.store.list_instances(limit=20),
    "relay": _relay,
    "next page": lambda world: world.store.list_instances(limit=20, before="i01000"),
}


async def test_every_statement_goes_by_an_index(world: World) -> None:
    found: list[str] = []
    for verb in VERBS:
        for statement in await sent_by(world, verb):
            plan = await explain(world.store, statement)
            if problems(world.store, plan):
                found.append(f"{verb}\n{statement.text}\n{plan}")
            if verb == "claim" and "skip locked" in statement.text:
                assert "edda_instance_claimable" in plan
    assert not found, "\n\n".join(found)


async def explain(store: SqlStore, statement: Statement) -> str:
    prefix = "explain query plan" if store.database.dialect.name == "sqlite" else "explain"
    rows = await select(
        store, f"{prefix} {statement.text}", *(statement.params if not statement.many else statement.params[0])
    )
    return "\n".join(" | ".join(str(value) for value in row) for row in rows)


def problems(store: SqlStore, plan: str) -> list[str]:
    """The lines of a plan that read a whole table, or sort what is to be locked. Workers are few: they may be read."""
    match store.database.dialect.name:
        case "sqlite":
            # A walk along an index in its order is a SCAN, too; it has a limit.
            return [
                line
                for line in plan.splitlines()
                if ("SCAN edda_" in line and "USING" not in line and "SCAN edda_worker" not in line)
                # What one worker holds may be sorted, and rows that were asked for by their keys.
                or ("TEMP B-TREE" in line and "(owner=?)" not in plan and "MULTI-INDEX OR" not in plan)
            ]
        case "postgresql":
            return [line for line in plan.splitlines() if "Seq Scan on edda_" in line and "edda_worker" not in line]
        case _:
            return [
                line
                for line in plan.splitlines()
                # ALL although there is an index means that the statistics still count rows that are no more.
                if ("| ALL | None" in line and "<" not in line and "edda_worker" not in line) or "filesort" in line
            ]


SEARCHED = InstanceFilter(workflows=frozenset({"w1"}), argument=("order_id", "i00007"))

READS: dict[str, Callable[[World], Any]] = {
    "newest": lambda world: world.store.instance_page(limit=20),
    "by status": lambda world: world.store.instance_page(InstanceFilter(statuses=frozenset({Status.FAILED}))),
    "by workflow": lambda world: world.store.instance_page(InstanceFilter(workflows=frozenset({"w1"}))),
    "by id": lambda world: world.store.instance_page(InstanceFilter(id_prefix="i00007")),
    "by search field": lambda world: world.store.instance_page(SEARCHED),
    "children": lambda world: world.store.instance_page(InstanceFilter(parent_id="i00007")),
    "history page": lambda world: world.store.history_page(iid("i00001")),
    "outbox of one": lambda world: world.store.outbox_page(status="", instance_id="i00001"),
    "backlogs": lambda world: world.store.backlogs(),
}


async def test_what_people_ask_goes_by_an_index(world: World) -> None:
    """Sorting is allowed: pages over several walks are merged, and so are messages due at the same time."""
    found: list[str] = []
    for verb in READS:
        for statement in await sent_by(world, verb):
            plan = await explain(world.store, statement)
            # Reading so few rows whole to join fifty is cheaper there: the candidates are what counts.
            allowed = ("TEMP B-TREE", "filesort", "Seq Scan on edda_instance i ", "Seq Scan on edda_search_field")
            if verb in ("by status", "by workflow") and "walked" in statement.text:
                assert "edda_instance_listed" in plan
            if verb == "by search field" and "walked" in statement.text:
                assert "edda_search_term" in plan
            if [line for line in problems(world.store, plan) if not any(word in line for word in allowed)]:
                found.append(f"{verb}\n{statement.text}\n{plan}")
    assert not found, "\n\n".join(found)
