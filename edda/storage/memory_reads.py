"""The reading part of the model: what each verb of `edda.storage.reads` means, as plain Python.

It must not know SQL. Law: the same rows as any database, in the same order and with the same page tokens; what a
database would not look at any more (`SCANNED_MAX` candidates) is not looked at here either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from edda.core.commit import EventWait, OutboxMessage
from edda.core.history import HistoryEvent, InstanceId, WorkerId
from edda.core.routing import EventKey
from edda.core.search import Term, term_of
from edda.core.subscription import Subscription
from edda.storage import reads
from edda.storage.memory_outbox import Key, Relay, key_of
from edda.storage.outbox import PENDING
from edda.storage.port import InstanceRow
from edda.storage.reads import (
    LEASED,
    Backlog,
    Backlogs,
    Ending,
    EventFilter,
    EventView,
    Handler,
    HistoryPage,
    InstanceCount,
    InstanceFilter,
    InstanceSummary,
    OutboxCount,
    OutboxView,
    Page,
    Source,
    Wait,
    Workers,
    WorkerView,
    place_of,
    token_of,
)

if TYPE_CHECKING:
    from edda.storage.memory import KnownWorker
    from edda.storage.memory_inbox import StoredEvent

T = TypeVar("T")


class ReadsModel:
    """Part of `MemoryStore`."""

    now_us: Callable[[], int]
    rows: dict[InstanceId, InstanceRow]
    history: dict[InstanceId, list[HistoryEvent]]
    workers: dict[WorkerId, KnownWorker]
    presence: set[WorkerId]
    inbox: dict[EventKey, StoredEvent]
    waits: dict[tuple[InstanceId, str], EventWait]
    subscriptions: dict[Subscription, int]
    sources: list[Source]
    terms: dict[InstanceId, frozenset[Term]]
    search_fields: dict[tuple[str, str], int]
    outbox: list[OutboxMessage]
    relays: dict[Key, Relay]

    async def clock(self) -> int:
        return self.now_us()

    async def schema_version(self) -> int:
        return 0

    # -- instances ---------------------------------------------------------------------------------------------------

    async def instance_page(
        self, which: InstanceFilter | None = None, *, limit: int = reads.PAGE, page: str | None = None
    ) -> Page[InstanceSummary]:
        which = which or InstanceFilter()
        after = place_of(page, int, str) if page is not None else None
        alike = sum(row.id.startswith(which.id_prefix) for row in self.rows.values()) if which.id_prefix else 0
        by_prefix = alike <= reads.PREFIX_MAX or bool(which.parent_id)
        scanning = which.is_scanning() or not by_prefix
        by_terms = not which.parent_id and not (which.id_prefix and by_prefix) and self._is_declared(which)
        candidates = sorted(
            (
                row
                for row in self.rows.values()
                if _is_candidate(row, which)
                and (not by_terms or self._is_older(row, which) or self._has_term(row, which))
                and (row.id.startswith(which.id_prefix) or not by_prefix)
            ),
            key=lambda row: (row.created_at_us, row.id),
            reverse=True,
        )
        later = [row for row in candidates if after is None or (row.created_at_us, row.id) < after]
        scanned = later[: reads.SCANNED_MAX] if scanning else later
        found = [row for row in scanned if row.id.startswith(which.id_prefix) and self._is_wanted(row, which)]
        cut = len(scanned) < len(later) and len(found) <= limit
        last = scanned[-1] if cut else found[limit - 1] if len(found) > limit else None
        return Page(
            rows=tuple(_summary(row) for row in found[:limit]),
            next_page=token_of(last.created_at_us, last.id) if last is not None else None,
            scanned_all=not cut,
        )

    def _is_declared(self, which: InstanceFilter) -> bool:
        """Whether every workflow that is wanted declares the wanted argument as a search field, and the value has a
        term."""
        if which.argument is None or term_of("", *which.argument) is None:
            return False
        names = which.workflows or {row.workflow for row in self.rows.values()}
        return all((name, which.argument[0]) in self.search_fields for name in names)

    def _is_wanted(self, row: InstanceRow, which: InstanceFilter) -> bool:
        text = which.text.lower()
        return (
            (which.updated_from_us is None or row.updated_at_us >= which.updated_from_us)
            and (which.updated_before_us is None or row.updated_at_us < which.updated_before_us)
            and (not text or text in row.reason.lower() or text in (row.error or "").lower())
            and (which.argument is None or self._has_term(row, which) or reads.has_argument(row.input, *which.argument))
        )

    def _is_older(self, row: InstanceRow, which: InstanceFilter) -> bool:
        """Started before its workflow declared the field: its terms tell nothing."""
        return which.argument is not None and row.created_at_us < self.search_fields[row.workflow, which.argument[0]]

    def _has_term(self, row: InstanceRow, which: InstanceFilter) -> bool:
        if which.argument is None or (row.workflow, which.argument[0]) not in self.search_fields:
            return False
        return term_of(row.workflow, *which.argument) in self.terms[row.id]

    async def instance_counts(self) -> tuple[InstanceCount, ...]:
        counts = Counter((row.workflow, row.status) for row in self.rows.values())
        return tuple(InstanceCount(*kind, *_capped(count)) for kind, count in sorted(counts.items()))

    async def history_page(
        self, instance_id: InstanceId, *, from_seq: int = 1, limit: int = reads.PAGE_MAX, latest: bool = False
    ) -> HistoryPage:
        events = self.history.get(instance_id, [])
        if latest:
            return HistoryPage(tuple(events[-limit:]), None)
        found = [event for event in events if event.seq >= from_seq]
        return HistoryPage(tuple(found[:limit]), found[limit].seq if len(found) > limit else None)

    async def errors(self, ids: Sequence[InstanceId]) -> Mapping[InstanceId, str]:
        found = {instance_id: self.rows[instance_id].error for instance_id in ids if instance_id in self.rows}
        return {instance_id: error for instance_id, error in found.items() if error is not None}

    async def has_result(self, instance_id: InstanceId, output: str) -> bool:
        return any(event.output == output for event in self.history.get(instance_id, []))

    async def endings(self, workflow: str, *, limit: int = reads.ENDINGS_MAX) -> tuple[Ending, ...]:
        mine = sorted(
            (row for row in self.rows.values() if row.workflow == workflow),
            key=lambda row: (row.created_at_us, row.id),
            reverse=True,
        )
        return tuple(Ending(row.status, row.created_at_us, row.ended_at_us) for row in mine[:limit])

    # -- waits and events --------------------------------------------------------------------------------------------

    async def waits_of(self, instance_id: InstanceId) -> tuple[EventWait, ...]:
        mine = [wait for (waiting, _), wait in sorted(self.waits.items()) if waiting == instance_id]
        return tuple(mine[: reads.PAGE_MAX])

    async def wait_page(self, *, type: str = "", limit: int = reads.PAGE, page: str | None = None) -> Page[Wait]:
        after = place_of(page, str, str) if page is not None else ("", "")
        all_waits = [(key, Wait(key[0], wait)) for key, wait in sorted(self.waits.items()) if key > after]
        return _page(all_waits, lambda wait: type in ("", wait.wait.type), limit=limit, scanning=bool(type))

    async def event_page(
        self, which: EventFilter | None = None, *, limit: int = reads.PAGE, page: str | None = None
    ) -> Page[EventView]:
        which = which or EventFilter()
        after = place_of(page, int, str) if page is not None else None
        found = sorted(
            (
                ((stored.accepted_at_us, str(key)), EventView(key, stored.accepted_at_us, stored.event, stored.routed))
                for key, stored in self.inbox.items()
            ),
            key=lambda item: item[0],
            reverse=True,
        )
        later = [
            item
            for item in found
            if (after is None or item[0] < after)
            and which.type in ("", item[1].event.type)
            and which.target in ("", item[1].event.target)
            and not (which.unrouted and item[1].routed)
        ]
        return _page(
            later,
            lambda view: which.source in ("", view.event.source) and which.id in ("", view.event.id),
            limit=limit,
            scanning=bool(which.source or which.id),
        )

    async def source(self, workflow: str, source_hash: str = "") -> Source | None:
        own = [source for source in self.sources if source.workflow == workflow]
        return next((source for source in own if source.source_hash == source_hash), own[-1] if own else None)

    async def handlers(self) -> tuple[Handler, ...]:
        found = [Handler(one.type, one.workflow, until_us) for one, until_us in self.subscriptions.items()]
        return tuple(sorted(found)[: reads.WORKFLOWS_MAX])

    # -- outbox ------------------------------------------------------------------------------------------------------

    async def outbox_page(
        self,
        *,
        status: str,
        instance_id: str = "",
        type: str = "",
        limit: int = reads.PAGE,
        page: str | None = None,
    ) -> Page[OutboxView]:
        after = place_of(page, int, str, int, int) if page is not None else None
        wanted = PENDING if status == LEASED else status
        views = [(message, self.relays.get(key_of(message)) or Relay(message.at_us)) for message in self.outbox]
        found: list[tuple[tuple[Any, ...], OutboxView]] = []
        for message, relay in views:
            if message.instance_id == instance_id or (not instance_id and relay.status == wanted):
                due_us = 0 if instance_id else relay.due_at_us
                found.append(((due_us, *key_of(message)), _outbox_view(message, relay)))
        newest_first = not instance_id and wanted != PENDING
        found.sort(key=lambda item: item[0], reverse=newest_first)
        later = [item for item in found if after is None or (item[0] < after if newest_first else item[0] > after)]
        return _page(
            later,
            lambda view: type in ("", view.message.type) and (status != LEASED or view.relayer is not None),
            limit=limit,
            scanning=bool(type) or status == LEASED,
        )

    async def outbox_counts(self) -> tuple[OutboxCount, ...]:
        known = (self.relays.get(key_of(message)) for message in self.outbox)
        counts = Counter(PENDING if relay is None else relay.status for relay in known)
        return tuple(OutboxCount(status, *_capped(count)) for status, count in sorted(counts.items()))

    # -- workers -----------------------------------------------------------------------------------------------------

    async def worker_views(self, *, limit: int = reads.PAGE_MAX) -> Workers:
        held = Counter(row.owner for row in self.rows.values() if row.owner is not None)
        views = [
            WorkerView(
                worker,
                one.service,
                one.alive,
                worker in self.presence,
                one.lease_until_us,
                one.started_at_us,
                held[worker],
                one.workflows,
            )
            for worker, one in self.workers.items()
        ]
        views.sort(key=lambda view: (not view.alive, -view.started_at_us, view.id))
        return Workers(now_us=self.now_us(), rows=tuple(views[:limit]))

    async def backlogs(self) -> Backlogs:
        now_us = self.now_us()
        due: dict[str, list[int]] = {}
        for row in self.rows.values():
            if row.owner is None and row.claimable_at_us is not None and row.claimable_at_us <= now_us:
                due.setdefault(row.workflow, []).append(row.claimable_at_us)
        rows = [
            Backlog(workflow, min(len(times), reads.SCANNED_MAX), len(times) > reads.SCANNED_MAX, min(times))
            for workflow, times in sorted(due.items())
        ]
        return Backlogs(now_us=now_us, rows=tuple(rows))


def _is_candidate(row: InstanceRow, which: InstanceFilter) -> bool:
    return (
        (not which.statuses or row.status in which.statuses)
        and (not which.workflows or row.workflow in which.workflows)
        and which.parent_id in ("", row.parent_id)
        and (which.created_from_us is None or row.created_at_us >= which.created_from_us)
        and (which.created_before_us is None or row.created_at_us < which.created_before_us)
    )


def _summary(row: InstanceRow) -> InstanceSummary:
    return InstanceSummary._make(getattr(row, name) for name in InstanceSummary._fields)


def _outbox_view(message: OutboxMessage, relay: Relay) -> OutboxView:
    return OutboxView(
        message,
        relay.status,
        relay.attempts,
        relay.due_at_us,
        relay.relayer if relay.leased else None,
        relay.reason or None,
    )


def _capped(count: int) -> tuple[int, bool]:
    return min(count, reads.COUNT_MAX), count > reads.COUNT_MAX


def _page(
    later: Iterable[tuple[Sequence[Any], T]], fits: Callable[[T], bool], *, limit: int, scanning: bool
) -> Page[T]:
    """The first rows that fit, of those behind the last page; each comes with its place."""
    later = list(later)
    scanned = later[: reads.SCANNED_MAX] if scanning else later
    found = [item for item in scanned if fits(item[1])]
    cut = len(scanned) < len(later) and len(found) <= limit
    last = scanned[-1][0] if cut else found[limit - 1][0] if len(found) > limit else None
    return Page(
        rows=tuple(row for _, row in found[:limit]),
        next_page=token_of(*last) if last is not None else None,
        scanned_all=not cut,
    )
