"""What is stored: a state of the model becomes one of the database, and both are read into one comparable form.

The model's clock begins in 2023, so whatever is due there is due on the database's clock, too. A worker whose presence
is gone has a row that says it has one, though nobody holds that lock; for the others the lease alone decides.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from edda.core.history import HistoryEvent
from edda.storage.memory import MemoryStore
from edda.storage.port import InstanceRow
from edda.storage.sql.database import Lane
from edda.storage.sql.rows import (
    HISTORY_LIST,
    INSTANCE_LIST,
    NEW_INSTANCE_COLUMNS,
    history_event,
    insert,
    instance_row,
    outbox_row,
)
from edda.storage.sql.schema import HISTORY_COLUMNS, OUTBOX_COLUMNS, WORKER
from edda.storage.sql.store import SqlStore
from edda.storage.sql.verb import Statement, Verb
from tests.storage.support import comparable, timeless, wipe_verb

BEGIN_US: Final = 1_700_000_000_000_000
INSERTS: Final = {
    "edda_worker": insert("edda_worker", tuple(column.name for column in WORKER.columns)),
    "edda_instance": insert("edda_instance", NEW_INSTANCE_COLUMNS),
    "edda_history": insert("edda_history", HISTORY_COLUMNS),
    "edda_outbox": insert("edda_outbox", OUTBOX_COLUMNS),
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

    def differences(self, other: Contents) -> list[str]:
        """Where they differ, in words: this one's value, then the other's."""
        found: list[str] = []
        for part in ("instances", "histories", "workers"):
            mine, theirs = getattr(self, part), getattr(other, part)
            for name in sorted({*mine, *theirs}):
                if mine.get(name) != theirs.get(name):
                    found.append(f"{part}[{name}]: {mine.get(name)} and not {theirs.get(name)}")
        if self.outbox != other.outbox:
            found.append(f"outbox: {self.outbox} and not {other.outbox}")
        return found


def _instance(row: InstanceRow, seen_wakes: int, now_us: int) -> tuple[Any, ...]:
    """Beyond `timeless`: whether it is claimable since it was created, which puts it before what began later."""
    return timeless(row, now_us), seen_wakes, row.owner is None and row.claimable_at_us == row.created_at_us


def of_model(model: MemoryStore) -> Contents:
    now_us = model.now_us()
    return Contents(
        instances={name: _instance(row, model.seen_wakes[name], now_us) for name, row in model.rows.items()},
        histories={name: comparable(history) for name, history in model.history.items() if history},
        outbox=tuple(sorted((each.instance_id, each.seq, each.ordinal, each.id) for each in model.outbox)),
        workers={
            name: _worker("alive" if worker.alive else "dead", worker.lease_until_us, now_us)
            for name, worker in model.workers.items()
        },
    )


def _worker(state: str, lease_until_us: int, now_us: int) -> str:
    return "dead" if state == "dead" else "alive, lapsed" if lease_until_us < now_us else "alive"


async def of_database(store: SqlStore) -> Contents:
    now = store.database.dialect.now
    return await store.database.run("contents", lambda: _read(now), lane=Lane.READ)


def _read(now: str) -> Verb[Contents]:
    workers, _ = yield Statement(f"select id, state, lease_until_us, {now} from edda_worker")
    instances, _ = yield Statement(f"select seen_wakes, {INSTANCE_LIST} from edda_instance")
    records, _ = yield Statement(f"select {HISTORY_LIST} from edda_history order by instance_id, seq")
    messages, _ = yield Statement(
        "select instance_id, seq, ordinal, id from edda_outbox order by instance_id, seq, ordinal"
    )
    now_us = int(workers[0][3])
    histories: dict[str, list[HistoryEvent]] = {}
    for record in records:
        histories.setdefault(record[0], []).append(comparable(history_event(record)))
    return Contents(
        instances={row[1]: _instance(instance_row(row[1:]), row[0], now_us) for row in instances},
        histories=histories,
        outbox=tuple((row[0], row[1], row[2], row[3]) for row in messages),
        workers={row[0]: _worker(row[1], row[2], now_us) for row in workers},
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
        "edda_outbox": [outbox_row(message) for message in model.outbox],
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
