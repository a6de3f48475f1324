"""The verbs of people: cancel and retry. They work whether or not the owner of the instance is alive."""

# ruff: noqa: S608 - the only strings that go into statements are our own names of tables and columns

from __future__ import annotations

from edda.core.history import HistoryEvent, InstanceId, Kind
from edda.core.lifecycle import CANCELLABLE, REPAIRABLE, SET_ASIDE, Status
from edda.storage.port import InstanceRow
from edda.storage.sql.commits import INSERT_HISTORY
from edda.storage.sql.dialects.base import Dialect
from edda.storage.sql.rows import INSTANCE_LIST, instance_row
from edda.storage.sql.verb import Statement, Verb


def _lock(dialect: Dialect, instance_id: InstanceId) -> Verb[InstanceRow | None]:
    """The row as it is, and it stays so until this transaction ends."""
    rows, _ = yield Statement(
        f"select {INSTANCE_LIST} from edda_instance where id = ?{dialect.lock}",
        (instance_id,),
    )
    return instance_row(rows[0]) if rows else None


def _now(dialect: Dialect) -> Verb[int]:
    rows, _ = yield Statement(f"select {dialect.now}")
    return int(rows[0][0])


def _at_once(row: InstanceRow, now_us: int) -> int | None:
    """`claimable_at_us` of a row that should run now; while it is owned it has none."""
    if row.owner is not None:
        return row.claimable_at_us
    return now_us if row.claimable_at_us is None else min(row.claimable_at_us, now_us)


def cancel(dialect: Dialect, instance_id: InstanceId, *, by: str) -> Verb[InstanceRow | None]:
    """Ask an instance to cancel, and wake it. Returns the row as it was before."""
    before = yield from _lock(dialect, instance_id)
    if before is None or before.status not in CANCELLABLE:
        return before
    if before.status in SET_ASIDE and (yield from _undoing(instance_id)):
        return before._replace(status=Status.COMPENSATING)
    if before.cancel_requested_at_us is not None:
        return before
    now_us = yield from _now(dialect)
    yield Statement(
        "update edda_instance set cancel_requested_at_us = ?, cancelled_by = ?, wakes = wakes + 1, "
        "claimable_at_us = ?, updated_at_us = ? where id = ?",
        (now_us, by, _at_once(before, now_us), now_us, instance_id),
    )
    return before


def retry(dialect: Dialect, instance_id: InstanceId) -> Verb[InstanceRow | None]:
    """Let an instance that needs repair run again. Returns the row as it was before."""
    before = yield from _lock(dialect, instance_id)
    if before is None or before.status not in REPAIRABLE:
        return before
    now_us = yield from _now(dialect)
    undoing = yield from _undoing(instance_id)
    if before.status is Status.COMPENSATION_FAILED:
        undoing = True
        yield from _record(before, now_us)
    status = Status.COMPENSATING if undoing else Status.RUNNING
    yield Statement(
        "update edda_instance set status = ?, reason = '', crashes = 0, claimable_at_us = ?, error = null, "
        "ended_at_us = null, updated_at_us = ? where id = ?",
        (status.value, _at_once(before, now_us), now_us, instance_id),
    )
    return before


def _undoing(instance_id: InstanceId) -> Verb[bool]:
    """Whether the body is over according to history, so that only undoing is left."""
    rows, _ = yield Statement(
        "select seq from edda_history where instance_id = ? and kind = ? limit 1",
        (instance_id, Kind.COMPENSATION_STARTED.value),
    )
    return bool(rows)


def _record(row: InstanceRow, now_us: int) -> Verb[None]:
    """Append `RetryRequested`: from here on, what could not be undone is owed again."""
    rows, _ = yield Statement("select coalesce(max(seq), 0) from edda_history where instance_id = ?", (row.id,))
    event = HistoryEvent(
        instance_id=row.id,
        seq=int(rows[0][0]) + 1,
        claim=row.claim,
        at_us=now_us,
        kind=Kind.RETRY_REQUESTED.value,
        call_id="",
        name=row.workflow,
    )
    yield Statement(INSERT_HISTORY, event)
