"""Claiming as one statement of PostgreSQL; see `claims` for what it means."""

# ruff: noqa: S608 - the only strings that go into statements are our own names of tables and columns

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from edda.core.history import InstanceId, WorkerId
from edda.core.lifecycle import IDLE
from edda.storage.port import Claims, Fenced, InstanceRow
from edda.storage.sql.dialects.postgresql_write import CLOCK, FENCE
from edda.storage.sql.rows import instance_row, words
from edda.storage.sql.schema import INSTANCE_COLUMNS
from edda.storage.sql.verb import Statement, Verb

CRASHES_OF_A_SUSPECT: Final = 2

DUE: Final = "i.owner is null and i.claimable_at_us <= (select now_us from clock)"

# What is due: for each workflow the head of its index, locked; what others have locked is passed over.
PAGE: Final = """page as materialized (
  select c.* from fence, unnest(?::text[]) as w(workflow) cross join lateral (
    select i.id, i.claimable_at_us, i.crashes from edda_instance i
    where i.workflow = w.workflow and {due}
    order by i.claimable_at_us, i.id limit ? for update skip locked) c)"""

# What is due among certain instances.
PAGE_OF_IDS: Final = """page as materialized (
  select i.id, i.claimable_at_us, i.crashes from edda_instance i
  where exists (select from fence) and i.workflow = any(?::text[]) and i.id = any(?::text[]) and {due}
  order by i.id for update skip locked)"""

# The earliest of them, and of the suspects the first only.
CHOSEN: Final = f"""ranked as (
  select id, claimable_at_us, crashes,
    count(*) filter (where crashes >= {CRASHES_OF_A_SUSPECT}) over (order by claimable_at_us, id) as suspects
  from page),
chosen as (
  select id, claimable_at_us from ranked where crashes < {CRASHES_OF_A_SUSPECT} or suspects = 1
  order by claimable_at_us, id limit ?)"""

# They are ours now. The crash count begins anew where the claim before wrote something; its rows are the last ones.
TAKEN: Final = f"""taken as (
  update edda_instance i set owner = ?, claim = i.claim + 1, seen_wakes = i.wakes, claimable_at_us = null,
    status = case when i.status in ({words(IDLE)}) then 'running' else i.status end, reason = '', claim_key = ?,
    crashes = case when i.crashes > 0 and i.claim = (
        select h.claim from edda_history h where h.instance_id = i.id order by h.seq desc limit 1)
      then 0 else i.crashes end,
    updated_at_us = (select now_us from clock)
  from chosen c where i.id = c.id
  returning c.claimable_at_us as due_us, {", ".join("i." + name for name in INSTANCE_COLUMNS)})"""


@lru_cache(maxsize=4)
def text_of(*, of_ids: bool, suspects: bool) -> str:
    """The statement that claims. It gives the time, how many suspects were left out, and the rows."""
    due = DUE if suspects else f"{DUE} and i.crashes < {CRASHES_OF_A_SUSPECT}"
    page = (PAGE_OF_IDS if of_ids else PAGE).format(due=due)
    columns = ", ".join("t." + name for name in INSTANCE_COLUMNS)
    return (
        f"with {FENCE}, {CLOCK}, {page}, {CHOSEN}, {TAKEN} "
        f"select now_us, (select count(*) from ranked where crashes >= {CRASHES_OF_A_SUSPECT} and suspects > 1), "
        f"{columns}, t.due_us from clock left join taken t on true order by t.due_us, t.id"
    )


def claim(
    worker: WorkerId,
    *,
    workflows: Sequence[str],
    limit: int,
    suspects: bool,
    ids: Sequence[InstanceId] | None,
    claim_key: int,
) -> Verb[Claims]:
    """Take what is due; see `claims.claim`."""
    now_us, dropped, taken = yield from _claim(worker, workflows, limit, ids, claim_key, suspects=suspects)
    if dropped and len(taken) < limit:
        # Suspects stood in the way of others behind them: once more without any.
        _, _, others = yield from _claim(worker, workflows, limit - len(taken), ids, claim_key, suspects=False)
        taken = [*taken, *others]
    return Claims(now_us=now_us, rows=tuple(row for row, _ in taken), due_us=tuple(due_us for _, due_us in taken))


def _claim(
    worker: WorkerId,
    workflows: Sequence[str],
    limit: int,
    ids: Sequence[InstanceId] | None,
    claim_key: int,
    *,
    suspects: bool,
) -> Verb[tuple[int, int, list[tuple[InstanceRow, int]]]]:
    where: tuple[Any, ...] = (list(workflows), limit) if ids is None else (list(workflows), list(ids))
    rows, _ = yield Statement(
        text_of(of_ids=ids is not None, suspects=suspects), (worker, *where, limit, worker, claim_key)
    )
    if not rows:
        raise Fenced
    taken = [(instance_row(row[2:-1]), int(row[-1])) for row in rows if row[2] is not None]
    return int(rows[0][0]), int(rows[0][1]), taken
