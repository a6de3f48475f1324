"""Bringing the tables up to date: an ordered list of migrations, and the verb that applies what is missing.

Laws:
- Many workers may begin at once: one migrates, the others wait, and find nothing to do.
- A crash after any statement does no harm: either the whole transaction is gone, or (MySQL commits after each DDL
  statement) every statement does nothing where it was done already; the version is noted last.
- The code of the version before goes on working with the new tables while workers are replaced one by one: a migration
  only adds, and `oldest_code` says who can live with it. Code older than that refuses to start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from edda.exceptions import SchemaError
from edda.storage.sql.dialects.base import Dialect
from edda.storage.sql.schema import INDEXES, SCHEMA, TABLES
from edda.storage.sql.verb import Statement, Verb

LIBRARY: Final = "edda"


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """`oldest_code`: the oldest version of this list whose code works with the tables after this migration."""

    version: int
    oldest_code: int
    statements: Callable[[Dialect], Sequence[str]]


def _first_tables(dialect: Dialect) -> list[str]:
    return [
        statement
        for table in TABLES
        if table.since == 1
        for statement in dialect.create_table(
            replace(table, columns=tuple(column for column in table.columns if column.since == 1)),
            [index for index in INDEXES if index.table == table.name and index.since == 1],
        )
    ]


def _list_by_workflow_and_status(dialect: Dialect) -> list[str]:
    return [statement for index in INDEXES if index.since == 2 for statement in dialect.add_index(index)]


def _columns_since(version: int, dialect: Dialect) -> list[str]:
    return [
        statement
        for table in TABLES
        for column in table.columns
        if column.since == version
        for statement in dialect.add_column(table, column)
    ]


def _what_workers_run(dialect: Dialect) -> list[str]:
    return _columns_since(3, dialect)


def _trace_contexts(dialect: Dialect) -> list[str]:
    """Code of before does not know the columns, and leaves them empty."""
    return _columns_since(4, dialect)


def _tables_since(version: int, dialect: Dialect) -> list[str]:
    return [
        statement
        for table in TABLES
        if table.since == version
        for statement in dialect.create_table(table, [index for index in INDEXES if index.table == table.name])
    ]


def _sources(dialect: Dialect) -> list[str]:
    return _tables_since(5, dialect)


def _search_terms(dialect: Dialect) -> list[str]:
    """Code of before writes none: what it starts is not found by them."""
    return _tables_since(6, dialect)


MIGRATIONS: Final = (
    Migration(version=1, oldest_code=1, statements=_first_tables),
    Migration(version=2, oldest_code=1, statements=_list_by_workflow_and_status),
    Migration(version=3, oldest_code=1, statements=_what_workers_run),
    Migration(version=4, oldest_code=1, statements=_trace_contexts),
    Migration(version=5, oldest_code=1, statements=_sources),
    Migration(version=6, oldest_code=1, statements=_search_terms),
)


def missing(dialect: Dialect, migrations: Sequence[Migration] = MIGRATIONS) -> Verb[tuple[Migration, ...]]:
    """The migrations that have not been applied. Raises `SchemaError` if the tables are too new for this code."""
    rows, _ = yield Statement(dialect.find_schema_table)
    if not rows:
        return tuple(migrations)
    rows, _ = yield Statement("select version, oldest_code from edda_schema order by version desc limit 1")
    version, oldest_code = (int(rows[0][0]), int(rows[0][1])) if rows else (0, 0)
    newest = migrations[-1].version
    if oldest_code > newest:
        raise SchemaError(
            f"The tables in the database have version {version} and need an edda that knows at least version "
            f"{oldest_code}; this one knows {newest}. Install a newer edda"
        )
    return tuple(migration for migration in migrations if migration.version > version)


def must_be_current(dialect: Dialect, migrations: Sequence[Migration] = MIGRATIONS) -> Verb[None]:
    """Raises `SchemaError` where this code cannot read the tables as they are."""
    todo = yield from missing(dialect, migrations)
    if len(todo) == len(migrations):
        raise SchemaError("There are no tables of edda in this database yet. Make them: edda db upgrade")
    if todo:
        raise SchemaError(
            f"The tables in the database have version {todo[0].version - 1}, and this edda reads version "
            f"{migrations[-1].version}. Bring them up to date: edda db upgrade"
        )


def migrate(dialect: Dialect, migrations: Sequence[Migration] = MIGRATIONS) -> Verb[tuple[int, ...]]:
    """Apply what is missing. Returns the versions that were applied here."""
    for statement in dialect.migration_lock():
        rows, _ = yield statement
        if rows and rows[0][0] == 0:
            raise SchemaError("Another process has been migrating the tables for a minute")
    todo = yield from missing(dialect, migrations)
    if not todo:
        return ()
    for text in dialect.create_table(SCHEMA):
        yield Statement(text)
    for migration in todo:
        for text in migration.statements(dialect):
            yield Statement(text)
        rows, _ = yield Statement(f"select {dialect.now}")
        yield Statement(
            "insert into edda_schema (version, oldest_code, applied_at_us, library) values (?, ?, ?, ?)",
            (migration.version, migration.oldest_code, int(rows[0][0]), LIBRARY),
        )
    return tuple(migration.version for migration in todo)
