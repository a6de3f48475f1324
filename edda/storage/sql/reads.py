"""The statements behind `edda.storage.reads`: pages along an index, and counts that end somewhere.

It writes nothing and locks nothing. How a page is found: *candidates* are the keys of rows, newest first, from one walk
along an index for each pair of workflow and status that is wanted; what an index cannot tell is looked at in the rows
of the first `SCANNED_MAX` of them.
"""

# ruff: noqa: S608 - the only strings that go into statements are our own names of tables and columns

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from edda.core.commit import EventWait, OutboxMessage
from edda.core.history import InstanceId, WorkerId
from edda.core.lifecycle import Status
from edda.storage import reads
from edda.storage.outbox import DEAD, DELIVERED, PENDING
from edda.storage.reads import (
    LEASED,
    PAGE_MAX,
    SCANNED_MAX,
    Backlog,
    Backlogs,
    Ending,
    EventFilter,
    EventView,
    Handler,
    HistoryPage,
    InstanceCount,
    InstanceFilter,
    InstanceSummary,
    OutboxCount,
    OutboxView,
    Page,
    Wait,
    Workers,
    WorkerView,
    place_of,
    token_of,
)
from edda.storage.sql import search
from edda.storage.sql.condition import Condition, behind, equal, within_time
from edda.storage.sql.dialects.base import Dialect
from edda.storage.sql.rows import EVENT_LIST, HISTORY_LIST, history_event, inbox_event
from edda.storage.sql.search import FieldTerm
from edda.storage.sql.verb import Row, Statement, Verb

T = TypeVar("T")

SUMMARY_LIST: Final = ", ".join(f"i.{name}" for name in InstanceSummary._fields)
NEWEST: Final = "created_at_us desc, id desc"
WALKS_MAX: Final = 200
"""Pairs of workflow and status that are walked one by one; beyond them, the newest instances are looked at."""
NAMES_PER_STATEMENT: Final = 20
CHUNK: Final = 1000
"""Candidates whose arguments are fetched at a time."""


# -- instances --------------------------------------------------------------------------------------------------------


def clock(dialect: Dialect) -> Verb[int]:
    rows, _ = yield Statement(f"select {dialect.now}")
    return int(rows[0][0])


def schema_version() -> Verb[int]:
    rows, _ = yield Statement("select max(version) from edda_schema")
    return int(rows[0][0] or 0)


def workflow_names(dialect: Dialect) -> Verb[list[str]]:
    """Every name once."""
    rows, _ = yield Statement(dialect.distinct("workflow", "edda_instance", limit=reads.WORKFLOWS_MAX))
    return [row[0] for row in rows]


def instance_page(
    dialect: Dialect, which: InstanceFilter, *, limit: int, page: str | None
) -> Verb[Page[InstanceSummary]]:
    place = place_of(page, int, str) if page is not None else None
    terms = yield from search.terms_for(which)
    walks, rest = yield from _walks(dialect, which, place, terms)
    if not walks:  # no workflow has any instance
        return Page(rows=())
    scanning = which.is_scanning() or bool(rest.text)
    bound = SCANNED_MAX if scanning else limit + 1
    candidates = _candidates(dialect, walks, bound)
    source = Condition(f"({candidates.text}) k join edda_instance i on i.id = k.id", candidates.params)
    looked = rest & _looked_at(dialect, which)
    if which.argument is not None:
        found = yield from _with_argument(source, looked, which.argument, search.known_by(dialect, terms), limit + 1)
    else:
        found = yield from _summaries(source, looked, limit + 1)
    if len(found) > limit:
        last = found[limit - 1]
        return Page(rows=tuple(found[:limit]), next_page=token_of(last.created_at_us, last.id))
    if not scanning:
        return Page(rows=tuple(found))
    last_looked_at = yield from _place_of_the_cut(_candidates(dialect, walks, bound + 1), bound)
    return Page(rows=tuple(found), next_page=last_looked_at, scanned_all=last_looked_at is None)


def _place_of_the_cut(candidates: Condition, bound: int) -> Verb[str | None]:
    """Of the last candidate that was looked at; None if there is none behind it."""
    rows, _ = yield Statement(
        f"select created_at_us, id from ({candidates.text}) k order by {NEWEST} limit 2 offset {bound - 1:d}",
        candidates.params,
    )
    return token_of(int(rows[0][0]), rows[0][1]) if len(rows) == 2 else None


