"""`ctx.session` on SQLite: SQLAlchemy over the one connection that everything edda writes goes through.

Two connections that write would lock each other out, and on `:memory:` there is only one. So the session borrows the
writer's: it holds the gate from its first statement to its end, and its statements run in the writer's thread, which
takes them in order. SQLAlchemy's aiosqlite dialect talks to a `Bridge`, which is shaped like an `aiosqlite.Connection`.
Laws:
- Only `SqliteLine` begins and ends transactions. For the bridge, commit, rollback and close do nothing.
- A bridge that has ended lets nothing through, so no straggler can write into another's transaction.
- Whoever holds the gate too long is rolled back, and told so at its next statement.
- One session at a time queues at the gate, so a plain step waits for one session at most, however many there are.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncTransaction, create_async_engine
from sqlalchemy.pool import NullPool

from edda.careful_log import CarefulLogger
from edda.exceptions import SessionUnavailableError, StorageError
from edda.storage.port import UnknownOutcome
from edda.storage.sql.dialects.sqlite import PRIMARY_CODES
from edda.storage.sql.session_line import check_alive, to_the_end
from edda.storage.sql.verb import Verb, drive_sync

if TYPE_CHECKING:
    from edda.storage.sql.sqlite_database import SqliteDatabase

T = TypeVar("T")

HOLD_WARNING_SECONDS = 1.0
"""Holding the gate is waiting for everybody else: a second is long."""

_logger = CarefulLogger("edda.storage")


class SqliteLines:
    """The lines of one SQLite store."""

    def __init__(self, database: SqliteDatabase, *, url: str, hold_seconds: float = 20.0) -> None:
        self._database = database
        self._url = url
        self._hold_seconds = hold_seconds
        self._engine: AsyncEngine | None = None
        self._functions: set[tuple[str, int]] = set()
        self._turn = asyncio.Lock()

    def line(self, *, worker: str, label: str) -> SqliteLine:
        del worker  # it has no connection of its own that somebody could have to end
        return SqliteLine(self._database, self._turn, self.engine(), label=label, hold_seconds=self._hold_seconds)

    def engine(self) -> AsyncEngine:
        if self._engine is None:
            # NullPool: a bridge per transaction costs nothing, and one that has ended can stay ended.
            self._engine = create_async_engine(
                self._url, async_creator=self._bridge, poolclass=NullPool, pool_reset_on_return=None
            )
        return self._engine

    async def dispose(self) -> None:
        if self._engine is not None:
            await self._engine.dispose()

    async def _bridge(self) -> Bridge:
        return Bridge(self._database, self._functions)


class SqliteLine:
    """One transaction of a `ctx.session` on the writer's connection."""

    def __init__(
        self, database: SqliteDatabase, turn: asyncio.Lock, engine: AsyncEngine, *, label: str, hold_seconds: float
    ) -> None:
        self._database = database
        self._turn = turn
        self._engine = engine
        self._label = label
        self._hold_seconds = hold_seconds
        self._connection: AsyncConnection | None = None
        self._transaction: AsyncTransaction | None = None
        self._bridge: Bridge | None = None
        self._holds_gate = False
        self._timers: list[asyncio.TimerHandle] = []
        self._eviction: asyncio.Future[None] | None = None

    async def open(self) -> AsyncConnection:
        await self._turn.acquire()
        try:
            await self._database.gate.acquire()
        except BaseException:
            self._turn.release()
            raise
        self._holds_gate = True
        try:
            self._connection = await self._engine.connect()
            driver = (await self._connection.get_raw_connection()).driver_connection
            assert isinstance(driver, Bridge)
            self._bridge = driver
            try:
                await self._database.call(_begin)
            except sqlite3.OperationalError as error:
                raise StorageError(f"another process has locked the database for too long: {error}") from error
            self._transaction = await self._connection.begin()
        except BaseException:
            await to_the_end(self._abandon())
            raise
        loop = asyncio.get_running_loop()
        self._timers = [
            loop.call_later(HOLD_WARNING_SECONDS, self._warn),
            loop.call_later(self._hold_seconds, self._evict),
        ]
        return self._connection

    def check(self) -> None:
        if self._eviction is not None:
            raise self._too_long()
        if self._connection is not None:
            check_alive(self._connection, self._transaction, self._label)

    async def run(self, verb: Verb[T]) -> T:
        def run(connection: sqlite3.Connection) -> T:
            return drive_sync(verb, partial(self._database.execute, connection, "session"))

        assert self._bridge is not None
        return await self._bridge.call(run)

    async def commit(self) -> None:
        assert self._bridge is not None
        self._stop_timers()
        try:
            self.check()
            self._bridge.ended = self._over()  # before COMMIT: what a straggler sends after it would commit by itself
            await to_the_end(self._database.call(_commit))
        finally:
            await to_the_end(self._abandon())

    async def rollback(self) -> None:
        self._stop_timers()
        if self._eviction is not None:
            await to_the_end(self._eviction)
        else:
            await to_the_end(self._abandon())

    async def _abandon(self) -> None:
        """Roll back what is not committed, give everything back. The thread does it after what was asked before."""
        self._stop_timers()
        if not self._holds_gate:
            return
        self._holds_gate = False
        if self._bridge is not None:
            self._bridge.ended = self._too_long() if self._eviction is not None else self._over()
        try:
            await self._database.call(_rollback)
        except (sqlite3.Error, StorageError) as error:
            _logger.warning("the ctx.session of %s could not be rolled back: %s", self._label, error)
        finally:
            self._database.gate.release()  # first: a plain step that waits comes before the next session
            self._turn.release()
        if self._connection is not None:
            await self._connection.close()

    def _too_long(self) -> StorageError:
        return StorageError(
            f"{self._label} has held ctx.session for more than {self._hold_seconds:g} seconds, while everything else "
            "that writes to SQLite waited; it was rolled back. Do the slow part before the first statement"
        )

    def _over(self) -> SessionUnavailableError:
        return SessionUnavailableError(f"ctx.session of {self._label} is over: its attempt has ended")

    def _warn(self) -> None:
        _logger.warning(
            "%s has held ctx.session for more than %g s; on SQLite everything else that writes waits for it",
            self._label,
            HOLD_WARNING_SECONDS,
        )

    def _evict(self) -> None:
        self._eviction = asyncio.ensure_future(self._abandon())

    def _stop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()


