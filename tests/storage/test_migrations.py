"""Bringing tables up to date: by many at once, after a crash at any statement, and never backwards."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from edda.core.history import InstanceId
from edda.exceptions import SchemaError
from edda.storage.sql import open_store
from edda.storage.sql.migrate import MIGRATIONS, Migration, migrate, missing
from edda.storage.sql.schema import TABLES
from edda.storage.sql.verb import Rows, Statement, drive_sync
from tests.databases import available, fresh_database
from tests.storage.conftest import KINDS
from tests.storage.support import W1, World, do, new, select

FILES = [kind for kind in KINDS if kind not in ("memory", "sqlite_memory")]
OPEN_AND_START = """
import asyncio, sys
from edda.storage.sql import open_store
from edda.core.commit import NewInstance

async def main(url, name):
    store = open_store(url)
    await store.open()
    await store.create(NewInstance(id=name, workflow="w", input="{}", args_hash=""))
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""
NEWEST = MIGRATIONS[-1].version


class Crash(BaseException):
    """The process dies."""


@pytest.fixture(params=FILES)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database without any table."""
    if not available().get(request.param):
        pytest.skip(f"there is no {request.param} server")
    with fresh_database(request.param) as url:
        yield url


@pytest.fixture
async def work(url: str) -> AsyncIterator[None]:
    """Afterwards the tables are there, once, and can be used."""
    yield
    store = open_store(url)
    await store.open()
    applied = await select(store, "select version from edda_schema order by version")
    assert [row[0] for row in applied] == [migration.version for migration in MIGRATIONS]
    for table in TABLES:
        assert await select(store, f"select count(*) from {table.name}")
    world = World(store)
    await world.worker(W1)
    await world.start(new("a"))
    assert "a" in await world.claim()
    await world.close()
    await store.close()


async def test_eight_stores_open_at_once(url: str, work: None) -> None:
    stores = [open_store(url) for _ in range(8)]
    await asyncio.gather(*(store.open() for store in stores))
    for store in stores:
        await store.close()


async def test_tables_of_the_first_version_get_what_came_later(
    url: str, work: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("edda.storage.sql.migrate.migrate.__defaults__", (MIGRATIONS[:1],))
        patch.setattr("edda.storage.sql.migrate.missing.__defaults__", (MIGRATIONS[:1],))
        old = open_store(url)
        await old.open()
        assert [row[0] for row in await select(old, "select version from edda_schema")] == [1]
        await old.close()
    store = open_store(url)
    await store.open()
    await store.create(new("of today", trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
    stored = await store.instance(InstanceId("of today"))
    assert stored is not None
    assert stored.trace == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await do(store, "delete from edda_instance")
    await store.close()


@pytest.mark.process
def test_processes_open_at_once(url: str, work: None) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", OPEN_AND_START, url, f"p{number}"]) for number in range(4)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 4


async def test_a_crash_before_any_statement_does_no_harm(url: str, work: None) -> None:
    place = 0
    while await _crashes_at(url, place):
        place += 1
    assert place > len(TABLES)


async def _crashes_at(url: str, place: int) -> bool:
    store = open_store(url)
    passed = 0

    def at_once(verb: str, _: Any) -> None:
        nonlocal passed
        if verb == "migrate":
            if passed == place:
                raise Crash
            passed += 1

    async def later(verb: str, statement: Any) -> None:
        at_once(verb, statement)

    store.on_statement = at_once if store.database.dialect.name == "sqlite" else later
    try:
        await store.open()
    except Crash:
        return True
    finally:
        store.on_statement = None
        await store.close()
    return False


async def test_tables_that_are_too_new_are_refused(url: str) -> None:
    store = open_store(url)
    await store.open()
    insert = "insert into edda_schema (version, oldest_code, applied_at_us, library) values (?, ?, 1, 'edda')"
    await do(store, insert, NEWEST + 1, 1)
    await store.close()
    await store.open()  # one version ahead, but it can live with us
    await do(store, insert, NEWEST + 2, NEWEST + 2)
    await store.close()
    with pytest.raises(SchemaError, match=f"version {NEWEST + 2}"):
        await store.open()
    await store.close()


def test_what_is_missing_is_applied_in_order_and_each_version_noted_last() -> None:
    dialect = open_store("sqlite://").database.dialect
    later = Migration(
        version=NEWEST + 1, oldest_code=1, statements=lambda _: ["alter table edda_instance add column x text"]
    )
    said: list[str] = []

    def execute(statement: Statement) -> Rows:
        said.append(statement.text)
        if statement.text == dialect.find_schema_table:
            return Rows([(1,)], 0)
        return Rows([(NEWEST, 1)], 0)

    assert drive_sync(missing(dialect, (*MIGRATIONS, later)), execute) == (later,)
    assert drive_sync(migrate(dialect, (*MIGRATIONS, later)), execute) == (NEWEST + 1,)
    assert said[-1].startswith("insert into edda_schema")
    assert said[-3].startswith("alter table")


@pytest.mark.postgresql
async def test_the_tables_may_live_in_a_schema_of_their_own() -> None:
    if not available().get("postgresql"):
        pytest.skip("there is no postgresql server")
    with fresh_database("postgresql") as url:
        stores = [open_store(f"{url}?schema=my edda") for _ in range(4)]
        await asyncio.gather(*(store.open() for store in stores))
        store = stores[0]
        assert await select(store, 'select count(*) from "my edda".edda_instance') == [(0,)]
        assert await select(store, "select count(*) from pg_tables where schemaname = 'public'") == [(0,)]
        world = World(store)
        await world.worker(W1)
        await world.start(new("a"))
        assert await world.claim() == ["a"]
        await world.close()
        for each in stores:
            await each.close()
