"""Workers: one row each, with a lease; who is gone, and what becomes of what it held.

Laws:
- Renewing touches one row however many instances the worker has, and no column of an index.
- A worker that is dead stays dead. Who declares it dead locks its row first, so that whatever it was writing is either
  finished before or refused after.
- A reaper that has the lock looks again: the lease may have been renewed while it waited.
"""

# ruff: noqa: S608 - the only strings that go into statements are our own names of tables and columns

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Final

from edda.core.history import InstanceId, WorkerId
from edda.core.lifecycle import CRASHED_TOO_OFTEN, CRASHES_TO_QUARANTINE, Status
from edda.storage.port import Reaped, Renewal
from edda.storage.sql import outbox
from edda.storage.sql.dialects.base import Dialect
from edda.storage.sql.rows import ids
from edda.storage.sql.verb import Row, Statement, Verb

SERVER_IDS_MAX: Final = 32
"""Connections come and go; of those noted only the newest can be alive."""


def register(dialect: Dialect, worker: WorkerId, *, service: str, lease_us: int, presence: bool) -> Verb[int]:
    """Make a worker known and alive. A row that is there already (the answer was lost) is left alone."""
    rows, _ = yield Statement(f"select {dialect.now}")
    now_us = int(rows[0][0])
    yield Statement(
        "insert into edda_worker (id, service, state, presence, lease_until_us, started_at_us, server_ids) "
        f"values (?, ?, 'alive', ?, ?, ?, ''){dialect.if_absent}",
        (worker, service, int(presence), now_us + lease_us, now_us),
    )
    return now_us


def renew(dialect: Dialect, worker: WorkerId, *, lease_us: int) -> Verb[Renewal]:
    """Prolong the lease of a worker that nobody has declared dead, however late it is."""
    yield Statement(
        f"update edda_worker set lease_until_us = {dialect.now} + ? where id = ? and state = 'alive'",
        (lease_us, worker),
    )
    return (yield from look_alive(dialect, worker))


def announce(worker: WorkerId, workflows: Sequence[str]) -> Verb[None]:
    """Write down which workflows a worker runs."""
    text = json.dumps(list(workflows), ensure_ascii=False, separators=(",", ":"))
    yield Statement("update edda_worker set workflows = ? where id = ?", (text, worker))


def look_alive(dialect: Dialect, worker: WorkerId) -> Verb[Renewal]:
    """The time, and whether the worker counts as alive."""
    rows, _ = yield Statement(
        f"select {dialect.now}, (select state from edda_worker where id = ?)",
        (worker,),
    )
    return Renewal(now_us=int(rows[0][0]), alive=rows[0][1] == "alive")


def note_server_id(dialect: Dialect, worker: WorkerId, server_id: int) -> Verb[bool]:
    """Remember a connection of a worker, so that a reaper can end it when the worker hangs in a transaction.

    Returns whether there is such a worker.
    """
    rows, _ = yield Statement(f"select server_ids from edda_worker where id = ?{dialect.lock}", (worker,))
    known: list[str] = rows[0][0].split(",") if rows and rows[0][0] else []
    if rows and str(server_id) not in known:
        newest = [*known, str(server_id)][-SERVER_IDS_MAX:]
        yield Statement("update edda_worker set server_ids = ? where id = ?", (",".join(newest), worker))
    return bool(rows)


def server_ids(worker: WorkerId) -> Verb[tuple[int, ...]]:
    """The connections noted for a worker."""
    rows, _ = yield Statement("select server_ids from edda_worker where id = ?", (worker,))
    return tuple(int(number) for row in rows for number in row[0].split(",") if number)


def absentees(dialect: Dialect, worker: WorkerId, present: Collection[WorkerId] | None) -> Verb[tuple[WorkerId, ...]]:
    """Other workers that count as alive, but whose lease is over or whose presence is gone."""
    absent, params = dialect.absent(present)
    rows, _ = yield Statement(
        "select id from edda_worker "
        f"where state = 'alive' and id <> ? and (lease_until_us < {dialect.now} or {absent}) order by id",
        (worker, *params),
    )
    return tuple(WorkerId(row[0]) for row in rows)


def reap(dialect: Dialect, dead: WorkerId, present: Collection[WorkerId] | None) -> Verb[Reaped | None]:
    """Declare a worker dead and free what it held, unless it is dead already or alive after all."""
    # Waits for everything the worker is writing; what it writes from now on is refused.
    yield Statement(f"select id from edda_worker where id = ?{dialect.lock}", (dead,))
    absent, params = dialect.absent(present)
    # Only now, after the waiting: is it gone?
    rows, _ = yield Statement(
        f"select {dialect.now}, lease_until_us, case when {absent} then 1 else 0 end from edda_worker "
        "where id = ? and state = 'alive'",
        (*params, dead),
    )
    if not rows or (rows[0][1] >= rows[0][0] and not rows[0][2]):
        return None
    now_us = int(rows[0][0])
    # Whoever wrote something under this claim has begun a new count.
    yield Statement(
        "update edda_instance set crashes = 0 where owner = ? and crashes > 0 and claim = "
        "(select h.claim from edda_history h where h.instance_id = edda_instance.id order by h.seq desc limit 1)",
        (dead,),
    )
    held = yield from _bury(dialect, dead)
    if held:
        # `crashes` comes last: MySQL evaluates assignments from left to right, and sees what was assigned.
        yield Statement(
            "update edda_instance set owner = null, updated_at_us = ?, "
            f"status = case when crashes + 1 < {CRASHES_TO_QUARANTINE} then status "
            f"else '{Status.QUARANTINED.value}' end, "
            f"reason = case when crashes + 1 < {CRASHES_TO_QUARANTINE} then reason else ? end, "
            # As old as it is: what was interrupted goes on before what has not begun.
            f"claimable_at_us = case when crashes + 1 < {CRASHES_TO_QUARANTINE} then created_at_us else null end, "
            "crashes = crashes + 1 where owner = ?",
            (now_us, CRASHED_TOO_OFTEN, dead),
        )
    yield from outbox.end_leases(dialect, dead, now_us)
    return _reaped(held)


def _bury(dialect: Dialect, worker: WorkerId) -> Verb[Sequence[Row]]:
    """Mark a locked worker as dead, and lock what it holds: (id, crashes)."""
    yield Statement("update edda_worker set state = 'dead' where id = ?", (worker,))
    rows, _ = yield Statement(
        f"select id, crashes from edda_instance where owner = ? order by id{dialect.lock}",
        (worker,),
    )
    return rows


def _reaped(held: Sequence[Row]) -> Reaped:
    freed: list[InstanceId] = []
    quarantined: list[InstanceId] = []
    for instance_id, crashes in held:
        (freed if crashes + 1 < CRASHES_TO_QUARANTINE else quarantined).append(instance_id)
    return Reaped(freed=tuple(freed), quarantined=tuple(quarantined))


def retire(dialect: Dialect, worker: WorkerId) -> Verb[tuple[InstanceId, ...]]:
    """The clean end of a worker: dead, everything freed, no crash counted. Returns what was freed."""
    rows, _ = yield Statement(f"select id from edda_worker where id = ?{dialect.lock}", (worker,))
    rows, _ = yield Statement(f"select {dialect.now}")
    now_us = int(rows[0][0])
    held = yield from _bury(dialect, worker)
    if held:
        yield Statement(
            "update edda_instance set owner = null, claimable_at_us = created_at_us, updated_at_us = ? where owner = ?",
            (now_us, worker),
        )
    yield from outbox.end_leases(dialect, worker, now_us)
    return ids(list(held))
