"""The invariants of events: what was accepted is kept, and each wait gets what it is to have, once and in order.

The waits are known from the bodies, which tell what they ask for before they ask. What an event fits is computed from
its text, never read from the routes that the store made.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from edda.core.event import CloudEvent, Receipt
from edda.core.history import HistoryEvent, InstanceId, Kind
from edda.core.lifecycle import ENDED, Status
from edda.core.routing import NO_FIELDS, Criteria, EventKey, Fields
from edda.engine.event_waits import SINCE_START_US
from edda.storage.port import InstanceRow
from tests.simulation.kitchen_sink import ECHO, GO
from tests.simulation.senders import LATE_COPY

if TYPE_CHECKING:
    from tests.simulation.checkers import Records
    from tests.simulation.world import World

MISSED_US: Final = 6_000_000
"""An event that has been there for so long is missed, if whoever waits for it is parked: polls come every second."""
CALM_US: Final = 10_000_000
"""After the last fault: then nobody is dead and unnoticed."""
STALL_US: Final = 10_000_000
"""Whoever creates an instance counts from before it sent that: it may hear of events older by as long as it stalled."""
BODY_OVER: Final = ENDED | {Status.COMPENSATING}
TELLERS: Final = frozenset({"teller", "teller_session"})


class Wanted(NamedTuple):
    """A wait, as the body asked it."""

    criteria: Criteria
    due_us: int | None
    asked_at_us: int


class MailChecks:
    """See the head of this file."""

    def __init__(self, world: World, records: Records) -> None:
        self._world = world
        self._violate = records.violate
        self.writer = ""
        """The worker whose transaction is looked at."""
        self._wanted: dict[tuple[str, str, str], Wanted] = {}
        """By instance, call and worker: until its beginning is recorded a body begins anew, and so do its deadlines."""
        self._latest: dict[tuple[str, str], Wanted] = {}
        self._had: dict[str, set[EventKey]] = defaultdict(set)
        self._visible: dict[tuple[EventKey, Fields], int] = {}
        """Since when who looks by these fields finds the event."""
        self._texts: dict[EventKey, CloudEvent] = {}
        self._taken: set[tuple[str, str]] = set()
        """Events that were accepted. One that its addressee was too ended to take may come again after a retry."""

    # -- what people see ---------------------------------------------------------------------------------------------

    def receipt(self, event: CloudEvent, receipt: Receipt) -> None:
        if receipt not in (Receipt.STORED, Receipt.DUPLICATE):
            return
        there = [one.event for one in self._world.store.inbox.values() if _names(one.event) == _names(event)]
        if len(there) != 1:
            self._violate("I21", f"{_names(event)} was called {receipt.value}, and is there {len(there)} times")
        elif there[0].json != event.json or there[0].type != event.type:
            self._violate("I24", f"{_names(event)} is stored as {there[0].json}")
        if event.time == LATE_COPY and receipt is Receipt.STORED and _names(event) in self._taken:
            self._violate("I24", f"a copy of {_names(event)} was called {receipt.value}")
        self._taken.add(_names(event))

    # -- what the bodies and the database say ------------------------------------------------------------------------

    def wanted(self, instance_id: str, call_id: str, worker_id: str, criteria: Criteria, due_us: int | None) -> None:
        wanted = Wanted(criteria, due_us, self._world.store.now_us())
        self._wanted[instance_id, call_id, worker_id] = self._latest[instance_id, call_id] = wanted

    def mail_changed(self) -> None:
        """Events, or their routes, may be new."""
        now_us = self._world.store.now_us()
        for key, stored in self._world.store.inbox.items():
            for fields in stored.routes:
                self._visible.setdefault((key, fields), now_us)
            if key not in self._texts:
                self._texts[key] = stored.event
            elif self._texts[key] is not stored.event:
                self._violate("I24", f"{_names(stored.event)} has changed")

    def grown(self, instance_id: InstanceId, event: HistoryEvent) -> None:
        """A row of history is new."""
        if event.kind == Kind.EVENT_RECEIVED:
            self._check_received(instance_id, event)
        elif event.kind == Kind.EVENT_TIMED_OUT:
            self._check_timed_out(instance_id, event)
        else:
            return
        if (instance_id, event.call_id) in self._world.store.waits:
            self._violate("I26", f"{instance_id} {event.call_id} has its answer, and others still see it wait")

    def _check_received(self, instance_id: InstanceId, event: HistoryEvent) -> None:
        store = self._world.store
        key = EventKey(event.details()["key"])
        stored = store.inbox.get(key)
        name = f"{instance_id} {event.call_id}"
        if stored is None:
            self._violate("I21", f"{name} received {event.details()}, which is not there")
            return
        if key in self._had[instance_id]:
            self._violate("I24", f"{name} received {_names(stored.event)}, which {instance_id} had already")
        self._had[instance_id].add(key)
        wanted = self._wanted.get((instance_id, event.call_id, self.writer))
        if wanted is None:
            return
        fitting = dict(self._fitting(instance_id, wanted))
        if key not in dict(self._fitting(instance_id, wanted, earlier_us=STALL_US)):
            self._violate("I22", f"{name} received {_names(stored.event)}, which is not for it")
        if event.output != stored.event.json or event.details().get("time") == LATE_COPY:
            self._violate("I24", f"{name} received {event.output}, and {stored.event.json} was sent")
        if wanted.due_us is not None and stored.accepted_at_us > wanted.due_us:
            self._violate("I27", f"{name} received {_names(stored.event)}, which came after its deadline")
        for other, at_us in fitting.items():
            seen_us = at_us if store.inbox[other].event.target else self._visible.get((other, wanted.criteria.fields))
            earlier = (at_us, other) < (stored.accepted_at_us, key) and other not in self._had[instance_id]
            if earlier and seen_us is not None and seen_us < stored.accepted_at_us:
                self._violate(
                    "I25",
                    f"{name} received {_names(stored.event)} before {_names(store.inbox[other].event)}, "
                    "which was accepted earlier",
                )

    def _check_timed_out(self, instance_id: InstanceId, event: HistoryEvent) -> None:
        wanted = self._wanted.get((instance_id, event.call_id, self.writer))
        if wanted is None:
            return
        if wanted.due_us is None or self._world.store.now_us() < wanted.due_us:
            self._violate("I29", f"{instance_id} {event.call_id} timed out before {wanted.due_us}")
        for key, at_us in self._fitting(instance_id, wanted):
            if key not in self._had[instance_id]:
                self._violate(
                    "I27",
                    f"{instance_id} {event.call_id} timed out, and {_names(self._world.store.inbox[key].event)} "
                    f"had been accepted {(wanted.due_us or 0) - at_us} us before its deadline",
                )

    def _fitting(
        self, instance_id: InstanceId, wanted: Wanted, *, earlier_us: int = 0
    ) -> Iterator[tuple[EventKey, int]]:
        """Events that a wait may be answered with, and when they were accepted."""
        store = self._world.store
        since_us = store.rows[instance_id].created_at_us - SINCE_START_US - earlier_us
        for key, stored in store.inbox.items():
            in_time = since_us <= stored.accepted_at_us and (
                wanted.due_us is None or stored.accepted_at_us <= wanted.due_us
            )
            mine = stored.event.target in (None, instance_id)
            if in_time and mine and wanted.criteria.fits(stored.event):
                yield key, stored.accepted_at_us

    # -- now and then, and at the end --------------------------------------------------------------------------------

    def look_after(self, calm_us: int) -> None:
        """Where nothing has gone wrong for so long, nobody is parked with an event there."""
        store = self._world.store
        if calm_us < CALM_US:
            return
        now_us = store.now_us()
        for (instance_id, call_id), wanted in self._latest.items():
            row = store.rows.get(InstanceId(instance_id))
            if row is None or row.status is not Status.WAITING_FOR_EVENT or row.owner is not None:
                continue
            due = row.claimable_at_us is not None and row.claimable_at_us <= now_us
            if due or (InstanceId(instance_id), call_id) not in store.waits:
                continue
            for key, at_us in self._fitting(row.id, wanted):
                if key not in self._had[row.id] and max(at_us, wanted.asked_at_us) < now_us - MISSED_US:
                    self._violate(
                        "I26", f"{row.id} is parked on {call_id}, and {_names(store.inbox[key].event)} is there"
                    )

    def row_changed(self, row: InstanceRow) -> None:
        if row.status in BODY_OVER and (
            left := [call_id for name, call_id in self._world.store.waits if name == row.id]
        ):
            self._violate("I26", f"{row.id} is {row.status}, and {left} are left of its waits")

    def check_end(self) -> None:
        """What is in the inbox was sent, and what was sent by an instance is in the inbox, once."""
        store, sent = self._world.store, self._world.senders.sent
        told = Counter(
            (event.details()["id"]) for history in store.history.values() for event in history if _is_sent(event)
        )
        by_activities = Counter(
            (instance_id, _number(event))
            for instance_id, history in store.history.items()
            for event in history
            if event.kind == Kind.ACTIVITY_COMPLETED and event.name in TELLERS
        )
        for stored in store.inbox.values():
            event = stored.event
            if _names(event) in sent:
                continue
            words = _words(event)
            if told[event.id] == 1:
                told[event.id] -= 1
            elif by_activities[words] == 1:
                by_activities[words] -= 1
            else:
                self._violate("I21", f"{_names(event)} is in the inbox, and nobody has sent it")
        for lost in (+told, +by_activities):
            if lost:
                self._violate("I21", f"recorded as sent, and not in the inbox: {dict(lost)}")


def _names(event: CloudEvent) -> tuple[str, str]:
    return event.source, event.id


def _is_sent(event: HistoryEvent) -> bool:
    return event.kind == Kind.EVENT_SENT and event.name in (GO, ECHO)


def _number(event: HistoryEvent) -> Any:
    return _json(event.input)["args"][0]


def _words(event: CloudEvent) -> tuple[InstanceId, Any]:
    words = _json(event.json)
    return InstanceId(words.get("to", "")), words.get("n")


def _json(text: str | None) -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads(text or "{}")
    return found


__all__ = ["NO_FIELDS", "MailChecks", "Wanted"]
