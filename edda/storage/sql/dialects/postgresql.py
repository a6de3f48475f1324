"""PostgreSQL: a batch and a claim are one statement each, so no client can stall in the middle of one."""

# ruff: noqa: S608 - the only strings that go into statements are our own names of tables and columns

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, ClassVar, Final

from edda.core.commit import Batch, BatchOutcome
from edda.core.history import InstanceId, WorkerId
from edda.core.routing import EventKey
from edda.storage.port import Claims
from edda.storage.sql.dialects import postgresql_claim, postgresql_inbox, postgresql_write
from edda.storage.sql.dialects.base import Dialect, First, Problem
from edda.storage.sql.schema import Kind
from edda.storage.sql.verb import Row, Statement, Verb

RETRY_SQLSTATES: Final = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, and a lock not had in time."""
LOST_SQLSTATES: Final = frozenset({"57P01", "57P02", "57P03", "57P05", "53300", "25P03"})
"""Ended by an administrator, crashed, starting up, idle too long, too many connections, idle in a transaction."""
MIGRATION_LOCK: Final = "select pg_advisory_xact_lock(hashtextextended('edda:migrate:' || current_schema(), 0))"


def presence_key(worker: str) -> str:
    """The expression for the number of a worker's advisory lock. Databases have their own, schemas do not."""
    return f"hashtextextended('edda:' || current_schema() || ':' || {worker}, 0)"


class PostgresqlDialect(Dialect):
    name = "postgresql"
    types: ClassVar = {
        # Collation "C": ids sort by their bytes on every server, whatever its locale.
        Kind.KEY: 'varchar(255) collate "C"',
        Kind.WORD: 'varchar(64) collate "C"',
        Kind.TEXT: "text",
        Kind.BYTES: "bytea",
        Kind.INTEGER: "bigint",
        Kind.FLAG: "smallint",
    }
    # now() is the time when the transaction began; after a lock was waited for, that is long ago.
    now = postgresql_write.NOW
    integer = "?::bigint"
    # Conflicts with FOR UPDATE, which the reaper takes, but not with the plain UPDATE that renews the lease.
    fence_lock = " for key share"
    # An expression: sorted by the column, it may walk the primary key in that order, hoping to meet 500 soon. Among
    # a million waits of which there are no statistics yet, that took 300 ms for 100 events.
    by_instance = "(instance_id || '')"
    drivers = ("asyncpg",)
    # `accept` is two: it reads which routes are wanted, and it stores; between the two nothing has to hold.
    single_statements = frozenset({"write", "claim", "accept"})
    # Not to_regclass: it may answer from a cache that says "no" after another process has created the table.
    find_schema_table = (
        "select 1 from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace "
        "where n.nspname = current_schema() and c.relname = 'edda_schema'"
    )

    def within(self, column: str, values: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
        """One text for any number of values, so that the statement stays prepared."""
        return f"{column} = any(?::text[])", (list(values),)

    def first_of_each(self, first: First, values: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
        """One text for any number of values, so that the statement stays prepared."""
        text = (
            f"select found.* from unnest(?::text[]) as given(value) cross join lateral ("
            f"select {first.columns} from {first.table} "
            f"where {first.by} = given.value and {first.where} order by {first.order} limit 1) found"
        )
        return text, (list(values),)

    def position(self, column: str) -> str:
        return f"strpos({column}, ?::text)"

    def present(self, worker: str) -> str:
        """By the list of locks, which everybody may read: to try would be to take it from its worker."""
        key = presence_key(worker)
        return (
            "case when presence = 1 then case when exists (select 1 from pg_catalog.pg_locks l "
            "join pg_catalog.pg_database d on d.oid = l.database and d.datname = current_database() "
            f"where l.locktype = 'advisory' and l.objsubid = 1 and l.classid = (({key} >> 32) & 4294967295)::oid "
            f"and l.objid = ({key} & 4294967295)::oid) then 1 else 0 end end"
        )

    def absent(self, present: Collection[WorkerId] | None) -> tuple[str, tuple[Any, ...]]:
        """Whoever can take the lock knows that nobody has it; it is given back when this transaction ends."""
        return f"(presence = 1 and pg_try_advisory_xact_lock({presence_key('id')}))", ()

    def migration_lock(self) -> list[Statement]:
        return [Statement(MIGRATION_LOCK)]

    def write(self, worker: WorkerId, batch: Batch) -> Verb[BatchOutcome]:
        return postgresql_write.write(self, worker, batch)

    def claim(
        self,
        worker: WorkerId,
        *,
        workflows: Sequence[str],
        limit: int,
        suspects: bool,
        ids: Sequence[InstanceId] | None,
        claim_key: int,
    ) -> Verb[Claims]:
        return postgresql_claim.claim(
            worker, workflows=workflows, limit=limit, suspects=suspects, ids=ids, claim_key=claim_key
        )

    def store_events(self, rows: Sequence[Row], routes: Sequence[Row]) -> Verb[set[EventKey]]:
        return postgresql_inbox.store_events(rows, routes)

    def problem_of_code(self, error: BaseException) -> Problem:
        state = getattr(error, "sqlstate", None)
        if not isinstance(state, str):
            return Problem.OTHER
        if state in RETRY_SQLSTATES:
            return Problem.RETRY
        if state == "23505":
            return Problem.DUPLICATE
        if state in LOST_SQLSTATES or state.startswith("08"):
            return Problem.LOST
        return Problem.OTHER
