"""The inbox of the model: what each verb of `inbox` means, as plain Python."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from edda.core.commit import Commit, Creation, EventWait, NewInstance
from edda.core.event import CloudEvent, Receipt
from edda.core.history import InstanceId
from edda.core.lifecycle import ENDED
from edda.core.routing import NO_FIELDS, Criteria, EventKey, Fields, Route, event_key, route_of, routes_of
from edda.core.subscription import Subscription, started_by
from edda.storage.inbox import FOUND_MAX, NEVER, WOKEN_MAX, InboxEvent, Look, Routed
from edda.storage.port import InstanceRow


@dataclass(slots=True)
class StoredEvent:
    event: CloudEvent
    accepted_at_us: int
    routed: bool = False
    indexed: int = NEVER
    """For how many sets of fields it has its routes."""
    woken_to: str = ""
    """Instances up to this id have been woken."""
    routes: dict[Fields, Route] = field(default_factory=dict[Fields, Route])


class InboxModel:
    """Part of `MemoryStore`. Its attributes are open to tests."""

    now_us: Callable[[], int]
    rows: dict[InstanceId, InstanceRow]

    def __init__(self) -> None:
        super().__init__()
        self.inbox: dict[EventKey, StoredEvent] = {}
        self.fields: dict[str, dict[Fields, int]] = {}
        """By event type: sets of fields that waits use, and since when all events have a route for it."""
        self.subscriptions: dict[Subscription, int] = {}
        """Until when each is valid."""
        self.waits: dict[tuple[InstanceId, str], EventWait] = {}

    def wake(self, instance_id: InstanceId, now_us: int) -> None:
        raise NotImplementedError

    def create_now(self, new: NewInstance, now_us: int) -> Creation:
        raise NotImplementedError

    # -- with a commit -----------------------------------------------------------------------------------------------

    def change_waits(self, commit: Commit) -> None:
        if commit.no_waits_left:
            for known in [key for key in self.waits if key[0] == commit.instance_id]:
                del self.waits[known]
        for call_id in commit.waits_over:
            self.waits.pop((commit.instance_id, call_id), None)
        for wait in commit.waits:
            self.waits[commit.instance_id, wait.call_id] = wait

    def post(self, commit: Commit, now_us: int) -> None:
        for place, post in enumerate(commit.posts):
            self.inbox.setdefault(event_key(post.event), StoredEvent(post.event, now_us + place))

    # -- verbs -------------------------------------------------------------------------------------------------------

    async def accept(self, events: Sequence[CloudEvent]) -> tuple[Receipt, ...]:
        now_us = self.now_us()
        return tuple(self._accept(event, now_us + place) for place, event in enumerate(events))

    def _accept(self, event: CloudEvent, now_us: int) -> Receipt:
        if event_key(event) in self.inbox:
            return Receipt.DUPLICATE
        if event.target is not None:
            row = self.rows.get(InstanceId(event.target))
            if row is None:
                return Receipt.NO_SUCH_INSTANCE
            if row.status in ENDED:
                return Receipt.INSTANCE_ENDED
        stored = self.inbox[event_key(event)] = StoredEvent(event, now_us)
        self._index(stored)
        return Receipt.STORED

    def _index(self, stored: StoredEvent) -> None:
        known = self.fields.get(stored.event.type, {})
        if stored.event.target is None:
            stored.routes |= routes_of(stored.event, known)
        stored.indexed = len(known)

    async def route(self, keys: Sequence[EventKey]) -> Routed:
        chosen = {key: self.inbox[key] for key in keys if key in self.inbox and not self.inbox[key].routed}
        unindexed = [one for one in chosen.values() if one.indexed < len(self.fields.get(one.event.type, {}))]
        for one in unindexed:
            self._index(one)
        if unindexed:
            return Routed(left=tuple(chosen))
        found = {key: self._waiting(one) for key, one in chosen.items()}
        if len(set[InstanceId]().union(*found.values())) > WOKEN_MAX:
            return self._route_first(*next(iter(found.items())), left=tuple(chosen)[1:])
        for key in chosen:
            self.inbox[key].routed = True
        return self._wake_all(found)

    def _route_first(self, key: EventKey, waiting: list[InstanceId], *, left: tuple[EventKey, ...]) -> Routed:
        """Too many for one step: only the first event, and of those that wait for it the next chunk."""
        chunk = waiting[:WOKEN_MAX]
        one = self.inbox[key]
        one.routed = len(waiting) <= WOKEN_MAX
        if not one.routed:
            one.woken_to = chunk[-1]
            left = (key, *left)
        return self._wake_all({key: chunk}, left=left)

    def _wake_all(self, found: Mapping[EventKey, list[InstanceId]], *, left: tuple[EventKey, ...] = ()) -> Routed:
        now_us = self.now_us()
        woken = tuple(sorted({instance_id for waiting in found.values() for instance_id in waiting}))
        for instance_id in woken:
            self.wake(instance_id, now_us)
        return Routed(woken=woken, left=left, started=self._start(found, now_us), broadcasts=self._broadcasts(found))

    def _start(self, keys: Iterable[EventKey], now_us: int) -> tuple[InstanceId, ...]:
        news = [
            started_by(self.inbox[key].event, subscription)
            for key in keys
            for subscription, until_us in self.subscriptions.items()
            if until_us > now_us
            and subscription.type == self.inbox[key].event.type
            and self.inbox[key].event.target is None
        ]
        for new in news:
            self.create_now(new, now_us)
        return tuple(sorted(new.id for new in news))

    async def subscribe(self, subscriptions: Collection[Subscription], *, lasting_us: int) -> None:
        for subscription in subscriptions:
            self.subscriptions[subscription] = self.now_us() + lasting_us

    def _broadcasts(self, found: Mapping[EventKey, list[InstanceId]]) -> tuple[str, ...]:
        events = [(self.inbox[key].event, waiting) for key, waiting in found.items()]
        return tuple(sorted({event.type for event, waiting in events if event.target is None and len(waiting) > 1}))

    def _waiting(self, one: StoredEvent) -> list[InstanceId]:
        """Instances with a wait that an event fits, after those that were woken for it already."""
        routes = set(one.routes.values())
        waiting = {
            instance_id
            for (instance_id, _), wait in self.waits.items()
            if (wait.type == one.event.type and instance_id == one.event.target)
            or (one.event.target is None and wait.route in routes)
        }
        return sorted(instance_id for instance_id in waiting if instance_id > one.woken_to)

    async def unrouted(self, *, older_than_us: int, limit: int) -> tuple[EventKey, ...]:
        late_us = self.now_us() - older_than_us
        late = sorted(
            (stored.accepted_at_us, key)
            for key, stored in self.inbox.items()
            if not stored.routed and stored.accepted_at_us <= late_us
        )
        return tuple(key for _, key in late[:limit])

    async def look(self, looks: Sequence[Look], *, unrouted: bool = False) -> Mapping[InstanceId, Sequence[InboxEvent]]:
        return {look.instance_id: self._look(look, unrouted=unrouted) for look in looks}

    def _look(self, look: Look, *, unrouted: bool) -> list[InboxEvent]:
        found: list[InboxEvent] = []
        counts: dict[Route, int] = {}
        for key, stored in sorted(self.inbox.items(), key=lambda item: (item[1].accepted_at_us, item[0])):
            if key in look.had or stored.accepted_at_us < look.since_us:
                continue
            fitting = [
                wanted.route
                for wanted in look.wanted
                if self._fits(stored, wanted, look)
                or (unrouted and self._is_fresh(stored) and wanted.fits(stored.event))
            ]
            if any(counts.get(route, 0) < FOUND_MAX for route in fitting):
                found.append(InboxEvent(key, stored.accepted_at_us, stored.event))
            for route in fitting:
                counts[route] = counts.get(route, 0) + 1
        return found

    def _fits(self, stored: StoredEvent, wanted: Criteria, look: Look) -> bool:
        if stored.event.target is not None:
            return stored.event.target == look.instance_id and wanted.fits(stored.event)
        return stored.routes.get(wanted.fields) == wanted.route

    def _is_fresh(self, stored: StoredEvent) -> bool:
        return not stored.routed and stored.event.target is None

    async def learn(self, event_type: str, fields: Fields, *, since_us: int) -> None:
        if fields == NO_FIELDS:
            return
        known = self.fields.setdefault(event_type, {})
        for stored in self.inbox.values():
            concerned = stored.event.type == event_type and stored.event.target is None
            route = route_of(stored.event, fields) if concerned and stored.accepted_at_us >= since_us else None
            if route is not None:
                stored.routes[fields] = route
        known[fields] = min(known.get(fields, since_us), since_us)

    async def expire(self, *, before_us: int, limit: int) -> int:
        old = sorted(
            (stored.accepted_at_us, key)
            for key, stored in self.inbox.items()
            if stored.accepted_at_us < before_us and not self._is_kept(stored.event)
        )[:limit]
        for _, key in old:
            del self.inbox[key]
        return len(old)

    def _is_kept(self, event: CloudEvent) -> bool:
        row = self.rows.get(InstanceId(event.target)) if event.target is not None else None
        return row is not None and row.status not in ENDED
