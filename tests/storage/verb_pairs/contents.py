"""What is stored: a state of the model becomes one of the database, and both are read into one comparable form.

The model's clock begins in 2023, so whatever is due there is due on the database's clock, too. A worker whose presence
is gone has a row that says it has one, though nobody holds that lock; for the others the lease alone decides.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from edda.core.commit import OutboxMessage
from edda.core.history import HistoryEvent
from edda.core.lifecycle import ENDED
from edda.core.routing import fields_text
from edda.storage.memory import MemoryStore
from edda.storage.outbox import DEAD, PENDING
from edda.storage.port import InstanceRow
from edda.storage.sql.database import Lane
from edda.storage.sql.rows import (
    HISTORY_LIST,
    INSTANCE_LIST,
    NEW_INSTANCE_COLUMNS,
    history_event,
    inbox_row,
    insert,
    instance_row,
    outbox_row,
)
from edda.storage.sql.schema import (
    HISTORY_COLUMNS,
    INBOX_COLUMNS,
    INBOX_FIELDS,
    INBOX_ROUTE,
    OUTBOX_COLUMNS,
    WAIT,
    WORKER,
)
from edda.storage.sql.store import SqlStore
from edda.storage.sql.verb import Statement, Verb
from tests.storage.support import comparable, timeless, wipe_verb

BEGIN_US: Final = 1_700_000_000_000_000
INSERTS: Final = {
    "edda_worker": insert("edda_worker", tuple(column.name for column in WORKER.columns if column.since == 1)),
    "edda_instance": insert("edda_instance", NEW_INSTANCE_COLUMNS),
    "edda_history": insert("edda_history", HISTORY_COLUMNS),
    "edda_outbox": insert("edda_outbox", (*OUTBOX_COLUMNS, "relayer", "claim_key", "reason")),
    "edda_wait": insert("edda_wait", tuple(column.name for column in WAIT.columns)),
    "edda_inbox": insert("edda_inbox", INBOX_COLUMNS),
    "edda_inbox_route": insert("edda_inbox_route", tuple(column.name for column in INBOX_ROUTE.columns)),
    "edda_inbox_fields": insert("edda_inbox_fields", tuple(column.name for column in INBOX_FIELDS.columns)),
}


def model() -> MemoryStore:
    """An empty one, in which time passes with every look at the clock."""
    ticks = itertools.count(BEGIN_US, 10)
    return MemoryStore(now_us=lambda: next(ticks))


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything stored, without the times in it."""

    instances: Mapping[str, tuple[Any, ...]]
    histories: Mapping[str, list[HistoryEvent]]
    outbox: tuple[tuple[Any, ...], ...]
    workers: Mapping[str, str]
    """Its state; of those alive also whether the lease is over. That of the dead means nothing."""

    events: Mapping[str, tuple[Any, ...]] = field(default_factory=dict[str, tuple[Any, ...]])
    """What else there is of it, and the routes it can be found by."""
    waits: tuple[Any, ...] = ()
    fields: tuple[Any, ...] = ()

    def without_counts(self) -> Contents:
        """Who was woken, and not how often: two routers may both wake, and one wakes who has just got its answer."""
        return replace(self, instances={name: _uncounted(*instance) for name, instance in self.instances.items()})

    def differences(self, other: Contents) -> list[str]:
        """Where they differ, in words: this one's value, then the other's."""
        found: list[str] = []
        for part in ("instances", "histories", "workers", "events"):
            mine, theirs = getattr(self, part), getattr(other, part)
            for name in sorted({*mine, *theirs}):
                if mine.get(name) != theirs.get(name):
                    found.append(f"{part}[{name}]: {mine.get(name)} and not {theirs.get(name)}")
        for part in ("outbox", "waits", "fields"):
            mine, theirs = getattr(self, part), getattr(other, part)
            if mine != theirs:
                found.append(f"{part}: {mine} and not {theirs}")
        return found


def _uncounted(row: InstanceRow, seen_wakes: int, began_first: bool) -> tuple[Any, ...]:
    over = row.status in ENDED
    return row._replace(wakes=int(row.wakes > 0 and not over)), row.wakes > seen_wakes and not over, began_first


def _instance(row: InstanceRow, seen_wakes: int, now_us: int) -> tuple[Any, ...]:
    """Beyond `timeless`: whether it is claimable since it was created, which puts it before what began later."""
    return timeless(row, now_us), seen_wakes, row.owner is None and row.claimable_at_us == row.created_at_us


def of_model(model: MemoryStore) -> Contents:
    now_us = model.now_us()
    return Contents(
        instances={name: _instance(row, model.seen_wakes[name], now_us) for name, row in model.rows.items()},
        histories={name: comparable(history) for name, history in model.history.items() if history},
        outbox=tuple(sorted(_message(model, each, now_us) for each in model.outbox)),
        workers={
            name: _worker("alive" if worker.alive else "dead", worker.lease_until_us, now_us)
            for name, worker in model.workers.items()
        },
        events={
            stored.event.id: (int(stored.routed), stored.woken_to, *sorted(stored.routes.values()))
            for stored in model.inbox.values()
        },
        waits=tuple(sorted((name, *wait) for (name, _), wait in model.waits.items())),
        fields=tuple(
            sorted((kind, fields_text(some), at) for kind, sets in model.fields.items() for some, at in sets.items())
        ),
    )


