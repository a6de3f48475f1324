"""MySQL and MariaDB through asyncmy: connections, presence, and ending the connections of the dead."""

from __future__ import annotations

import contextlib
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from edda.core.history import WorkerId
from edda.exceptions import StorageError
from edda.storage.sql.dialects.mysql import MysqlDialect, presence_name
from edda.storage.sql.runner import Runner, formatted
from edda.storage.sql.server_database import SESSION_POOL_SIZE, ServerDatabase
from edda.storage.sql.url import DatabaseUrl
from edda.storage.sql.verb import Rows, Statement, Verb

if TYPE_CHECKING:
    from edda.storage.sql.session_line import Lines

CONNECT_SECONDS_MAX: Final = 10
LOCK_SECONDS_MAX: Final = 10
SESSION_IDLE_SECONDS: Final = 30
"""One lease: a user's transaction that does nothing for so long is rolled back by the server (MariaDB only)."""

SETTINGS: Final = (
    "set session transaction isolation level read committed",
    # UTC, because a local time has an hour twice a year; errors instead of values cut to fit.
    "set session time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
    # So that our strings compare like the columns.
    "set names utf8mb4 collate utf8mb4_bin",
)


FOUND_ROWS: Final = 2
"""The flag of the protocol with which an update tells how many rows it found, not how many it changed."""


class MysqlDatabase(ServerDatabase):
    give_up_presence = "select release_all_locks()"

    def __init__(
        self,
        url: DatabaseUrl,
        *,
        session_pool_size: int = SESSION_POOL_SIZE,
        session_idle_seconds: int = SESSION_IDLE_SECONDS,
    ) -> None:
        super().__init__(url, MysqlDialect(), session_pool_size=session_pool_size)
        self._session_idle_seconds = session_idle_seconds

    async def connect(self, *, in_transactions: bool = False) -> MysqlWire:
        connection = await self._connect(autocommit=not in_transactions)
        await _set(connection, f"set session innodb_lock_wait_timeout = {LOCK_SECONDS_MAX}")
        await self._limit_idle_transactions(connection)
        return MysqlWire(connection, begins_by_itself=in_transactions)

    async def connect_session(self) -> Any:
        """A connection for `ctx.session`."""
        # The ORM counts rows found: an update that changes nothing is no stale row.
        connection = await self._connect(autocommit=False, client_flag=FOUND_ROWS)
        await self._limit_idle_transactions(connection)
        return connection

    async def _limit_idle_transactions(self, connection: Any) -> None:
        """So that a process that stalls in the middle of a transaction does not keep its locks. MySQL cannot."""
        if "MariaDB" in connection.get_server_info():
            await _set(connection, f"set session idle_transaction_timeout = {self._session_idle_seconds}")

    async def _connect(self, *, autocommit: bool, client_flag: int = 0) -> Any:
        asyncmy: Any = import_module("asyncmy")
        options = self.url.driver_options
        connection = await asyncmy.connect(
            host=self.url.host or "localhost",
            port=self.url.port or 3306,
            user=self.url.user,
            password=self.url.password or "",
            database=self.url.database,
            unix_socket=options.get("unix_socket"),
            ssl=_tls(options),
            charset="utf8mb4",
            connect_timeout=CONNECT_SECONDS_MAX,
            autocommit=autocommit,
            client_flag=client_flag,
        )
        for setting in SETTINGS:
            await _set(connection, setting)
        if self.read_only:
            await _set(connection, "set session transaction read only")
        return connection

    def presence_statement(self, worker: WorkerId) -> Statement:
        return Statement(f"select get_lock({presence_name('?')}, 0)", (worker,))

    async def end_connections(self, desk: Runner, dead: WorkerId, waiting: int | None) -> None:
        """All that are noted for the worker: which of them is in the way, only a privileged user may see."""
        del waiting
        for server_id in await desk.run("connections", partial(_connections, dead), atomic=False):
            with contextlib.suppress(StorageError):  # gone meanwhile
                await desk.run("end_connections", partial(_kill, server_id), atomic=False)

    def session_lines(self) -> Lines:
        from sqlalchemy.engine import make_url

        from edda.storage.sql.session_server import ServerLines

        return ServerLines(
            url=make_url(self.url.sqlalchemy),
            connect=self.connect_session,
            note_server_id=self.note_server_id,
            pool_size=self.session_pool_size,
        )


class MysqlWire:
    """An asyncmy connection. `begins_by_itself`: without autocommit, the first statement begins a transaction."""

    def __init__(self, connection: Any, *, begins_by_itself: bool) -> None:
        self._connection = connection
        self._begins_by_itself = begins_by_itself
        self.server_id = int(connection.thread_id())

    @property
    def is_closed(self) -> bool:
        return not self._connection.connected

    async def begin(self) -> None:
        if not self._begins_by_itself:
            await self._connection.begin()

    async def execute(self, statement: Statement) -> Rows:
        text = formatted(statement.text)
        async with self._connection.cursor() as cursor:
            if statement.many:
                # asyncmy makes one statement of an INSERT with many rows.
                changed = await cursor.executemany(text, statement.params)
                return Rows((), changed or 0)
            await cursor.execute(text, statement.params)
            rows = await cursor.fetchall() if cursor.description else ()
            return Rows(rows, cursor.rowcount)

    async def commit(self) -> None:
        await self._connection.commit()

    async def rollback(self) -> None:
        await self._connection.rollback()

    def drop(self) -> None:
        with contextlib.suppress(Exception):
            self._connection.close()

    async def close(self) -> None:
        await self._connection.ensure_closed()


async def _set(connection: Any, text: str) -> None:
    async with connection.cursor() as cursor:
        await cursor.execute(text)


def _tls(options: dict[str, str]) -> Any:
    """`?ssl=true`, or `?ssl_ca=…&ssl_cert=…&ssl_key=…` as SQLAlchemy spells it; None: no TLS."""
    files = {name.removeprefix("ssl_"): value for name, value in options.items() if name.startswith("ssl_")}
    if files:
        return files
    return True if options.get("ssl", "").lower() in ("1", "true", "yes") else None


def _connections(dead: WorkerId) -> Verb[tuple[int, ...]]:
    rows, _ = yield Statement(
        "select p.id from information_schema.processlist p, edda_worker w "
        "where w.id = ? and p.db = database() and find_in_set(p.id, w.server_ids)",
        (dead,),
    )
    return tuple(int(row[0]) for row in rows)


def _kill(server_id: int) -> Verb[None]:
    yield Statement("kill ?", (server_id,))
