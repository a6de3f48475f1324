"""A process that runs workflows and dies: an app with connections of its own, in the event loop of the tests.

Its death is one instant. On a server all its sockets are shut down, without a word; on SQLite the files are copied as
they are, which is what a killed process leaves behind, and whoever comes next opens the copy. From then on nothing of
it reaches the database (`mortal_store`), so whatever its code still does while it is taken apart tells nobody anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import edda
from edda.app import EddaApp
from edda.core.commit import Batch, BatchOutcome, End, Park
from edda.engine.engine import Engine
from edda.exceptions import EddaError
from edda.storage.port import Store
from edda.workflow import constructed_apps
from tests.simulation.real.board import Board, Entry
from tests.simulation.real.mortal_store import Gone, MortalStore

LEASE_SECONDS: Final = 1.0
SESSION_IDLE_SECONDS: Final = 20
ROOM: Final = 2
"""Instances that one process runs at once: those die together."""


class Process:
    """See the head of this file. It is the `Bench` of its workflows."""

    def __init__(
        self, number: int, board: Board, url: str, *, on_death: Callable[[Process], None], next_url: str = ""
    ) -> None:
        """`next_url`: where on SQLite the copy of the files goes."""
        self.number = number
        self.board = board
        self.url = url
        self.next_url = next_url
        self.dead = False
        self._booted = False
        self._falls_when_booted = False
        self.workers: list[str] = []
        self.app = MortalApp(self)
        self._on_death = on_death
        self._loop = asyncio.get_running_loop()
        self._sockets: list[socket.socket] = []
        self._held: set[str] = set()
        self._funeral: asyncio.Task[None] | None = None
        self._engine: Engine | None = None

    @property
    def store(self) -> MortalStore:
        store = self.app.store
        assert store is not None
        return store

    @property
    def room(self) -> int:
        engine = self.app._engine
        worker = engine.worker if engine is not None else None
        return 0 if self.dead or worker is None else worker.room

    def connected(self, connection: socket.socket) -> None:
        self._sockets.append(connection)
        if self.dead:
            self._cut()

    def holds(self, ids: Iterable[str]) -> None:
        """They belong to it, or will in a moment."""
        self._held.update(ids)

    def writes(self, batch: Batch) -> None:
        """What it creates for itself is its own even if it dies before the answer."""
        self.holds(new.id for new in batch.starts if new.owner is not None)
        self.holds(child.id for commit in batch.commits for child in commit.children if child.owner is not None)

    def written(self, batch: Batch, outcome: BatchOutcome) -> None:
        """This is durable."""
        self.board.written(batch, outcome)
        self._held.difference_update(
            commit.instance_id for commit in batch.commits if isinstance(commit.row, Park | End)
        )

    # -- life and death -----------------------------------------------------------------------------------------------

    async def boot(self) -> None:
        """Its worker claims before everything else is ready, so it may die meanwhile."""
        try:
            await self.app.initialize()
        except EddaError:
            if not self.dead:
                raise
        self._engine = self.app._engine
        self._booted = True
        if self._falls_when_booted:
            self._fall()

    async def leave(self) -> None:
        """Shut down in order."""
        await self.app.shutdown()

    def die(self) -> None:
        """Here and now. On SQLite to be called in the writer's thread, so that nothing is written meanwhile."""
        if self.dead:
            return
        self.dead = True
        if self.next_url:
            copy_files(self.url, self.next_url)
            self._loop.call_soon_threadsafe(self._fall)
        else:
            self._cut()
            self._fall()

    async def die_in_peace(self) -> None:
        """As soon as nothing is being written."""
        await self.in_writer(self.die)

    async def in_writer(self, what: Callable[[], None]) -> None:
        if self.next_url:
            database: Any = self.store.database
            await database.call(lambda _: what())
        else:
            what()

    def _cut(self) -> None:
        for connection in self._sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _fall(self) -> None:
        """Drop everything that the engine has in memory; nothing of it may be written or told.

        Once for each death, and after it: on SQLite another process must not come before the files are copied.
        """
        if not self._booted:
            self._falls_when_booted = True
            return
        engine = self._engine
        worker = engine.worker if engine is not None else None
        self.board.died(self.workers, self._held)
        if engine is not None:
            engine._stopping = True
        if worker is not None:
            worker.declared_dead()
        self._funeral = self._loop.create_task(self._bury(worker), name=f"funeral of process {self.number}")
        self._on_death(self)

    async def _bury(self, worker: Any) -> None:
        with contextlib.suppress(EddaError, OSError):
            if worker is not None:
                await worker.stop()
            if self._engine is not None:
                await self._engine.stop()
        self.app._engine = self.app._home = None

    async def buried(self) -> None:
        if self._funeral is not None:
            await self._funeral

    # -- the bench of canonical workflows -----------------------------------------------------------------------------

    def entered(self, ctx: edda.WorkflowContext) -> None:
        if self.dead:
            raise Gone(f"process {self.number} is dead")
        info = ctx.activity
        self.board.entered(Entry(ctx.instance_id, info.id, ctx.worker_id, info.attempt, info.name, late=False))

    async def write_effect(self, ctx: edda.WorkflowContext) -> None:
        from sqlalchemy import text

        insert = text("insert into canon_effect (instance_id, call_id) values (:instance_id, :call_id)")
        await ctx.session.execute(insert, {"instance_id": str(ctx.instance_id), "call_id": ctx.activity.id})

    async def poison(self) -> None:
        await self.die_in_peace()
        await asyncio.Event().wait()


class MortalApp(EddaApp):
    """The app of a process; every other one forgets a body whenever it waits."""

    def __init__(self, process: Process) -> None:
        super().__init__(
            f"process-{process.number}",
            process.url,
            lease_seconds=LEASE_SECONDS,
            poll_seconds=0.25,
            max_running=ROOM,
            max_residents=process.number % 2 * 100,
            session_pool_size=2,
            shutdown_grace_seconds=0.0,
        )
        constructed_apps.discard(self)
        self.process = process
        self.bench = MortalBench(process)
        self.store: MortalStore | None = None

    def _make_store(self) -> Store:
        # No crash is meant where the machine stalls, so a transaction may stand still for longer than the lease.
        options = self._store_options | {"session_idle_seconds": SESSION_IDLE_SECONDS}
        self.store = MortalStore(self.process, self.db_url, **options)
        return self.store

    def __del__(self) -> None:
        pass


class MortalBench:
    """What canonical workflows see of their process."""

    def __init__(self, process: Process) -> None:
        self.entered = process.entered
        self.write_effect = process.write_effect
        self._process = process

    async def die(self, ctx: edda.WorkflowContext) -> None:
        await self._process.poison()


def copy_files(url: str, target: str) -> None:
    """What a process leaves on the disk when it dies now: the database and its log."""
    source, copy = (Path(each.removeprefix("sqlite:///")) for each in (url, target))
    copy.parent.mkdir(parents=True)
    for suffix in ("", "-wal"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(f"{source}{suffix}", f"{copy}{suffix}")
