"""The lease line on a database server: a connection that renews a lease and holds a session lock, the presence.

Laws:
- The presence is taken before the worker's row exists, so a worker is never seen without it.
- When the connection was lost, so was the presence: on the next one it is taken again before anything else. Meanwhile
  others may take the worker for dead; then it learns so from its row.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

from edda.core.history import WorkerId
from edda.exceptions import StorageError
from edda.storage.port import Renewal
from edda.storage.sql import workers
from edda.storage.sql.runner import Runner, Wire
from edda.storage.sql.verb import Statement, Verb

if TYPE_CHECKING:
    from edda.storage.sql.server_database import ServerDatabase

PRESENCE_POLL_SECONDS: Final = 0.05
PRESENCE_ATTEMPTS_MAX: Final = 40
"""Somebody who looks whether a lock is free has it for a moment; for two seconds it is somebody else's."""


class ServerLeaseLine:
    threaded = True

    def __init__(self, database: ServerDatabase) -> None:
        self._database = database
        self._workers: set[WorkerId] = set()
        self._runner: Runner | None = None

    async def connect(self) -> None:
        if self._runner is None:  # made here, because a lock belongs to the loop that runs now
            self._runner = Runner(self._connect, self._database.dialect)
        self._runner.on_statement = self._database.on_statement

    async def register(self, worker: WorkerId, *, service: str, lease_us: int) -> int:
        await self.connect()
        presence = self._database.has_presence
        self._workers.add(worker)
        if presence:
            # A new connection takes the presence of all it knows; here it may be an old one.
            make = partial(_take, self._database, worker)
            for _ in range(PRESENCE_ATTEMPTS_MAX):
                if await self._line().run("presence", make, atomic=False):
                    break
                await asyncio.sleep(PRESENCE_POLL_SECONDS)
            else:
                raise StorageError(f"Another process is the worker {worker}")
        make_row = partial(
            workers.register,
            self._database.dialect,
            worker,
            service=service,
            lease_us=lease_us,
            presence=presence,
        )
        return await self._line().run("register", make_row)

    async def renew(self, worker: WorkerId, *, lease_us: int) -> Renewal:
        make = partial(workers.renew, self._database.dialect, worker, lease_us=lease_us)
        # Not in a transaction: the update is on its way before the answer is awaited, and repeating it does no harm.
        return await self._line().run("renew", make, atomic=False)

    async def close(self) -> None:
        self._workers.clear()
        if self._runner is not None:
            runner, self._runner = self._runner, None
            # Said, not left to the end of the connection: a server takes milliseconds to notice that.
            presence = self._database.has_presence
            await runner.close(farewell=Statement(self._database.give_up_presence) if presence else None)

    def _line(self) -> Runner:
        if self._runner is None:
            raise StorageError("the lease line is closed")
        return self._runner

    async def _connect(self) -> Wire:
        wire = await self._database.connect()
        if self._database.has_presence:
            for worker in self._workers:
                await wire.execute(self._database.presence_statement(worker))
        return wire


def _take(database: ServerDatabase, worker: WorkerId) -> Verb[bool]:
    """Take the presence; whoever has it already on this connection has it once more, which does no harm."""
    rows, _ = yield database.presence_statement(worker)
    return bool(rows[0][0])
