"""Presence on SQLite: a lock on a file beside the database, which the operating system gives back when a process dies.

Laws:
- One process at a time has it, and only that one runs workers: a second waits, so a reloading server finds its
  successor ready. Having it means that every other worker in the file is dead.
- The lock, not the lease, is the truth. The lease is renewed all the same, so the row says when the worker was seen.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from edda.core.history import WorkerId
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

else:
    import fcntl

    def _try_lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class FileLock:
    """The lock of one database. Several lease lines of one store share it; a database in memory has none to take."""

    def __init__(self, path: Path | None) -> None:
        self._path = path.with_name(path.name + ".edda-lock") if path is not None else None
        self._handle: int | None = None
        self._users = 0

    @property
    def is_held(self) -> bool:
        return self._users > 0

    def try_take(self) -> bool:
        if self._users == 0 and self._path is not None:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
            if not _try_lock(handle):
                os.close(handle)
                return False
            self._handle = handle
        self._users += 1
        return True

    def give_back(self) -> None:
        """The file stays: removing it while another opens it would give two processes a lock each."""
        self._users -= 1
        if self._users == 0 and self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def is_free(self) -> bool:
        """Whether certainly no process has it. For those who only look: nothing is made, and whoever takes it meanwhile
        tries again."""
        if self.is_held or self._path is None:
            return False
        try:
            handle = os.open(self._path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError:
            return False
        try:
            return _try_lock(handle)
        except OSError:  # a file system that locks only what can be written
            return False
        finally:
            os.close(handle)

    def is_held_elsewhere(self) -> bool:
        if self.is_held:
            return False
        if self.try_take():
            self.give_back()
            return False
        return True


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
