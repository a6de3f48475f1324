"""SQLite: one connection that writes, in a thread of its own; another that reads; and a file lock for presence.

A verb is one trip to the thread: a whole transaction, BEGIN IMMEDIATE to COMMIT. Batching is done above. Laws:
- Whatever writes holds the `gate`. A `ctx.session` holds it from its first statement to its end, because its
  transaction lives on the same connection.
- Only the process that has the lock file runs a worker, and only it checkpoints: before 3.51.3, SQLite could corrupt a
  database in which two connections write and checkpoint at once. Others may write short transactions (start, cancel).
- Threads are daemons, and nothing waits for them but `close`.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from edda.careful_log import CarefulLogger
from edda.core.history import WorkerId
from edda.exceptions import DatabaseUnavailableError, StorageError
from edda.storage.port import LeaseLine, Reaped, UnknownOutcome
from edda.storage.sql.database import Lane
from edda.storage.sql.dialects.base import Problem
from edda.storage.sql.dialects.sqlite import PRIMARY_CODES, SqliteDialect
from edda.storage.sql.migrate import migrate, missing, must_be_current
from edda.storage.sql.runner import ATTEMPTS_MAX, DuplicateKeyError
from edda.storage.sql.sqlite_presence import FileLock, SqliteLeaseLine, cannot_open
from edda.storage.sql.sqlite_thread import ConnectionThread
from edda.storage.sql.url import DatabaseUrl
from edda.storage.sql.verb import Rows, Statement, Verb, drive_sync

if TYPE_CHECKING:
    from edda.storage.sql.session_line import Lines

T = TypeVar("T")
BlockingHook = Callable[[str, Statement | Literal["COMMIT"]], None]
"""Called in the writer's thread before each statement and before COMMIT; an error from it rolls back."""

BUSY_SECONDS_MAX: Final = 5.0
OPENING_PAUSE_SECONDS: Final = 0.01
CHECKPOINT_PAGES: Final = 1000
NO_FILES_BESIDE: Final = frozenset({sqlite3.SQLITE_READONLY_DIRECTORY, sqlite3.SQLITE_CANTOPEN})
"""What SQLite says of a file that it has open already, where it cannot make those beside it. To open it as immutable
would do without them, and read nonsense as soon as a worker begins."""
FIRST_VERSION_WITHOUT_RESET_BUG: Final = (3, 51, 3)
SESSION_HOLD_SECONDS: Final = 20.0

_logger = CarefulLogger("edda.storage")


def system_clock_us() -> int:
    return time.time_ns() // 1000


