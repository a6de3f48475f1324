"""The tables, as data: each column once, with the kind of value it holds; a dialect says how a kind is spelled.

It must not know drivers or verbs. Laws:
- The prefix is `edda_`; there are no foreign keys, sequences, triggers or checks, so that distributed databases can
  hold these tables too.
- Every table that belongs to an instance has the instance's id at the head of its key.
- No index holds a column that renewing a lease changes: PostgreSQL would then take a stronger row lock, and every
  renewal would wait for the commits under way.
- A change of the tables is a new entry in `migrate.MIGRATIONS`; this file always shows the newest state.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from edda.core.commit import OutboxMessage
from edda.core.history import HistoryEvent
from edda.storage.port import InstanceRow


class Kind(Enum):
    """What a column holds."""

    KEY = "key"
    """An id or a name of at most 255 characters, compared byte by byte."""
    WORD = "word"
    """A short word of our own: a status, a kind."""
    TEXT = "text"
    """Text of any length. JSON is text too: native types reorder keys, round numbers and refuse what Python has."""
    BYTES = "bytes"
    INTEGER = "integer"
    """64 bits; times are microseconds since 1970."""
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    kind: Kind
    optional: bool = False
    since: int = 1
    """The migration that makes it; later than the first, it is optional."""


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    since: int = 1
    """The migration that makes it."""

    @property
    def values(self) -> tuple[str, ...]:
        """The names of the columns that are not in the key."""
        return tuple(column.name for column in self.columns if column.name not in self.key)


def _key(name: str, *, optional: bool = False) -> Column:
    return Column(name, Kind.KEY, optional)


def _word(name: str) -> Column:
    return Column(name, Kind.WORD)


def _text(name: str, *, optional: bool = False, since: int = 1) -> Column:
    return Column(name, Kind.TEXT, optional, since)


def _integer(name: str, *, optional: bool = False) -> Column:
    return Column(name, Kind.INTEGER, optional)


SCHEMA: Final = Table(
    "edda_schema",
    (_integer("version"), _integer("oldest_code"), _integer("applied_at_us"), _word("library")),
    key=("version",),
)
"""One row per applied migration. `oldest_code`: the oldest schema version whose code still works with these tables."""

WORKER: Final = Table(
    "edda_worker",
    (
        _key("id"),
        _text("service"),
        _word("state"),
        Column("presence", Kind.FLAG),
        _integer("lease_until_us"),
        _integer("started_at_us"),
        _text("server_ids"),
        Column("workflows", Kind.TEXT, optional=True, since=3),
    ),
    key=("id",),
)
"""A worker process. `state` is `alive` or `dead`; `presence`: it holds a session lock while it lives; `server_ids`: the
database's numbers of its connections, so that a reaper can end them; `workflows`: what it runs, a list in JSON."""

INSTANCE: Final = Table(
    "edda_instance",
    (
        _key("id"),
        _key("workflow"),
        _word("status"),
        _text("reason"),
        _key("owner", optional=True),
        _integer("claim"),
        _integer("wakes"),
        _integer("claimable_at_us", optional=True),
        _integer("cancel_requested_at_us", optional=True),
        _text("cancelled_by"),
        _integer("crashes"),
        _text("input"),
        _text("args_hash"),
        _text("output", optional=True),
        Column("bytes", Kind.BYTES, optional=True),
        _text("error", optional=True),
        _key("parent_id", optional=True),
        Column("detached", Kind.FLAG),
        _text("source_hash"),
        _word("python"),
        _integer("created_at_us"),
        _integer("updated_at_us"),
        _integer("ended_at_us", optional=True),
        _integer("seen_wakes"),
        _integer("claim_key"),
        _text("trace", optional=True, since=4),
    ),
    key=("id",),
)
"""The columns of `InstanceRow`, and two more: `seen_wakes` is `wakes` when it was claimed; `claim_key` is a number
drawn by chance for each `claim`, by which a worker finds what it claimed when the answer was lost. `trace`: the trace
context of what started it."""

