"""A batch as one statement of PostgreSQL: a chain of CTEs of which only those are present that the batch needs.

It decides what `judge` decides in Python, and the model is the judge of both. Laws:
- `fence` locks the worker's row with KEY SHARE, and everything that is written selects from it. If a reaper holds it
  FOR UPDATE, the fence waits, looks again, and finds the worker dead: nothing is written.
- `locked` locks instances in the order of their ids, after the fence, and shows their newest versions; all parts of a
  statement see the same snapshot otherwise, so each row is updated once, with all that happens to it.
- The commonest batch, steps only, is one insert behind the fence and touches no instance.
"""

# ruff: noqa: S608 - the only strings that go into statements are our own names of tables and columns

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from edda.core.commit import Batch, BatchOutcome, Commit, Creation, End, NewInstance, Park, Stay, Undo, Verdict
from edda.core.history import InstanceId, WorkerId
from edda.core.lifecycle import CANCELLABLE, ENDED, SET_ASIDE, Status
from edda.storage.port import Fenced
from edda.storage.sql.judge import targets
from edda.storage.sql.rows import NEW_INSTANCE_COLUMNS, inbox_row, new_instance_row, outbox_row, term_rows, words
from edda.storage.sql.schema import (
    HISTORY,
    HISTORY_COLUMNS,
    INBOX,
    INBOX_COLUMNS,
    INSTANCE,
    OUTBOX,
    OUTBOX_COLUMNS,
    SEARCH,
    SEARCH_COLUMNS,
    WAIT,
    WAIT_COLUMNS,
    Kind,
    Table,
    kinds,
)
from edda.storage.sql.verb import Statement, Verb

if TYPE_CHECKING:
    from edda.storage.sql.dialects.base import Dialect

NOW: Final = "(extract(epoch from clock_timestamp()) * 1000000)::bigint"
ARRAYS: Final = {
    Kind.KEY: "?::varchar[]",
    Kind.WORD: "?::varchar[]",
    Kind.TEXT: "?::text[]",
    Kind.BYTES: "?::bytea[]",
    Kind.INTEGER: "?::bigint[]",
    Kind.FLAG: "?::smallint[]",
}
NO_COMMIT: Final = -1
"""The number of a commit whose fate depends on nothing: it is in no row of `change`."""


class Parts(NamedTuple):
    """Which parts a batch needs."""

    history: bool
    rows: bool
    outbox: bool
    created: bool
    terms: bool
    waits: bool
    waits_over: bool
    posts: bool


def arrays(table: Table, columns: tuple[str, ...]) -> str:
    """A parameter for each column, with the values of all rows."""
    return ", ".join(ARRAYS[kind] for kind in kinds(table, columns))


# The worker is alive, and stays so until this statement is over.
FENCE: Final = """fence as materialized (
  select id from edda_worker where id = ? and state = 'alive' for key share)"""

# The time after waiting for the fence.
CLOCK: Final = f"""clock as materialized (
  select {NOW} as now_us from fence)"""

# The instances that may change, in everybody's order of locking.
LOCKED: Final = """locked as materialized (
  select id, owner, claim, status, reason, wakes, claimable_at_us, cancel_requested_at_us, cancelled_by
  from edda_instance where id = any(?::text[]) and exists (select from fence) order by id for update)"""

# The verdict on each commit that parks, turns to undoing or ends: `judge._verdict`.
CHANGE: Final = """change as materialized (
  select c.*, l.cancel_requested_at_us is not null as cancelled, case
      when l.id is null or l.owner is distinct from ?::text or l.claim <> c.claim then 'claim lost'
      when c.yields and l.cancel_requested_at_us is not null then 'cancel first'
      when c.what = 'park' and l.wakes <> c.seen_wakes then 'woken'
      else 'committed' end as verdict
  from unnest(?::bigint[], ?::text[], ?::bigint[], ?::text[], ?::text[], ?::text[], ?::bigint[], ?::bigint[],
              ?::text[], ?::bytea[], ?::text[], ?::boolean[])
    as c(n, id, claim, what, status, reason, due_us, seen_wakes, output, bytes, error, yields)
  left join locked l on l.id = c.id),
refused as materialized (
  select n from change where verdict in ('claim lost', 'cancel first'))"""

