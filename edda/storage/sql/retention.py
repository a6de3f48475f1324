"""Forgetting in SQL. See `edda.storage.retention` for what stays.

What is over never changes again, so looking at it locks nothing. Before anything is removed the instances are locked
and looked at once more: another process may have forgotten them since, and an id that is free again may be in use.
"""

# ruff: noqa: S608 - the only strings that go into statements are our own names of tables and columns

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from edda.core.history import InstanceId
from edda.storage.outbox import DELIVERED
from edda.storage.retention import LOOKED_AT_MAX, OVER, ROWS_MAX, Place, Pruned
from edda.storage.sql.dialects.base import Dialect
from edda.storage.sql.rows import words
from edda.storage.sql.verb import Row, Statement, Verb

IS_OVER: Final = f"in ({words(OVER)})"


def prune(dialect: Dialect, *, age_us: int, after: Place, dry: bool) -> Verb[Pruned]:
    """One step of removing instances that ended longer ago than `age_us`."""
    rows, _ = yield Statement(f"select {dialect.now}")
    before_us = int(rows[0][0]) - age_us
    looked_at, _ = yield Statement(
        "select created_at_us, id, status, ended_at_us, parent_id from edda_instance "
        # The first comparison says where in the index to begin; what has an OR in it does not.
        "where created_at_us < ? and created_at_us >= ? and (created_at_us > ? or id > ?) "
        f"order by created_at_us, id limit {LOOKED_AT_MAX}",
        (before_us, after.created_at_us, after.created_at_us, after.id),
    )
    last = looked_at[-1] if len(looked_at) == LOOKED_AT_MAX else None
    ended = [row for row in looked_at if row[2] in OVER and row[3] is not None and row[3] < before_us]
    kept = yield from _needed(dialect, ended)
    free = [row for row in ended if row[1] not in kept]
    sizes = yield from _sizes(dialect, [row[1] for row in free])
    chosen: list[Row] = []
    count = 0
    for row in free:
        size = sizes.get(row[1], 0)
        if chosen and count + size > ROWS_MAX:
            last = chosen[-1]
            break
        chosen.append(row)
        count += size
    if chosen and not dry:
        ids = yield from _locked(dialect, [row[1] for row in chosen], before_us)
        yield from _remove(dialect, ids)
        chosen = [row for row in chosen if row[1] in ids]
    place = Place(int(last[0]), last[1]) if last is not None else None
    return Pruned(instances=len(chosen), rows=sum(sizes.get(row[1], 0) for row in chosen), after=place)


def _needed(dialect: Dialect, ended: Sequence[Row]) -> Verb[frozenset[InstanceId]]:
    """Those that have a family that can still run, or messages that are not delivered."""
    if not ended:
        return frozenset()
    ids = sorted(row[1] for row in ended)
    parents = sorted({row[4] for row in ended if row[4] is not None})
    needed: set[InstanceId] = set()
    if parents:
        condition, params = dialect.within("id", parents)
        rows, _ = yield Statement(f"select id from edda_instance where {condition} and not status {IS_OVER}", params)
        running = {row[0] for row in rows}
        needed |= {row[1] for row in ended if row[4] in running}
    condition, params = dialect.within("parent_id", ids)
    rows, _ = yield Statement(
        f"select distinct parent_id from edda_instance where {condition} and not status {IS_OVER}", params
    )
    needed |= {row[0] for row in rows}
    condition, params = dialect.within("instance_id", ids)
    rows, _ = yield Statement(
        f"select distinct instance_id from edda_outbox where {condition} and status <> '{DELIVERED}'", params
    )
    return frozenset(needed | {row[0] for row in rows})


def _sizes(dialect: Dialect, ids: Sequence[InstanceId]) -> Verb[dict[InstanceId, int]]:
    """Rows of history: `seq` has no gaps."""
    if not ids:
        return {}
    condition, params = dialect.within("instance_id", sorted(ids))
    rows, _ = yield Statement(
        f"select instance_id, max(seq) from edda_history where {condition} group by instance_id", params
    )
    return {row[0]: int(row[1]) for row in rows}


def _locked(dialect: Dialect, ids: Sequence[InstanceId], before_us: int) -> Verb[list[InstanceId]]:
    """Those of them that are still there, and still over: locked, in the order in which everybody locks."""
    condition, params = dialect.within("id", sorted(ids))
    rows, _ = yield Statement(
        f"select id from edda_instance where {condition} and status {IS_OVER} and ended_at_us < ? "
        f"order by id{dialect.lock}",
        (*params, before_us),
    )
    return [row[0] for row in rows]


def _remove(dialect: Dialect, ids: Sequence[InstanceId]) -> Verb[None]:
    """In the order in which everybody locks: instances, inbox, outbox."""
    if not ids:
        return
    for table, column in (
        ("edda_instance", "id"),
        ("edda_history", "instance_id"),
        ("edda_wait", "instance_id"),
        ("edda_search", "instance_id"),
        ("edda_inbox", "target"),
        ("edda_outbox", "instance_id"),
    ):
        condition, params = dialect.within(column, ids)
        yield Statement(f"delete from {table} where {condition}", params)


def forget_workers(dialect: Dialect, *, age_us: int) -> Verb[int]:
    rows, _ = yield Statement(
        f"select id from edda_worker where state = 'dead' and lease_until_us < {dialect.now} - {dialect.integer} "
        "and not exists (select 1 from edda_instance i where i.owner = edda_worker.id) order by id limit 1000",
        (age_us,),
    )
    ids = [row[0] for row in rows]
    if ids:
        condition, params = dialect.within("id", ids)
        yield Statement(f"delete from edda_worker where state = 'dead' and {condition}", params)
    return len(ids)
