"""Hints between processes on PostgreSQL: heard by the others, not by oneself, few, and restored after a break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from edda.storage.sql import open_store
from edda.storage.sql.store import SqlStore
from tests.storage.conftest import opened, url_of

pytestmark = pytest.mark.postgresql
SOON = 10.0


class Ear:
    """A process that listens; being connected is the first thing that it hears."""

    def __init__(self, store: SqlStore) -> None:
        self.store = store
        self.heard = 0
        self._news = asyncio.Event()
        store.listen(self._hear)

    def _hear(self) -> None:
        self.heard += 1
        self._news.set()

    async def hears(self, count: int) -> None:
        async with asyncio.timeout(SOON):
            while self.heard < count:
                self._news.clear()
                await self._news.wait()


@pytest.fixture
async def ears(urls: dict[str, str]) -> AsyncIterator[tuple[Ear, Ear]]:
    url = url_of(urls, "postgresql")
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(opened(url))
        second = open_store(url)
        await second.open()
        stack.push_async_callback(second.close)
        pair = Ear(first), Ear(second)
        for ear in pair:
            await ear.hears(1)
        yield pair


async def test_a_hint_is_heard_by_other_processes_and_not_by_oneself(ears: tuple[Ear, Ear]) -> None:
    teller, listener = ears
    teller.store.hint()
    await listener.hears(2)
    assert teller.heard == 1


async def test_many_hints_at_once_are_few(ears: tuple[Ear, Ear]) -> None:
    teller, listener = ears
    for _ in range(1000):
        teller.store.hint()
        await asyncio.sleep(0)
    await listener.hears(2)
    assert listener.heard < 100


async def test_after_a_broken_line_one_listens_again_and_looks_at_once(ears: tuple[Ear, Ear]) -> None:
    teller, listener = ears
    hints = listener.store.database._hints  # type: ignore[attr-defined]
    hints._connection.terminate()
    await listener.hears(2)
    teller.store.hint()
    await listener.hears(3)


async def test_without_notifications_nothing_is_heard_and_nothing_breaks(urls: dict[str, str]) -> None:
    store = open_store(url_of(urls, "postgresql"), notifications=False)
    await store.open()
    try:
        ear = Ear(store)
        store.hint()
        assert ear.heard == 0
    finally:
        await store.close()