def _message(model: MemoryStore, message: OutboxMessage, now_us: int) -> tuple[Any, ...]:
    relay = model._relay(message)
    told = _relayed(relay.status, relay.attempts, relay.due_at_us, relay.leased, relay.reason, now_us)
    return (message.instance_id, message.seq, message.ordinal, message.id, *told)


def _relayed(
    status: str, attempts: int, due_at_us: int, leased: bool, reason: str | None, now_us: int
) -> tuple[Any, ...]:
    """How far a message has come. When it was settled, and why it once was not delivered, says nothing any more."""
    due = status == PENDING and due_at_us <= now_us
    return (status, attempts, due, leased, reason if status == DEAD else None)


def _outbox_row(model: MemoryStore, message: OutboxMessage) -> tuple[Any, ...]:
    relay = model._relay(message)
    *columns, _, _, _ = outbox_row(message)
    relayer = (relay.relayer or "a relayer") if relay.leased else None
    return (*columns, relay.status, relay.attempts, relay.due_at_us, relayer, relay.claim_key, relay.reason or None)


def _worker(state: str, lease_until_us: int, now_us: int) -> str:
    return "dead" if state == "dead" else "alive, lapsed" if lease_until_us < now_us else "alive"


async def lead_on(store: Any) -> None:
    """Lead every event to whoever waits for it, as routers do."""
    while keys := await store.unrouted(older_than_us=0, limit=100):
        while keys:
            keys = (await store.route(keys)).left


async def of_database(store: SqlStore) -> Contents:
    now = store.database.dialect.now
    return await store.database.run("contents", lambda: _read(now), lane=Lane.READ)


def _read(now: str) -> Verb[Contents]:
    workers, _ = yield Statement(f"select id, state, lease_until_us, {now} from edda_worker")
    instances, _ = yield Statement(f"select seen_wakes, {INSTANCE_LIST} from edda_instance")
    records, _ = yield Statement(f"select {HISTORY_LIST} from edda_history order by instance_id, seq")
    messages, _ = yield Statement(
        "select instance_id, seq, ordinal, id, status, attempts, due_at_us, relayer is not null, reason "
        "from edda_outbox order by instance_id, seq, ordinal"
    )
    inbox, _ = yield Statement("select event_key, id, routed, woken_to from edda_inbox")
    routes, _ = yield Statement("select event_key, route from edda_inbox_route")
    waits, _ = yield Statement("select instance_id, call_id, type, route from edda_wait")
    fields, _ = yield Statement("select type, fields, since_us from edda_inbox_fields")
    now_us = int(workers[0][3])
    found_by: dict[str, set[str]] = {}
    for key, route in routes:
        found_by.setdefault(key, set()).add(route)
    histories: dict[str, list[HistoryEvent]] = {}
    for record in records:
        histories.setdefault(record[0], []).append(comparable(history_event(record)))
    return Contents(
        instances={row[1]: _instance(instance_row(row[1:]), row[0], now_us) for row in instances},
        histories=histories,
        outbox=tuple((*row[:4], *_relayed(row[4], row[5], row[6], bool(row[7]), row[8], now_us)) for row in messages),
        workers={row[0]: _worker(row[1], row[2], now_us) for row in workers},
        events={row[1]: (int(row[2]), row[3], *sorted(found_by.get(row[0], ()))) for row in inbox},
        waits=tuple(sorted(tuple(row) for row in waits)),
        fields=tuple(sorted((row[0], row[1], int(row[2])) for row in fields)),
    )


async def load(model: MemoryStore, store: SqlStore) -> None:
    """Make the database hold what the model holds, and nothing else."""
    await store.database.run("load", lambda: _load(model), lane=Lane.DESK)


def _load(model: MemoryStore) -> Verb[None]:
    yield from wipe_verb()
    rows: dict[str, list[Any]] = {
        "edda_worker": [
            (
                name,
                worker.service,
                "alive" if worker.alive else "dead",
                int(name not in model.presence),
                worker.lease_until_us,
                BEGIN_US,
                "",
            )
            for name, worker in model.workers.items()
        ],
        "edda_instance": [_columns(row, model.seen_wakes[name]) for name, row in model.rows.items()],
        "edda_history": [record for history in model.history.values() for record in history],
        "edda_outbox": [_outbox_row(model, message) for message in model.outbox],
        "edda_wait": [(name, *wait) for (name, _), wait in model.waits.items()],
        "edda_inbox": [
            (
                *inbox_row(stored.event, stored.accepted_at_us, key=key, indexed=stored.indexed)[:13],
                int(stored.routed),
                stored.indexed,
                stored.woken_to,
            )
            for key, stored in model.inbox.items()
        ],
        "edda_inbox_route": [
            (route, stored.accepted_at_us, key)
            for key, stored in model.inbox.items()
            for route in stored.routes.values()
        ],
        "edda_inbox_fields": [
            (kind, fields_text(some), since_us)
            for kind, sets in model.fields.items()
            for some, since_us in sets.items()
        ],
    }
    for table, values in rows.items():
        if values:
            yield Statement(INSERTS[table], values, many=True)


def _columns(row: InstanceRow, seen_wakes: int) -> tuple[Any, ...]:
    changed: dict[str, Any] = {
        "status": row.status.value,
        "bytes": row.blob,
        "detached": int(row.detached),
        "seen_wakes": seen_wakes,
        "claim_key": 0,
    }
    return tuple(changed[name] if name in changed else getattr(row, name) for name in NEW_INSTANCE_COLUMNS)
