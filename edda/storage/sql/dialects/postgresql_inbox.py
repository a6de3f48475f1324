"""Storing events as one statement of PostgreSQL; see `inbox` for what it means.

Law: an event gets routes only from the statement that stored it: of two who bring the same, only one writes any.
"""

# ruff: noqa: S608 - the only strings that go into statements are our own names of tables and columns

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from edda.core.routing import EventKey
from edda.storage.sql.dialects.postgresql_write import arrays
from edda.storage.sql.schema import INBOX, INBOX_COLUMNS, INBOX_ROUTE
from edda.storage.sql.verb import Row, Statement, Verb

ROUTE_COLUMNS: Final = tuple(column.name for column in INBOX_ROUTE.columns)

# Both in the order of their keys, so that two who bring the same do not wait for each other in a circle.
STORE: Final = f"""with stored as (
  insert into edda_inbox ({", ".join(INBOX_COLUMNS)})
  select * from unnest({arrays(INBOX, INBOX_COLUMNS)}) as arriving({", ".join(INBOX_COLUMNS)})
  order by event_key on conflict do nothing returning event_key),
routed as (
  insert into edda_inbox_route ({", ".join(ROUTE_COLUMNS)})
  select r.* from unnest({arrays(INBOX_ROUTE, ROUTE_COLUMNS)}) as r({", ".join(ROUTE_COLUMNS)})
  join stored s on s.event_key = r.event_key order by r.route, r.accepted_at_us, r.event_key on conflict do nothing)
select event_key from stored"""


def store_events(rows: Sequence[Row], routes: Sequence[Row]) -> Verb[set[EventKey]]:
    """See `Dialect.store_events`."""
    columns: list[Any] = [*zip(*rows, strict=True)]
    columns += zip(*routes, strict=True) if routes else [()] * len(ROUTE_COLUMNS)
    stored, _ = yield Statement(STORE, columns)
    return {EventKey(key) for (key,) in stored}