def _walks(
    dialect: Dialect, which: InstanceFilter, place: tuple[Any, Any] | None, terms: Sequence[FieldTerm]
) -> Verb[tuple[list[Condition], Condition]]:
    """Selects of keys along a stretch of one index each; and what is left to be looked at in their rows."""
    stretch = within_time("created_at_us", which.created_from_us, which.created_before_us)
    stretch &= behind(("created_at_us", "id"), place)
    statuses = _one_of(dialect, "i.status", [status.value for status in sorted(which.statuses)])
    workflows = _one_of(dialect, "i.workflow", sorted(which.workflows))
    if which.parent_id:
        walk = equal("parent_id", which.parent_id) & stretch & prefix_of(which.id_prefix)
        return [_keys(walk)], statuses & workflows
    prefix = Condition()
    if which.id_prefix:
        if not (yield from _has_many(which.id_prefix)):
            return [_keys(prefix_of(which.id_prefix) & stretch)], statuses & workflows
        prefix = prefix_of(which.id_prefix, column="i.id")
    anything = not which.statuses and not which.workflows
    if anything and not terms:
        return [_keys(stretch)], prefix
    names = sorted(which.workflows) or (yield from workflow_names(dialect))
    since = {term.workflow: term.since_us for term in terms if term.workflow in names}
    by_terms = len(since) == len(names)  # which every one of them declares
    pairs = [(name, status) for name in names for status in sorted(which.statuses or Status)]
    if len(pairs) > WALKS_MAX or len(names) == reads.WORKFLOWS_MAX or (anything and not by_terms):
        return [_keys(stretch)], statuses & workflows & prefix
    found = [search.keys_of(term, which, place) for term in terms if by_terms]
    found += [
        _keys(equal("workflow", name) & equal("status", status.value) & stretch & _before(since.get(name), by_terms))
        for name, status in pairs
    ]
    return found, prefix & statuses if by_terms else prefix


def _keys(walk: Condition) -> Condition:
    return Condition(f"select id, created_at_us from edda_instance{walk.where}", walk.params)


def _before(since_us: int | None, by_terms: bool) -> Condition:
    """What is found by terms need not be walked along as well."""
    return within_time("created_at_us", None, since_us if by_terms else None)


def _one_of(dialect: Dialect, column: str, values: Sequence[str]) -> Condition:
    return Condition(*dialect.within(column, values)) if values else Condition()


def _has_many(prefix: str) -> Verb[bool]:
    condition = prefix_of(prefix)
    rows, _ = yield Statement(
        f"select 1 from edda_instance{condition.where} order by id limit 1 offset {reads.PREFIX_MAX:d}",
        condition.params,
    )
    return bool(rows)


def prefix_of(prefix: str, *, column: str = "id") -> Condition:
    """A range of keys, which are compared byte by byte."""
    if not prefix:
        return Condition()
    begin = Condition(f"{column} >= ?", (prefix,))
    end = _after_prefix(prefix)
    return begin & Condition(f"{column} < ?", (end,)) if end else begin


def _after_prefix(prefix: str) -> str:
    """The first text behind all that begin like this; empty where there is none."""
    while prefix:
        point = ord(prefix[-1]) + 1
        if point == 0xD800:  # surrogates are no characters
            point = 0xE000
        if point <= 0x10FFFF:
            return prefix[:-1] + chr(point)
        prefix = prefix[:-1]
    return ""


def _candidates(dialect: Dialect, walks: Sequence[Condition], bound: int) -> Condition:
    """The select of the newest keys, over all walks."""
    branches = [f"{walk.text} order by {NEWEST} limit {bound:d}" for walk in walks]
    params = tuple(param for walk in walks for param in walk.params)
    if len(branches) == 1:
        return Condition(branches[0], params)
    text = f"select id, created_at_us from ({dialect.union(branches)}) walked order by {NEWEST} limit {bound:d}"
    return Condition(text, params)


def _looked_at(dialect: Dialect, which: InstanceFilter) -> Condition:
    """What no index tells."""
    condition = within_time("i.updated_at_us", which.updated_from_us, which.updated_before_us)
    if which.text:
        text = which.text.lower()
        condition &= Condition(
            f"({dialect.position('lower(i.reason)')} > 0 or {dialect.position('lower(i.error)')} > 0)", (text, text)
        )
    if which.argument is not None and (needle := reads.needle_of(which.argument[1])):
        condition &= Condition(f"{dialect.position('i.input')} > 0", (needle,))
    return condition


def _summaries(source: Condition, looked: Condition, limit: int) -> Verb[list[InstanceSummary]]:
    rows, _ = yield Statement(
        f"select {SUMMARY_LIST} from {source.text}{looked.where} "
        f"order by k.created_at_us desc, k.id desc limit {limit:d}",
        source.params + looked.params,
    )
    return [_summary(row) for row in rows]


