"""The inbox in SQL: storing events with their routes, learning new fields, forgetting what is old.

How events and waits find each other is in `mail`.
"""

# ruff: noqa: S608 - the only strings that go into statements are our own names of tables and columns

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from edda.core.event import CloudEvent, Receipt
from edda.core.lifecycle import ENDED, Status
from edda.core.routing import EventKey, Fields, Route, event_key, fields_from, fields_text, route_of, routes_of
from edda.core.subscription import Subscription
from edda.storage.sql.dialects.base import Dialect
from edda.storage.sql.rows import EVENT_LIST, inbox_event, inbox_row, insert, words
from edda.storage.sql.schema import INBOX, INBOX_COLUMNS, INBOX_FIELDS, INBOX_HANDLER, INBOX_ROUTE
from edda.storage.sql.verb import Statement, Verb

INSERT_EVENT: Final = insert("edda_inbox", INBOX_COLUMNS)
INSERT_ROUTE: Final = insert("edda_inbox_route", ("route", "accepted_at_us", "event_key"))
PAGE: Final = 1000
"""Rows read at once."""


def accept(dialect: Dialect, events: Sequence[CloudEvent]) -> Verb[tuple[Receipt, ...]]:
    """Store events that are not there yet, with their routes."""
    keys = [event_key(event) for event in events]
    first: dict[EventKey, CloudEvent] = {}
    for key, event in zip(keys, events, strict=True):
        first.setdefault(key, event)
    refused = yield from _refused(dialect, first)
    fresh = {key: event for key, event in first.items() if key not in refused}
    stored = (yield from _store(dialect, fresh)) if fresh else set[EventKey]()
    receipts: list[Receipt] = []
    for key in keys:
        receipts.append(refused.get(key) or (Receipt.STORED if key in stored else Receipt.DUPLICATE))
        stored.discard(key)  # the same once more
    return tuple(receipts)


def _refused(dialect: Dialect, events: Mapping[EventKey, CloudEvent]) -> Verb[dict[EventKey, Receipt]]:
    """Those addressed to an instance that takes no events, unless they came before: then they are duplicates."""
    targets = {key: event.target for key, event in events.items() if event.target is not None}
    addressees = yield from _addressees(dialect, list(targets.values()))
    refused: dict[EventKey, Receipt] = {}
    for key, target in targets.items():
        if target not in addressees:
            refused[key] = Receipt.NO_SUCH_INSTANCE
        elif addressees[target] in ENDED:
            refused[key] = Receipt.INSTANCE_ENDED
    if refused:
        condition, params = dialect.within("event_key", sorted(refused))
        rows, _ = yield Statement(f"select event_key from edda_inbox where {condition}", params)
        for (key,) in rows:
            refused[key] = Receipt.DUPLICATE
    return refused


def _store(dialect: Dialect, fresh: Mapping[EventKey, CloudEvent]) -> Verb[set[EventKey]]:
    """Returns which of them were not there. Others may store the same at the same moment: only one gives it routes,
    with the time that stands in its row, or expiry would not find them again."""
    now_us, sets, _ = yield from known_of(dialect, {event.type for event in fresh.values()})
    timed = {key: now_us + place for place, key in enumerate(fresh)}
    rows = [
        inbox_row(event, timed[key], key=key, indexed=len(sets.get(event.type, ())))
        for key, event in sorted(fresh.items())
    ]
    routes = route_rows([(key, timed[key], event) for key, event in fresh.items()], sets)
    at_once = dialect.store_events(rows, routes)
    if at_once is not None:
        return (yield from at_once)
    yield Statement(INSERT_EVENT + dialect.if_absent_in(INBOX), rows, many=True)
    condition, params = dialect.within("event_key", sorted(fresh))
    found, _ = yield Statement(f"select event_key, accepted_at_us from edda_inbox where {condition}", params)
    stored = {EventKey(key) for key, at_us in found if int(at_us) == timed[key]}
    yield from insert_routes(dialect, [row for row in routes if row[2] in stored])
    return stored


def _addressees(dialect: Dialect, targets: Sequence[str]) -> Verb[dict[str, Status]]:
    if not targets:
        return {}
    condition, params = dialect.within("id", sorted(set(targets)))
    rows, _ = yield Statement(f"select id, status from edda_instance where {condition}", params)
    return {row[0]: Status(row[1]) for row in rows}


RouteRow = tuple[Route, int, EventKey]


def route_rows(
    events: Iterable[tuple[EventKey, int, CloudEvent]], sets: Mapping[str, Iterable[Fields]]
) -> list[RouteRow]:
    """The routes of those that are addressed to nobody in particular. In one order: two who write the same do not
    deadlock."""
    return sorted(
        (found, at_us, key)
        for key, at_us, event in events
        if event.target is None
        for found in routes_of(event, sets.get(event.type, ())).values()
    )


def insert_routes(dialect: Dialect, rows: Sequence[RouteRow]) -> Verb[None]:
    if rows:
        yield Statement(INSERT_ROUTE + dialect.if_absent_in(INBOX_ROUTE), rows, many=True)


