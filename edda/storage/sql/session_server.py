"""`ctx.session` on PostgreSQL and MySQL: a pool of a few connections of its own, through SQLAlchemy.

The connections are made by the store, with the parameters of its own; SQLAlchemy gets them ready made. Laws:
- A connection goes back to the pool only after COMMIT or ROLLBACK was answered; in every other case it is closed.
- The server's id of the connection stands in the worker's row before the first statement, so a reaper can end it.
- Only a refusal that the server itself has sent counts as *not committed*; any other failure of COMMIT is unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Final, TypeVar

from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, ExceptionContext
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncTransaction, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from edda.careful_log import CarefulLogger
from edda.exceptions import StorageError
from edda.storage.port import UnknownOutcome
from edda.storage.sql.session_line import check_alive, run_verb, to_the_end
from edda.storage.sql.verb import Verb

T = TypeVar("T")

COMMIT_SECONDS_MAX = 30.0
"""A COMMIT unanswered for so long is taken for unknown, and its socket closed."""
ROLLBACK_SECONDS_MAX = 5.0
"""Closing the socket rolls back just as well, so there is no point in waiting long."""

_LINE: Final = "edda.line"
_NOTED: Final = "edda.noted"
_FAILURE: Final = "edda.failure"
_logger = CarefulLogger("edda.storage")


class ServerLines:
    """The lines of one store on a database server. The engine is made at the first use, in the store's loop."""

    def __init__(
        self,
        *,
        url: URL,
        connect: Callable[[], Awaitable[Any]],
        note_server_id: Callable[[str, int], Awaitable[None]],
        pool_size: int = 5,
        prepared_statements: bool = True,
    ) -> None:
        """`url` names SQLAlchemy's driver; `connect` gives a connection of that driver."""
        self._url = url
        self._connect = connect
        self._note_server_id = note_server_id
        self._pool_size = pool_size
        self._prepared_statements = prepared_statements
        self._engine: AsyncEngine | None = None

    def line(self, *, worker: str, label: str) -> ServerLine:
        return ServerLine(self.engine(), self._note_server_id, self._connect, worker=worker, label=label)

    def engine(self) -> AsyncEngine:
        if self._engine is None:
            self._engine = self._make_engine()
        return self._engine

    async def dispose(self) -> None:
        if self._engine is not None:
            await self._engine.dispose()

    def _make_engine(self) -> AsyncEngine:
        unprepared = {"prepared_statement_cache_size": 0} if self._url.drivername == "postgresql+asyncpg" else {}

        async def connect(*_: Any, **__: Any) -> Any:
            return await self._connect()

        engine = create_async_engine(
            self._url.set(query={}),  # what it asks for, `connect` has done
            async_creator=connect,
            connect_args={} if self._prepared_statements else unprepared,
            isolation_level="READ COMMITTED",
            poolclass=AsyncAdaptedQueuePool,
            pool_size=self._pool_size,
            max_overflow=0,
            # Whoever holds one has all it needs to finish, so waiting ends; an attempt's `timeout` can cut it short.
            pool_timeout=None,
            pool_use_lifo=True,
            pool_reset_on_return=None,  # first law above
        )
        event.listen(engine.sync_engine.pool, "checkout", _refuse_dead)
        event.listen(engine.sync_engine, "commit", _refuse_commit_of_others)
        event.listen(engine.sync_engine, "handle_error", _look_at_error)
        return engine


class ServerLine:
    """One transaction of a `ctx.session` on a connection of the pool."""

    def __init__(
        self,
        engine: AsyncEngine,
        note_server_id: Callable[[str, int], Awaitable[None]],
        connect: Callable[[], Awaitable[Any]],
        *,
        worker: str,
        label: str,
    ) -> None:
        self._engine = engine
        self._note_server_id = note_server_id
        self._connect = connect
        self._worker = worker
        self._label = label
        self._connection: AsyncConnection | None = None
        self._transaction: AsyncTransaction | None = None
        self._server_id = 0
        self.committing = False
        self.cut_off = False
        """The connection was given up while a statement was under way."""

    async def open(self) -> AsyncConnection:
        with self._unreachable():
            self._connection = connection = await self._engine.connect()
        try:
            await self._note(connection)
            self._transaction = await connection.begin()
            _info(connection).update({_LINE: self, _FAILURE: None})
        except BaseException:
            await to_the_end(self._abandon())
            raise
        return connection

    def check(self) -> None:
        if self._connection is not None:
            check_alive(self._connection, self._transaction, self._label)

    async def run(self, verb: Verb[T]) -> T:
        assert self._connection is not None
        return await self._connection.run_sync(run_verb, verb)

    async def commit(self) -> None:
        await to_the_end(self._commit())

    async def rollback(self) -> None:
        await to_the_end(self._abandon())

    async def _note(self, connection: AsyncConnection) -> None:
        """Once for each connection: a pooled one outlives the transaction, and the worker is the same."""
        self._server_id = _server_id(await _driver(connection))
        if _info(connection).get(_NOTED) != self._worker:
            await self._note_server_id(self._worker, self._server_id)
            _info(connection)[_NOTED] = self._worker

    async def _commit(self) -> None:
        assert self._transaction is not None
        assert self._connection is not None
        self.committing = True
        try:
            await self._answered(self._transaction.commit(), seconds_max=COMMIT_SECONDS_MAX)
        except Exception as error:
            await self._abandon()
            if _is_refusal(error):
                raise
            raise UnknownOutcome(f"the connection of ctx.session in {self._label} broke at COMMIT") from error
        await self._give_back()

    async def _abandon(self) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            # Not active: the user has ended SQLAlchemy's transaction, which says nothing about the server's.
            if self._transaction is not None and self._transaction.is_active and not await _is_busy(connection):
                await self._answered(self._transaction.rollback(), seconds_max=ROLLBACK_SECONDS_MAX)
            await self._give_back()
        except Exception as error:
            _logger.debug("the ctx.session of %s was not rolled back but cut off: %s", self._label, error)
            with contextlib.suppress(Exception):
                await connection.invalidate()
            with contextlib.suppress(Exception):
                await connection.close()
        finally:
            self._connection = None
        if self.cut_off and self._engine.dialect.name in ("mysql", "mariadb"):
            await self._kill()

    async def _kill(self) -> None:
        """MySQL goes on with a statement whose client is gone, and keeps all locks; the next attempt would wait."""
        try:
            async with asyncio.timeout(ROLLBACK_SECONDS_MAX):
                connection = await self._connect()
                try:
                    async with connection.cursor() as cursor:
                        await cursor.execute(f"kill {self._server_id:d}")
                finally:
                    await connection.ensure_closed()
        except Exception as error:
            _logger.debug("connection %d of ctx.session in %s was not killed: %s", self._server_id, self._label, error)

    async def _give_back(self) -> None:
        """A connection on which some straggling task of the activity still works is no good for anybody else."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if await _is_busy(connection) or await _is_in_transaction(connection):
                self.cut_off = True
                await connection.invalidate()
            await connection.close()

    async def _answered(self, work: Coroutine[Any, Any, None], *, seconds_max: float) -> None:
        """Wait for the server's answer; when it does not come, close the socket, which ends the waiting."""
        assert self._connection is not None
        task = asyncio.ensure_future(work)
        await asyncio.wait({task}, timeout=seconds_max)
        if not task.done():
            self.cut_off = True
            driver = await _driver(self._connection)
            (driver.terminate if hasattr(driver, "terminate") else driver.close)()
        await task

    @contextlib.contextmanager
    def _unreachable(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"ctx.session of {self._label} could not reach the database: {error}") from error


