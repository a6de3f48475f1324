"""The reading part of `SqlStore`, and `SqlReader`: a database that is only looked at.

What people ask goes over `Lane.LOOK`, so that it never stands in the way of what the engine reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from edda.core.commit import EventWait
from edda.core.history import HistoryEvent, InstanceId
from edda.storage.port import InstanceRow
from edda.storage.reads import (
    ENDINGS_MAX,
    PAGE,
    PAGE_MAX,
    Backlogs,
    Ending,
    EventFilter,
    EventView,
    Handler,
    HistoryPage,
    InstanceCount,
    InstanceFilter,
    InstanceSummary,
    OutboxCount,
    OutboxView,
    Page,
    Source,
    Wait,
    Workers,
)
from edda.storage.sql import reader, reads, sources
from edda.storage.sql.database import Database, Lane


class SqlReads:
    """`Reads` on any database, and the older ways to read instances and histories."""

    database: Database

    async def clock(self) -> int:
        return await self.database.run("clock", partial(reads.clock, self.database.dialect), lane=Lane.LOOK)

    async def schema_version(self) -> int:
        return await self.database.run("schema_version", reads.schema_version, lane=Lane.LOOK)

    async def instance(self, instance_id: InstanceId) -> InstanceRow | None:
        return (await self.instances([instance_id])).get(instance_id)

    async def instances(self, ids: Sequence[InstanceId]) -> Mapping[InstanceId, InstanceRow]:
        make = partial(reader.instances, self.database.dialect, ids)
        return await self.database.run("instances", make, lane=Lane.READ)

    async def histories(self, ids: Sequence[InstanceId]) -> Mapping[InstanceId, list[HistoryEvent]]:
        make = partial(reader.histories, self.database.dialect, ids)
        return await self.database.run("histories", make, lane=Lane.READ)

    async def instance_page(
        self, which: InstanceFilter | None = None, *, limit: int = PAGE, page: str | None = None
    ) -> Page[InstanceSummary]:
        assert 0 < limit <= PAGE_MAX, limit
        make = partial(reads.instance_page, self.database.dialect, which or InstanceFilter(), limit=limit, page=page)
        return await self.database.run("instance_page", make, lane=Lane.LOOK)

    async def instance_counts(self) -> tuple[InstanceCount, ...]:
        make = partial(reads.instance_counts, self.database.dialect)
        return await self.database.run("instance_counts", make, lane=Lane.LOOK)

    async def history_page(
        self, instance_id: InstanceId, *, from_seq: int = 1, limit: int = PAGE_MAX, latest: bool = False
    ) -> HistoryPage:
        assert 0 < limit <= PAGE_MAX, limit
        make = partial(reads.history_page, instance_id, from_seq=from_seq, limit=limit, latest=latest)
        return await self.database.run("history_page", make, lane=Lane.LOOK)

    async def errors(self, ids: Sequence[InstanceId]) -> Mapping[InstanceId, str]:
        make = partial(reads.errors, self.database.dialect, ids)
        return await self.database.run("errors", make, lane=Lane.LOOK)

    async def has_result(self, instance_id: InstanceId, output: str) -> bool:
        make = partial(reads.has_result, instance_id, output)
        return await self.database.run("has_result", make, lane=Lane.LOOK)

    async def waits_of(self, instance_id: InstanceId) -> tuple[EventWait, ...]:
        return await self.database.run("waits_of", partial(reads.waits_of, instance_id), lane=Lane.LOOK)

    async def wait_page(self, *, type: str = "", limit: int = PAGE, page: str | None = None) -> Page[Wait]:
        assert 0 < limit <= PAGE_MAX, limit
        make = partial(reads.wait_page, type=type, limit=limit, page=page)
        return await self.database.run("wait_page", make, lane=Lane.LOOK)

    async def event_page(
        self, which: EventFilter | None = None, *, limit: int = PAGE, page: str | None = None
    ) -> Page[EventView]:
        assert 0 < limit <= PAGE_MAX, limit
        make = partial(reads.event_page, which or EventFilter(), limit=limit, page=page)
        return await self.database.run("event_page", make, lane=Lane.LOOK)

    async def source(self, workflow: str, source_hash: str = "") -> Source | None:
        return await self.database.run("source", partial(sources.find, workflow, source_hash), lane=Lane.LOOK)

    async def handlers(self) -> tuple[Handler, ...]:
        return await self.database.run("handlers", reads.handlers, lane=Lane.LOOK)

    async def outbox_page(
        self, *, status: str, instance_id: str = "", type: str = "", limit: int = PAGE, page: str | None = None
    ) -> Page[OutboxView]:
        assert 0 < limit <= PAGE_MAX, limit
        make = partial(reads.outbox_page, status=status, instance_id=instance_id, type=type, limit=limit, page=page)
        return await self.database.run("outbox_page", make, lane=Lane.LOOK)

    async def outbox_counts(self) -> tuple[OutboxCount, ...]:
        return await self.database.run("outbox_counts", reads.outbox_counts, lane=Lane.LOOK)

    async def worker_views(self, *, limit: int = PAGE_MAX) -> Workers:
        assert 0 < limit <= PAGE_MAX, limit
        make = partial(reads.worker_views, self.database.dialect, limit=limit)
        workers = await self.database.run("worker_views", make, lane=Lane.LOOK)
        # Asked afterwards: who began meanwhile is not among the rows, so that it is never taken for gone.
        present = self.database.present_as_seen()
        return workers if present is None else workers.of_whom_are_present(present)

    async def backlogs(self) -> Backlogs:
        return await self.database.run("backlogs", partial(reads.backlogs, self.database.dialect), lane=Lane.LOOK)

    async def endings(self, workflow: str, *, limit: int = ENDINGS_MAX) -> tuple[Ending, ...]:
        assert 0 < limit <= ENDINGS_MAX, limit
        make = partial(reads.endings, self.database.dialect, workflow, limit=limit)
        return await self.database.run("endings", make, lane=Lane.LOOK)


class SqlReader(SqlReads):
    """A `Reader` on any database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def open(self) -> None:
        await self.database.open(read_only=True)

    async def close(self) -> None:
        await self.database.close()
