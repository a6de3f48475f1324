"""The transaction behind `ctx.session`: the user's rows, the activity's record and its outbox rows become one COMMIT.

The session is an ordinary `AsyncSession` on a connection where a transaction is already open: the user's own commit and
rollback move a savepoint only. Nothing happens before the first statement, which opens the transaction from within
SQLAlchemy. This module, and whatever imports it, is imported only when a session is wanted: SQLAlchemy takes 280 ms.

Laws:
- One transaction object is one attempt. After its end its session raises, and its connection is back where it belongs.
- Whatever goes wrong before COMMIT, and any verdict but COMMITTED, rolls back. COMMIT itself is never cancelled.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

from edda.core.commit import Commit, Creation, NewInstance, Verdict
from edda.exceptions import SessionUnavailableError, StorageError
from edda.storage.sql.session_line import Line, run_verb, to_the_end
from edda.storage.sql.sqlite_database import system_clock_us
from edda.storage.sql.verb import Verb


class SessionTransaction:
    """One attempt's transaction; see `edda.storage.port.UserTransaction`."""

    def __init__(
        self,
        line: Line,
        *,
        label: str,
        write: Callable[[Commit], Verb[Verdict]],
        create: Callable[[NewInstance], Verb[Creation]],
        before_open: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._line = line
        self._before_open = before_open
        self._label = label
        self._write = write
        self._create = create
        self._connection: AsyncConnection | None = None
        self._opening = asyncio.Lock()
        self._over = False
        self._session = AsyncSession(
            sync_session_class=LazySession,
            find_connection=self._find_connection,
            join_transaction_mode="create_savepoint",
            expire_on_commit=False,
        )

    @property
    def session(self) -> AsyncSession:
        return self._session

    @property
    def opened(self) -> bool:
        return self._connection is not None

    async def flush(self) -> bool:
        await self._session.flush()
        return self.opened

    async def start(self, new: NewInstance) -> Creation:
        await self._open()
        return await self._line.run(self._create(new))

    async def commit(self, commit: Commit) -> Verdict:
        try:
            self._line.check()
            # Not only a flush: releasing the savepoint fails if the user's code, DDL on MySQL or a deadlock has ended
            # the transaction under it, and committing refuses a session whose failed flush was swallowed.
            await self._session.commit()
            await self._open()
            verdict = await self._line.run(self._write(commit))
            self._line.check()
        except BaseException:
            await self.rollback()
            raise
        if verdict is not Verdict.COMMITTED:
            await self.rollback()
            return verdict
        self._over = True
        try:
            await self._line.commit()
        finally:
            await to_the_end(self._session.close())
        return verdict

    async def rollback(self) -> None:
        self._over = True
        try:
            await self._line.rollback()
        finally:
            await to_the_end(self._session.close())

    async def _open(self) -> AsyncConnection:
        async with self._opening:  # two tasks of one activity may come with the first statement
            self._check_not_over()
            if self._connection is None:
                if self._before_open is not None:
                    await self._before_open()
                self._connection = await self._line.open()
                if self._over:  # the attempt ended while some task of it was waiting here
                    await self._line.rollback()
                self._check_not_over()
            self._line.check()
            return self._connection

    def _check_not_over(self) -> None:
        if self._over:
            raise SessionUnavailableError(f"ctx.session of {self._label} is over: its attempt has ended")

    def _find_connection(self) -> Connection:
        """Called by SQLAlchemy before each statement, in a greenlet."""
        connection = self._connection
        if connection is None or self._over:
            connection = await_only(self._open())
        else:
            self._line.check()
        assert connection.sync_connection is not None
        return connection.sync_connection


class LazySession(Session):
    """The synchronous half of `ctx.session`: it asks for its connection when it needs one."""

    def __init__(self, *, find_connection: Callable[[], Connection], **options: Any) -> None:
        super().__init__(**options)
        self._find_connection = find_connection

    def get_bind(self, *_: Any, **__: Any) -> Connection:
        return self._find_connection()


# -- a transaction of the user's own -----------------------------------------------------------------------------------


async def create_in(session: AsyncSession | Session, verb: Verb[Creation], *, url: str) -> Creation:
    """Create an instance inside the caller's own transaction, on the same database.

    The verb inserts if absent, so it never spoils that transaction. `StorageError` if `session` is bound elsewhere.
    """

    def create(session: Session) -> Creation:
        connection = session.connection()
        if not isinstance(session, LazySession):
            check_same_database(connection.engine.url, make_url(url))
            if connection.dialect.name == "sqlite":
                _teach_time(connection)
        return run_verb(connection, verb)

    if isinstance(session, AsyncSession):
        return await session.run_sync(create)
    return create(session)


def _teach_time(connection: Connection) -> None:
    """Our statements on SQLite ask a function of ours for the time; see `dialects.sqlite`."""
    driver: Any = connection.connection.dbapi_connection
    driver.create_function("edda_now_us", 0, system_clock_us)


def check_same_database(theirs: URL, ours: URL) -> None:
    """Compares addresses; two names of one host, other than localhost, count as two."""
    if _address(theirs) != _address(ours) or _address(ours)[-1] is None:
        raise StorageError(
            f"the session is bound to {_shown(theirs)}, but this app's database is {_shown(ours)}: an instance can be "
            "created inside your transaction only on the same database"
        )


def _address(url: URL) -> tuple[str | int | None, ...]:
    backend = "mysql" if url.get_backend_name() == "mariadb" else url.get_backend_name()
    if backend == "sqlite":
        path = (url.database or ":memory:").removeprefix("file:").partition("?")[0]
        return backend, None if path == ":memory:" else os.path.realpath(path)
    host = url.host or _first(url.query.get("host")) or _first(url.query.get("unix_socket"))
    if host in (None, "127.0.0.1", "::1") or host.startswith("/"):
        host = "localhost"
    port = url.port or {"postgresql": 5432, "mysql": 3306}.get(backend)
    return backend, host.lower(), port, url.database or url.username


def _first(values: tuple[str, ...] | str | None) -> str | None:
    return values[0] if isinstance(values, tuple) else values


def _shown(url: URL) -> str:
    return url.set(query={}).render_as_string(hide_password=True)


# -- errors ------------------------------------------------------------------------------------------------------------

_SERIALIZATION_SQLSTATES: Final = frozenset({"40001", "40P01"})
_SERIALIZATION_MYSQL: Final = frozenset({1213, 1020})
"""Deadlock, and MariaDB's *record has changed since last read*. Not 1205: that one has waited already."""


def is_serialization_failure(error: BaseException) -> bool:
    """Whether a transaction failed only because of others: whole and at once, it may be tried again."""
    return any(_is_serialization_code(each) for each in _causes(error))


def _is_serialization_code(error: BaseException) -> bool:
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    code = error.args[0] if error.args and type(error).__module__.partition(".")[0] in _MYSQL_DRIVERS else None
    return state in _SERIALIZATION_SQLSTATES or code in _SERIALIZATION_MYSQL


_MYSQL_DRIVERS: Final = frozenset({"asyncmy", "aiomysql", "pymysql", "MySQLdb"})


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it comes from, also the error of the database that came before; see `session_server`."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting.append(each.__cause__)
        if isinstance(each, DBAPIError) and each.orig is not None:
            waiting += [each.orig, each.orig.__context__]
