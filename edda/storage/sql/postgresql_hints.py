"""LISTEN and NOTIFY as a hint: "there may be work". Losing every one of them only means waiting for the poll.

It has a connection of its own, which says nothing else. A NOTIFY takes a lock of the whole server while it commits, so
it is never part of a transaction of ours, and hints given in quick succession go out as one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

from edda.careful_log import CarefulLogger

log = CarefulLogger("edda.storage")

APART_SECONDS: Final = 0.02
"""Between two hints of one process: 50 a second are more than anybody can use."""

RETRY_SECONDS_MAX: Final = 30.0


class PostgresqlHints:
    """One process's line for hints, once `listen` was called."""

    def __init__(self, connect: Callable[[], Awaitable[Any]], *, schema: str | None) -> None:
        self._connect = connect
        digest = hashlib.sha256((schema or "").encode()).hexdigest()
        self._channel = f"edda_{digest[:16]}"
        self._heard: Callable[[], None] = _nobody
        self._wanted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._connection: Any = None

    def listen(self, heard: Callable[[], None]) -> None:
        """Call `heard` for every hint of another process, from now on. Idempotent."""
        self._heard = heard
        if not self._tasks:
            create = asyncio.get_running_loop().create_task
            self._tasks = [create(self._stay_connected(), name="edda-listen"), create(self._tell(), name="edda-notify")]

    def hint(self) -> None:
        """Tell the others soon, if that is possible."""
        self._wanted.set()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks.clear()
        await self._hang_up()

    async def _stay_connected(self) -> None:
        delay = 0.5
        while True:
            lost = asyncio.Event()
            try:
                self._connection = connection = await self._connect()
                connection.add_termination_listener(_setter(lost))
                await connection.add_listener(self._channel, self._on_notification)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                log.info("no hints from other processes: %s", error)
            else:
                delay = 0.5
                self._heard()  # what was missed meanwhile
                await lost.wait()
            await self._hang_up()
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_SECONDS_MAX)

    def _on_notification(self, connection: Any, pid: int, channel: str, payload: str) -> None:
        if connection is self._connection and pid != connection.get_server_pid():
            self._heard()

    async def _tell(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if self._connection is not None:
                with contextlib.suppress(Exception):  # a hint that is lost is found by the poll
                    await self._connection.execute("select pg_notify($1, '')", self._channel)
            await asyncio.sleep(APART_SECONDS)

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.terminate()


def _nobody() -> None:
    pass


def _setter(event: asyncio.Event) -> Callable[[object], None]:
    """What asyncpg calls when the connection has ended."""
    return lambda _: event.set()
