"""Presence on SQLite: a lock on a file beside the database, which the operating system gives back when a process dies.

Laws:
- One process at a time has it, and only that one runs workers: a second waits, so a reloading server finds its
  successor ready. Having it means that every other worker in the file is dead.
- The lock, not the lease, is the truth. The lease is renewed all the same, so the row says when the worker was seen.
- It is this process that has the lock: a forked child closes its copy, or the lock would live as long as the child.
- Who only looks shares the lock for a moment, and so is in the way of nobody who looks. A worker that it was in the way
  of tries again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from edda.core.history import WorkerId
from edda.exceptions import StorageError
from edda.storage.port import Renewal
from edda.storage.sql import workers
from edda.storage.sql.verb import Verb, drive_sync

if TYPE_CHECKING:
    from edda.storage.sql.sqlite_database import SqliteDatabase

T = TypeVar("T")
POLL_SECONDS: Final = 0.05

if sys.platform == "win32":  # pragma: no cover - no Windows here
    import msvcrt

    def _try_lock(handle: int) -> bool:
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    _try_share = _try_lock  # it has no locks to share

    def _unlock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(handle: int) -> bool:
        return _try(handle, fcntl.LOCK_EX)

    def _try_share(handle: int) -> bool:
        return _try(handle, fcntl.LOCK_SH)

    def _unlock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_UN)

    def _try(handle: int, kind: int) -> bool:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class FileLock:
    """The lock of one database. Several lease lines of one store share it; a database in memory has none to take."""

    def __init__(self, database: Path | None) -> None:
        self._database = database
        self._path = Path(f"{database}.edda-lock") if database is not None else None
        self._handle: int | None = None
        self._users = 0

    @property
    def is_held(self) -> bool:
        return self._users > 0

    def try_take(self) -> bool:
        """Raises `StorageError` where the file can be neither opened nor made."""
        with _no_fork:
            if self._users == 0 and self._path is not None and not self._take(self._path):
                return False
            self._users += 1
            return True

    def _take(self, path: Path) -> bool:
        try:
            self._handle = _open_locked(path, os.O_RDWR | os.O_CREAT, _try_lock)
        except OSError as error:
            raise cannot_open(self._database, error) from error
        if self._handle is None:
            return False
        _taken.add(self)
        return True

    def give_back(self) -> None:
        """The file stays: removing it while another opens it would give two processes a lock each."""
        with _no_fork:
            self._users -= 1
            if self._users == 0 and self._handle is not None:
                handle, self._handle = self._handle, None
                _taken.discard(self)
                _unlock_and_close(handle)

    def forget(self) -> None:
        """For a forked child. Unlocking would take the lock from the parent, as it is one lock for both."""
        if self._handle is not None:
            with contextlib.suppress(OSError):  # who forks may have closed whatever is open
                os.close(self._handle)
            self._handle = None

    def is_free(self) -> bool:
        """Whether certainly no process has it."""
        return not self.is_held and self._is_held_by_others() is False

    def is_held_elsewhere(self) -> bool:
        """Whether certainly another has it."""
        return not self.is_held and self._is_held_by_others() is True

    def _is_held_by_others(self) -> bool | None:
        """None where that is not to be known: there is no such file, or it may not be read. Nothing is made."""
        if self._path is None:
            return None
        with _no_fork:
            try:
                handle = _open_locked(self._path, os.O_RDONLY, _try_share)
            except OSError:
                return None
            if handle is not None:
                _unlock_and_close(handle)
            return handle is None


def _open_locked(path: Path, flags: int, try_lock: Callable[[int], bool]) -> int | None:
    """A descriptor that has the lock; None where another has it."""
    handle = os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o644)
    locked = False
    try:
        locked = try_lock(handle)
    finally:
        if not locked:
            os.close(handle)
    return handle if locked else None


def _unlock_and_close(handle: int) -> None:
    """Closing alone frees nothing while a child has a copy, from a fork of which Python was not told."""
    try:
        _unlock(handle)
    finally:
        os.close(handle)


def cannot_open(path: Path | str | None, error: Exception) -> StorageError:
    return StorageError(f"Cannot open the SQLite database {path or ':memory:'}: {error}")


# -- forks ------------------------------------------------------------------------------------------------------------
# They are the process's, and so is what has to be known about them: which descriptors a child must close.

_no_fork: Final = threading.RLock()
"""Held while a lock file is opened or closed, and by who forks: else a child could have a copy that is not noted yet.
It can be had twice, because a signal handler may fork in the middle."""
_taken: Final[set[FileLock]] = set()
"""Not weakly: a lock that nobody gave back keeps its descriptor open, and a child has to close that one, too."""


def _after_fork_in_child() -> None:
    for lock in _taken:
        lock.forget()
    _taken.clear()
    _no_fork.release()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_no_fork.acquire, after_in_parent=_no_fork.release, after_in_child=_after_fork_in_child)


class SqliteLeaseLine:
    """It has no connection of its own: the writer's thread answers, whatever the event loop is busy with."""

    threaded = True

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database
        self._mine: set[WorkerId] = set()
        self._has_lock = False

    async def connect(self) -> None:
        """Wait until no other process is the worker."""
        while not self._has_lock:
            if self._database.file_lock.try_take():
                self._has_lock = True
                await self._database.checkpoint_here(here=True)
            else:
                await asyncio.sleep(POLL_SECONDS)

    async def register(self, worker: WorkerId, *, service: str, lease_us: int) -> int:
        await self.connect()
        self._database.live.add(worker)
        self._mine.add(worker)
        dialect = self._database.dialect
        make = partial(workers.register, dialect, worker, service=service, lease_us=lease_us, presence=True)
        while (now_us := await self._between_sessions("register", make)) is None:  # noqa: ASYNC110 - another loop's gate
            await asyncio.sleep(POLL_SECONDS)
        return now_us

    async def renew(self, worker: WorkerId, *, lease_us: int) -> Renewal:
        dialect = self._database.dialect
        renewal = await self._between_sessions("renew", partial(workers.renew, dialect, worker, lease_us=lease_us))
        if renewal is not None:
            return renewal
        # A `ctx.session` is open, and the renewal would be part of its transaction; the lock is what counts anyway.
        return await self._database.call(
            lambda connection: drive_sync(
                workers.look_alive(dialect, worker),
                partial(self._database.execute, connection, "renew"),
            )
        )

    async def _between_sessions(self, name: str, make: Callable[[], Verb[T]]) -> T | None:
        """Run a verb in a transaction of its own; None if a session's is open. The gate belongs to another loop."""

        def run(connection: sqlite3.Connection) -> T | None:
            return None if connection.in_transaction else self._database.transact(name, make, connection)

        return await self._database.call(run)

    async def close(self) -> None:
        self._database.live -= self._mine
        self._mine.clear()
        if self._has_lock:
            self._has_lock = False
            self._database.file_lock.give_back()
            if not self._database.file_lock.is_held:
                await self._database.checkpoint_here(here=False)
