"""PostgreSQL through asyncpg: connections, presence, and ending the connections of the dead."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from edda.core.history import WorkerId
from edda.exceptions import StorageError
from edda.storage.sql.dialects.postgresql import PostgresqlDialect, presence_key
from edda.storage.sql.postgresql_hints import PostgresqlHints
from edda.storage.sql.runner import Runner, numbered
from edda.storage.sql.server_database import SESSION_POOL_SIZE, ServerDatabase
from edda.storage.sql.url import DatabaseUrl
from edda.storage.sql.verb import Rows, Statement, Verb

if TYPE_CHECKING:
    from edda.storage.sql.session_line import Lines

CONNECT_SECONDS_MAX: Final = 10.0
LOCK_SECONDS_MAX: Final = 10
"""Nobody holds a row for so long but the dead."""
SESSION_IDLE_SECONDS: Final = 30
"""One lease: a user's transaction that does nothing for so long is rolled back by the server."""


class PostgresqlDatabase(ServerDatabase):
    give_up_presence = "select pg_advisory_unlock_all()"

    def __init__(
        self,
        url: DatabaseUrl,
        *,
        session_pool_size: int = SESSION_POOL_SIZE,
        session_idle_seconds: int = SESSION_IDLE_SECONDS,
        notifications: bool = True,
    ) -> None:
        if url.pgbouncer and url.schema is not None:
            raise StorageError("?schema= and ?pgbouncer=1 exclude each other: a pooler forgets which schema was chosen")
        super().__init__(url, PostgresqlDialect(), session_pool_size=session_pool_size)
        self.has_presence = not url.pgbouncer
        self._session_idle_seconds = session_idle_seconds
        self._hints: PostgresqlHints | None = None
        self._notifications = notifications and not url.pgbouncer  # a pooler hands no notifications on

    async def connect(self, *, in_transactions: bool = False) -> PostgresqlWire:
        del in_transactions  # asyncpg begins nothing by itself
        return PostgresqlWire(await self._connect({"lock_timeout": f"{LOCK_SECONDS_MAX}s"} | self._idle_limit()))

    async def connect_session(self) -> Any:
        """A connection for `ctx.session`."""
        return await self._connect(self._idle_limit())

    def _idle_limit(self) -> dict[str, str]:
        """So that a process that stalls in the middle of a transaction does not keep its locks."""
        return {"idle_in_transaction_session_timeout": str(self._session_idle_seconds * 1000)}

    async def _connect(self, settings: dict[str, str]) -> Any:
        asyncpg: Any = import_module("asyncpg")
        settings |= {
            # The isolation that all our statements are written for, whatever the server's default is.
            "default_transaction_isolation": "read committed",
            # Compiling a statement that runs for 100 µs never pays.
            "jit": "off",
            "application_name": "edda",
        }
        if self.read_only:
            settings["default_transaction_read_only"] = "on"
        if self.url.schema is not None:
            settings["search_path"] = f'"{self.url.schema}"'
        # A pooler gives each transaction another session, and refuses settings that it does not know.
        options: dict[str, Any] = {"statement_cache_size": 0} if self.url.pgbouncer else {"server_settings": settings}
        return await asyncpg.connect(self.url.dsn, timeout=CONNECT_SECONDS_MAX, **options)

    def schema_verb(self) -> Verb[None] | None:
        """The tables may live in a schema of their own (`?schema=`)."""
        return _make_schema(self.url.schema) if self.url.schema is not None else None

    def listen(self, heard: Callable[[], None]) -> None:
        if self._notifications:
            self._hints = self._hints or PostgresqlHints(partial(self._connect, {}), schema=self.url.schema)
            self._hints.listen(heard)

    def hint(self) -> None:
        if self._hints is not None:
            self._hints.hint()

    async def close(self) -> None:
        if self._hints is not None:
            hints, self._hints = self._hints, None
            await hints.close()
        await super().close()

    def presence_statement(self, worker: WorkerId) -> Statement:
        return Statement(f"select pg_try_advisory_lock({presence_key('?::text')})", (worker,))

    async def end_connections(self, desk: Runner, dead: WorkerId, waiting: int | None) -> None:
        """Of the connections noted for the worker those that are in the way: numbers of processes are used again."""
        await desk.run("end_connections", partial(_terminate, dead, waiting or 0), atomic=False)

    def session_lines(self) -> Lines:
        from sqlalchemy.engine import make_url

        from edda.storage.sql.session_server import ServerLines

        return ServerLines(
            url=make_url(self.url.sqlalchemy),
            connect=self.connect_session,
            note_server_id=self.note_server_id,
            pool_size=self.session_pool_size,
            prepared_statements=not self.url.pgbouncer,
        )


class PostgresqlWire:
    """An asyncpg connection. It does not say how many rows a statement changed; no verb asks on PostgreSQL."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.server_id = int(connection.get_server_pid())

    @property
    def is_closed(self) -> bool:
        return bool(self._connection.is_closed())

    async def begin(self) -> None:
        await self._connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")

    async def execute(self, statement: Statement) -> Rows:
        text = numbered(statement.text)
        if statement.many:
            await self._connection.executemany(text, statement.params)
            return Rows((), -1)
        rows: Sequence[Any] = await self._connection.fetch(text, *statement.params)
        return Rows(rows, -1)

    async def commit(self) -> None:
        await self._connection.execute("COMMIT")

    async def rollback(self) -> None:
        await self._connection.execute("ROLLBACK")

    def drop(self) -> None:
        with contextlib.suppress(Exception):
            self._connection.terminate()

    async def close(self) -> None:
        await self._connection.close()


def _make_schema(schema: str) -> Verb[None]:
    rows, _ = yield Statement("select 1 from pg_namespace where nspname = ?", (schema,))
    if not rows:
        # Two at once would be in each other's way even with IF NOT EXISTS.
        yield Statement("select pg_advisory_xact_lock(hashtextextended('edda:schema', 0))")
        quoted = schema.replace('"', '""')
        yield Statement(f'create schema if not exists "{quoted}"')


def _terminate(dead: WorkerId, waiting: int) -> Verb[None]:
    yield Statement(
        "select pg_terminate_backend(a.pid) from pg_stat_activity a, edda_worker w "
        "where w.id = ? and a.datname = current_database() "
        "and a.pid::text = any(string_to_array(w.server_ids, ',')) and a.pid = any(pg_blocking_pids(?::int))",
        (dead, waiting),
    )