class Bridge:
    """As much of an `aiosqlite.Connection` as SQLAlchemy uses, over the writer's connection."""

    _connection = None
    """aiosqlite's name for the real connection. None: SQLAlchemy then leaves commit and rollback alone."""
    isolation_level = None

    def __init__(self, database: SqliteDatabase, functions: set[tuple[str, int]]) -> None:
        self._database = database
        self._functions = functions
        self.ended: Exception | None = None

    async def call(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        if self.ended is not None:
            raise self.ended
        return await self._database.call(fn)

    def cursor(self, *_: Any) -> BridgeCursor:
        return BridgeCursor(self)

    async def create_function(
        self, name: str, arguments: int, function: Callable[..., Any], deterministic: bool = False
    ) -> None:
        """SQLAlchemy gives every new connection its `regexp`; the real one needs it once."""
        if (name, arguments) not in self._functions:
            self._functions.add((name, arguments))
            await self.call(lambda c: c.create_function(name, arguments, function, deterministic=deterministic))

    async def commit(self) -> None: ...

    async def rollback(self) -> None: ...

    async def close(self) -> None: ...

    def stop(self) -> None: ...


class BridgeCursor:
    """As much of an `aiosqlite.Cursor` as SQLAlchemy uses. A statement and its rows are one trip to the thread."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._rows: Sequence[Any] = ()
        self._next = 0
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1

    def __await__(self) -> Generator[Any, None, BridgeCursor]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> BridgeCursor:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> BridgeCursor:
        return self

    async def __anext__(self) -> Any:
        row = await self.fetchone()
        if row is None:
            raise StopAsyncIteration
        return row

    async def execute(self, text: str, params: Any = ()) -> BridgeCursor:
        return await self._execute(lambda cursor: cursor.execute(text, params))

    async def executemany(self, text: str, params: Any) -> BridgeCursor:
        return await self._execute(lambda cursor: cursor.executemany(text, params))

    async def fetchone(self) -> Any:
        return next(iter(self._take(1)), None)

    async def fetchmany(self, size: int | None = None) -> Sequence[Any]:
        return self._take(size or self.arraysize)

    async def fetchall(self) -> Sequence[Any]:
        return self._take(len(self._rows))

    async def close(self) -> None: ...

    async def _execute(self, work: Callable[[sqlite3.Cursor], object]) -> BridgeCursor:
        def execute(connection: sqlite3.Connection) -> tuple[Any, int, int | None, Sequence[Any]]:
            cursor = connection.cursor()
            cursor.row_factory = None
            try:
                work(cursor)
                rows = cursor.fetchall() if cursor.description else ()
                return cursor.description, cursor.rowcount, cursor.lastrowid, rows
            finally:
                cursor.close()

        self.description, self.rowcount, self.lastrowid, self._rows = await self._bridge.call(execute)
        self._next = 0
        return self

    def _take(self, count: int) -> Sequence[Any]:
        taken = self._rows[self._next : self._next + count]
        self._next += len(taken)
        return taken


def _begin(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")


def _commit(connection: sqlite3.Connection) -> None:
    try:
        connection.execute("COMMIT")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & PRIMARY_CODES == sqlite3.SQLITE_IOERR:
            raise UnknownOutcome(f"writing the log failed: {error}") from error
        raise


def _rollback(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:  # a full disk, for one, has SQLite roll back by itself
        connection.execute("ROLLBACK")
