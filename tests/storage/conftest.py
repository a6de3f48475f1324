"""Stores of every kind, fresh for each test: one database per kind and session, emptied between tests."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import pytest

from edda.storage.memory import MemoryStore
from edda.storage.sql import open_store
from edda.storage.sql.sqlite_database import SqliteDatabase
from edda.storage.sql.store import SqlStore
from tests.databases import available, fresh_database
from tests.storage.support import W1, World, wipe

KINDS = [
    "memory",
    "sqlite",
    "sqlite_memory",
    pytest.param("postgresql", marks=pytest.mark.postgresql),
    pytest.param("mysql", marks=pytest.mark.mysql),
]
SERVERS = KINDS[3:]


@pytest.fixture(scope="session")
def urls() -> Iterator[dict[str, str]]:
    """One database for each kind there is."""
    with contextlib.ExitStack() as stack:
        yield {
            "sqlite_memory": "sqlite://",
            **{kind: stack.enter_context(fresh_database(kind)) for kind, base in available().items() if base},
        }


def url_of(urls: dict[str, str], kind: str) -> str:
    if kind not in urls:
        pytest.skip(f"there is no {kind} server")
    return urls[kind]


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, urls: dict[str, str]) -> AsyncIterator[Any]:
    """A store of each kind, the model included."""
    if request.param == "memory":
        yield MemoryStore()
        return
    async with opened(url_of(urls, request.param)) as found:
        yield found


@pytest.fixture
async def world(store: Any) -> AsyncIterator[World]:
    """A store of each kind with one worker in it."""
    world = World(store)
    await world.worker(W1)
    try:
        yield world
    finally:
        await world.close()


@pytest.fixture(params=SERVERS)
async def server_url(request: pytest.FixtureRequest, urls: dict[str, str]) -> str:
    """An empty database on each kind of server."""
    url = url_of(urls, request.param)
    async with opened(url):
        return url


@pytest.fixture(params=KINDS[1:])
async def sql_store(request: pytest.FixtureRequest, urls: dict[str, str]) -> AsyncIterator[SqlStore]:
    async with opened(url_of(urls, request.param)) as found:
        yield found


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncGenerator[SqlStore]:
    store = open_store(url)
    await store.open()
    try:
        await wipe(store)
        yield store
    finally:
        store.on_statement = None
        await store.close()
        must_hold_no_lock(store)


def must_hold_no_lock(store: SqlStore) -> None:
    """A test that leaves its worker behind fails itself: the next one would wait for the lock of the file for ever."""
    if isinstance(store.database, SqliteDatabase):
        assert not store.database.file_lock.is_held, "a worker of this test was not closed"
