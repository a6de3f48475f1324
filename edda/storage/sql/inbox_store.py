"""The inbox part of `SqlStore`: which verb goes where. Every one of them may be repeated when its answer was lost."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

from edda.core.event import CloudEvent, Receipt
from edda.core.history import InstanceId
from edda.core.routing import EventKey, Fields
from edda.core.subscription import Subscription
from edda.storage.inbox import InboxEvent, Look, Routed
from edda.storage.sql import inbox, mail
from edda.storage.sql.database import Database, Lane


class SqlInbox:
    """An `InboxStore` on any database."""

    database: Database

    async def accept(self, events: Sequence[CloudEvent]) -> tuple[Receipt, ...]:
        return await self.database.run("accept", partial(inbox.accept, self.database.dialect, events), lane=Lane.DESK)

    async def route(self, keys: Sequence[EventKey]) -> Routed:
        return await self.database.run("route", partial(mail.route, self.database.dialect, keys), lane=Lane.DESK)

    async def subscribe(self, subscriptions: Collection[Subscription], *, lasting_us: int) -> None:
        if subscriptions:
            make = partial(inbox.subscribe, self.database.dialect, list(subscriptions), lasting_us=lasting_us)
            await self.database.run("subscribe", make, lane=Lane.DESK)

    async def unrouted(self, *, older_than_us: int, limit: int) -> tuple[EventKey, ...]:
        make = partial(mail.unrouted, self.database.dialect, older_than_us=older_than_us, limit=limit)
        return await self.database.run("unrouted", make, lane=Lane.READ)

    async def look(self, looks: Sequence[Look], *, unrouted: bool = False) -> Mapping[InstanceId, Sequence[InboxEvent]]:
        make = partial(mail.look, self.database.dialect, looks, unrouted=unrouted)
        return await self.database.run("look", make, lane=Lane.READ)

    async def learn(self, event_type: str, fields: Fields, *, since_us: int) -> None:
        if not fields:
            return
        announce = partial(inbox.announce_fields, self.database.dialect, event_type, fields, since_us=since_us)
        if await self.database.run("announce_fields", announce, lane=Lane.DESK) is None:
            return
        after: tuple[int, str] | None = (0, "")
        while after is not None:  # in a transaction after the announcement: no event is missed by both
            page = partial(inbox.backfill, self.database.dialect, event_type, fields, since_us=since_us, after=after)
            after = await self.database.run("backfill", page, lane=Lane.DESK)

    async def expire(self, *, before_us: int, limit: int) -> int:
        make = partial(inbox.expire, self.database.dialect, before_us=before_us, limit=limit)
        return await self.database.run("expire", make, lane=Lane.DESK)