def _summary(row: Row) -> InstanceSummary:
    summary = InstanceSummary._make(row)
    return summary._replace(status=Status(summary.status))


def _with_argument(
    source: Condition, looked: Condition, argument: tuple[str, Any], known: Condition, limit: int
) -> Verb[list[InstanceSummary]]:
    """The database finds where the text of the value stands anywhere; whether it is that argument is decided here, or
    `known` by its terms."""
    found: list[InstanceSummary] = []
    offset = 0
    while len(found) < limit:
        rows, _ = yield Statement(
            f"select {SUMMARY_LIST}, i.input, {known.text} from {source.text}{looked.where} "
            f"order by k.created_at_us desc, k.id desc limit {CHUNK} offset {offset:d}",
            known.params + source.params + looked.params,
        )
        found += [_summary(row[:-2]) for row in rows if row[-1] or reads.has_argument(row[-2], *argument)]
        offset += CHUNK
        if len(rows) < CHUNK:
            break
    return found[:limit]


def instance_counts(dialect: Dialect) -> Verb[tuple[InstanceCount, ...]]:
    """Each pair of workflow and status is a stretch of one index."""
    branches = [
        f"select {{place}} as place, '{status.value}' as status, count(*) as n from "
        f"(select 1 as one from edda_instance where workflow = ? and status = '{status.value}' "
        f"limit {reads.COUNT_MAX + 1}) counted"
        for status in sorted(Status)
    ]
    found: list[InstanceCount] = []
    every: list[str] = yield from workflow_names(dialect)
    for names in chunks(every):
        rows = yield from _for_each(names, branches)
        for place, status, many in rows:
            if many:
                count, is_capped = capped(int(many))
                found.append(InstanceCount(names[int(place)], Status(status), count, is_capped))
    return tuple(sorted(found, key=lambda one: (one.workflow, one.status)))


def chunks(names: list[str]) -> list[list[str]]:
    return [names[start : start + NAMES_PER_STATEMENT] for start in range(0, len(names), NAMES_PER_STATEMENT)]


def _for_each(names: Sequence[str], branches: Sequence[str], *more: Any) -> Verb[Sequence[Row]]:
    """The branches for each workflow, in one statement; `{place}` becomes the place of the name."""
    texts = [branch.format(place=place) for place in range(len(names)) for branch in branches]
    params = [param for name in names for _ in branches for param in (name, *more)]
    rows, _ = yield Statement(" union all ".join(texts), params)
    return rows


def capped(count: int, *, at: int | None = None) -> tuple[int, bool]:
    most = reads.COUNT_MAX if at is None else at
    return min(count, most), count > most


def errors(dialect: Dialect, ids: Sequence[InstanceId]) -> Verb[dict[InstanceId, str]]:
    condition, params = dialect.within("id", sorted(ids))
    rows, _ = yield Statement(f"select id, error from edda_instance where {condition} and error is not null", params)
    return {row[0]: row[1] for row in rows}


def has_result(instance_id: InstanceId, output: str) -> Verb[bool]:
    """It reads the rows of one instance; which of them it is, no index says."""
    rows, _ = yield Statement(
        "select 1 from edda_history where instance_id = ? and output = ? limit 1", (instance_id, output)
    )
    return bool(rows)


def history_page(instance_id: InstanceId, *, from_seq: int, limit: int, latest: bool) -> Verb[HistoryPage]:
    if latest:
        rows, _ = yield Statement(
            f"select {HISTORY_LIST} from edda_history where instance_id = ? order by seq desc limit ?",
            (instance_id, limit),
        )
        return HistoryPage(tuple(history_event(row) for row in reversed(rows)), None)
    rows, _ = yield Statement(
        f"select {HISTORY_LIST} from edda_history where instance_id = ? and seq >= ? order by seq limit ?",
        (instance_id, from_seq, limit + 1),
    )
    events = tuple(history_event(row) for row in rows)
    return HistoryPage(events[:limit], events[limit].seq if len(events) > limit else None)


def endings(dialect: Dialect, workflow: str, *, limit: int) -> Verb[tuple[Ending, ...]]:
    walks = [_keys(equal("workflow", workflow) & equal("status", status.value)) for status in sorted(Status)]
    candidates = _candidates(dialect, walks, limit)
    rows, _ = yield Statement(
        f"select i.status, i.created_at_us, i.ended_at_us from ({candidates.text}) k "
        "join edda_instance i on i.id = k.id order by k.created_at_us desc, k.id desc",
        candidates.params,
    )
    return tuple(Ending(Status(row[0]), row[1], row[2]) for row in rows)


