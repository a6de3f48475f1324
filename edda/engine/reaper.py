"""Looking after other workers: those that are gone are declared dead, and what they held goes on elsewhere.

It must not know drivers or claims. Laws:
- It reaps only while its own worker is trusted, and not soon after a gap in its own lease: whoever was stalled would
  take all others for gone.
- The store decides who is gone. What is seen here is a reason to ask it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from edda.core.history import WorkerId
from edda.core.lifecycle import CRASHED_TOO_OFTEN
from edda.engine.environment import Environment
from edda.engine.log import log
from edda.exceptions import StorageError
from edda.storage.port import Reaped, Store, UnknownOutcome

ABSENCE_SECONDS: Final = 0.4
"""How often a worker looks for others that are gone."""


class Reaper:
    """See the head of this file."""

    def __init__(
        self,
        store: Store,
        worker_id: WorkerId,
        environment: Environment,
        *,
        may_reap: Callable[[], bool],
        on_reaped: Callable[[Reaped], None],
    ) -> None:
        self._store = store
        self._worker_id = worker_id
        self._environment = environment
        self._may_reap = may_reap
        self._on_reaped = on_reaped

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if self._may_reap():
                await self.reap_absentees()
            await asyncio.sleep(self._environment.jitter(ABSENCE_SECONDS))

    async def reap_absentees(self) -> None:
        try:
            absentees = list(await self._store.absentees(self._worker_id))
            # When many died at once, the living must share them out: in one order they would all wait at the first.
            self._environment.random.shuffle(absentees)
            for absent in absentees:
                reaped = await self._store.reap(absent)
                if reaped is not None:
                    _tell(absent, reaped)
                    self._on_reaped(reaped)
        except (StorageError, UnknownOutcome) as error:
            log.warning("cannot look for absent workers: %s", error)


def _tell(absent: WorkerId, reaped: Reaped) -> None:
    if reaped.freed or reaped.quarantined:
        log.warning("worker %s is gone; %d of its instances go on elsewhere", absent, len(reaped.freed))
    for instance_id in reaped.quarantined:
        extra = {"instance_id": instance_id}
        log.error("workflow instance %s is set aside: %s", instance_id, CRASHED_TOO_OFTEN, extra=extra)
