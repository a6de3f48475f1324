"""How events and waits find each other in SQL: `route` goes from events to waits, `look` from waits to events.

Locks are taken in the order instances by id, then inbox; routes are written in a transaction of their own, before the
one that reads the waits. See `edda.storage.inbox` for why.
"""

# ruff: noqa: S608 - the only strings that go into statements are our own names of tables and columns

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edda.core.event import CloudEvent
from edda.core.history import InstanceId
from edda.core.routing import EventKey, Fields, Route, routes_of
from edda.core.subscription import started_by
from edda.storage.inbox import FOUND_MAX, WOKEN_MAX, InboxEvent, Look, Routed
from edda.storage.sql.commits import INSERT_INSTANCE, lock
from edda.storage.sql.dialects.base import Dialect
from edda.storage.sql.inbox import PAGE, Known, insert_routes, known_of, read_clock, route_rows
from edda.storage.sql.judge import MOVED_COLUMNS, wake
from edda.storage.sql.rows import EVENT_LIST, inbox_event, new_instance_row
from edda.storage.sql.verb import Row, Statement, Verb

Sets = Mapping[str, Sequence[Fields]]
"""By event type: the sets of fields that waits use."""


# -- from an event to those who wait ----------------------------------------------------------------------------------


def route(dialect: Dialect, keys: Sequence[EventKey]) -> Verb[Routed]:
    """One step: write what routes are missing, or, in a later transaction, wake those who wait."""
    condition, params = dialect.within("event_key", keys)
    rows, _ = yield Statement(
        f"select {EVENT_LIST}, indexed, woken_to from edda_inbox where routed = 0 and {condition}", params
    )
    if not rows:
        return Routed()
    by_key = {row[0]: row for row in rows}
    chosen = {key: by_key[key] for key in keys if key in by_key}
    events = {key: inbox_event(row) for key, row in chosen.items()}
    known = yield from known_of(dialect, {found.event.type for found in events.values()})
    missing = [found for key, found in events.items() if chosen[key][13] < len(known.sets.get(found.event.type, ()))]
    if missing:
        yield from _index(dialect, missing, known.sets)
        return Routed(left=tuple(chosen))
    return (yield from _wake(dialect, events, {key: row[14] for key, row in chosen.items()}, known))


def _index(dialect: Dialect, missing: Sequence[InboxEvent], sets: Sets) -> Verb[None]:
    rows = route_rows([(one.key, one.accepted_at_us, one.event) for one in missing], sets)
    yield from insert_routes(dialect, rows)
    by_count: dict[int, list[EventKey]] = {}
    for one in missing:
        by_count.setdefault(len(sets.get(one.event.type, ())), []).append(one.key)
    for count, keys in by_count.items():
        condition, params = dialect.within("event_key", sorted(keys))
        yield Statement(f"update edda_inbox set indexed = ? where {condition}", (count, *params))


def _wake(
    dialect: Dialect, events: Mapping[EventKey, InboxEvent], woken_to: Mapping[EventKey, str], known: Known
) -> Verb[Routed]:
    """Wake who waits for these events; where those are too many for one step, who waits for the first of them."""
    found, more = yield from _waiting(dialect, events, woken_to, known.sets)
    left: tuple[EventKey, ...] = ()
    if more or len(set[InstanceId]().union(*found.values())) > WOKEN_MAX:
        # Anew, for the first alone: a page that was cut off may show nothing of one event, and too little of others.
        first, *others = events
        found, more = yield from _waiting(dialect, {first: events[first]}, woken_to, known.sets)
        left = (first, *others) if more else tuple(others)
        found = {first: found[first][:WOKEN_MAX]}
    woken = sorted({instance_id for waiting in found.values() for instance_id in waiting})
    started = yield from _start(dialect, [events[key].event for key in found], known)
    if woken:
        yield from _wake_instances(dialect, woken, known.now_us)
    if done := sorted(key for key in found if key not in left):
        condition, params = dialect.within("event_key", done)
        yield Statement(f"update edda_inbox set routed = 1 where {condition}", params)
    for key in set(found) & set(left):
        yield Statement("update edda_inbox set woken_to = ? where event_key = ?", (found[key][-1], key))
    broadcasts = {events[key].event.type for key, waiting in found.items() if len(waiting) > 1}
    return Routed(woken=tuple(woken), left=left, started=started, broadcasts=tuple(sorted(broadcasts)))


