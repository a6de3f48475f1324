"""A thread that owns one SQLite connection and does what it is asked, in order.

It knows nothing of verbs. Laws: it is a daemon; a job that was asked for is done even if nobody waits for it any more;
whoever waits may do so in any event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from edda.exceptions import StorageError

T = TypeVar("T")


class _Job(Generic[T]):
    """A function to call, and the future of whoever waits for its result."""

    __slots__ = ("_fn", "_future", "_loop")

    def __init__(self, fn: Callable[[], T]) -> None:
        self._fn = fn
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[T] = self._loop.create_future()

    async def result(self) -> T:
        return await self._future

    def do(self) -> None:
        try:
            result = self._fn()
        except BaseException as error:
            self._tell(self._fail, error)
        else:
            self._tell(self._succeed, result)

    def refuse(self) -> None:
        self._tell(self._fail, StorageError("the store is closed"))

    def _tell(self, fn: Callable[[Any], None], value: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(fn, value)

    def _succeed(self, result: T) -> None:
        if not self._future.done():
            self._future.set_result(result)

    def _fail(self, error: BaseException) -> None:
        if not self._future.done():
            if isinstance(error, StopIteration):  # which a future cannot carry
                error = RuntimeError("a job raised StopIteration")
            self._future.set_exception(error)


class ConnectionThread:
    """The connection is made in the thread, used in the thread and closed in the thread."""

    def __init__(self, name: str, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    async def start(self) -> None:
        self._thread.start()
        await self._ask(self._open)

    async def call(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        return await self._ask(lambda: fn(self._opened()))

    async def stop(self) -> None:
        """Close, after everything that was asked for before."""
        if not self._stopped:
            job = _Job(self._close)
            self._jobs.put(job)
            self._stopped = True
            self._jobs.put(None)
            await job.result()

    async def _ask(self, fn: Callable[[], T]) -> T:
        if self._stopped:
            raise StorageError("the store is closed")
        job = _Job(fn)
        self._jobs.put(job)
        return await job.result()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.do()
            del job  # or its result would live until the next one comes
        while not self._jobs.empty():
            late = self._jobs.get_nowait()
            if late is not None:
                late.refuse()

    def _open(self) -> None:
        self._connection = self._connect()

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StorageError("the store is closed")
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
