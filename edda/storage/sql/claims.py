"""Claiming: who runs an instance, and what wakes its owner.

Laws:
- What is runnable is a predicate on a row, never an event in somebody's memory: unowned and due.
- Each workflow has a branch of its own with a limit, so that the index is walked and nothing is sorted: a sort with
  SKIP LOCKED would lock every candidate.
- A claim leaves `claim_key` in its rows: when its answer was lost, `claimed_with` finds them.
"""

# ruff: noqa: S608 - the only strings that go into statements are our own names of tables and columns

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from edda.core.history import InstanceId, WorkerId
from edda.core.lifecycle import IDLE
from edda.storage.port import Claims, InstanceRow, Notice
from edda.storage.sql.commits import fence
from edda.storage.sql.dialects.base import Dialect
from edda.storage.sql.rows import INSTANCE_LIST, instance_row, words
from edda.storage.sql.verb import Row, Statement, Verb

CRASHES_OF_A_SUSPECT: Final = 2
DUE: Final = "owner is null and claimable_at_us <= ?"


def claim(
    dialect: Dialect,
    worker: WorkerId,
    *,
    workflows: Sequence[str],
    limit: int,
    suspects: bool,
    ids: Sequence[InstanceId] | None,
    claim_key: int,
) -> Verb[Claims]:
    """Take what is due, earliest first; at most one suspect."""
    own = dialect.claim(worker, workflows=workflows, limit=limit, suspects=suspects, ids=ids, claim_key=claim_key)
    if own is not None:
        return (yield from own)
    now_us = yield from fence(dialect, worker)
    chosen: list[Row] = []
    if workflows and limit > 0:
        found = yield from _due(dialect, workflows, limit, ids, now_us, suspects=suspects)
        chosen, dropped = choose(found, limit, suspects=suspects)
        if dropped:
            # Suspects stood in the way of others behind them: once more without any, keeping the one.
            others = yield from _due(dialect, workflows, limit, ids, now_us, suspects=False)
            one = [row for row in chosen if row[2] >= CRASHES_OF_A_SUSPECT]
            chosen, _ = choose([*one, *others], limit, suspects=True)
    if not chosen:
        return Claims(now_us=now_us, rows=())
    yield from _take(dialect, worker, chosen, now_us, claim_key)
    rows = yield from _rows(dialect, [row[0] for row in chosen])
    due_us = {row[0]: int(row[1]) for row in chosen}
    return Claims(now_us=now_us, rows=rows, due_us=tuple(due_us[row.id] for row in rows))


def choose(found: Sequence[Row], limit: int, *, suspects: bool) -> tuple[list[Row], bool]:
    """The earliest of (id, claimable_at_us, crashes, ...), with at most one suspect; and whether one was left out."""
    chosen: list[Row] = []
    dropped = False
    for row in sorted(found, key=lambda row: (row[1], row[0])):
        if len(chosen) == limit:
            break
        if row[2] < CRASHES_OF_A_SUSPECT:
            chosen.append(row)
        elif suspects:
            chosen.append(row)
            suspects = False
        else:
            dropped = True
    return chosen, dropped


def _due(
    dialect: Dialect,
    workflows: Sequence[str],
    limit: int,
    ids: Sequence[InstanceId] | None,
    now_us: int,
    *,
    suspects: bool,
) -> Verb[Sequence[Row]]:
    """What is due, locked; what others have locked is passed over."""
    columns = "select id, claimable_at_us, crashes, claim from edda_instance"
    indexed = f"{columns}{dialect.by_claim_index}"
    harmless = "" if suspects else f" and crashes < {CRASHES_OF_A_SUSPECT}"
    if ids is not None:
        condition, params = dialect.within("id", ids)
        workflow, names = dialect.within("workflow", workflows)
        rows, _ = yield Statement(
            f"{columns} where {condition} and {workflow} and {DUE}{harmless} order by id{dialect.lock_unless_taken}",
            (*params, *names, now_us),
        )
        return rows
    branch = (
        f"{indexed} where workflow = ? and {DUE}{harmless} "
        f"order by claimable_at_us, id limit ?{dialect.lock_unless_taken}"
    )
    rows, _ = yield Statement(
        dialect.union([branch] * len(workflows)),
        tuple(value for workflow in workflows for value in (workflow, now_us, limit)),
    )
    return rows


def _take(dialect: Dialect, worker: WorkerId, chosen: Sequence[Row], now_us: int, claim_key: int) -> Verb[None]:
    grew: list[InstanceId] = []
    for instance_id, _, crashes, before in chosen:
        if crashes:
            # Did the claim before write anything? The rows of a claim are the last ones of its history.
            rows, _ = yield Statement(
                "select claim from edda_history where instance_id = ? order by seq desc limit 1", (instance_id,)
            )
            if rows and rows[0][0] == before:
                grew.append(instance_id)
    condition, params = dialect.within("id", [row[0] for row in chosen])
    # They are ours now.
    yield Statement(
        "update edda_instance set owner = ?, claim = claim + 1, seen_wakes = wakes, claimable_at_us = null, "
        f"status = case when status in ({words(IDLE)}) then 'running' else status end, reason = '', claim_key = ?, "
        f"updated_at_us = ? where {condition}",
        (worker, claim_key, now_us, *params),
    )
    if grew:
        condition, params = dialect.within("id", grew)
        # These made progress before they crashed, so the count begins anew.
        yield Statement(f"update edda_instance set crashes = 0 where {condition}", params)


def _rows(dialect: Dialect, ids: Sequence[InstanceId]) -> Verb[tuple[InstanceRow, ...]]:
    """These instances, in this order."""
    condition, params = dialect.within("id", ids)
    rows, _ = yield Statement(f"select {INSTANCE_LIST} from edda_instance where {condition}", params)
    found = {row[0]: instance_row(row) for row in rows}
    return tuple(found[instance_id] for instance_id in ids)


def claimed_with(dialect: Dialect, worker: WorkerId, claim_key: int) -> Verb[Claims]:
    """What a claim took whose answer was lost, once nothing of it is under way any more."""
    # Waits for the lock that the lost transaction holds on the same row until its end.
    yield Statement(f"select id from edda_worker where id = ?{dialect.lock}", (worker,))
    now_us = yield from fence(dialect, worker)
    # What bears its mark.
    rows, _ = yield Statement(
        f"select {INSTANCE_LIST} from edda_instance where owner = ? and claim_key = ? order by id",
        (worker, claim_key),
    )
    return Claims(now_us=now_us, rows=tuple(instance_row(row) for row in rows))


def notices(worker: WorkerId) -> Verb[tuple[Notice, ...]]:
    """Of the instances that a worker holds, those woken since it claimed them."""
    rows, _ = yield Statement(
        "select id, wakes, cancel_requested_at_us from edda_instance "
        "where owner = ? and wakes > seen_wakes order by id",
        (worker,),
    )
    return tuple(Notice(instance_id=row[0], wakes=row[1], cancel_requested=row[2] is not None) for row in rows)


def held(worker: WorkerId) -> Verb[dict[InstanceId, int]]:
    """What a worker holds, by the index on owners."""
    rows, _ = yield Statement("select id, claim from edda_instance where owner = ?", (worker,))
    return {row[0]: row[1] for row in rows}
