"""Holding one process before a statement, and telling when another one waits for it on the server."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Collection
from typing import Any, Final, Protocol

import asyncmy
import asyncpg
from sqlalchemy.engine import make_url

OUT_OF_THE_WAY: Final = frozenset({"note_server_id"})
"""What a runner does for a connection of its own, before the verb."""
FASTER: Final = {"deadlock_timeout": "'20ms'", "synchronous_commit": "off"}
"""On PostgreSQL, for those who connect now: deadlocks are found at once (not after a second), no disk is waited for."""


class Gate:
    """The hook of a store: lets statements pass, counts them, and holds the one at a place (COMMIT counts, too)."""

    def __init__(self) -> None:
        self.place: int | None = None
        self.passed = 0
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    def arm(self, place: int | None) -> None:
        """Count anew, and hold whatever comes to this place; None: hold nothing."""
        self.place, self.passed = place, 0
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self, verb: str, statement: Any) -> None:
        if verb in OUT_OF_THE_WAY:
            return
        place, self.passed = self.passed, self.passed + 1
        if place == self.place:
            self.reached.set()
            await self.go_on.wait()


class Watch(Protocol):
    """A connection that only looks who waits."""

    async def waits(self, waiting: Collection[int], for_: Collection[int]) -> bool:
        """Whether one of these connections waits for a lock, as far as can be told of one of those."""
        ...


@contextlib.asynccontextmanager
async def watching(url: str) -> AsyncGenerator[Watch]:
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        connection = await asyncpg.connect(url)
        try:
            await _alter(connection, url, *(f"set {name} = {value}" for name, value in FASTER.items()))
            yield PostgresqlWatch(connection)
        finally:
            await _alter(connection, url, *(f"reset {name}" for name in FASTER))
            await connection.close()
    else:
        session = await asyncmy.connect(
            host=parsed.host or "localhost",
            port=parsed.port or 3306,
            user=parsed.username,
            password=parsed.password or "",
            unix_socket=parsed.query.get("unix_socket"),
            autocommit=True,
        )
        try:
            yield MysqlWatch(session)
        finally:
            await session.ensure_closed()


async def _alter(connection: Any, url: str, *settings: str) -> None:
    with contextlib.suppress(asyncpg.InsufficientPrivilegeError):
        for setting in settings:
            await connection.execute(f'alter database "{make_url(url).database}" {setting}')


class PostgresqlWatch:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def waits(self, waiting: Collection[int], for_: Collection[int]) -> bool:
        found: bool = await self._connection.fetchval(
            "select bool_or(pg_blocking_pids(pid) && $2::int[]) from unnest($1::int[]) as w(pid)",
            list(waiting),
            list(for_),
        )
        return found


TRANSACTIONS: Final = "LIST OF TRANSACTIONS FOR EACH SESSION:"
WAITS: Final = re.compile(r"^LOCK WAIT .*\n(?:Maria|My)(?:DB|SQL) thread id (\d+),", re.MULTILINE)


class MysqlWatch:
    """Reads the monitor's text: `information_schema.innodb_trx` answers from a cache of 100 ms and more."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def waits(self, waiting: Collection[int], for_: Collection[int]) -> bool:
        del for_  # nobody else is there
        async with self._connection.cursor() as cursor:
            await cursor.execute("show engine innodb status")
            text: str = (await cursor.fetchone())[2]
        _, _, transactions = text.partition(TRANSACTIONS)
        return any(int(found) in waiting for found in WAITS.findall(transactions))