HISTORY: Final = Table(
    "edda_history",
    (
        _key("instance_id"),
        _integer("seq"),
        _integer("claim"),
        _integer("at_us"),
        _word("kind"),
        _text("call_id"),
        _text("name"),
        _text("input", optional=True),
        _text("output", optional=True),
        Column("bytes", Kind.BYTES, optional=True),
        _text("meta", optional=True),
    ),
    key=("instance_id", "seq"),
)

OUTBOX: Final = Table(
    "edda_outbox",
    (
        _key("instance_id"),
        _integer("seq"),
        _integer("ordinal"),
        _key("id"),
        _text("type"),
        _text("source"),
        _text("data", optional=True),
        Column("bytes", Kind.BYTES, optional=True),
        _text("content_type"),
        _integer("at_us"),
        _word("status"),
        _integer("attempts"),
        _integer("due_at_us"),
        _key("relayer", optional=True),
        _integer("claim_key", optional=True),
        _text("reason", optional=True),
        _text("trace", optional=True, since=4),
        _text("subject", optional=True, since=4),
        _text("target", optional=True, since=4),
    ),
    key=("instance_id", "seq", "ordinal"),
)
"""The columns of `OutboxMessage`, and how far the relayer is: `status` begins as `pending`, due at once. Not before
`due_at_us` may it be sent (a lease, a back-off); once delivered or dead, that is the time when it was settled.
`relayer` has the lease; `claim_key` names the claim that had it last; `reason`: why the last delivery failed; `trace`:
the trace context of what sent it."""

WAIT: Final = Table(
    "edda_wait",
    (_key("instance_id"), _key("call_id"), _key("type"), _key("route")),
    key=("instance_id", "call_id"),
)
"""The columns of `EventWait`: what an instance waits for."""

INBOX: Final = Table(
    "edda_inbox",
    (
        _key("event_key"),
        _text("source"),
        _text("id"),
        _key("type"),
        _text("subject", optional=True),
        _text("time", optional=True),
        _text("datacontenttype", optional=True),
        _text("dataschema", optional=True),
        _text("data", optional=True),
        Column("bytes", Kind.BYTES, optional=True),
        _text("extensions"),
        _key("target", optional=True),
        _integer("accepted_at_us"),
        Column("routed", Kind.FLAG),
        _integer("indexed"),
        _key("woken_to"),
    ),
    key=("event_key",),
)
"""Events that were accepted. `routed`: everybody who waited was woken; `indexed`: for how many sets of fields it has
its routes, -1 for none; `woken_to`: instances up to this id have been woken."""

INBOX_ROUTE: Final = Table(
    "edda_inbox_route",
    (_key("route"), _integer("accepted_at_us"), _key("event_key")),
    key=("route", "accepted_at_us", "event_key"),
)
"""The routes of each event that is not addressed to one instance: how a wait finds it."""

INBOX_FIELDS: Final = Table(
    "edda_inbox_fields",
    (_key("type"), _key("fields"), _integer("since_us")),
    key=("type", "fields"),
)
"""Sets of fields that waits for a type use; events accepted since then have a route for them."""

INBOX_HANDLER: Final = Table(
    "edda_inbox_handler",
    (_key("type"), _key("workflow"), _text("takes"), _integer("until_us")),
    key=("type", "workflow"),
)
"""The columns of `Subscription`, and until when it is valid: processes that know the workflow renew it."""

SOURCE: Final = Table(
    "edda_source",
    (_key("workflow"), _key("source_hash"), _text("source_text"), _integer("first_seen_at_us")),
    key=("workflow", "source_hash"),
    since=5,
)
"""The texts of workflows, for people: `source_hash` is that of the instances that were started with one."""

SEARCH: Final = Table(
    "edda_search",
    (_key("instance_id"), _key("term"), _integer("created_at_us")),
    key=("instance_id", "term"),
    since=6,
)
"""By which values of declared search fields an instance is found; see `core.search`. `created_at_us` is its own."""

SEARCH_FIELD: Final = Table(
    "edda_search_field",
    (_key("workflow"), _key("path"), _integer("since_us")),
    key=("workflow", "path"),
    since=6,
)
"""The search fields of each workflow; instances that were started since then have terms for them."""