def _waiting(
    dialect: Dialect, events: Mapping[EventKey, InboxEvent], woken_to: Mapping[EventKey, str], sets: Sets
) -> Verb[tuple[dict[EventKey, list[InstanceId]], bool]]:
    """For each event, instances that wait for it, by id; and whether there are more, of any of them."""
    found: dict[EventKey, set[InstanceId]] = {key: set() for key in events}
    more = False
    by_route: dict[Route, list[EventKey]] = {}
    by_target: dict[str, list[EventKey]] = {}
    for key, stored in events.items():
        if stored.event.target is not None:
            by_target.setdefault(stored.event.target, []).append(key)
        else:
            for one in routes_of(stored.event, sets.get(stored.event.type, ())).values():
                by_route.setdefault(one, []).append(key)
    if by_route:
        for cursor in sorted({woken_to[key] for keys in by_route.values() for key in keys}):
            condition, params = _of_routes(dialect, by_route)
            order = dialect.by_instance if len(by_route) > 1 else "instance_id"
            rows, _ = yield Statement(
                f"select instance_id, route from edda_wait where {condition} and instance_id > ? "
                f"order by {order} limit {WOKEN_MAX + 1}",
                (*params, cursor),
            )
            more = more or len(rows) > WOKEN_MAX
            for instance_id, waited in rows:
                for key in by_route[waited]:
                    if woken_to[key] == cursor:
                        found[key].add(instance_id)
    if by_target:
        condition, params = dialect.within("instance_id", sorted(by_target))
        rows, _ = yield Statement(f"select instance_id, type from edda_wait where {condition}", params)
        for instance_id, waited in rows:
            for key in by_target[instance_id]:
                if events[key].event.type == waited:
                    found[key].add(instance_id)
    return {key: sorted(waiting) for key, waiting in found.items()}, more


def _of_routes(dialect: Dialect, routes: Iterable[Route]) -> tuple[str, tuple[Any, ...]]:
    """Of a single route, rows come in the order of the index: a page is read, not all of them, and not sorted."""
    one, *others = sorted(routes)
    return dialect.within("route", [one, *others]) if others else ("route = ?", (one,))


def _start(dialect: Dialect, events: Sequence[CloudEvent], known: Known) -> Verb[tuple[InstanceId, ...]]:
    """The instances in which handlers of these events run."""
    news = sorted(
        started_by(event, one)
        for event in events
        if event.target is None
        for one in known.subscriptions
        if one.type == event.type
    )
    if news:
        rows = [new_instance_row(new, known.now_us) for new in news]
        yield Statement(INSERT_INSTANCE + dialect.if_absent, rows, many=True)
    return tuple(new.id for new in news)


def _wake_instances(dialect: Dialect, ids: Sequence[InstanceId], now_us: int) -> Verb[None]:
    locked = yield from lock(dialect, ids)
    moved = wake(locked, now_us)
    if moved:
        yield dialect.update_many("edda_instance", MOVED_COLUMNS, moved)


def unrouted(dialect: Dialect, *, older_than_us: int, limit: int) -> Verb[tuple[EventKey, ...]]:
    """What nobody has led to its end for so long."""
    now_us = yield from read_clock(dialect)
    rows, _ = yield Statement(
        "select event_key from edda_inbox where routed = 0 and accepted_at_us <= ? "
        f"order by accepted_at_us, event_key limit {limit:d}",
        (now_us - older_than_us,),
    )
    return tuple(row[0] for row in rows)


# -- from a wait to the events ----------------------------------------------------------------------------------------


def look(dialect: Dialect, looks: Sequence[Look], *, unrouted: bool) -> Verb[dict[InstanceId, Sequence[InboxEvent]]]:
    """Events for each of these instances, in order of acceptance.

    Those on their way are read first: one that gets its routes meanwhile is found by them.
    """
    fresh: Sequence[InboxEvent] = ()
    if unrouted:
        fresh = yield from _fresh(dialect, {wanted.type for one in looks for wanted in one.wanted})
    keys: dict[InstanceId, dict[EventKey, int]] = {}
    for one in looks:
        keys[one.instance_id] = {}
    yield from _look_by_route(dialect, looks, keys)
    wanted = sorted({key for found in keys.values() for key in found})
    events: dict[EventKey, InboxEvent] = {}
    for start in range(0, len(wanted), PAGE):
        condition, params = dialect.within("event_key", wanted[start : start + PAGE])
        rows, _ = yield Statement(f"select {EVENT_LIST} from edda_inbox where {condition}", params)
        events |= {row[0]: inbox_event(row) for row in rows}
    addressed = yield from _addressed(dialect, looks)
    return {
        one.instance_id: _sorted(
            [events[key] for key in keys[one.instance_id] if key in events],
            _fitting(one, addressed.get(one.instance_id, ())),
            _fitting(one, fresh),
        )
        for one in looks
    }


