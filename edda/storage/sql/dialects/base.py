"""The complete list of what differs between databases, each with its default.

A dialect overrides only what differs, and says why. It must not know connections or drivers: errors are recognised by
their codes alone, also where SQLAlchemy has wrapped them.
"""

# ruff: noqa: S608 - the only strings that go into statements are our own names of tables and columns

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from edda.core.commit import Batch, BatchOutcome
from edda.core.history import InstanceId, WorkerId
from edda.core.routing import EventKey
from edda.storage.port import Claims
from edda.storage.sql.schema import Column, Index, Kind, Table
from edda.storage.sql.verb import Row, Statement, Verb


class Problem(Enum):
    """What an error of the database means to us."""

    RETRY = "retry"
    """Others were in the way: roll back and run the whole transaction again."""
    DUPLICATE = "duplicate"
    """A row with this key exists."""
    LOST = "lost"
    """The connection is gone."""
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class First:
    """Which row of a table is the first among those with the same value in the column `by`."""

    table: str
    columns: str
    by: str
    where: str
    order: str
    index: str = ""
    """After the table's name: the index to walk, where that has to be said."""


class Dialect:
    """Defaults are standard SQL as far as there is such a thing."""

    name: ClassVar[str]

    # -- tables ------------------------------------------------------------------------------------------------------

    types: ClassVar[Mapping[Kind, str]]
    table_options: ClassVar[str] = ""
    partial_indexes: ClassVar[bool] = True
    indexes_within_table: ClassVar[bool] = False
    """There is no `create index if not exists`, so indexes are made with their table."""

    # -- expressions -------------------------------------------------------------------------------------------------

    now: ClassVar[str]
    """The database's clock in microseconds, and not the time when the transaction began."""

    integer: ClassVar[str] = "?"
    """A parameter inside an expression from which its type cannot be seen."""

    # -- locks (each with a leading space; empty where a transaction is alone anyway) ---------------------------------

    fence_lock: ClassVar[str]
    """Held by every writing transaction on its worker's row, until it is over. It does not hinder renewals much."""
    lock: ClassVar[str] = " for update"
    lock_unless_taken: ClassVar[str] = " for update skip locked"
    latest: ClassVar[str] = ""
    """Makes a select see what is committed now, whatever snapshot its transaction has."""

    single_statements: ClassVar[frozenset[str]] = frozenset()
    """The verbs that are one statement here: they need no BEGIN and no COMMIT."""

    by_claim_index: ClassVar[str] = ""
    """After the table's name: walk the claim index, whatever the statistics say."""

    by_head_index: ClassVar[str] = ""
    """The same for the index on the earliest pending message of an instance."""

    by_instance: ClassVar[str] = "instance_id"
    """To sort waits by their instance when they have been found by their routes."""

    by_unrouted_index: ClassVar[str] = ""
    """The same for the index on events that have not been led on."""

    # -- statements --------------------------------------------------------------------------------------------------

    if_absent: ClassVar[str] = " on conflict do nothing"
    insert_tells: ClassVar[bool] = True
    """`insert … on conflict do nothing returning id` tells whether a row was inserted."""

    def if_absent_in(self, table: Table) -> str:
        """After an insert into this table: pass over rows whose key exists."""
        return self.if_absent

    def or_replace(self, table: Table) -> str:
        """After an insert into this table: a row whose key exists gets the new values."""
        values = ", ".join(f"{name} = excluded.{name}" for name in table.values)
        return f" on conflict ({', '.join(table.key)}) do update set {values}"

    def within(self, column: str, values: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
        """The condition that a column is one of these values, and its parameters."""
        if not values:
            return "1 = 0", ()
        return f"{column} in ({', '.join('?' * len(values))})", tuple(values)

    def update_many(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Statement:
        """Set columns of many rows, each to values of its own. A row is its id, then its values."""
        sets = ", ".join(f"{column} = ?" for column in columns)
        text = f"update {table} set {sets} where id = ?"
        return Statement(text, [(*row[1:], row[0]) for row in rows], many=True)

    def union(self, branches: Sequence[str]) -> str:
        """Selects with an order and a limit of their own, one after the other."""
        return " union all ".join(f"select * from ({branch}) branch_{n}" for n, branch in enumerate(branches))

    def distinct(self, column: str, table: str, *, limit: int) -> str:
        """The select of each value once, by hops along an index that begins with the column: it is never read whole."""
        first = f"select {column} from {table} order by {column} limit 1"
        following = f"select t.{column} from {table} t where t.{column} > named.name order by t.{column} limit 1"
        return (
            f"with recursive named (name, n) as (select ({first}), 1 union all select ({following}), n + 1 "
            f"from named where named.name is not null and n < {limit:d}) "
            "select name from named where name is not null"
        )

    def first_of_each(self, first: First, values: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
        """The select of one row for each of some values, and its parameters."""
        branch = (
            f"select {first.columns} from {first.table}{first.index} "
            f"where {first.by} = ? and {first.where} order by {first.order} limit 1"
        )
        return self.union([branch] * len(values)), tuple(values)

    def bytes_of(self, column: str) -> str:
        """How many bytes a value has as it is stored; none if there is no value."""
        return f"coalesce(octet_length({column}), 0)"

    def position(self, column: str) -> str:
        """The expression that is above 0 where a text holds the text given as parameter."""
        return f"instr({column}, ?)"

    def present(self, worker: str) -> str:
        """Whether the session lock of a row of `edda_worker` is taken: 1, 0, or null where that is unknown."""
        return "null"

    def absent(self, present: Collection[WorkerId] | None) -> tuple[str, tuple[Any, ...]]:
        """The condition that nobody holds the presence of a row of `edda_worker`, and its parameters.

        `present`: the workers known to live, where presence is not the database's business; None: nothing is known.
        """
        raise NotImplementedError

    # -- verbs that a dialect writes in a way of its own --------------------------------------------------------------

    def write(self, worker: WorkerId, batch: Batch) -> Verb[BatchOutcome] | None:
        """None: as `commits.write` does it."""
        return None

    def claim(
        self,
        worker: WorkerId,
        *,
        workflows: Sequence[str],
        limit: int,
        suspects: bool,
        ids: Sequence[InstanceId] | None,
        claim_key: int,
    ) -> Verb[Claims] | None:
        """None: as `claims.claim` does it."""
        return None

    def store_events(self, rows: Sequence[Row], routes: Sequence[Row]) -> Verb[set[EventKey]] | None:
        """Insert rows of the inbox where absent, and the routes of those; returns which. None: as `inbox` does it."""
        return None

    # -- errors ------------------------------------------------------------------------------------------------------

    def problem(self, error: BaseException) -> Problem:
        """What an error means, looking through what others have wrapped around it."""
        for cause in causes(error):
            found = self.problem_of_code(cause)
            if found is not Problem.OTHER:
                return found
            if isinstance(cause, OSError | EOFError):
                return Problem.LOST
        return Problem.OTHER

    drivers: ClassVar[tuple[str, ...]]
    """The modules whose errors are errors of the database."""

    def problem_of_code(self, error: BaseException) -> Problem:
        raise NotImplementedError

    def is_of_driver(self, error: BaseException) -> bool:
        return any(base.__module__.partition(".")[0] in self.drivers for base in type(error).__mro__)

    # -- migrations --------------------------------------------------------------------------------------------------

    transactional_ddl: ClassVar[bool] = True
    """Tables are made in a transaction; otherwise each statement stands for itself."""
    find_schema_table: ClassVar[str]
    """Gives a row if the table `edda_schema` is there; the right to make tables is not needed for that."""

    def migration_lock(self) -> list[Statement]:
        """Makes others who migrate wait, until the transaction or the connection ends."""
        return []

    # -- DDL ---------------------------------------------------------------------------------------------------------

    def create_table(self, table: Table, indexes: Sequence[Index] = ()) -> list[str]:
        """Statements that make a table and its indexes, each doing nothing where that was done already."""
        lines = [
            f"{column.name} {self.types[column.kind]}{'' if column.optional else ' not null'}"
            for column in table.columns
        ]
        lines.append(f"primary key ({', '.join(table.key)})")
        if self.indexes_within_table:
            lines += [f"key {index.name} ({', '.join(self.index_columns(index))})" for index in indexes]
        body = ",\n  ".join(lines)
        statements = [f"create table if not exists {table.name} (\n  {body}\n){self.table_options}"]
        if not self.indexes_within_table:
            statements += [self._create_index(index) for index in indexes]
        return statements

    def index_columns(self, index: Index) -> tuple[str, ...]:
        return index.columns if self.partial_indexes else index.instead or index.columns

    def add_column(self, table: Table, column: Column) -> list[str]:
        """Statements that add an optional column to a table that is there. They may fail where that was done already,
        unless tables are changed outside of transactions."""
        return [f"alter table {table.name} add column {column.name} {self.types[column.kind]}"]

    def add_index(self, index: Index) -> list[str]:
        """Statements that add an index to a table that is there, doing nothing where that was done already."""
        return [self._create_index(index)]

    def _create_index(self, index: Index) -> str:
        where = f" where {index.where}" if index.where and self.partial_indexes else ""
        columns = ", ".join(self.index_columns(index))
        return f"create index if not exists {index.name} on {index.table} ({columns}){where}"


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and what it was made of: SQLAlchemy keeps the driver's in `orig`, and that its own in `__cause__`."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = getattr(found, "orig", None) or found.__cause__
