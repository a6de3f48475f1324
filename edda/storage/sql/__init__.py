"""The only place that knows SQL. Verbs are written once, as generators of statements; dialects hold what differs."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from edda.exceptions import MissingExtraError
from edda.storage.sql.url import parse

if TYPE_CHECKING:
    from edda.storage.sql.database import Database
    from edda.storage.sql.reads_store import SqlReader
    from edda.storage.sql.store import SqlStore

__all__ = ["open_reader", "open_store"]


def open_store(
    url: str,
    *,
    session_pool_size: int = 5,
    session_hold_seconds: float = 20.0,
    session_idle_seconds: int = 30,
    notifications: bool = True,
) -> SqlStore:
    """The store for a database URL. Nothing is connected before `await store.open()`.

    `sqlite:///file.db`, `sqlite:////absolute/file.db`, `sqlite://` (in memory), `postgresql://...` (`?schema=`,
    `?pgbouncer=1`), `mysql://...`, `mariadb://...`; a driver's name as in `postgresql+asyncpg://` changes nothing.
    `ctx.session` has `session_pool_size` connections on a server, where a transaction that does nothing for
    `session_idle_seconds` is ended; on SQLite one transaction lasts `session_hold_seconds` at most.
    `notifications`: hints between processes, on PostgreSQL.
    Raises `MissingExtraError` where the driver is not installed.
    """
    from edda.storage.sql.store import SqlStore

    return SqlStore(
        _database(
            url,
            session_pool_size=session_pool_size,
            session_hold_seconds=session_hold_seconds,
            session_idle_seconds=session_idle_seconds,
            notifications=notifications,
        )
    )


def open_reader(url: str) -> SqlReader:
    """The same database, only to be looked at: the right to SELECT suffices. Connected by `await reader.open()`.

    That raises `SchemaError` where the tables are missing or too old, and `StorageError` where there is no database.
    """
    from edda.storage.sql.reads_store import SqlReader

    return SqlReader(_database(url))


def _database(
    url: str,
    *,
    session_pool_size: int = 5,
    session_hold_seconds: float = 20.0,
    session_idle_seconds: int = 30,
    notifications: bool = True,
) -> Database:
    parsed = parse(url)
    database: Database
    match parsed.kind:
        case "sqlite":
            from edda.storage.sql.sqlite_database import SqliteDatabase

            database = SqliteDatabase(parsed, session_hold_seconds=session_hold_seconds)
        case "postgresql":
            _need("asyncpg", what="PostgreSQL", extra="postgresql")
            from edda.storage.sql.postgresql_database import PostgresqlDatabase

            database = PostgresqlDatabase(
                parsed,
                session_pool_size=session_pool_size,
                session_idle_seconds=session_idle_seconds,
                notifications=notifications,
            )
        case "mysql":
            _need("asyncmy", what="MySQL and MariaDB", extra="mysql")
            from edda.storage.sql.mysql_database import MysqlDatabase

            database = MysqlDatabase(
                parsed, session_pool_size=session_pool_size, session_idle_seconds=session_idle_seconds
            )
    return database


def _need(package: str, *, what: str, extra: str) -> None:
    if find_spec(package) is None:
        raise MissingExtraError(what=what, package=package, extra=extra)