def _sorted(*groups: Sequence[InboxEvent]) -> list[InboxEvent]:
    """Each once, in order of acceptance."""
    found = {one.key: one for group in groups for one in group}
    return sorted(found.values(), key=lambda one: (one.accepted_at_us, one.key))


def _fitting(one: Look, events: Iterable[InboxEvent]) -> list[InboxEvent]:
    """What fits a wait of this look, the first few for each route."""
    counts: Counter[Route] = Counter()
    found: list[InboxEvent] = []
    for stored in events:
        if stored.key in one.had or stored.accepted_at_us < one.since_us:
            continue
        fitting = [wanted.route for wanted in one.wanted if wanted.fits(stored.event)]
        if any(counts[route] < FOUND_MAX for route in fitting):
            found.append(stored)
        counts.update(fitting)
    return found


def _look_by_route(
    dialect: Dialect, looks: Sequence[Look], keys: Mapping[InstanceId, dict[EventKey, int]]
) -> Verb[None]:
    """Fill in the keys found for each look. Usually one page tells all; else route by route, until all have enough."""
    by_route: dict[Route, list[Look]] = {}
    for one in looks:
        for wanted in one.wanted:
            by_route.setdefault(wanted.route, []).append(one)
    if not by_route:
        return
    since_us = min(one.since_us for one in looks)
    condition, params = _of_routes(dialect, by_route)
    rows, _ = yield Statement(
        "select route, accepted_at_us, event_key from edda_inbox_route "
        f"where {condition} and accepted_at_us >= ? order by accepted_at_us, event_key limit {PAGE}",
        (*params, since_us),
    )
    if len(rows) < PAGE:
        hits: dict[Route, list[Row]] = {}
        for row in rows:
            hits.setdefault(row[0], []).append(row)
        for found, some in hits.items():
            _note(by_route[found], some, keys)
        return
    for one_route, those in by_route.items():
        yield from _walk_route(one_route, those, keys)


def _note(those: Iterable[Look], rows: Iterable[Row], keys: Mapping[InstanceId, dict[EventKey, int]]) -> bool:
    """Give each look what is news to it, up to what it may have of one route. True: all have enough."""
    enough = True
    for one in those:
        mine = keys[one.instance_id]
        count = 0
        for _, at_us, key in rows:
            if count < FOUND_MAX and at_us >= one.since_us and key not in one.had:
                mine[key] = at_us
                count += 1
        enough = enough and count >= FOUND_MAX
    return enough


def _walk_route(one_route: Route, those: Sequence[Look], keys: Mapping[InstanceId, dict[EventKey, int]]) -> Verb[None]:
    at_us, key = min(one.since_us for one in those), ""
    seen: list[Row] = []
    while True:
        rows, _ = yield Statement(
            "select route, accepted_at_us, event_key from edda_inbox_route "
            # The first comparison says where in the index to begin; what has an OR in it does not.
            "where route = ? and accepted_at_us >= ? and (accepted_at_us > ? or event_key > ?) "
            f"order by accepted_at_us, event_key limit {PAGE}",
            (one_route, at_us, at_us, key),
        )
        seen += rows
        if _note(those, seen, keys) or len(rows) < PAGE:
            return
        at_us, key = rows[-1][1], rows[-1][2]


def _addressed(dialect: Dialect, looks: Sequence[Look]) -> Verb[dict[InstanceId, list[InboxEvent]]]:
    """What is addressed to these very instances."""
    types = sorted({wanted.type for one in looks for wanted in one.wanted})
    if not types:
        return {}
    ids, params = dialect.within("target", sorted(one.instance_id for one in looks))
    kinds, more = dialect.within("type", types)
    rows, _ = yield Statement(
        f"select {EVENT_LIST} from edda_inbox where {ids} and {kinds} order by accepted_at_us, event_key",
        (*params, *more),
    )
    found: dict[InstanceId, list[InboxEvent]] = {}
    for row in rows:
        stored = inbox_event(row)
        found.setdefault(InstanceId(stored.event.target or ""), []).append(stored)
    return found


def _fresh(dialect: Dialect, types: Iterable[str]) -> Verb[list[InboxEvent]]:
    """Events of these types that are on their way."""
    condition, params = dialect.within("type", sorted(types))
    rows, _ = yield Statement(
        f"select {EVENT_LIST} from edda_inbox{dialect.by_unrouted_index} "
        f"where routed = 0 and target is null and {condition} "
        "order by accepted_at_us, event_key",
        params,
    )
    return [inbox_event(row) for row in rows]