# -- waits and events -------------------------------------------------------------------------------------------------


def waits_of(instance_id: InstanceId) -> Verb[tuple[EventWait, ...]]:
    rows, _ = yield Statement(
        f"select call_id, type, route from edda_wait where instance_id = ? order by call_id limit {PAGE_MAX}",
        (instance_id,),
    )
    return tuple(EventWait(*row) for row in rows)


def wait_page(*, type: str, limit: int, page: str | None) -> Verb[Page[Wait]]:
    place = place_of(page, str, str) if page is not None else ("", "")
    condition = Condition("instance_id >= ? and (instance_id > ? or call_id > ?)", (place[0], place[0], place[1]))
    key = "instance_id, call_id"
    walk = Walk(table="edda_wait", key=key, columns=f"{key}, type, route", stretch=condition, order=key)
    return (yield from _walked(walk, equal("type", type), _wait_view, lambda row: (row[0], row[1]), limit=limit))


def _wait_view(row: Row) -> Wait:
    return Wait(row[0], EventWait(*row[1:4]))


def event_page(which: EventFilter, *, limit: int, page: str | None) -> Verb[Page[EventView]]:
    place = place_of(page, int, str) if page is not None else None
    condition = equal("type", which.type) & equal("target", which.target)
    condition &= Condition("routed = 0") if which.unrouted else Condition()
    condition &= behind(("accepted_at_us", "event_key"), place)
    walk = Walk(
        table="edda_inbox",
        key="event_key",
        columns=f"{EVENT_LIST}, routed",
        stretch=condition,
        order="accepted_at_us desc, event_key desc",
    )
    looked = equal("source", which.source) & equal("id", which.id)
    return (yield from _walked(walk, looked, _event_view, lambda row: (int(row[12]), row[0]), limit=limit))


def _event_view(row: Row) -> EventView:
    return EventView(*inbox_event(row), routed=bool(row[13]))


