"""The outbox part of `SqlStore`: which verb goes where, and what its failures mean.

A settlement and everything that people do may be repeated, so an answer that was lost is simply asked for again; a
claim is looked for by its key.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import partial
from typing import Final

from edda.core.commit import OutboxMessage
from edda.storage.outbox import OUTBOX_BYTES_MAX, OUTBOX_LIMIT_MAX, DeadLetter, OutboxClaims, OutboxState, Settlement
from edda.storage.port import UnknownOutcome
from edda.storage.sql import outbox
from edda.storage.sql.database import Database, Lane

CLAIM_KEY_BITS: Final = 63


class SqlOutbox:
    """An `OutboxStore` on any database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._dialect = database.dialect

    async def enqueue(self, messages: Sequence[OutboxMessage]) -> None:
        await self.database.run("enqueue", partial(outbox.enqueue, self._dialect, messages), lane=Lane.DESK)

    async def claim_outbox(
        self, relayer: str, *, limit: int, lease_us: int, bytes_max: int = OUTBOX_BYTES_MAX
    ) -> OutboxClaims:
        assert 0 < limit <= OUTBOX_LIMIT_MAX, limit
        claim_key = secrets.randbits(CLAIM_KEY_BITS)
        bounds = {"limit": limit, "lease_us": lease_us, "bytes_max": bytes_max}
        make = partial(outbox.claim, self._dialect, relayer, **bounds, claim_key=claim_key)
        try:
            return await self.database.run("claim_outbox", make, lane=Lane.DESK, repeat=False)
        except UnknownOutcome:
            again = partial(outbox.claimed_with, self._dialect, claim_key)
            return await self.database.run("outbox_claimed_with", again, lane=Lane.READ)

    async def settle_outbox(self, settlements: Sequence[Settlement]) -> tuple[bool, ...]:
        assert 0 < len(settlements) <= OUTBOX_LIMIT_MAX, len(settlements)
        return await self.database.run(
            "settle_outbox", partial(outbox.settle, self._dialect, settlements), lane=Lane.DESK
        )

    async def outbox_state(self, *, count_max: int) -> OutboxState:
        make = partial(outbox.state, self._dialect, count_max=count_max)
        return await self.database.run("outbox_state", make, lane=Lane.READ)

    async def dead_letters(self, *, limit: int = 100) -> tuple[DeadLetter, ...]:
        return await self.database.run("dead_letters", partial(outbox.dead_letters, limit=limit), lane=Lane.READ)

    async def requeue(self, event_id: str) -> bool:
        keys = await self.database.run("dead_with_id", partial(outbox.dead_with_id, event_id), lane=Lane.READ)
        if keys:
            await self.database.run("requeue", partial(outbox.requeue, self._dialect, keys), lane=Lane.DESK)
        return bool(keys)

    async def purge_outbox(self, *, age_us: int, limit: int = OUTBOX_LIMIT_MAX) -> int:
        assert 0 < limit <= OUTBOX_LIMIT_MAX, limit
        return await self.database.run(
            "purge_outbox", partial(outbox.purge, self._dialect, age_us=age_us, limit=limit), lane=Lane.DESK
        )