def subscribe(dialect: Dialect, subscriptions: Sequence[Subscription], *, lasting_us: int) -> Verb[None]:
    """From now on, and for so long, events of these types start these workflows."""
    now_us = yield from read_clock(dialect)
    rows = [(one.type, one.workflow, one.takes, now_us + lasting_us) for one in sorted(subscriptions)]
    columns = ("type", "workflow", "takes", "until_us")
    yield Statement(insert("edda_inbox_handler", columns) + dialect.or_replace(INBOX_HANDLER), rows, many=True)


def read_clock(dialect: Dialect) -> Verb[int]:
    rows, _ = yield Statement(f"select {dialect.now}")
    return int(rows[0][0])


# -- fields -----------------------------------------------------------------------------------------------------------


class Known(NamedTuple):
    """What is known of some types of events, and the time."""

    now_us: int
    sets: dict[str, list[Fields]]
    """By type: the sets of fields that waits use."""
    subscriptions: list[Subscription]
    """The valid ones."""


def known_of(dialect: Dialect, types: Collection[str]) -> Verb[Known]:
    """In one question."""
    those, params = dialect.within("type", sorted(types))
    rows, _ = yield Statement(
        f"select {dialect.now}, k.type, k.fields, k.workflow, k.takes from (select 1) one left join ("
        f"select type, fields, null as workflow, null as takes from edda_inbox_fields where {those} union all "
        f"select type, null, workflow, takes from edda_inbox_handler where {those} and until_us > {dialect.now}"
        ") k on 1 = 1",
        (*params, *params),
    )
    known = Known(int(rows[0][0]), {}, [])
    for _, event_type, fields, handler, takes in rows:
        if fields is not None:
            known.sets.setdefault(event_type, []).append(fields_from(fields))
        elif handler is not None:
            known.subscriptions.append(Subscription(event_type, handler, takes))
    return known


def announce_fields(dialect: Dialect, event_type: str, fields: Fields, *, since_us: int) -> Verb[int | None]:
    """Say that events need a route for these fields. Returns up to when older ones are to be given it; None: none."""
    text = fields_text(fields)
    known = "select since_us from edda_inbox_fields where type = ? and fields = ?"
    rows, _ = yield Statement(known, (event_type, text))
    if not rows:
        now_us = yield from read_clock(dialect)
        yield Statement(
            insert("edda_inbox_fields", ("type", "fields", "since_us")) + dialect.if_absent_in(INBOX_FIELDS),
            (event_type, text, now_us + FOREVER_US),
        )
        return now_us + FOREVER_US
    return None if rows[0][0] <= since_us else int(rows[0][0])


FOREVER_US: Final = 10**15
"""Later than anything: no event has the new route yet."""


def backfill(
    dialect: Dialect, event_type: str, fields: Fields, *, since_us: int, after: tuple[int, str]
) -> Verb[tuple[int, str] | None]:
    """Give one page of older events their route for these fields. Returns where to go on; None at the end."""
    rows, _ = yield Statement(
        # The first comparison says where in the index to begin; what has an OR in it does not.
        f"select {EVENT_LIST} from edda_inbox where type = ? and accepted_at_us >= ? "
        "and (accepted_at_us > ? or event_key > ?) "
        f"order by accepted_at_us, event_key limit {PAGE}",
        (event_type, max(since_us, after[0]), after[0], after[1]),
    )
    found: list[tuple[Route, int, EventKey]] = []
    for row in rows:
        stored = inbox_event(row)
        one = route_of(stored.event, fields) if stored.event.target is None else None
        if one is not None:
            found.append((one, stored.accepted_at_us, stored.key))
    yield from insert_routes(dialect, sorted(found))
    if len(rows) == PAGE:
        return int(rows[-1][12]), rows[-1][0]
    yield Statement(
        "update edda_inbox_fields set since_us = ? where type = ? and fields = ? and since_us > ?",
        (since_us, event_type, fields_text(fields), since_us),
    )
    return None


# -- forgetting -------------------------------------------------------------------------------------------------------


def expire(dialect: Dialect, *, before_us: int, limit: int) -> Verb[int]:
    """Delete old events with their routes, but for those of instances that go on."""
    rows, _ = yield Statement(
        # As a value and not as `not exists`: PostgreSQL would read all instances to have those of a page.
        f"select {EVENT_LIST} from edda_inbox where accepted_at_us < ? and (target is null or coalesce("
        f"(select i.status from edda_instance i where i.id = target), '{Status.COMPLETED}') in ({words(ENDED)})) "
        f"order by accepted_at_us, event_key limit {limit:d}",
        (before_us,),
    )
    if not rows:
        return 0
    events = [inbox_event(row) for row in rows]
    known = yield from known_of(dialect, {stored.event.type for stored in events})
    routes = route_rows([(stored.key, stored.accepted_at_us, stored.event) for stored in events], known.sets)
    if routes:
        yield Statement(
            "delete from edda_inbox_route where route = ? and accepted_at_us = ? and event_key = ?", routes, many=True
        )
    condition, params = dialect.within("event_key", sorted(stored.key for stored in events))
    # Another process may have deleted them since, and the sender of one may have sent it again: that one is new.
    yield Statement(f"delete from edda_inbox where {condition} and accepted_at_us < ?", (*params, before_us))
    return len(events)