def handlers() -> Verb[tuple[Handler, ...]]:
    rows, _ = yield Statement(
        f"select type, workflow, until_us from edda_inbox_handler order by type, workflow limit {reads.WORKFLOWS_MAX}"
    )
    return tuple(Handler(*row) for row in rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """A list along an index."""

    table: str
    key: str
    columns: str
    stretch: Condition
    """What the index tells."""
    order: str

    def text(self, columns: str) -> str:
        return f"select {columns} from {self.table}{self.stretch.where} order by {self.order}"


def _walked(
    walk: Walk, looked: Condition, view: Callable[[Row], T], place: Callable[[Row], tuple[Any, ...]], *, limit: int
) -> Verb[Page[T]]:
    """A page along an index; `looked` is looked at in the first candidates, where there is such a condition."""
    if not looked.text:
        rows, _ = yield Statement(f"{walk.text(walk.columns)} limit {limit + 1:d}", walk.stretch.params)
        token = token_of(*place(rows[limit - 1])) if len(rows) > limit else None
        return Page(rows=tuple(view(row) for row in rows[:limit]), next_page=token)
    rows, _ = yield Statement(
        # Keys first: the index alone has them, where whole rows would be sorted.
        f"select {walk.columns} from ({walk.text(walk.key)} limit {SCANNED_MAX}) k "
        f"join {walk.table} using ({walk.key}){looked.where} order by {walk.order} limit {limit + 1:d}",
        walk.stretch.params + looked.params,
    )
    found = tuple(view(row) for row in rows[:limit])
    if len(rows) > limit:
        return Page(rows=found, next_page=token_of(*place(rows[limit - 1])))
    rows, _ = yield Statement(f"{walk.text(walk.columns)} limit 2 offset {SCANNED_MAX - 1:d}", walk.stretch.params)
    cut = len(rows) == 2
    return Page(rows=found, next_page=token_of(*place(rows[0])) if cut else None, scanned_all=not cut)


# -- outbox -----------------------------------------------------------------------------------------------------------

OUTBOX_FIELDS: Final = (*OutboxMessage._fields, "status", "attempts", "due_at_us", "relayer", "reason")
MESSAGE_KEY: Final = "instance_id, seq, ordinal"
VIEW_LIST: Final = ", ".join("bytes" if name == "blob" else name for name in OUTBOX_FIELDS)
WIDTH: Final = len(OutboxMessage._fields)


def outbox_page(*, status: str, instance_id: str, type: str, limit: int, page: str | None) -> Verb[Page[OutboxView]]:
    place = place_of(page, int, str, int, int) if page is not None else None
    if instance_id:
        return (yield from _outbox_of(instance_id, type=type, limit=limit, place=place))
    stored = PENDING if status == LEASED else status
    downwards = "" if stored == PENDING else " desc"
    order = ", ".join(f"{name}{downwards}" for name in ("due_at_us", "instance_id", "seq", "ordinal"))
    condition = equal("status", stored) & _behind_message(place, "<" if downwards else ">")
    looked = equal("type", type) & (Condition("relayer is not null") if status == LEASED else Condition())
    walk = Walk(table="edda_outbox", key=MESSAGE_KEY, columns=VIEW_LIST, stretch=condition, order=order)
    return (yield from _walked(walk, looked, _outbox_view, _place_of_message, limit=limit))


def _place_of_message(row: Row) -> tuple[Any, ...]:
    return int(row[WIDTH + 2]), row[1], int(row[2]), int(row[3])


def _behind_message(place: tuple[Any, ...] | None, sign: str) -> Condition:
    if place is None:
        return Condition()
    due_us, instance_id, seq, ordinal = place
    text = (
        f"due_at_us {sign}= ? and (due_at_us {sign} ? or instance_id {sign} ? "
        f"or (instance_id = ? and (seq {sign} ? or (seq = ? and ordinal {sign} ?))))"
    )
    return Condition(text, (due_us, due_us, instance_id, instance_id, seq, seq, ordinal))


def _outbox_of(instance_id: str, *, type: str, limit: int, place: tuple[Any, ...] | None) -> Verb[Page[OutboxView]]:
    condition = Condition("instance_id = ?", (instance_id,))
    if place is not None:
        condition &= Condition("(seq > ? or (seq = ? and ordinal > ?))", (place[2], place[2], place[3]))
    walk = Walk(table="edda_outbox", key=MESSAGE_KEY, columns=VIEW_LIST, stretch=condition, order=MESSAGE_KEY)
    return (
        yield from _walked(
            walk, equal("type", type), _outbox_view, lambda row: (0, *_place_of_message(row)[1:]), limit=limit
        )
    )


def _outbox_view(row: Row) -> OutboxView:
    return OutboxView(OutboxMessage(*row[:WIDTH]), *row[WIDTH:])


def outbox_counts() -> Verb[tuple[OutboxCount, ...]]:
    branches = [
        f"select '{status}' as status, count(*) as n from (select 1 as one from edda_outbox where status = '{status}' "
        f"limit {reads.COUNT_MAX + 1}) counted"
        for status in (DEAD, DELIVERED, PENDING)
    ]
    rows, _ = yield Statement(" union all ".join(branches))
    return tuple(OutboxCount(status, *capped(int(count))) for status, count in sorted(map(tuple, rows)) if count)


# -- workers ----------------------------------------------------------------------------------------------------------


def worker_views(dialect: Dialect, *, limit: int) -> Verb[Workers]:
    now_us = yield from clock(dialect)
    rows, _ = yield Statement("select owner, count(*) from edda_instance where owner is not null group by owner")
    held = {row[0]: int(row[1]) for row in rows}
    rows, _ = yield Statement(
        f"select id, service, state, {dialect.present('id')}, lease_until_us, started_at_us, workflows "
        "from edda_worker "
        # By a word: 'alive' comes before 'dead'.
        f"order by state, started_at_us desc, id limit {limit:d}"
    )
    views = [
        WorkerView(
            WorkerId(row[0]), row[1], row[2] == "alive", None if row[3] is None else bool(row[3]),
            int(row[4]), int(row[5]), held.get(row[0], 0),
            None if row[6] is None else tuple(json.loads(row[6])),
        )
        for row in rows
    ]  # fmt: skip
    return Workers(now_us=now_us, rows=tuple(views))


def backlogs(dialect: Dialect) -> Verb[Backlogs]:
    now_us = yield from clock(dialect)
    branch = (
        "select {place} as place, count(*) as n, min(claimable_at_us) as oldest_us from (select claimable_at_us "
        f"from edda_instance{dialect.by_claim_index} where workflow = ? and owner is null and claimable_at_us <= ? "
        f"order by claimable_at_us limit {SCANNED_MAX + 1}) due"
    )
    found: list[Backlog] = []
    for names in chunks((yield from workflow_names(dialect))):
        rows = yield from _for_each(names, [branch], now_us)
        found += [
            Backlog(names[place], *capped(int(count), at=SCANNED_MAX), int(oldest_us))
            for place, count, oldest_us in rows
            if count
        ]
    return Backlogs(now_us=now_us, rows=tuple(sorted(found)))
