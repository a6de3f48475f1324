"""The background policy that forgets instances that ended long ago: small steps, with pauses between them.

It decides nothing: `edda.storage.retention` says what may go. Every worker with the policy does it, at times of its
own, which is harmless: what one has removed the other does not find. A step that fails is left to the next round.
"""

from __future__ import annotations

import asyncio
from typing import Final

from edda.engine.environment import Environment
from edda.engine.log import log
from edda.exceptions import StorageError
from edda.storage.port import Store, UnknownOutcome
from edda.storage.retention import walk

ROUND_SECONDS: Final = 600.0
"""Between two rounds."""
PAUSE_SECONDS: Final = 0.2
"""Between two steps: so a step of 20 ms takes a tenth of the database's time at most."""
WORKER_AGE_US_MIN: Final = 86_400_000_000
"""Dead workers stay for a day at least: people look for them."""


class Retention:
    """`begin` starts it, `stop` ends it; nothing of it is to be waited for."""

    def __init__(self, store: Store, environment: Environment, *, age_us: int) -> None:
        self._store = store
        self._environment = environment
        self._age_us = age_us
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="edda-retention")

    async def stop(self) -> None:
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.wait({task})

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._environment.jitter(PAUSE_SECONDS))
            try:
                await self.round()
            except (StorageError, UnknownOutcome) as error:
                log.warning("forgetting old instances is tried again later: %s", error)
            await asyncio.sleep(self._environment.jitter(ROUND_SECONDS))

    async def round(self) -> int:
        """Everything that is old enough now. Returns how many instances went."""
        gone = 0
        async for step in walk(self._store, age_us=self._age_us):
            gone += step.instances
            await asyncio.sleep(self._environment.jitter(PAUSE_SECONDS))
        await self._store.forget_workers(age_us=max(self._age_us, WORKER_AGE_US_MIN))
        if gone:
            log.info("%d instances that ended long ago are forgotten", gone)
        return gone
