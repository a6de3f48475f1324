"""What is read for the page of one instance. History comes in windows of `WINDOW` rows, the latest first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from edda.core.commit import EventWait
from edda.core.history import HistoryEvent, InstanceId
from edda.core.lifecycle import ENDED
from edda.storage.port import InstanceRow
from edda.storage.reads import PAGE_MAX, InstanceFilter, InstanceSummary, OutboxView, Reader, Source, WorkerView
from edda.viewer.asked import Asked
from edda.viewer.instances_page import Errors, errors_of
from edda.why import children_waited_for

WINDOW: Final = 5 * PAGE_MAX
"""Rows of history on one page."""
CHILDREN_MAX: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    row: InstanceRow
    history: tuple[HistoryEvent, ...]
    """The window."""
    last_seq: int
    waits: tuple[EventWait, ...]
    children: tuple[InstanceSummary, ...]
    sent: tuple[OutboxView, ...]
    workers: tuple[WorkerView, ...]
    waited_for: tuple[InstanceRow, ...]
    """Children that it waits for."""
    source: Source | None
    errors: Errors = field(repr=False)
    """Of the children that failed."""


async def load(reads: Reader, asked: Asked) -> Facts | None:
    instance_id = InstanceId(asked.path["id"])
    row: InstanceRow | None = await reads.instance(instance_id)
    if row is None:
        return None
    last = (await reads.history_page(instance_id, limit=1, latest=True)).rows
    last_seq = last[-1].seq if last else 0
    history = await _window(reads, instance_id, asked.whole("from", max(1, last_seq - WINDOW + 1)))
    ended = row.status in ENDED
    children = (await reads.instance_page(InstanceFilter(parent_id=row.id), limit=CHILDREN_MAX)).rows
    return Facts(
        row=row,
        history=history,
        last_seq=last_seq,
        waits=() if ended else await reads.waits_of(instance_id),
        children=children,
        sent=(await reads.outbox_page(status="", instance_id=row.id, limit=CHILDREN_MAX)).rows,
        workers=() if ended else tuple(_steady(worker) for worker in (await reads.worker_views()).rows if worker.alive),
        waited_for=tuple((await reads.instances(children_waited_for(row))).values()),
        source=await reads.source(row.workflow, row.source_hash),
        errors=await errors_of(reads, children, asked),
    )


async def _window(reads: Reader, instance_id: InstanceId, from_seq: int) -> tuple[HistoryEvent, ...]:
    found: list[HistoryEvent] = []
    next_seq: int | None = from_seq
    while next_seq is not None and len(found) < WINDOW:
        page = await reads.history_page(instance_id, from_seq=next_seq)
        found.extend(page.rows)
        next_seq = page.next_seq
    return tuple(found[:WINDOW])


def _steady(worker: WorkerView) -> WorkerView:
    """Without what is another number all the time and says nothing about this instance."""
    return worker._replace(held=0)
