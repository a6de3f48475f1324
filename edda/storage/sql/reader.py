"""Reading, without locks: each verb sees what is committed."""

# ruff: noqa: S608 - the only strings that go into statements are our own names of tables and columns

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from edda.core.history import HistoryEvent, InstanceId
from edda.core.lifecycle import Status
from edda.storage.port import InstanceRow
from edda.storage.sql.dialects.base import Dialect
from edda.storage.sql.rows import HISTORY_LIST, INSTANCE_LIST, history_event, instance_row
from edda.storage.sql.verb import Statement, Verb

IDS_PER_STATEMENT: Final = 500


def instances(dialect: Dialect, wanted: Sequence[InstanceId]) -> Verb[dict[InstanceId, InstanceRow]]:
    """Those of these instances that exist."""
    found: dict[InstanceId, InstanceRow] = {}
    for start in range(0, len(wanted), IDS_PER_STATEMENT):
        condition, params = dialect.within("id", wanted[start : start + IDS_PER_STATEMENT])
        rows, _ = yield Statement(f"select {INSTANCE_LIST} from edda_instance where {condition}", params)
        found.update({row[0]: instance_row(row) for row in rows})
    return found


def histories(dialect: Dialect, wanted: Sequence[InstanceId]) -> Verb[dict[InstanceId, list[HistoryEvent]]]:
    """The whole history of each, in order."""
    found: dict[InstanceId, list[HistoryEvent]] = {instance_id: [] for instance_id in wanted}
    for start in range(0, len(wanted), IDS_PER_STATEMENT):
        condition, params = dialect.within("instance_id", wanted[start : start + IDS_PER_STATEMENT])
        rows, _ = yield Statement(
            f"select {HISTORY_LIST} from edda_history where {condition} order by instance_id, seq",
            params,
        )
        for row in rows:
            found[row[0]].append(history_event(row))
    return found


def list_instances(
    *, status: Status | None, workflow: str | None, limit: int, before: str | None
) -> Verb[tuple[InstanceRow, ...]]:
    """A page of instances, newest first, walking the index on their creation backwards."""
    conditions: list[str] = []
    params: list[Any] = []
    if before is not None:
        rows, _ = yield Statement("select created_at_us from edda_instance where id = ?", (before,))
        if not rows:
            return ()
        conditions.append("(created_at_us < ? or (created_at_us = ? and id < ?))")
        params += [rows[0][0], rows[0][0], before]
        # Implied by the other, and a range that every planner sees.
        conditions.append("created_at_us <= ?")
        params.append(rows[0][0])
    if status is not None:
        conditions.append("status = ?")
        params.append(status.value)
    if workflow is not None:
        conditions.append("workflow = ?")
        params.append(workflow)
    where = f" where {' and '.join(conditions)}" if conditions else ""
    rows, _ = yield Statement(
        f"select {INSTANCE_LIST} from edda_instance{where} order by created_at_us desc, id desc limit ?",
        (*params, limit),
    )
    return tuple(instance_row(row) for row in rows)
