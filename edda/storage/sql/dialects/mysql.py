"""MySQL and MariaDB: a transaction is several statements; locks are taken by the first ones."""

# ruff: noqa: S608 - the only strings that go into statements are our own names of tables and columns

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, ClassVar, Final

from edda.core.history import WorkerId
from edda.storage.sql.dialects.base import Dialect, Problem
from edda.storage.sql.schema import Column, Index, Kind, Table
from edda.storage.sql.verb import Statement

RETRY_CODES: Final = frozenset({1020, 1205, 1213})
"""Record has changed since last read, lock not had in time (only the statement was rolled back), deadlock."""
LOST_CODES: Final = frozenset({1040, 1053, 1077, 1079, 1152, 1158, 1159, 1160, 1161, 1317, 1927, 2002, 2003, 2006})
LOST_CODES_MORE: Final = frozenset({2013, 2014, 2027, 2055, 3024, 3169, 4031})
"""Too many connections, shutdown, broken and interrupted connections, killed sessions, and answers out of order."""
DUPLICATE_CODES: Final = frozenset({1062, 1586})


def presence_name(worker: str) -> str:
    """The expression for the name of a worker's lock; those are per server, so the database tells us apart."""
    return f"concat('edda:', md5(concat(database(), ':', {worker})))"


class MysqlDialect(Dialect):
    name = "mysql"
    types: ClassVar = {
        # Default collations take 'A' and 'a' for the same.
        Kind.KEY: "varchar(255) character set utf8mb4 collate utf8mb4_bin",
        Kind.WORD: "varchar(64) character set utf8mb4 collate utf8mb4_bin",
        # TEXT ends after 64 KiB.
        Kind.TEXT: "longtext character set utf8mb4 collate utf8mb4_bin",
        Kind.BYTES: "longblob",
        Kind.INTEGER: "bigint",
        Kind.FLAG: "smallint",
    }
    table_options = " engine = InnoDB"
    partial_indexes = False
    # MySQL (not MariaDB) knows no CREATE INDEX IF NOT EXISTS.
    indexes_within_table = True
    # SYSDATE is the time when it is evaluated, NOW when the statement began. Every connection of ours lives in UTC.
    now = "cast(unix_timestamp(sysdate(6)) * 1000000 as signed)"
    # The reaper's FOR UPDATE waits for it; so does a renewal, for the time of a batch.
    fence_lock = " lock in share mode"
    # On a small table it prefers another index and a sort, and a sort locks all that could be claimed: another worker
    # then finds nothing to do.
    by_claim_index = " force index (edda_instance_claimable)"
    by_head_index = " force index (edda_outbox_head)"
    # A user's transaction may be REPEATABLE READ, and see an old snapshot otherwise.
    latest = " lock in share mode"
    # There is no ON CONFLICT; INSERT IGNORE would also cut what is too long.
    if_absent = " on duplicate key update id = id"
    insert_tells = False
    drivers = ("asyncmy", "aiomysql", "pymysql", "MySQLdb")  # a session of the user's own may have any of them
    transactional_ddl = False
    find_schema_table = (
        "select 1 from information_schema.tables where table_schema = database() and table_name = 'edda_schema'"
    )

    def if_absent_in(self, table: Table) -> str:
        return f" on duplicate key update {table.key[0]} = {table.key[0]}"

    def or_replace(self, table: Table) -> str:
        return " on duplicate key update " + ", ".join(f"{name} = values({name})" for name in table.values)

    def union(self, branches: Sequence[str]) -> str:
        """A derived table could not lock its rows."""
        return " union all ".join(f"({branch})" for branch in branches)

    def distinct(self, column: str, table: str, *, limit: int) -> str:
        """It hops by itself (and would not in a recursive statement)."""
        return f"select distinct {column} from {table} order by {column} limit {limit:d}"

    def update_many(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Statement:
        """One statement for all rows: the driver would send one for each. The new values come first in the join.

        By the key: a table of a few rows is read whole otherwise, and then waits for instances that others have locked.
        """
        names = ", ".join(f"? as {column}" for column in ("id", *columns))
        marks = ", ".join("?" * (len(columns) + 1))
        values = " union all ".join([f"select {names}", *[f"select {marks}"] * (len(rows) - 1)])
        sets = ", ".join(f"t.{column} = n.{column}" for column in columns)
        text = f"update ({values}) n straight_join {table} t force index (primary) on t.id = n.id set {sets}"
        return Statement(text, tuple(value for row in rows for value in row))

    def present(self, worker: str) -> str:
        return f"case when presence = 1 then is_free_lock({presence_name(worker)}) = 0 end"

    def absent(self, present: Collection[WorkerId] | None) -> tuple[str, tuple[Any, ...]]:
        return f"(presence = 1 and is_free_lock({presence_name('id')}) = 1)", ()

    def add_index(self, index: Index) -> list[str]:
        """MySQL would refuse to make it twice, which happens when a process died after making it."""
        columns = ", ".join(self.index_columns(index))
        return _unless_there(
            f"create index {index.name} on {index.table} ({columns})",
            f"statistics where table_name = '{index.table}' and index_name = '{index.name}'",
        )

    def add_column(self, table: Table, column: Column) -> list[str]:
        return _unless_there(
            f"alter table {table.name} add column {column.name} {self.types[column.kind]}",
            f"columns where table_name = '{table.name}' and column_name = '{column.name}'",
        )

    def migration_lock(self) -> list[Statement]:
        return [Statement("select get_lock(concat('edda:migrate:', md5(database())), 60)")]

    def problem_of_code(self, error: BaseException) -> Problem:
        code = next(iter(error.args), None)
        if not isinstance(code, int) or not self.is_of_driver(error):
            return Problem.OTHER
        if code in RETRY_CODES:
            return Problem.RETRY
        if code in DUPLICATE_CODES:
            return Problem.DUPLICATE
        if code in LOST_CODES or code in LOST_CODES_MORE:
            return Problem.LOST
        return Problem.OTHER


def _unless_there(change: str, found: str) -> list[str]:
    """A change of the tables, unless the catalogue has it already."""
    return [
        f"set @edda = (select if(count(*) = 0, '{change}', 'do 0') "
        f"from information_schema.{found} and table_schema = database())",
        "prepare edda_change from @edda",
        "execute edda_change",
    ]