# Rows after their change: `judge._change`.
CHANGED: Final = f"""changed as (
  select l.id, c.verdict in ('committed', 'woken') as changes, c.what = 'end' as ends,
    coalesce(c.status, l.status) as status, coalesce(c.reason, l.reason) as reason,
    case when c.what in ('park', 'end') then null else l.owner end as owner, l.wakes,
    case when c.what = 'park' then case when c.verdict = 'woken' then now_us else c.due_us end
         when c.what = 'end' then
           case when c.cancelled and l.status <> 'compensating' and c.status in ({words(SET_ASIDE)}) then now_us end
         else l.claimable_at_us end as claimable_at_us,
    l.cancel_requested_at_us, l.cancelled_by, c.output, c.bytes, c.error, now_us
  from clock, locked l
  left join change c on c.id = l.id and c.verdict in ('committed', 'woken'))"""

# And after being woken: `judge._wake`.
WOKEN: Final = f"""wake as (
  select w.id, count(*) as times from unnest(?::bigint[], ?::text[]) as w(n, id)
  where w.n not in (select n from refused) group by w.id),
woken as (
  select r.*, r.wakes + coalesce(w.times, 0) as wakes_then, w.id is not null as wakes_up,
    case when w.id is not null and r.owner is null then least(coalesce(r.claimable_at_us, now_us), now_us)
         else r.claimable_at_us end as claimable_then
  from changed r left join wake w on w.id = r.id and r.status not in ({words(ENDED | SET_ASIDE)}))"""

# And after being cancelled: `judge._cancel`. The first one who asks is remembered.
CANCELLED: Final = f"""cancel as (
  select distinct on (c.id) c.id, c.by
  from unnest(?::bigint[], ?::text[], ?::text[]) with ordinality as c(n, id, by, place)
  where c.n not in (select n from refused) order by c.id, c.place),
cancelled as (
  select r.*, c.id is not null as cancels, c.by
  from woken r left join cancel c
    on c.id = r.id and r.cancel_requested_at_us is null and r.status in ({words(CANCELLABLE)}))"""

# Each row once, with all that happened to it.
UPDATED: Final = f"""updated as (
  update edda_instance i set
    status = r.status, reason = r.reason, owner = r.owner,
    wakes = r.wakes_then + case when r.cancels then 1 else 0 end,
    claimable_at_us = case when r.cancels and r.owner is null
      then least(coalesce(r.claimable_then, r.now_us), r.now_us) else r.claimable_then end,
    cancel_requested_at_us = case when r.cancels then r.now_us else r.cancel_requested_at_us end,
    cancelled_by = case when r.cancels then r.by else r.cancelled_by end,
    output = case when r.ends then r.output else i.output end,
    bytes = case when r.ends then r.bytes else i.bytes end,
    error = case when r.ends then r.error else i.error end,
    ended_at_us = case when r.ends then case when r.status in ({words(ENDED)}) then r.now_us end
                       else i.ended_at_us end,
    updated_at_us = r.now_us
  from cancelled r where i.id = r.id and (r.changes or r.wakes_up or r.cancels))"""


def _history(*, guarded: bool) -> str:
    """The new rows of history; `guarded`: only of commits that were accepted."""
    names = ", ".join(HISTORY_COLUMNS)
    values = arrays(HISTORY, HISTORY_COLUMNS)
    if not guarded:
        source = f"select h.* from clock, unnest({values}) as h"
    else:
        source = (
            f"select {', '.join('h.' + name for name in HISTORY_COLUMNS)} from clock, "
            f"unnest(?::bigint[], {values}) as h(n, {names}) where h.n not in (select n from refused)"
        )
    return f"recorded as (insert into edda_history ({names}) {source})"


def _outbox(*, guarded: bool) -> str:
    """The messages of accepted commits."""
    names = ", ".join(OUTBOX_COLUMNS)
    condition = " where m.n not in (select n from refused)" if guarded else ""
    return (
        f"sent as (insert into edda_outbox ({names}) select {', '.join('m.' + name for name in OUTBOX_COLUMNS)} "
        f"from clock, unnest(?::bigint[], {arrays(OUTBOX, OUTBOX_COLUMNS)}) as m(n, {names}){condition})"
    )


def _waits(*, guarded: bool) -> str:
    """What the instances of accepted commits wait for from now on."""
    names = ", ".join(WAIT_COLUMNS)
    condition = "n not in (select n from refused)" if guarded else "true"
    values = ", ".join(f"{name} = excluded.{name}" for name in WAIT.values)
    return (
        f"waiting as (insert into edda_wait ({names}) select {', '.join('w.' + name for name in WAIT_COLUMNS)} "
        f"from clock, unnest(?::bigint[], {arrays(WAIT, WAIT_COLUMNS)}) as w(n, {names}) where {condition} "
        f"on conflict (instance_id, call_id) do update set {values})"
    )


