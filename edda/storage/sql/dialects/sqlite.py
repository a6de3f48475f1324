"""SQLite: one writer at a time, in one process; there are no row locks, and none are needed."""

# ruff: noqa: S608 - the only strings that go into statements are our own names of tables and columns

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from typing import Any, ClassVar, Final

from edda.core.history import WorkerId
from edda.storage.sql.dialects.base import Dialect, First, Problem
from edda.storage.sql.schema import Kind

PRIMARY_CODES: Final = 0xFF
"""The low byte of a result code is the kind of error; what is above says more about it."""


class SqliteDialect(Dialect):
    name = "sqlite"
    # Collation BINARY is SQLite's default, so keys are compared byte by byte.
    types: ClassVar = {
        Kind.KEY: "text",
        Kind.WORD: "text",
        Kind.TEXT: "text",
        Kind.BYTES: "blob",
        Kind.INTEGER: "integer",
        Kind.FLAG: "integer",
    }
    # Not WITHOUT ROWID: rows would lie in the order of instances, and a batch of 100 steps touch up to 100 pages, which
    # go to the log whole. Appended, they fill a few: 19 instead of 41 µs per row at five rows per instance.
    # A function of ours: SQLite before 3.42 tells milliseconds only. See `sqlite_database`.
    now = "edda_now_us()"
    # BEGIN IMMEDIATE has locked the whole file already.
    fence_lock = ""
    lock = ""
    lock_unless_taken = ""
    drivers = ("sqlite3",)
    # BEGIN IMMEDIATE is lock enough for migrations.
    find_schema_table = "select 1 from sqlite_master where type = 'table' and name = 'edda_schema'"

    # Few events are in it at any time, which only statistics would tell, and those are made by nobody.
    by_unrouted_index = " indexed by edda_inbox_unrouted"

    def within(self, column: str, values: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
        """One text for any number of values, so that the statement stays prepared, and no limit of parameters."""
        return f"{column} in (select value from json_each(?))", (json.dumps(list(values)),)

    def first_of_each(self, first: First, values: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
        """One text here, too; and as a subquery it walks the index, where statistics would have it sort."""
        text = (
            f"select {first.columns} from {first.table} where rowid in (select (select rowid from {first.table} "
            f"where {first.by} = given.value and {first.where} order by {first.order} limit 1) from json_each(?) given)"
        )
        return text, (json.dumps(list(values)),)

    def bytes_of(self, column: str) -> str:
        return f"coalesce(length(cast({column} as blob)), 0)"

    def absent(self, present: Collection[WorkerId] | None) -> tuple[str, tuple[Any, ...]]:
        """Presence is a lock on a file beside the database, so SQL has to be told who lives."""
        if present is None:
            return "1 = 0", ()
        condition, params = self.within("id", sorted(present))
        return f"not {condition}", params

    def problem_of_code(self, error: BaseException) -> Problem:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:
            return Problem.OTHER
        if code in (sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE):
            return Problem.DUPLICATE
        if code & PRIMARY_CODES in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return Problem.RETRY
        return Problem.OTHER