class SqliteDatabase:
    """A database file, or a database in memory, which has the one connection for everything."""

    sessions_exclude_writes = True

    def __init__(
        self,
        url: DatabaseUrl,
        *,
        now_us: Callable[[], int] = system_clock_us,
        session_hold_seconds: float = SESSION_HOLD_SECONDS,
    ) -> None:
        self.dialect = SqliteDialect()
        self.url = url
        self.path = _resolved(url.database) if url.database is not None else None
        self.gate = asyncio.Lock()
        self.on_statement: BlockingHook | None = None
        self.file_lock = FileLock(self.path)
        self.live: set[WorkerId] = set()
        """The workers of this process; with the lock file in hand, all others are dead."""
        self._now_us = now_us
        self._session_hold_seconds = session_hold_seconds
        self._writer: ConnectionThread | None = None
        self._reader: ConnectionThread | None = None
        self._looker: ConnectionThread | None = None
        """For what people ask; made with the first question."""
        self._looked_for_others = False

    # -- life --------------------------------------------------------------------------------------------------------

    async def open(self, *, read_only: bool = False) -> None:
        if self._writer is not None:
            return
        if read_only:
            await self._open_to_look()
            return
        self._writer = ConnectionThread("edda-sqlite-writer", self._connect_writer)
        try:
            await self._writer.start()
            if await self._run_read(self._writer, "missing", partial(missing, self.dialect)):
                await self.run("migrate", partial(migrate, self.dialect), lane=Lane.DESK)
            if self.path is not None:
                self._reader = ConnectionThread("edda-sqlite-reader", partial(self._connect_reader, self.path))
                await self._reader.start()
        except BaseException:
            await self.close()
            raise

    async def _open_to_look(self) -> None:
        if self.path is None or not _exists(self.path):
            raise StorageError(
                "A SQLite database in memory cannot be seen from outside its process"
                if self.path is None
                else f"There is no SQLite database {self.path}. An app makes it when it begins, or now: edda db upgrade"
            )
        await self._run_read(
            await self._look_thread(self.path), "must_be_current", partial(must_be_current, self.dialect)
        )

    async def _look_thread(self, path: Path) -> ConnectionThread:
        if self._looker is None:
            self._looker = ConnectionThread("edda-sqlite-looker", partial(self._connect_reader, path))
            try:
                await self._looker.start()
            except BaseException:
                self._looker = None
                raise
        return self._looker

    async def close(self) -> None:
        looker, self._looker = self._looker, None
        if looker is not None:
            await looker.stop()
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.stop()
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.stop()

    def _connect_writer(self) -> sqlite3.Connection:
        connection = self._connect(str(self.path) if self.path is not None else ":memory:")
        try:
            _use_wal(connection)
            connection.execute("pragma synchronous = full")
            connection.execute(f"pragma wal_autocheckpoint = {CHECKPOINT_PAGES if self.file_lock.is_held else 0}")
        except sqlite3.Error as error:
            connection.close()
            raise self._meaning(error) from error
        return connection

    def _connect_reader(self, path: Path) -> sqlite3.Connection:
        connection = self._connect(f"{path.as_uri()}?mode=ro")
        connection.execute("pragma wal_autocheckpoint = 0")
        connection.execute("pragma query_only = 1")
        return connection

    def _connect(self, target: str) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                target,
                timeout=BUSY_SECONDS_MAX,
                isolation_level=None,
                check_same_thread=False,
                uri=target.startswith("file:"),
            )
            connection.create_function("edda_now_us", 0, self._now_us)
        except (sqlite3.Error, ValueError) as error:
            raise cannot_open(self.path, error) from error
        return connection

    async def checkpoint_here(self, *, here: bool) -> None:
        """Whether this process is the one that writes the log back into the database: the one with the lock file."""
        pages = CHECKPOINT_PAGES if here else 0
        with contextlib.suppress(StorageError):  # closed: then there is nothing to do
            await self.call(lambda connection: connection.execute(f"pragma wal_autocheckpoint = {pages}").fetchall())

    # -- running verbs -----------------------------------------------------------------------------------------------

    async def call(self, fn: Callable[[sqlite3.Connection], T], /) -> T:
        """Run `fn` in the writer's thread, without the gate. From any event loop."""
        if self._writer is None:
            raise StorageError("the store is closed")
        return await self._writer.call(fn)

    async def run(
        self,
        name: str,
        make: Callable[[], Verb[T]],
        *,
        lane: Lane,
        repeat: bool = True,
        worker: WorkerId | None = None,
    ) -> T:
        del repeat, worker  # nothing lies between us and the database that could break
        if self._writer is None and self._looker is None:
            raise StorageError("the store is closed")
        if self.path is not None and (lane is Lane.LOOK or self._writer is None):
            assert lane in (Lane.READ, Lane.LOOK), "opened to look"
            return await self._run_read(await self._look_thread(self.path), name, make)
        assert self._writer is not None
        if lane in (Lane.READ, Lane.LOOK):
            return await self._run_read(self._reader or self._writer, name, make)
        self._look_for_others()
        attempt = 0
        while True:
            attempt += 1
            try:
                async with self.gate:
                    return await self.call(partial(self.transact, name, make))
            except sqlite3.Error as error:
                if self.dialect.problem(error) is not Problem.RETRY or attempt == ATTEMPTS_MAX:
                    raise self._meaning(error) from error

    async def _run_read(self, thread: ConnectionThread, name: str, make: Callable[[], Verb[T]]) -> T:
        try:
            return await thread.call(lambda connection: drive_sync(make(), partial(self.execute, connection, name)))
        except sqlite3.Error as error:
            raise self._meaning(error) from error

    def transact(self, name: str, make: Callable[[], Verb[T]], connection: sqlite3.Connection) -> T:
        """A whole transaction; runs in the writer's thread."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = drive_sync(make(), partial(self.execute, connection, name))
            if self.on_statement is not None:
                self.on_statement(name, "COMMIT")
            _commit(connection)
        except BaseException:
            if connection.in_transaction:  # a full disk, for one, has SQLite roll back by itself
                connection.execute("ROLLBACK")
            raise
        return result

    def execute(self, connection: sqlite3.Connection, name: str, statement: Statement) -> Rows:
        if self.on_statement is not None:
            self.on_statement(name, statement)
        try:
            if statement.many:
                return Rows((), connection.executemany(statement.text, statement.params).rowcount)
            cursor = connection.execute(statement.text, statement.params)
        except (
            OverflowError,
            UnicodeEncodeError,
        ) as error:  # of 65 bits, or with half a character: refused, like others
            raise sqlite3.DataError(str(error)) from error
        return Rows(cursor.fetchall() if cursor.description else (), cursor.rowcount)

    def _meaning(self, error: sqlite3.Error) -> Exception:
        problem = self.dialect.problem(error)
        if problem is Problem.DUPLICATE:
            return DuplicateKeyError(str(error))
        if problem is Problem.RETRY:
            return DatabaseUnavailableError(f"The database was in use by others for too long: {error}")
        if getattr(error, "sqlite_errorcode", None) in NO_FILES_BESIDE and self.path is not None:
            return StorageError(
                f"Cannot use the SQLite database {self.path}: {error}. SQLite needs to write its -wal and -shm files "
                "beside it, so that directory must be writable, also for who only looks; or look at a copy"
            )
        return StorageError(f"The database refused: {error}")

    def _look_for_others(self) -> None:
        """Say once that this SQLite is too old for two processes that write."""
        if self._looked_for_others or self.file_lock.is_held or self.path is None:
            return
        self._looked_for_others = True
        if sqlite3.sqlite_version_info < FIRST_VERSION_WITHOUT_RESET_BUG and self.file_lock.is_held_elsewhere():
            _logger.warning(
                "Two processes write to %s with SQLite %s, which can corrupt a database then, rarely "
                "(the WAL-reset bug, fixed in 3.51.3). Use a newer SQLite, one process, or a database server",
                self.path,
                sqlite3.sqlite_version,
            )

    # -- workers -----------------------------------------------------------------------------------------------------

    async def reap(self, dead: WorkerId, make: Callable[[], Verb[Reaped | None]]) -> Reaped | None:
        """Nobody outside this process can be in a transaction for long, so there is nothing to end."""
        return await self.run("reap", make, lane=Lane.DESK)

    def present(self) -> Collection[WorkerId] | None:
        return self.live if self.file_lock.is_held else None

    def present_as_seen(self) -> Collection[WorkerId] | None:
        return () if self.file_lock.is_free() else self.present()

    def listen(self, heard: Callable[[], None]) -> None:
        """There is one worker; what others store, its poll finds."""

    def hint(self) -> None:
        pass

    def lease_line(self) -> LeaseLine:
        return SqliteLeaseLine(self)

    def session_lines(self) -> Lines:
        from edda.storage.sql.session_sqlite import SqliteLines

        return SqliteLines(self, url=self.url.sqlalchemy, hold_seconds=self._session_hold_seconds)


def _resolved(path: str) -> Path:
    """Past symbolic links, as SQLite does: one file has one lock beside it, by whatever path it is opened."""
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # no current directory, a loop of links, a NUL
        raise cannot_open(path, error) from error


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # a name that is too long, a directory that may not be searched
        raise cannot_open(path, error) from error


def _use_wal(connection: sqlite3.Connection) -> None:
    """SQLite does not always wait by itself here while others open the file, recover its log, or close last."""
    deadline = time.monotonic() + BUSY_SECONDS_MAX
    while True:
        try:
            connection.execute("pragma journal_mode = wal")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & PRIMARY_CODES != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(OPENING_PAUSE_SECONDS)


def _commit(connection: sqlite3.Connection) -> None:
    try:
        connection.execute("COMMIT")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & PRIMARY_CODES == sqlite3.SQLITE_IOERR:
            raise UnknownOutcome(f"writing the log failed: {error}") from error
        raise