def _waits_over(*, guarded: bool) -> str:
    """And what they wait for no longer; no call means all of the instance."""
    condition = " and o.n not in (select n from refused)" if guarded else ""
    return (
        "over as (delete from edda_wait w using clock, unnest(?::bigint[], ?::text[], ?::text[]) "
        "as o(n, instance_id, call_id) "
        f"where w.instance_id = o.instance_id and (o.call_id is null or w.call_id = o.call_id){condition})"
    )


def _posts(*, guarded: bool) -> str:
    """Events for our own inbox, accepted now: what is in the place of the time is added to it."""
    names = ", ".join(INBOX_COLUMNS)
    chosen = ", ".join(f"now_us + p.{name}" if name == "accepted_at_us" else f"p.{name}" for name in INBOX_COLUMNS)
    condition = " where p.n not in (select n from refused)" if guarded else ""
    return (
        f"posted as (insert into edda_inbox ({names}) select {chosen} "
        f"from clock, unnest(?::bigint[], {arrays(INBOX, INBOX_COLUMNS)}) as p(n, {names}){condition} "
        "on conflict do nothing)"
    )


_TIMES: Final = ("claimable_at_us", "created_at_us", "updated_at_us")


def _created(*, guarded: bool) -> str:
    """Children of accepted commits, and starts, where absent. Any time given stands for the time of the batch."""
    names = ", ".join(NEW_INSTANCE_COLUMNS)
    chosen = ", ".join(
        f"case when c.{name} is not null then now_us end" if name in _TIMES else f"c.{name}"
        for name in NEW_INSTANCE_COLUMNS
    )
    condition = " where c.n not in (select n from refused)" if guarded else ""
    return (
        f"created as (insert into edda_instance ({names}) select {chosen} "
        f"from clock, unnest(?::bigint[], {arrays(INSTANCE, NEW_INSTANCE_COLUMNS)}) as c(n, {names}){condition} "
        "order by c.id, c.n on conflict do nothing returning id)"
    )


def _terms() -> str:
    """By which those that were created are found. The time is taken from the batch."""
    names = ", ".join(SEARCH_COLUMNS)
    return (
        f"termed as (insert into edda_search ({names}) select t.instance_id, t.term, now_us "
        f"from clock, unnest({arrays(SEARCH, SEARCH.key)}) as t(instance_id, term) "
        "where t.instance_id in (select id from created) on conflict do nothing)"
    )


@lru_cache(maxsize=128)
def text_of(parts: Parts) -> str:
    """The statement for batches that need these parts. Its parameters are those of `_params`, in the same order."""
    chain = [FENCE, CLOCK]
    if parts.rows:
        chain += [LOCKED, CHANGE, CHANGED, WOKEN, CANCELLED, UPDATED]
    if parts.history:
        chain.append(_history(guarded=parts.rows))
    if parts.outbox:
        chain.append(_outbox(guarded=parts.rows))
    if parts.created:
        chain.append(_created(guarded=parts.rows))
    if parts.terms:
        chain.append(_terms())
    if parts.waits:
        chain.append(_waits(guarded=parts.rows))
    if parts.waits_over:
        chain.append(_waits_over(guarded=parts.rows))
    if parts.posts:
        chain.append(_posts(guarded=parts.rows))
    verdicts = "(select array_agg(verdict order by n) from change)" if parts.rows else "null"
    created = "(select array_agg(id) from created)" if parts.created else "null"
    return f"with {', '.join(chain)} select now_us, {verdicts}, {created} from clock"


def write(dialect: Dialect, worker: WorkerId, batch: Batch) -> Verb[BatchOutcome]:
    """Write a batch; see `commits.write`."""
    parts, params, changing = _params(worker, batch)
    rows, _ = yield Statement(text_of(parts), params)
    if not rows:
        raise Fenced
    now_us, judged, inserted = rows[0]
    verdicts = [Verdict.COMMITTED] * len(batch.commits)
    for place, verdict in zip(changing, judged or (), strict=True):
        verdicts[place] = Verdict(verdict)
    creations: tuple[Creation, ...] = ()
    if batch.starts:
        creations = yield from _creations(dialect, worker, batch, verdicts, set(inserted or ()))
    return BatchOutcome(now_us=int(now_us), verdicts=tuple(verdicts), creations=creations)


