"""Between rows of tables and the values of the port: the order of columns, and their types in Python."""

# ruff: noqa: S608 - the only strings that go into statements are our own names of tables and columns

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from edda.core.commit import NewInstance, OutboxMessage
from edda.core.event import CloudEvent
from edda.core.history import HistoryEvent, InstanceId
from edda.core.lifecycle import Status
from edda.core.routing import EventKey, event_key
from edda.core.search import Term
from edda.storage.inbox import NEVER, InboxEvent
from edda.storage.port import InstanceRow
from edda.storage.sql.schema import HISTORY_COLUMNS, INBOX_COLUMNS, INSTANCE, INSTANCE_COLUMNS, OUTBOX_COLUMNS
from edda.storage.sql.verb import Row

INSTANCE_LIST: Final = ", ".join(INSTANCE_COLUMNS)
"""Columns to select for `instance_row`."""
HISTORY_LIST: Final = ", ".join(HISTORY_COLUMNS)
"""Columns to select for `history_event`."""
EVENT_LIST: Final = ", ".join(INBOX_COLUMNS[:13])
"""Columns to select for `inbox_event`."""
OUTBOX_LIST: Final = ", ".join(OUTBOX_COLUMNS)

NEW_INSTANCE_COLUMNS: Final = tuple(column.name for column in INSTANCE.columns)
"""Columns to insert `new_instance_row` into."""


def instance_row(row: Row) -> InstanceRow:
    stored = InstanceRow._make(row)
    return stored._replace(status=Status(stored.status), detached=bool(stored.detached))


def history_event(row: Row) -> HistoryEvent:
    return HistoryEvent(*row)


def new_instance_row(new: NewInstance, now_us: int) -> tuple[Any, ...]:
    """The row of an instance that begins now."""
    return (
        new.id,
        new.workflow,
        Status.RUNNING.value,
        "",  # reason
        new.owner,
        new.claim,
        0,  # wakes
        now_us if new.owner is None else None,
        None,  # cancel_requested_at_us
        "",  # cancelled_by
        0,  # crashes
        new.input,
        new.args_hash,
        None,  # output
        None,  # bytes
        None,  # error
        new.parent_id,
        int(new.detached),
        new.source_hash,
        new.python,
        now_us,
        now_us,
        None,  # ended_at_us
        0,  # seen_wakes
        0,  # claim_key
        new.trace,
    )


def term_rows(news: Iterable[NewInstance], now_us: int) -> list[tuple[InstanceId, Term, int]]:
    """The rows by which instances that begin now are found; of several with one id, only the first begins."""
    first: dict[InstanceId, NewInstance] = {}
    for new in news:
        first.setdefault(new.id, new)
    return [(new.id, term, now_us) for new in first.values() for term in new.terms]


def outbox_row(message: OutboxMessage) -> tuple[Any, ...]:
    """The row of a message that is due at once."""
    return (
        message.id,
        message.instance_id,
        message.seq,
        message.ordinal,
        message.type,
        message.source,
        message.data,
        message.blob,
        message.content_type,
        message.at_us,
        message.trace,
        message.subject,
        message.target,
        "pending",
        0,  # attempts
        message.at_us,
    )


def inbox_row(event: CloudEvent, now_us: int, *, key: EventKey | None = None, indexed: int = NEVER) -> tuple[Any, ...]:
    """The row of an event that comes in now; its routes are written where `indexed` says so."""
    extensions = json.dumps(dict(event.extensions), separators=(",", ":"))
    return (
        key or event_key(event), event.source, event.id, event.type, event.subject, event.time, event.datacontenttype,
        event.dataschema, event.json, event.blob, extensions, event.target, now_us, 0, indexed, "",
    )  # fmt: skip


def inbox_event(row: Row) -> InboxEvent:
    """From the columns of `EVENT_LIST`."""
    key, source, id_, type_, subject, time, content, schema, data, blob, extensions, _, accepted = row[:13]
    event = CloudEvent(id_, source, type_, subject, time, content, schema, data, blob, json.loads(extensions))
    return InboxEvent(key, int(accepted), event)


def insert(table: str, columns: tuple[str, ...]) -> str:
    """The text that inserts one row."""
    return f"insert into {table} ({', '.join(columns)}) values ({', '.join('?' * len(columns))})"


def words(values: frozenset[Status]) -> str:
    """Statuses as a list of literals."""
    return ", ".join(f"'{status.value}'" for status in sorted(values))


def ids(rows: list[Row] | tuple[Row, ...]) -> tuple[InstanceId, ...]:
    """The first column of rows, as ids."""
    return tuple(InstanceId(row[0]) for row in rows)
