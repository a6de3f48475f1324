"""The database behind a viewer: connected with the first question, looked at by a reader that cannot write.

Only where actions are allowed, and only for an action, a store that can write is used: that of the app in whose process
the viewer is, so that a file of SQLite has one writer, or else one that is opened for it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from edda.core.commit import Creation, NewInstance
from edda.core.event import CloudEvent, Receipt
from edda.core.history import InstanceId
from edda.core.routing import EventKey, event_key
from edda.storage.port import InstanceRow, Store
from edda.storage.reads import Reader
from edda.storage.sql import open_reader, open_store

if TYPE_CHECKING:
    from edda.viewer.starting import Code

ROUTING_STEPS_MAX = 20
"""Of leading an event to those who wait, before a worker goes on with it."""


class House:
    """Of one database URL. Idempotent `close`; used from one event loop."""

    def __init__(self, db_url: str, code: Code | None) -> None:
        self._db_url = db_url
        self._inhabitant = code if code is not None and code.db_url == db_url else None
        self._reader: Reader | None = None
        self._store: Store | None = None
        self._opening = asyncio.Lock()

    async def reads(self) -> Reader:
        async with self._opening:
            if self._reader is None:
                reader: Reader = open_reader(self._db_url)
                await reader.open()
                self._reader = reader
            return self._reader

    async def hands(self) -> StoreHands:
        if self._inhabitant is not None and (in_use := self._inhabitant.store_in_use) is not None:
            return StoreHands(in_use)
        async with self._opening:
            if self._store is None:
                store: Store = open_store(self._db_url)
                await store.open()
                self._store = store
            return StoreHands(self._store)

    async def close(self) -> None:
        async with self._opening:
            reader, self._reader = self._reader, None
            store, self._store = self._store, None
        if reader is not None:
            await reader.close()
        if store is not None:
            await store.close()


class StoreHands:
    """`Hands` on a store, with a hint to the workers after each."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def cancel(self, instance_id: InstanceId, *, by: str) -> InstanceRow | None:
        before = await self._store.cancel(instance_id, by=by)
        self._store.hint()
        return before

    async def retry(self, instance_id: InstanceId) -> InstanceRow | None:
        before = await self._store.retry(instance_id)
        self._store.hint()
        return before

    async def requeue(self, event_id: str) -> bool:
        return await self._store.requeue(event_id)

    async def start(self, new: NewInstance) -> Creation:
        """Stored without an owner: the next worker that looks takes it."""
        creation = await self._store.create(new)
        self._store.hint()
        return creation

    async def send(self, event: CloudEvent) -> Receipt:
        """Stored, and led to those who wait; what dies in between is led on by any worker."""
        (receipt,) = await self._store.accept([event])
        keys: tuple[EventKey, ...] = (event_key(event),) if receipt is Receipt.STORED else ()
        for _ in range(ROUTING_STEPS_MAX):
            if not keys:
                break
            keys = (await self._store.route(keys)).left
        self._store.hint()
        return receipt