TABLES: Final = (
    *(WORKER, INSTANCE, HISTORY, OUTBOX, WAIT, INBOX, INBOX_ROUTE, INBOX_FIELDS, INBOX_HANDLER),
    *(SOURCE, SEARCH, SEARCH_FIELD),
)


def _names(fields_: Iterable[str]) -> tuple[str, ...]:
    """`blob` is a reserved word of MySQL; the only field whose column has another name."""
    return tuple("bytes" if name == "blob" else name for name in fields_)


INSTANCE_COLUMNS: Final = _names(InstanceRow._fields)
HISTORY_COLUMNS: Final = _names(HistoryEvent._fields)
WAIT_COLUMNS: Final = tuple(column.name for column in WAIT.columns)
INBOX_COLUMNS: Final = tuple(column.name for column in INBOX.columns)
SEARCH_COLUMNS: Final = tuple(column.name for column in SEARCH.columns)
OUTBOX_COLUMNS: Final = (*_names(OutboxMessage._fields), "status", "attempts", "due_at_us")


@dataclass(frozen=True, slots=True)
class Index:
    """`where` shrinks it on databases that have partial indexes; the others lead with `instead`."""

    name: str
    table: str
    columns: tuple[str, ...]
    where: str = ""
    instead: tuple[str, ...] = ()
    since: int = 1
    """The migration that makes it."""


INDEXES: Final = (
    # What can be claimed, by workflow and due time. Instances that have ended or are owned are not in it.
    Index(
        "edda_instance_claimable",
        "edda_instance",
        ("workflow", "claimable_at_us", "id"),
        where="owner is null and claimable_at_us is not null",
        # With `id`, though InnoDB appends the key by itself: MariaDB sorts otherwise, and a sort locks every candidate.
        instead=("workflow", "owner", "claimable_at_us", "id"),
    ),
    # What a worker holds: for notices, reaping and retiring.
    Index("edda_instance_owner", "edda_instance", ("owner",), where="owner is not null"),
    # The children of an instance.
    Index("edda_instance_parent", "edda_instance", ("parent_id",), where="parent_id is not null"),
    # The list that people see, of some workflows and statuses; and counts of those. See `sql.reads`.
    Index("edda_instance_listed", "edda_instance", ("workflow", "status", "created_at_us", "id"), since=2),
    # The whole list, newest first.
    Index("edda_instance_created", "edda_instance", ("created_at_us", "id")),
    # What the relayer has to send, by due time; and what was delivered or died, by the time when it did. `relayer`:
    # whose lease it is, for when it is dead; it changes only when `due_at_us` does.
    Index("edda_outbox_due", "edda_outbox", ("status", "due_at_us", "relayer")),
    # The earliest pending message of an instance.
    Index(
        "edda_outbox_head",
        "edda_outbox",
        ("instance_id", "seq", "ordinal"),
        where="status = 'pending'",
        instead=("status", "instance_id", "seq", "ordinal"),
    ),
    # Who waits for what an event brings.
    Index("edda_wait_route", "edda_wait", ("route", "instance_id")),
    # Events that a dead receiver left behind.
    Index(
        "edda_inbox_unrouted",
        "edda_inbox",
        ("accepted_at_us", "event_key"),
        where="routed = 0",
        instead=("routed", "accepted_at_us", "event_key"),
    ),
    # What is addressed to one instance.
    Index(
        "edda_inbox_target",
        "edda_inbox",
        ("target", "type", "accepted_at_us", "event_key"),
        where="target is not null",
    ),
    # Instances with a value in a search field, newest first.
    Index("edda_search_term", "edda_search", ("term", "created_at_us", "instance_id"), since=6),
    # All of a type, to give them routes for fields that nobody had asked for before; and what is old.
    Index("edda_inbox_type", "edda_inbox", ("type", "accepted_at_us", "event_key")),
    Index("edda_inbox_accepted", "edda_inbox", ("accepted_at_us", "event_key")),
)


def kinds(table: Table, names: tuple[str, ...]) -> tuple[Kind, ...]:
    """The kinds of these columns of a table."""
    by_name = {column.name: column.kind for column in table.columns}
    return tuple(by_name[name] for name in names)
