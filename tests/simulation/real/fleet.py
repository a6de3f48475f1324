"""A fleet: processes on one database, kept in their places; whoever dies is followed by another.

It starts the instances of all cells, cancels those that are to be cancelled, and waits until the database says that
everything has come to its end. On a server several processes work at once; on SQLite one after the other, each on the
files that the one before has left.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

from edda.core.lifecycle import Status
from edda.exceptions import EddaError, NotCancellableError
from edda.storage.port import InstanceRow, UnknownOutcome
from edda.workflow import WorkflowHandle
from tests.simulation.outcome import CRASHES_OF_POISON
from tests.simulation.real.board import Board, Cell
from tests.simulation.real.dump import Dump, check, dump
from tests.simulation.real.process import Process

QUIET_SECONDS: Final = 20.0
"""After the last death and repair everything must end within this. What waits longest is a timer of 1.2 s."""
CALL_SECONDS_MAX: Final = 10.0
LOOK_SECONDS: Final = 2
NO_ANSWER: Final = (EddaError, UnknownOutcome, TimeoutError)
"""What a person hears whose process died: ask another."""


class Fleet:
    """See the head of this file."""

    def __init__(self, url: str, cells: list[Cell], *, processes: int, quiet_seconds: float = QUIET_SECONDS) -> None:
        self.url = url
        self.board = Board({cell.id: cell for cell in cells})
        self._cells = cells
        self._places = processes
        self._quiet_seconds = quiet_seconds
        self._living: list[Process] = []
        self._dead: list[Process] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._booted = 0
        self._disturbed_at = time.monotonic()
        self._closing = False

    async def run(self) -> Dump:
        """Play all cells to their end; returns what the database holds then."""
        for _ in range(self._places):
            self._spawn(self._boot())
        for cell in self._cells:
            self._spawn(self._start(cell))
            if cell.canonical.cancel_after:
                self._spawn(self._cancel(cell))
        try:
            return await self._settled()
        finally:
            await self._close()

    def verdict(self, stored: Dump) -> list[str]:
        """All violations, each with its cell."""
        found: list[str] = []
        for cell in self._cells:
            if cell.id not in stored.cells:
                found.append(f"{cell}: it is not there")
                continue
            found += [f"{cell}: {text}" for text in check(cell, stored.cells[cell.id], stored.declared_dead)]
            found += [f"{cell}: {text}" for text in cell.violations]
        return found

    # -- processes ----------------------------------------------------------------------------------------------------

    async def _boot(self) -> None:
        self._booted += 1
        next_url = ""
        if self.url.startswith("sqlite:"):
            path = Path(self.url.removeprefix("sqlite:///"))
            next_url = f"sqlite:///{path.parent.parent / str(self._booted)}/edda.db"
        process = Process(self._booted, self.board, self.url, on_death=self._follow, next_url=next_url)
        await process.boot()
        if not process.dead:
            self._living.append(process)

    def _follow(self, dead: Process) -> None:
        """Another process takes the place of a dead one at once."""
        if dead in self._living:
            self._living.remove(dead)
        self._dead.append(dead)
        self._disturbed_at = time.monotonic()
        if dead.next_url:
            self.url = dead.next_url
        if not self._closing:
            self._spawn(self._boot())

    async def _close(self) -> None:
        self._closing = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*(process.leave() for process in self._living))
        await asyncio.gather(*(process.buried() for process in self._dead))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._cells[0].violations.append(f"the fleet broke: {error!r}")

    # -- people -------------------------------------------------------------------------------------------------------

    async def _serving(self, *, with_room: bool = False) -> Process:
        """A living process: the one with the most room."""
        while True:
            process = max(self._living, key=lambda each: each.room, default=None)
            if process is not None and not process.dead and (process.room > 0 or not with_room):
                return process
            await asyncio.sleep(0.01)

    async def _start(self, cell: Cell) -> None:
        """Ask until somebody has acknowledged it."""
        start = cell.canonical.workflow.options(id=cell.id)
        while True:
            process = await self._serving(with_room=True)
            try:
                async with asyncio.timeout(CALL_SECONDS_MAX):
                    handle: WorkflowHandle[Any] = await process.app.start(start)
                assert handle == cell.id
                return
            except NO_ANSWER:
                await asyncio.sleep(0.02)

    async def _cancel(self, cell: Cell) -> None:
        """As soon as its history says that it is time."""
        due = False
        while True:
            process = await self._serving()
            try:
                async with asyncio.timeout(CALL_SECONDS_MAX):
                    if due:
                        await process.app.cancel(cell.id)
                        return
                    history = await process.app.history_of(cell.id)
                    due = any(each.activity_id == cell.canonical.cancel_after for each in history)
            except NotCancellableError:
                return
            except NO_ANSWER:
                due = False
            if not due:
                await asyncio.sleep(0.02)

    async def _repair(self, cell: Cell, row: InstanceRow) -> bool:
        """A bystander of three deaths in a row is set aside like the poison itself; a person lets it go on."""
        innocent = row.status is Status.QUARANTINED and cell.canonical.status is not Status.QUARANTINED
        if not innocent or cell.takeovers[row.id] < CRASHES_OF_POISON * (1 + cell.repairs[row.id]):
            return False
        process = await self._serving()
        # It may have been asked already, by one who died of it; or this one dies, and it is asked again.
        with contextlib.suppress(*NO_ANSWER):
            await process.app.retry(row.id)
            cell.repairs[row.id] += 1
        self._disturbed_at = time.monotonic()
        return True

    # -- the end ------------------------------------------------------------------------------------------------------

    async def _settled(self) -> Dump:
        """Wait until everything has ended, or nothing moves any more."""
        while True:
            await self._seems_over()
            stored = await dump(self.url, self.board)
            quiet = all(cell.id in stored.cells and stored.cells[cell.id].is_quiet for cell in self._cells)
            for cell in self._cells:
                rows = stored.cells[cell.id].rows.values() if cell.id in stored.cells else ()
                for row in rows:
                    if await self._repair(cell, row):
                        quiet = False
            if quiet or time.monotonic() - self._disturbed_at > self._quiet_seconds:
                return stored

    async def _seems_over(self) -> None:
        """Everything has ended as far as the board knows, or it is time to look whether somebody needs help."""
        for _ in range(LOOK_SECONDS * 50):
            await asyncio.sleep(0.02)
            if all(cell.over for cell in self._cells):
                return
