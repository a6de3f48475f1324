"""Forgetting in the model: what the verbs of `edda.storage.retention` mean, as plain Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edda.core.commit import EventWait, OutboxMessage
from edda.core.history import HistoryEvent, InstanceId, WorkerId
from edda.core.routing import EventKey
from edda.core.search import Term
from edda.storage.memory_outbox import Key, Relay, key_of
from edda.storage.outbox import DELIVERED
from edda.storage.port import InstanceRow
from edda.storage.retention import BEGINNING, LOOKED_AT_MAX, OVER, ROWS_MAX, Place, Pruned

if TYPE_CHECKING:
    from edda.storage.memory import KnownWorker
    from edda.storage.memory_inbox import StoredEvent


class RetentionModel:
    """Part of `MemoryStore`."""

    now_us: Callable[[], int]
    rows: dict[InstanceId, InstanceRow]
    history: dict[InstanceId, list[HistoryEvent]]
    terms: dict[InstanceId, frozenset[Term]]
    workers: dict[WorkerId, KnownWorker]
    inbox: dict[EventKey, StoredEvent]
    waits: dict[tuple[InstanceId, str], EventWait]
    outbox: list[OutboxMessage]
    relays: dict[Key, Relay]

    async def prune(self, *, age_us: int, after: Place = BEGINNING, dry: bool = False) -> Pruned:
        before_us = self.now_us() - age_us
        old = sorted(
            (
                row
                for row in self.rows.values()
                if row.created_at_us < before_us and Place(row.created_at_us, row.id) > after
            ),
            key=lambda row: (row.created_at_us, row.id),
        )
        looked_at = old[:LOOKED_AT_MAX]
        chosen: list[InstanceRow] = []
        rows = 0
        last = looked_at[-1] if len(looked_at) == LOOKED_AT_MAX else None
        for row in looked_at:
            if not self._may_go(row, before_us):
                continue
            size = len(self.history.get(row.id, ()))
            if chosen and rows + size > ROWS_MAX:
                last = chosen[-1]
                break
            chosen.append(row)
            rows += size
        for row in chosen if not dry else ():
            self._remove(row.id)
        return Pruned(
            instances=len(chosen), rows=rows, after=Place(last.created_at_us, last.id) if last is not None else None
        )

    def _may_go(self, row: InstanceRow, before_us: int) -> bool:
        if row.status not in OVER or row.ended_at_us is None or row.ended_at_us >= before_us:
            return False
        parent = self.rows.get(row.parent_id) if row.parent_id is not None else None
        if parent is not None and parent.status not in OVER:
            return False
        if any(child.parent_id == row.id and child.status not in OVER for child in self.rows.values()):
            return False
        mine = (self.relays.get(key_of(message)) for message in self.outbox if message.instance_id == row.id)
        return all(relay is not None and relay.status == DELIVERED for relay in mine)

    def _remove(self, instance_id: InstanceId) -> None:
        del self.rows[instance_id]
        self.history.pop(instance_id, None)
        self.terms.pop(instance_id, None)
        for key in [key for key in self.waits if key[0] == instance_id]:
            del self.waits[key]
        for message in [message for message in self.outbox if message.instance_id == instance_id]:
            self.outbox.remove(message)
            self.relays.pop(key_of(message), None)
        for event in [key for key, stored in self.inbox.items() if stored.event.target == instance_id]:
            del self.inbox[event]

    async def forget_workers(self, *, age_us: int) -> int:
        before_us = self.now_us() - age_us
        holding = {row.owner for row in self.rows.values()}
        gone = [
            worker
            for worker, known in self.workers.items()
            if not known.alive and known.lease_until_us < before_us and worker not in holding
        ]
        for worker in gone:
            del self.workers[worker]
        return len(gone)
