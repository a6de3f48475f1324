"""Waiting for the end of instances, wherever they run: at once for those that end here, one poller for all others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

from edda.core.commit import End
from edda.core.history import InstanceId
from edda.core.lifecycle import ENDED, Status
from edda.engine.driver import Driver
from edda.engine.environment import Environment
from edda.engine.log import log
from edda.exceptions import InstanceNotFoundError, ShuttingDownError, StorageError
from edda.storage.port import InstanceRow, Store

POLL_SECONDS_MIN: Final = 0.02
POLL_SECONDS_MAX: Final = 1.0
CHUNK: Final = 500
"""Instances asked for in one query."""


class Ending(NamedTuple):
    """How an instance ended."""

    workflow: str
    status: Status
    output: str | None
    blob: bytes | None
    error: str | None


class Results:
    """Who waits for which instance."""

    def __init__(self, store: Store, environment: Environment, *, runs_here: Callable[[InstanceId], bool]) -> None:
        self._store = store
        self._environment = environment
        self._runs_here = runs_here
        """Whether this process drives an instance now: then its end will be told, and need not be asked for."""
        self._waiting: dict[InstanceId, list[asyncio.Future[Ending]]] = {}
        self._poller: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    async def wait(self, instance_id: InstanceId) -> Ending:
        """Raises InstanceNotFoundError."""
        future: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(instance_id, []).append(future)
        try:
            if not self._runs_here(instance_id):
                row = await self._store.instance(instance_id)
                if row is None:
                    raise InstanceNotFoundError(instance_id)
                if row.status in ENDED:
                    return _ending_of(row)
            self._news.set()
            if self._poller is None or self._poller.done():
                self._poller = asyncio.get_running_loop().create_task(self._poll(), name="edda-results")
            return await future
        finally:
            self._forget(instance_id, future)

    def _forget(self, instance_id: InstanceId, future: asyncio.Future[Ending]) -> None:
        futures = self._waiting.get(instance_id)
        if futures is not None and future in futures:
            futures.remove(future)
            if not futures:
                del self._waiting[instance_id]

    def ended(self, driver: Driver, end: End) -> None:
        """An instance ended in this process, durably."""
        if end.status in ENDED:
            ending = Ending(driver.workflow_name, end.status, end.output, end.blob, end.error)
            self._tell(driver.instance_id, ending)

    def _tell(self, instance_id: InstanceId, ending: Ending) -> None:
        for future in self._waiting.pop(instance_id, ()):
            if not future.done():
                future.set_result(ending)

    async def _poll(self) -> None:
        """Ask for all that are waited for; slower while nothing ends, at once when somebody new waits."""
        delay = POLL_SECONDS_MIN
        while self._waiting:
            try:
                async with asyncio.timeout(self._environment.jitter(delay)):
                    await self._news.wait()
                delay = POLL_SECONDS_MIN
            except TimeoutError:
                delay = min(delay * 1.5, POLL_SECONDS_MAX)
                if await self._look():
                    delay = POLL_SECONDS_MIN
            self._news.clear()

    async def _look(self) -> bool:
        found = False
        ids = [instance_id for instance_id in self._waiting if not self._runs_here(instance_id)]
        for start in range(0, len(ids), CHUNK):
            try:
                rows = await self._store.instances(ids[start : start + CHUNK])
            except StorageError as error:
                log.warning("cannot look for results: %s", error)
                return False
            for row in rows.values():
                if row.status in ENDED:
                    found = True
                    self._tell(row.id, _ending_of(row))
        return found

    async def stop(self) -> None:
        """Whoever still waits hears that there will be no answer here."""
        for instance_id, futures in list(self._waiting.items()):
            for future in futures:
                if not future.done():
                    future.set_exception(
                        ShuttingDownError(
                            f"The app was shut down while '{instance_id}' was waited for; it goes on later"
                        )
                    )
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.wait({self._poller})


def _ending_of(row: InstanceRow) -> Ending:
    return Ending(row.workflow, row.status, row.output, row.blob, row.error)