def _refuse_dead(connection: Any, *_: Any) -> None:
    """A look at the socket instead of a ping, which is three round trips on asyncpg: the pool makes a new one."""
    driver = connection.driver_connection
    if driver.is_closed() if hasattr(driver, "is_closed") else getattr(driver, "_stream_broken", not driver.connected):
        raise DisconnectionError("closed by the server")


def _refuse_commit_of_others(connection: Connection) -> None:
    """`(await session.connection()).commit()` would store the user's rows without their history."""
    line = connection.info.get(_LINE)
    if isinstance(line, ServerLine) and not line.committing:
        raise StorageError(
            "The transaction of ctx.session is committed by edda, together with the activity's result. "
            "Use session.commit() or session.begin_nested(), or nothing at all"
        )


def _look_at_error(error: ExceptionContext) -> None:
    """After a deadlock (on MySQL it ends the whole transaction) all that follows fails with *no such savepoint* or
    *transaction is aborted*, which says nothing; so such an error points to the first one."""
    if error.connection is None or error.connection.invalidated or error.connection.closed:
        return
    driver_error, info = error.original_exception, error.connection.info
    before, line = info.get(_FAILURE), info.get(_LINE)
    if isinstance(line, ServerLine) and not isinstance(driver_error, Exception):
        line.cut_off = True  # cancelled
    elif before is None:
        info[_FAILURE] = driver_error
    elif _code(driver_error) in _CONSEQUENCES:
        driver_error.__context__ = before


def _info(connection: AsyncConnection) -> dict[Any, Any]:
    """What SQLAlchemy keeps for us beside the driver's connection, for as long as that one lives."""
    assert connection.sync_connection is not None
    return connection.sync_connection.info


async def _driver(connection: AsyncConnection) -> Any:
    return (await connection.get_raw_connection()).driver_connection


async def _is_busy(connection: AsyncConnection) -> bool:
    """Whether some task waits for an answer on it: a ROLLBACK then would get that answer for its own."""
    if connection.invalidated:
        return False
    adapter = (await connection.get_raw_connection()).dbapi_connection
    mutex = getattr(adapter, "_execute_mutex", None)
    return mutex is not None and mutex.locked()


async def _is_in_transaction(connection: AsyncConnection) -> bool:
    if connection.invalidated:
        return False
    driver = await _driver(connection)
    return bool(driver.is_in_transaction() if hasattr(driver, "is_in_transaction") else driver.get_transaction_status())


def _server_id(driver: Any) -> int:
    server_id = driver.get_server_pid() if hasattr(driver, "get_server_pid") else driver.thread_id()
    return int(server_id)


_UNKNOWN_SQLSTATES: Final = ("08", "53", "57", "58", "XX")
"""Classes of PostgreSQL that say that the session or the server broke off: COMMIT may have worked before that."""
_REFUSALS_MYSQL: Final = frozenset({1020, 1205, 1213})
"""The only errors with which the MySQL family surely refuses a COMMIT (a Galera node certifies there)."""


def _is_refusal(error: BaseException) -> bool:
    if not isinstance(error, DBAPIError) or error.connection_invalidated or error.orig is None:
        return False
    code = _code(error.orig)
    if isinstance(code, str):
        return code[:2] not in _UNKNOWN_SQLSTATES
    return code in _REFUSALS_MYSQL


_CONSEQUENCES: Final = frozenset({"25P02", 1305})
"""The transaction is aborted; there is no such savepoint."""


def _code(error: BaseException) -> str | int | None:
    """PostgreSQL's SQLSTATE, or MySQL's number."""
    state = getattr(error, "sqlstate", None)
    code = next(iter(error.args), None)
    return state if isinstance(state, str) else code if isinstance(code, int) else None
