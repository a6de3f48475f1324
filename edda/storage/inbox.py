"""The verbs of the inbox: events come in, are led to the instances that wait for them, and are found by those.

Each side writes, commits, and only then looks at the other:
- an event is stored (`accept`), then it gets its routes, and only in a transaction after that `route` reads the waits;
- a wait is stored (`Commit.waits`), and only after that the instance looks at the inbox (`look`).
So one of the two sees the other, whatever the isolation level. What was left half-way (a receiver died) is found by
`unrouted` and taken up by anyone: routing twice only wakes twice.

Law: nobody parks on a wait that was not stored and looked up before. So a parked wait has been looked up.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from edda.core.event import CloudEvent, Receipt
from edda.core.history import InstanceId
from edda.core.routing import Criteria, EventKey, Fields
from edda.core.subscription import Subscription

WOKEN_MAX: Final = 500
"""Instances woken in one step of routing."""

FOUND_MAX: Final = 16
"""Events found for one route in one look."""

NEVER: Final = -1
"""In place of for how many sets of fields an event has its routes: it has none yet."""


class InboxEvent(NamedTuple):
    """An event as stored, and when: the order of acceptance is by time, then by key.

    What comes together (handed in at once, or sent by one commit) is a microsecond apart, so that it stays in order.
    """

    key: EventKey
    accepted_at_us: int
    event: CloudEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one instance wants to know: events for these waits, but for those it had already."""

    instance_id: InstanceId
    since_us: int
    """Events accepted earlier are not its business."""
    wanted: tuple[Criteria, ...]
    had: frozenset[EventKey] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """What one step of routing did."""

    woken: tuple[InstanceId, ...] = ()
    left: tuple[EventKey, ...] = ()
    """Events that need another step."""
    started: tuple[InstanceId, ...] = ()
    """Instances that handlers of these events run in, unowned; they may have been there already."""
    broadcasts: tuple[str, ...] = ()
    """Types of events that nothing correlated, and that woke more than one instance."""


class InboxStore(Protocol):
    """Part of `Store`."""

    async def accept(self, events: Sequence[CloudEvent]) -> tuple[Receipt, ...]:
        """Store events, each judged alone. Asked again after `UnknownOutcome` it finds what it stored itself.

        Of two that bring the same event at the same moment, both may hear STORED; it is stored once.
        """
        ...

    async def route(self, keys: Sequence[EventKey]) -> Routed:
        """One step of leading events to those who wait: write missing routes, or wake a chunk of instances."""
        ...

    async def subscribe(self, subscriptions: Collection[Subscription], *, lasting_us: int) -> None:
        """For so long from now, every event that is routed starts an instance for each of these of its type.

        In the same transaction that routes it, and once: its id is made from the event's. Addressed events do not.
        """
        ...

    async def unrouted(self, *, older_than_us: int, limit: int) -> tuple[EventKey, ...]:
        """Stored so long ago, and still not led everywhere."""
        ...

    async def look(self, looks: Sequence[Look], *, unrouted: bool = False) -> Mapping[InstanceId, Sequence[InboxEvent]]:
        """For each look, events that fit one of its waits, in order of acceptance: the first few of each route.

        `unrouted`: also those that have not got their routes yet. To be asked before a wait is given up.
        """
        ...

    async def learn(self, event_type: str, fields: Fields, *, since_us: int) -> None:
        """From now on events of this type get a route for these fields, and all accepted since then have one."""
        ...

    async def expire(self, *, before_us: int, limit: int) -> int:
        """Delete events accepted before that, but for those of an instance that has not ended. Returns how many."""
        ...