def _creations(
    dialect: Dialect, worker: WorkerId, batch: Batch, verdicts: Sequence[Verdict], inserted: set[InstanceId]
) -> Verb[tuple[Creation, ...]]:
    """What became of the starts; for those that were there, a second statement looks whose they are.

    What was there, and was forgotten between the two, is started after all.
    """
    from edda.storage.sql.commits import ACCEPTED, existing

    for commit, verdict in zip(batch.commits, verdicts, strict=True):
        if verdict in ACCEPTED:
            inserted.difference_update(child.id for child in commit.children)
    creations: list[Creation | None] = []
    for new in batch.starts:
        if new.id in inserted:
            inserted.discard(new.id)
            creations.append(Creation(created=True, workflow=new.workflow, args_hash=new.args_hash))
        else:
            creations.append(None)
    absent = [new.id for new, creation in zip(batch.starts, creations, strict=True) if creation is None]
    known = (yield from existing(dialect, absent)) if absent else {}
    for place, new in enumerate(batch.starts):
        creations[place] = creations[place] or known.get(new.id)
    forgotten = [place for place, creation in enumerate(creations) if creation is None]
    if forgotten:
        again = yield from write(dialect, worker, Batch(starts=tuple(batch.starts[place] for place in forgotten)))
        for place, creation in zip(forgotten, again.creations, strict=True):
            creations[place] = creation
    return tuple(creation for creation in creations if creation is not None)


def _params(worker: WorkerId, batch: Batch) -> tuple[Parts, list[Any], list[int]]:
    """Which parts, the parameters of the statement, and the places of the commits that need a verdict."""
    commits = batch.commits
    locked = targets(commits)
    changing = [place for place, commit in enumerate(commits) if not isinstance(commit.row, Stay)] if locked else []
    numbered = _numbered(commits, frozenset(changing))
    params: list[Any] = [worker]
    if locked:
        params += [locked, worker, *_change_params(commits, changing)]
        params += _columns([(place, woken) for place, commit in numbered for woken in commit.wakes], 2)
        params += _columns(
            [(place, gone, commit.instance_id) for place, commit in numbered for gone in commit.cancels],
            3,
        )
    records = [record for commit in commits for record in commit.records]
    if records:
        if locked:
            params.append([place for place, commit in numbered for _ in commit.records])
        params += zip(*records, strict=True)
    messages = [(place, *outbox_row(message)) for place, commit in numbered for message in commit.outbox]
    if messages:
        params += zip(*messages, strict=True)
    news = [(place, child) for place, commit in numbered for child in commit.children]
    news += [(NO_COMMIT, new) for new in batch.starts]
    if news:
        params += zip(*(_new_row(place, new) for place, new in news), strict=True)
    terms = [row[:-1] for row in term_rows((new for _, new in news), 0)]
    if terms:
        params += zip(*terms, strict=True)
    waits = [(place, commit.instance_id, *wait) for place, commit in numbered for wait in commit.waits]
    over = [
        (place, commit.instance_id, call_id)
        for place, commit in numbered
        for call_id in ((None,) if commit.no_waits_left else commit.waits_over)
    ]
    posts = [
        (place, *inbox_row(post.event, nth)) for place, commit in numbered for nth, post in enumerate(commit.posts)
    ]
    for rows in (waits, over, posts):
        if rows:
            params += zip(*rows, strict=True)
    parts = Parts(
        history=bool(records),
        rows=bool(locked),
        outbox=bool(messages),
        created=bool(news),
        terms=bool(terms),
        waits=bool(waits),
        waits_over=bool(over),
        posts=bool(posts),
    )
    return parts, params, changing


def _new_row(place: int, new: NewInstance) -> tuple[Any, ...]:
    return (place, *new_instance_row(new, 0))


def _numbered(commits: Sequence[Commit], judged: frozenset[int]) -> list[tuple[int, Commit]]:
    """Each commit with its place, or `NO_COMMIT` where nothing can refuse it."""
    return [(place if place in judged else NO_COMMIT, commit) for place, commit in enumerate(commits)]


def _change_params(commits: Sequence[Commit], changing: Sequence[int]) -> list[list[Any]]:
    """The twelve columns of `change`."""
    rows: list[tuple[Any, ...]] = []
    for place in changing:
        commit = commits[place]
        head = (place, commit.instance_id, commit.claim)
        match commit.row:
            case Park(status=status, reason=reason, due_us=due_us, seen_wakes=seen):
                rows.append((*head, "park", status.value, reason, due_us, seen, None, None, None, False))
            case Undo(for_cancel=for_cancel):
                status = Status.COMPENSATING
                rows.append((*head, "undo", status.value, "", None, None, None, None, None, not for_cancel))
            case End(status=status, output=output, blob=blob, error=error, unless_cancelled=yields):
                rows.append((*head, "end", status.value, "", None, None, output, blob, error, yields))
            case _:
                raise AssertionError(f"{commit.row} changes no row")
    return _columns(rows, 12)


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Rows as columns, also where there are none."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]
