"""What PostgreSQL and MySQL have in common: connections for verbs, and a lease line.

`commit` carries the group commit alone; `desk` everything else; `reaper` is made when a worker has to be reaped,
because that may wait. With the lease line these are the four that a process needs. `look` is made when somebody asks
for lists and counts. Sessions have a pool of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from edda.core.history import WorkerId
from edda.exceptions import StorageError
from edda.storage.port import LeaseLine, Reaped
from edda.storage.sql import workers
from edda.storage.sql.database import Lane
from edda.storage.sql.dialects.base import Dialect
from edda.storage.sql.migrate import migrate, missing, must_be_current
from edda.storage.sql.runner import Runner, StatementHook, Wire
from edda.storage.sql.server_lease import ServerLeaseLine
from edda.storage.sql.url import DatabaseUrl
from edda.storage.sql.verb import Statement, Verb

if TYPE_CHECKING:
    from edda.storage.sql.session_line import Lines

T = TypeVar("T")

REAP_PATIENCE_SECONDS: Final = 1.0
"""How long a reaper waits for what a dead worker was writing, before it ends that worker's connections."""
SESSION_POOL_SIZE: Final = 5


class ServerDatabase:
    """A database on a server. Subclasses know the driver."""

    sessions_exclude_writes = False

    def __init__(self, url: DatabaseUrl, dialect: Dialect, *, session_pool_size: int = SESSION_POOL_SIZE) -> None:
        self.url = url
        self.dialect = dialect
        self.session_pool_size = session_pool_size
        self.read_only = False
        """The server is to refuse whatever would write."""
        self._hook: StatementHook | None = None
        self._runners: dict[str, Runner] = {}

    # -- to be known by the subclass ---------------------------------------------------------------------------------

    has_presence: bool = True
    give_up_presence: str
    """The statement that gives back all session locks of its connection."""

    async def connect(self, *, in_transactions: bool = False) -> Wire:
        """A new connection. `in_transactions`: whatever runs on it is a transaction."""
        raise NotImplementedError

    def schema_verb(self) -> Verb[None] | None:
        """Makes the place where the tables live, if it has to be made."""
        return None

    def presence_statement(self, worker: WorkerId) -> Statement:
        """Takes the session lock of a worker; gives 1 or true if it was free."""
        raise NotImplementedError

    async def end_connections(self, desk: Runner, dead: WorkerId, waiting: int | None) -> None:
        """End those connections of a worker that make the server's connection `waiting` wait."""
        raise NotImplementedError

    def session_lines(self) -> Lines:
        raise NotImplementedError

    # -- life --------------------------------------------------------------------------------------------------------

    async def open(self, *, read_only: bool = False) -> None:
        if self._runners:
            return
        if read_only:
            await self._open_to_look()
            return
        await self.migrate()
        self._runners = {
            "commit": Runner(partial(self.connect, in_transactions=not self._writes_at_once()), self.dialect),
            "desk": Runner(self.connect, self.dialect),
            "reaper": Runner(self.connect, self.dialect),
            "look": Runner(self.connect, self.dialect),
        }
        self.on_statement = self._hook

    async def _open_to_look(self) -> None:
        self.read_only = True
        runner = Runner(self.connect, self.dialect)
        self._runners = {"desk": runner, "look": runner}
        self.on_statement = self._hook
        try:
            await self.run("must_be_current", partial(must_be_current, self.dialect), lane=Lane.LOOK)
        except BaseException:
            await self.close()
            raise

    async def migrate(self) -> None:
        """On a connection of its own, whose end gives back what locks it had."""
        runner = Runner(self.connect, self.dialect, answer_seconds_max=None)
        runner.on_statement = self._hook
        try:
            place = self.schema_verb()
            if place is not None:
                await runner.run("make_schema", lambda: place)
            if await runner.run("missing", partial(missing, self.dialect), atomic=False):
                await runner.run("migrate", partial(migrate, self.dialect), atomic=self.dialect.transactional_ddl)
        finally:
            await runner.close()

    async def close(self) -> None:
        runners, self._runners = self._runners, {}
        for runner in runners.values():
            await runner.close()

    @property
    def on_statement(self) -> StatementHook | None:
        return self._hook

    @on_statement.setter
    def on_statement(self, hook: StatementHook | None) -> None:
        self._hook = hook
        for runner in self._runners.values():
            runner.on_statement = hook

    def _writes_at_once(self) -> bool:
        return "write" in self.dialect.single_statements

    def runner(self, name: str) -> Runner:
        if not self._runners:
            raise StorageError("the store is closed")
        return self._runners[name]

    # -- running verbs -----------------------------------------------------------------------------------------------

    async def run(
        self,
        name: str,
        make: Callable[[], Verb[T]],
        *,
        lane: Lane,
        repeat: bool = True,
        worker: WorkerId | None = None,
    ) -> T:
        runner = self.runner(lane.value if lane in (Lane.COMMIT, Lane.LOOK) else "desk")
        reading = lane in (Lane.READ, Lane.LOOK)
        atomic = not reading and name not in self.dialect.single_statements
        return await runner.run(name, make, atomic=atomic, repeat=repeat or reading, worker=worker)

    async def note_server_id(self, worker: str, server_id: int) -> None:
        """Remember a connection that writes for a worker, so that a reaper can end it."""
        make = partial(workers.note_server_id, self.dialect, WorkerId(worker), server_id)
        await self.run("note_server_id", make, lane=Lane.DESK)

    # -- workers -----------------------------------------------------------------------------------------------------

    async def reap(self, dead: WorkerId, make: Callable[[], Verb[Reaped | None]]) -> Reaped | None:
        """It waits for what the dead worker was writing; what does not end by itself, ends by a kill."""
        reaper = self.runner("reaper")
        task = asyncio.ensure_future(reaper.run("reap", make))
        task.add_done_callback(_retrieve)
        while True:
            await asyncio.wait({task}, timeout=REAP_PATIENCE_SECONDS)
            if task.done():
                return task.result()
            await self.end_connections(self.runner("desk"), dead, reaper.server_id)

    def present(self) -> Collection[WorkerId] | None:
        return None

    def present_as_seen(self) -> Collection[WorkerId] | None:
        return None

    def listen(self, heard: Callable[[], None]) -> None:
        """By default there is nothing to hear, and the poll finds everything."""

    def hint(self) -> None:
        pass

    def lease_line(self) -> LeaseLine:
        return ServerLeaseLine(self)


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Whoever asked may have been cancelled meanwhile: then nobody else looks at its error."""
    if not task.cancelled():
        task.exception()
