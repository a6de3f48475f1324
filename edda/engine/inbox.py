"""The inbox of one process: events come in, in groups, and are led to the instances that wait for them.

It works in clients, too. Whoever hands in an event hears when it is durable, and no sooner. Leading it on is done by
this process at once; what a dead process left behind is found by every other's poll. Every wake-up here is a hint.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edda.core.event import CloudEvent, Receipt
from edda.core.history import InstanceId
from edda.core.routing import EventKey, event_key
from edda.core.subscription import Subscription
from edda.engine.environment import Environment
from edda.engine.log import log
from edda.exceptions import DatabaseUnavailableError, ShuttingDownError, StorageError
from edda.storage.port import Store, UnknownOutcome
from edda.storage.reads import EventFilter
from edda.telemetry import Meters

ACCEPT_MAX: Final = 500
"""Events stored in one transaction."""

ROUTE_MAX: Final = 100
"""Events led on in one transaction."""

LEFT_BEHIND_US: Final = 1_000_000
"""An event that has not been led on for so long is anybody's."""

RETENTION_SECONDS: Final = 7 * 24 * 3600.0
"""How long events are kept for instances that may ask for them, and handlers that nobody knows any more."""

EXPIRE_SECONDS: Final = 3600.0
"""Between looks for what is too old."""

EXPIRE_MAX: Final = 500
"""Events deleted in one transaction."""

RETRY_SECONDS_MAX: Final = 5.0

