"""Looking only: the right to SELECT suffices, nothing can be written, and tables of another version are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from edda.exceptions import SchemaError, StorageError
from edda.storage.reads import InstanceFilter
from edda.storage.sql import open_reader, open_store
from edda.storage.sql.database import Lane
from edda.storage.sql.migrate import MIGRATIONS
from edda.storage.sql.reads_store import SqlReader
from edda.storage.sql.verb import Row, Statement, Verb
from tests.databases import available, fresh_database
from tests.storage.support import W1, World, do, iid, new

SERVERS = [pytest.param(kind, marks=getattr(pytest.mark, kind)) for kind in ("postgresql", "mysql")]
READER = "edda_test_looker"


def _write() -> Verb[list[Row]]:
    rows, _ = yield Statement("update edda_instance set reason = 'changed'")
    return list(rows)


async def _ask_everything(reader: SqlReader) -> None:
    assert [row.id for row in (await reader.instance_page()).rows] == ["b", "a"]
    assert (await reader.instance_page(InstanceFilter(text="x", argument=("a", 1)))).rows == ()
    assert sum(one.count for one in await reader.instance_counts()) == 2
    assert (await reader.instance(iid("a"))) is not None
    assert await reader.histories([iid("a")]) == {"a": []}
    await reader.history_page(iid("a"))
    await reader.waits_of(iid("a"))
    await reader.wait_page()
    await reader.event_page()
    await reader.handlers()
    assert await reader.source("order") is None
    await reader.outbox_page(status="pending")
    await reader.outbox_counts()
    (worker,) = (await reader.worker_views()).rows
    assert worker.alive
    assert (await reader.backlogs()).rows == ()
    assert len(await reader.endings("order")) == 2
    assert await reader.schema_version() == MIGRATIONS[-1].version
    assert await reader.clock() > 0


async def _with_two_instances(url: str) -> World:
    store = open_store(url)
    await store.open()
    world = World(store)
    await world.worker(W1)
    await world.start(new("a", owner=W1), new("b", owner=W1))
    return world


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=getattr(pytest.mark, kind)) for kind in ("postgresql", "mysql")]
)
async def test_the_right_to_select_suffices(kind: str) -> None:
    if not available().get(kind):
        pytest.skip(f"there is no {kind} server")
    with fresh_database(kind) as url:
        world = await _with_two_instances(url)
        user = f"{READER}_{os.getpid()}"
        database = make_url(url).database
        if kind == "postgresql":
            await do(world.store, f"create role {user} login password 'p'")
            await do(world.store, f"grant select on all tables in schema public to {user}")
        else:
            await do(world.store, f"create user {user} identified by 'p'")
            await do(world.store, f"grant select on {database}.* to {user}")
        try:
            reader = open_reader(make_url(url).set(username=user, password="p").render_as_string(hide_password=False))
            await reader.open()
            await _ask_everything(reader)
            with pytest.raises(StorageError):
                await reader.database.run("write", _write, lane=Lane.READ)
            await reader.close()
        finally:
            if kind == "postgresql":
                await do(world.store, f"drop owned by {user}")
                await do(world.store, f"drop role {user}")
            else:
                await do(world.store, f"drop user {user}")
            await world.close()
            await world.store.close()


@pytest.mark.parametrize("kind", ["sqlite", *SERVERS])
async def test_a_reader_cannot_write_even_where_its_user_may(kind: str) -> None:
    if not available().get(kind):
        pytest.skip(f"there is no {kind} server")
    with fresh_database(kind) as url:
        world = await _with_two_instances(url)
        reader = open_reader(url)
        await reader.open()
        await _ask_everything(reader)
        with pytest.raises(StorageError):
            await reader.database.run("write", _write, lane=Lane.READ)
        assert (await world.row("a")).reason == ""
        await reader.close()
        await world.close()
        await world.store.close()


@pytest.mark.parametrize("kind", ["sqlite", *SERVERS])
async def test_a_reader_makes_no_tables_and_says_what_to_do(kind: str) -> None:
    if not available().get(kind):
        pytest.skip(f"there is no {kind} server")
    with fresh_database(kind) as url:
        if kind == "sqlite":
            with pytest.raises(StorageError, match="There is no SQLite database"):
                await open_reader(url).open()
            Path(make_url(url).database or "").touch()  # noqa: ASYNC240
        with pytest.raises(SchemaError, match="edda db upgrade"):
            await open_reader(url).open()
        store = open_store(url)
        await store.open()
        await do(store, "delete from edda_schema where version > 1")
        with pytest.raises(SchemaError, match=r"version 1.*edda db upgrade"):
            await open_reader(url).open()
        await store.close()