UNANSWERED_MAX: Final = 3
"""Times that events are stored again whose transaction nobody knows the outcome of."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """Events of one caller that wait for their transaction."""

    events: Sequence[CloudEvent]
    receipts: asyncio.Future[Sequence[Receipt]]


class Inbox:
    """See the head of this file."""

    def __init__(
        self,
        store: Store,
        environment: Environment,
        *,
        poll_seconds: float,
        poke: Callable[[Collection[InstanceId]], None],
        subscriptions: Callable[[], frozenset[Subscription]],
        meters: Meters | None = None,
    ) -> None:
        self._store = store
        self._environment = environment
        self._poll_seconds = poll_seconds
        self._poke = poke
        self._subscriptions = subscriptions
        self._meters = meters
        self._subscribed: frozenset[Subscription] = frozenset()
        self._incoming: deque[_Waiting] = deque()
        self._came = asyncio.Event()
        self._to_route: dict[EventKey, None] = {}
        self._in_chunks: dict[EventKey, None] = {}
        """Those that woke a chunk of instances, and have more to wake."""
        self._routable = asyncio.Event()
        self._broadcasts: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopped = False

    async def begin(self) -> None:
        await self._subscribe()
        loops: dict[str, Coroutine[Any, Any, None]] = {
            "edda-accept": self._accept_loop(),
            "edda-route": self._route_loop(),
            "edda-expire": self._expire_loop(),
        }
        self._tasks = [asyncio.get_running_loop().create_task(loop, name=name) for name, loop in loops.items()]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical(
                "a defect in edda: %s broke down, this process leads no events on", task.get_name(), exc_info=error
            )
            self._stopped = True
            self._fail(self._incoming, ShuttingDownError("the inbox of this process broke down; see its log"))

    async def stop(self) -> None:
        """What is on its way is heard of; what is stored is led on by others, if need be."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._fail(self._incoming, ShuttingDownError("this app is shutting down: it takes no more events"))
        self._incoming.clear()

    # -- coming in ---------------------------------------------------------------------------------------------------

    async def accept(self, events: Sequence[CloudEvent]) -> Sequence[Receipt]:
        """Store events; returns when they are durable, each with what became of it.

        Raises DatabaseUnavailableError, and ShuttingDownError; then they may be stored or not: send them again.
        """
        if self._stopped:
            raise ShuttingDownError("this app is shutting down: it takes no more events")
        if not events:
            return ()
        waiting = _Waiting(events, asyncio.get_running_loop().create_future())
        self._incoming.append(waiting)
        self._came.set()
        return await waiting.receipts

    async def _accept_loop(self) -> None:
        while True:
            await self._came.wait()
            self._came.clear()
            while self._incoming:
                await self._accept_some(self._next_group())

    def _next_group(self) -> list[_Waiting]:
        group = [self._incoming.popleft()]
        count = len(group[0].events)
        while self._incoming and count + len(self._incoming[0].events) <= ACCEPT_MAX:
            group.append(self._incoming.popleft())
            count += len(group[-1].events)
        return group

    async def _accept_some(self, group: list[_Waiting]) -> None:
        events = [event for waiting in group for event in waiting.events]
        try:
            receipts = await self._stored(events)
        except asyncio.CancelledError:
            self._fail(group, ShuttingDownError("this app shut down before the event was known to be stored"))
            raise
        except Exception as error:
            if len(group) > 1:  # one that the database refuses, or nobody can write, must not spoil the others
                for waiting in group:
                    await self._accept_some([waiting])
            else:
                self._fail(group, error)
            return
        self.routable([event_key(event) for event, one in zip(events, receipts, strict=True) if one is Receipt.STORED])
        if self._meters is not None:
            for receipt, count in Counter(receipts).items():
                self._meters.events_accepted(receipt.value, count)
        place = 0
        for waiting in group:
            count = len(waiting.events)
            if not waiting.receipts.done():
                waiting.receipts.set_result(receipts[place : place + count])
            place += count

    async def _stored(self, events: Sequence[CloudEvent]) -> Sequence[Receipt]:
        """Nobody knows what an unanswered transaction did, but asked again the store finds what it stored itself."""
        for attempt in range(1, UNANSWERED_MAX + 1):
            try:
                receipts = await self._store.accept(events)
                return receipts if attempt == 1 else await self._with_ours(events, receipts)
            except UnknownOutcome as error:
                log.warning("the database did not answer whether %d events are stored: %s", len(events), error)
                await asyncio.sleep(self._environment.jitter(0.05 * attempt))
        raise DatabaseUnavailableError(
            f"The database did not answer {UNANSWERED_MAX} times whether {len(events)} events are stored; "
            "send them again: what is stored already will not be stored twice."
        )

    async def _with_ours(self, events: Sequence[CloudEvent], receipts: Sequence[Receipt]) -> Sequence[Receipt]:
        """After an answer was lost: what is there already may be what we stored, and then it is no duplicate."""
        found = list(receipts)
        for place, (event, receipt) in enumerate(zip(events, receipts, strict=True)):
            if receipt is Receipt.DUPLICATE:
                page = await self._store.event_page(EventFilter(source=event.source, id=event.id), limit=1)
                if any(stored.event == event for stored in page.rows):
                    found[place] = Receipt.STORED
        return found

    def _fail(self, group: Collection[_Waiting], error: Exception) -> None:
        for waiting in group:
            if not waiting.receipts.done():
                waiting.receipts.set_exception(error)

    # -- going on ----------------------------------------------------------------------------------------------------

    def routable(self, keys: Sequence[EventKey]) -> None:
        """These are stored: lead them to whoever waits."""
        if keys:
            self._to_route.update(dict.fromkeys(keys))
            self._routable.set()

    async def _route_loop(self) -> None:
        delay = 0.0
        while True:
            await self._wait_for_more()
            try:
                if self._subscriptions() != self._subscribed:  # a workflow was imported since
                    await self._subscribe()
                if not self._to_route and not self._in_chunks:
                    self.routable(await self._store.unrouted(older_than_us=LEFT_BEHIND_US, limit=ROUTE_MAX))
                while self._to_route or self._in_chunks:
                    await self._route_some()
                delay = 0.0
            except (StorageError, UnknownOutcome) as error:
                log.warning("cannot lead %d events on: %s", len(self._to_route) + len(self._in_chunks), error)
                delay = min(delay * 2 + 0.05, RETRY_SECONDS_MAX)
                await asyncio.sleep(self._environment.jitter(delay))

    async def _route_some(self) -> None:
        """One step for many events, and one for an event that goes to very many: neither waits for the other's end."""
        if self._to_route:
            await self._route([key for key, _ in zip(self._to_route, range(ROUTE_MAX), strict=False)])
        if self._in_chunks:
            await self._route([next(iter(self._in_chunks))])

    async def _route(self, keys: Sequence[EventKey]) -> None:
        routed = await self._store.route(keys)
        if self._meters is not None:
            self._meters.events_routed(len(set(keys) - set(routed.left)))
        for key in set(keys) - set(routed.left):
            self._to_route.pop(key, None)
            self._in_chunks.pop(key, None)
        if routed.woken and keys[0] in routed.left:
            self._to_route.pop(keys[0], None)
            self._in_chunks[keys[0]] = None
        if routed.woken or routed.started:
            self._poke((*routed.woken, *routed.started))
        for event_type in routed.broadcasts:
            self._note_broadcast(event_type)

    def _note_broadcast(self, event_type: str) -> None:
        if event_type not in self._broadcasts:
            self._broadcasts.add(event_type)
            log.info(
                "one event of type '%s' woke several instances; a wait with match= or subject= hears of its own only",
                event_type,
            )

    async def _wait_for_more(self) -> None:
        if self._to_route or self._in_chunks:
            return
        try:
            async with asyncio.timeout(self._environment.jitter(self._poll_seconds)):
                await self._routable.wait()
        except TimeoutError:
            pass
        self._routable.clear()

    # -- forgetting --------------------------------------------------------------------------------------------------

    async def _subscribe(self) -> None:
        subscriptions = self._subscriptions()
        await self._store.subscribe(subscriptions, lasting_us=round(RETENTION_SECONDS * 1_000_000))
        self._subscribed = subscriptions

    async def _expire_loop(self) -> None:
        while True:
            await asyncio.sleep(self._environment.jitter(EXPIRE_SECONDS))
            try:
                await self._subscribe()
                before_us = self._environment.wall_us() - round(RETENTION_SECONDS * 1_000_000)
                while await self._store.expire(before_us=before_us, limit=EXPIRE_MAX) == EXPIRE_MAX:
                    pass
            except (StorageError, UnknownOutcome) as error:
                log.warning("cannot delete old events: %s", error)
