"""The store as plain Python: the reference model, and the store of the simulation.

This file says what each verb of `port` means; every SQL back end is compared with it. It must not know SQL, threads or
drivers. Laws:
- a verb awaits nothing, so each is atomic;
- a batch is judged on the rows as they were before it (so it changes no row twice: one commit per instance); then come,
  for the accepted commits and in this order: history and outbox, row changes, wakes, cancels, and last new instances;
- a wake of an instance that has ended or is set aside changes nothing: only `cancel` and `retry` move those;
- claiming one that waits makes it `running`; the `reason` of whatever is claimed is empty;
- `presence` stands for the session locks of the real databases: a worker that is not in it is known to be gone.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from edda.core.commit import (
    Batch,
    BatchOutcome,
    Commit,
    Creation,
    End,
    NewInstance,
    Park,
    Stay,
    Undo,
    Verdict,
)
from edda.core.history import HistoryEvent, InstanceId, Kind, WorkerId
from edda.core.lifecycle import (
    CANCELLABLE,
    CRASHED_TOO_OFTEN,
    CRASHES_TO_QUARANTINE,
    ENDED,
    IDLE,
    REPAIRABLE,
    SET_ASIDE,
    Status,
)
from edda.core.search import Term
from edda.exceptions import StorageError
from edda.storage.memory_inbox import InboxModel
from edda.storage.memory_outbox import OutboxModel
from edda.storage.memory_reads import ReadsModel
from edda.storage.memory_retention import RetentionModel
from edda.storage.port import Claims, Fenced, InstanceRow, LeaseLine, Notice, Reaped, Renewal, UserTransaction
from edda.storage.reads import Source

CRASHES_OF_A_SUSPECT: Final = 2
ACCEPTED: Final = frozenset({Verdict.COMMITTED, Verdict.WOKEN})


def _system_clock_us() -> int:
    return time.time_ns() // 1000


@dataclass(slots=True, kw_only=True)
class KnownWorker:
    service: str
    lease_until_us: int
    alive: bool = True
    started_at_us: int = 0
    workflows: tuple[str, ...] | None = None


class MemoryStore(ReadsModel, RetentionModel, InboxModel, OutboxModel):
    """A `Store` in memory. Its attributes are open to tests."""

    def __init__(self, now_us: Callable[[], int] = _system_clock_us) -> None:
        super().__init__()
        self.now_us = now_us
        self.workers: dict[WorkerId, KnownWorker] = {}
        self.presence: set[WorkerId] = set()
        self.rows: dict[InstanceId, InstanceRow] = {}
        self.seen_wakes: dict[InstanceId, int] = {}
        """`wakes` of each instance when it was claimed or created."""
        self.history: dict[InstanceId, list[HistoryEvent]] = {}
        self.sources: list[Source] = []
        self.terms: dict[InstanceId, frozenset[Term]] = {}
        self.search_fields: dict[tuple[str, str], int] = {}
        """In the order in which they were first kept."""
        self.effects: list[Any] = []
        """The rows that users added in `ctx.session`, as far as committed."""

    # -- life --------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    # -- what people are shown ---------------------------------------------------------------------------------------

    async def declare_search_fields(self, fields: Mapping[str, Collection[str]]) -> None:
        for workflow, path in list(self.search_fields):
            if path not in fields.get(workflow, (path,)):
                del self.search_fields[workflow, path]
        for workflow, paths in fields.items():
            for path in paths:
                self.search_fields.setdefault((workflow, path), self.now_us())

    async def keep_sources(self, sources: Sequence[Source]) -> None:
        known = {(source.workflow, source.source_hash) for source in self.sources}
        self.sources += (source for source in sources if (source.workflow, source.source_hash) not in known)

    # -- hints -------------------------------------------------------------------------------------------------------

    def listen(self, heard: Callable[[], None]) -> None:
        pass

    def hint(self) -> None:
        pass

    # -- writing -----------------------------------------------------------------------------------------------------

    async def write(self, worker: WorkerId, batch: Batch) -> BatchOutcome:
        return self.write_now(worker, batch)

    def write_now(self, worker: WorkerId, batch: Batch) -> BatchOutcome:
        self._fence(worker)
        now_us = self.now_us()
        verdicts = self._judge_all(worker, batch.commits)
        accepted = [commit for commit, verdict in zip(batch.commits, verdicts, strict=True) if verdict in ACCEPTED]
        for commit in accepted:
            for record in commit.records:
                self.history.setdefault(commit.instance_id, []).append(record)
            self.outbox.extend(commit.outbox)
            self.change_waits(commit)
            self.post(commit, now_us)
        for commit in accepted:
            self._change_row(commit, now_us)
        for commit in accepted:
            for woken in commit.wakes:
                self.wake(woken, now_us)
        for commit in accepted:
            for cancelled in commit.cancels:
                self._cancel(cancelled, by=commit.instance_id, now_us=now_us)
        for commit in accepted:
            for child in commit.children:
                self.create_now(child, now_us)
        creations = tuple(self.create_now(new, now_us) for new in batch.starts)
        return BatchOutcome(now_us=now_us, verdicts=tuple(verdicts), creations=creations)

    def _fence(self, worker: WorkerId) -> None:
        known = self.workers.get(worker)
        if known is None or not known.alive:
            raise Fenced

    def _judge_all(self, worker: WorkerId, commits: Iterable[Commit]) -> list[Verdict]:
        verdicts: list[Verdict] = []
        written: set[tuple[InstanceId, int, int]] = set()
        for commit in commits:
            verdict = self._judge(worker, commit)
            keys = {(record.instance_id, record.seq, -1) for record in commit.records}
            keys |= {(message.instance_id, message.seq, message.ordinal) for message in commit.outbox}
            if verdict in ACCEPTED:
                if written & keys or self._exists(commit):
                    verdict = Verdict.CLAIM_LOST
                else:
                    written |= keys
            verdicts.append(verdict)
        return verdicts

    def _judge(self, worker: WorkerId, commit: Commit) -> Verdict:
        row = self.rows.get(commit.instance_id)
        change = commit.row
        if isinstance(change, Stay):
            return Verdict.COMMITTED
        if row is None or row.owner != worker or row.claim != commit.claim:
            return Verdict.CLAIM_LOST
        yields_to_cancel = change.unless_cancelled if isinstance(change, End) else not _for_cancel(change)
        if yields_to_cancel and row.cancel_requested_at_us is not None:
            return Verdict.CANCEL_FIRST
        if isinstance(change, Park) and change.seen_wakes != row.wakes:
            return Verdict.WOKEN
        return Verdict.COMMITTED

    def _exists(self, commit: Commit) -> bool:
        known = {record.seq for record in self.history.get(commit.instance_id, ())}
        sent = {(message.instance_id, message.seq, message.ordinal) for message in self.outbox}
        return any(record.seq in known for record in commit.records) or any(
            (message.instance_id, message.seq, message.ordinal) in sent for message in commit.outbox
        )

    def _change_row(self, commit: Commit, now_us: int) -> None:
        change = commit.row
        if isinstance(change, Park):
            woken = self.rows[commit.instance_id].wakes != change.seen_wakes
            self._update(
                commit.instance_id,
                now_us,
                status=change.status,
                reason=change.reason,
                owner=None,
                claimable_at_us=now_us if woken else change.due_us,
            )
        elif isinstance(change, Undo):
            self._update(commit.instance_id, now_us, status=Status.COMPENSATING, reason="")
        elif isinstance(change, End):
            row = self.rows[commit.instance_id]
            cancelling = row.cancel_requested_at_us is not None and row.status is not Status.COMPENSATING
            to_cancel = change.status in SET_ASIDE and cancelling
            self._update(
                commit.instance_id,
                now_us,
                status=change.status,
                reason="",
                owner=None,
                claimable_at_us=now_us if to_cancel else None,
                output=change.output,
                blob=change.blob,
                error=change.error,
                ended_at_us=now_us if change.status in ENDED else None,
            )

    def wake(self, instance_id: InstanceId, now_us: int) -> None:
        row = self.rows.get(instance_id)
        if row is not None and row.status not in ENDED | SET_ASIDE:
            self._update(instance_id, now_us, wakes=row.wakes + 1, claimable_at_us=_at_once(row, now_us))

    def _cancel(self, instance_id: InstanceId, *, by: str, now_us: int) -> None:
        row = self.rows.get(instance_id)
        if row is not None and row.status in CANCELLABLE and row.cancel_requested_at_us is None:
            self._update(
                instance_id,
                now_us,
                cancel_requested_at_us=now_us,
                cancelled_by=by,
                wakes=row.wakes + 1,
                claimable_at_us=_at_once(row, now_us),
            )

    def _update(self, instance_id: InstanceId, now_us: int, **changes: Any) -> None:
        self.rows[instance_id] = self.rows[instance_id]._replace(updated_at_us=now_us, **changes)

    def create_now(self, new: NewInstance, now_us: int) -> Creation:
        there = self.rows.get(new.id)
        if there is not None:
            return Creation(
                created=False,
                workflow=there.workflow,
                args_hash=there.args_hash,
                status=there.status,
                owner=there.owner,
            )
        self.rows[new.id] = InstanceRow(
            id=new.id,
            workflow=new.workflow,
            status=Status.RUNNING,
            reason="",
            owner=new.owner,
            claim=new.claim,
            wakes=0,
            claimable_at_us=now_us if new.owner is None else None,
            cancel_requested_at_us=None,
            cancelled_by="",
            crashes=0,
            input=new.input,
            args_hash=new.args_hash,
            output=None,
            blob=None,
            error=None,
            parent_id=new.parent_id,
            detached=new.detached,
            source_hash=new.source_hash,
            python=new.python,
            created_at_us=now_us,
            updated_at_us=now_us,
            ended_at_us=None,
            trace=new.trace,
        )
        self.seen_wakes[new.id] = 0
        self.history.setdefault(new.id, [])
        self.terms[new.id] = frozenset(new.terms)
        return Creation(created=True, workflow=new.workflow, args_hash=new.args_hash)

    async def settle(self, worker: WorkerId, batch: Batch) -> tuple[Verdict | None, ...]:
        self._fence(worker)
        return tuple(self._settle(worker, commit) for commit in batch.commits)

    def _settle(self, worker: WorkerId, commit: Commit) -> Verdict | None:
        """A worker that is alive loses a claim only by its own park or end; so "no longer mine" means "it happened"."""
        row = self.rows.get(commit.instance_id)
        if commit.records:
            history = self.history.get(commit.instance_id, ())
            last = commit.records[-1]
            there = any((record.seq, record.claim) == (last.seq, last.claim) for record in history)
        elif isinstance(commit.row, Stay):
            there = bool(commit.outbox) and self._exists(commit)
        elif row is None:
            there = False
        elif isinstance(commit.row, Undo):
            there = row.claim == commit.claim and row.status is Status.COMPENSATING
        else:
            there = (row.owner, row.claim) != (worker, commit.claim)
        if not there:
            return None
        if isinstance(commit.row, Park) and row is not None:
            untouched = (row.owner, row.claim, row.wakes) == (None, commit.claim, commit.row.seen_wakes)
            return Verdict.COMMITTED if untouched else Verdict.WOKEN
        return Verdict.COMMITTED

    async def create(self, new: NewInstance) -> Creation:
        return self.create_now(new, self.now_us())

    # -- claiming ----------------------------------------------------------------------------------------------------

    async def claim(
        self,
        worker: WorkerId,
        *,
        workflows: Collection[str],
        limit: int,
        suspects: bool = True,
        ids: Sequence[InstanceId] | None = None,
    ) -> Claims:
        self._fence(worker)
        now_us = self.now_us()
        due = [
            row
            for row in self.rows.values()
            if _is_due(row, now_us) and row.workflow in workflows and (ids is None or row.id in ids)
        ]
        due.sort(key=lambda row: (row.claimable_at_us, row.id))
        taken: list[InstanceRow] = []
        for row in due:
            if len(taken) == limit:
                break
            if row.crashes < CRASHES_OF_A_SUSPECT:
                taken.append(self._claim(worker, row, now_us))
            elif suspects:
                taken.append(self._claim(worker, row, now_us))
                suspects = False
        due_us = {row.id: row.claimable_at_us or now_us for row in due}
        return Claims(now_us=now_us, rows=tuple(taken), due_us=tuple(due_us[row.id] for row in taken))

    def _claim(self, worker: WorkerId, row: InstanceRow, now_us: int) -> InstanceRow:
        grew = self._grew(row)
        self.seen_wakes[row.id] = row.wakes
        self._update(
            row.id,
            now_us,
            owner=worker,
            claim=row.claim + 1,
            claimable_at_us=None,
            status=Status.RUNNING if row.status in IDLE else row.status,
            reason="",
            crashes=0 if grew else row.crashes,
        )
        return self.rows[row.id]

    def _grew(self, row: InstanceRow) -> bool:
        """Whether something was recorded under its latest claim."""
        history = self.history.get(row.id) or []
        return bool(history) and history[-1].claim == row.claim

    async def notices(self, worker: WorkerId) -> tuple[Notice, ...]:
        return tuple(
            Notice(instance_id=row.id, wakes=row.wakes, cancel_requested=row.cancel_requested_at_us is not None)
            for row in sorted(self.rows.values(), key=lambda row: row.id)
            if row.owner == worker and row.wakes > self.seen_wakes[row.id]
        )

    async def held(self, worker: WorkerId) -> Mapping[InstanceId, int]:
        return {row.id: row.claim for row in self.rows.values() if row.owner == worker}

    # -- workers -----------------------------------------------------------------------------------------------------

    def lease_line(self) -> LeaseLine:
        return _MemoryLeaseLine(self)

    def _is_absent(self, worker: WorkerId, now_us: int) -> bool:
        known = self.workers[worker]
        return known.alive and (known.lease_until_us < now_us or worker not in self.presence)

    async def absentees(self, worker: WorkerId) -> tuple[WorkerId, ...]:
        now_us = self.now_us()
        return tuple(sorted(other for other in self.workers if other != worker and self._is_absent(other, now_us)))

    async def reap(self, dead: WorkerId) -> Reaped | None:
        now_us = self.now_us()
        if dead not in self.workers or not self._is_absent(dead, now_us):
            return None
        self.workers[dead].alive = False
        freed: list[InstanceId] = []
        quarantined: list[InstanceId] = []
        for row in self._held_by(dead):
            if self._grew(row):
                self._update(row.id, now_us, crashes=0)
        for row in self._held_by(dead):
            if row.crashes + 1 < CRASHES_TO_QUARANTINE:
                self._update(row.id, now_us, owner=None, crashes=row.crashes + 1, claimable_at_us=row.created_at_us)
                freed.append(row.id)
            else:
                self._update(
                    row.id,
                    now_us,
                    owner=None,
                    crashes=row.crashes + 1,
                    claimable_at_us=None,
                    status=Status.QUARANTINED,
                    reason=CRASHED_TOO_OFTEN,
                )
                quarantined.append(row.id)
        self.end_leases(dead)
        return Reaped(freed=tuple(freed), quarantined=tuple(quarantined))

    def _held_by(self, worker: WorkerId) -> list[InstanceRow]:
        return sorted((row for row in self.rows.values() if row.owner == worker), key=lambda row: row.id)

    async def announce(self, worker: WorkerId, workflows: Sequence[str]) -> None:
        if worker in self.workers:
            self.workers[worker].workflows = tuple(workflows)

    async def retire(self, worker: WorkerId) -> None:
        now_us = self.now_us()
        if worker in self.workers:
            self.workers[worker].alive = False
        for row in self._held_by(worker):
            self._update(row.id, now_us, owner=None, claimable_at_us=row.created_at_us)
        self.end_leases(worker)

    # -- verbs of people ---------------------------------------------------------------------------------------------

    async def cancel(self, instance_id: InstanceId, *, by: str) -> InstanceRow | None:
        before = self.rows.get(instance_id)
        if before is not None and before.status in SET_ASIDE and self._undoing(instance_id):
            return before._replace(status=Status.COMPENSATING)
        self._cancel(instance_id, by=by, now_us=self.now_us())
        return before

    async def retry(self, instance_id: InstanceId) -> InstanceRow | None:
        before = self.rows.get(instance_id)
        if before is None or before.status not in REPAIRABLE:
            return before
        now_us = self.now_us()
        history = self.history[instance_id]
        undoing = self._undoing(instance_id)
        if before.status is Status.COMPENSATION_FAILED:
            undoing = True
            history.append(
                HistoryEvent(
                    instance_id=instance_id,
                    seq=len(history) + 1,
                    claim=before.claim,
                    at_us=now_us,
                    kind=Kind.RETRY_REQUESTED.value,
                    call_id="",
                    name=before.workflow,
                )
            )
        self._update(
            instance_id,
            now_us,
            status=Status.COMPENSATING if undoing else Status.RUNNING,
            reason="",
            crashes=0,
            claimable_at_us=_at_once(before, now_us),
            error=None,
            ended_at_us=None,
        )
        return before

    def _undoing(self, instance_id: InstanceId) -> bool:
        return any(record.kind == Kind.COMPENSATION_STARTED for record in self.history.get(instance_id, ()))

    # -- reading -----------------------------------------------------------------------------------------------------

    async def instance(self, instance_id: InstanceId) -> InstanceRow | None:
        return self.rows.get(instance_id)

    async def instances(self, ids: Sequence[InstanceId]) -> Mapping[InstanceId, InstanceRow]:
        return {instance_id: self.rows[instance_id] for instance_id in ids if instance_id in self.rows}

    async def histories(self, ids: Sequence[InstanceId]) -> Mapping[InstanceId, list[HistoryEvent]]:
        return {instance_id: list(self.history.get(instance_id, ())) for instance_id in ids}

    async def list_instances(
        self, *, status: Status | None = None, workflow: str | None = None, limit: int = 50, before: str | None = None
    ) -> tuple[InstanceRow, ...]:
        last = self.rows.get(InstanceId(before)) if before is not None else None
        if before is not None and last is None:
            return ()
        found = [
            row
            for row in self.rows.values()
            if status in (None, row.status)
            and workflow in (None, row.workflow)
            and (last is None or (row.created_at_us, row.id) < (last.created_at_us, last.id))
        ]
        found.sort(key=lambda row: (row.created_at_us, row.id), reverse=True)
        return tuple(found[:limit])

    # -- the user's own rows -----------------------------------------------------------------------------------------

    sessions_exclude_writes = False

    def transaction(
        self, worker: WorkerId, *, label: str, before_open: Callable[[], Awaitable[None]] | None = None
    ) -> UserTransaction:
        return _MemoryTransaction(self, worker)

    def is_serialization_failure(self, error: BaseException) -> bool:
        return False

    async def create_in(self, session: Any, new: NewInstance) -> Creation:
        raise StorageError("the store in memory has no transactions of SQLAlchemy to join")


def _for_cancel(change: Park | Undo) -> bool:
    """Whether this change may happen although a cancel was accepted; parking always may (it is woken by it)."""
    return change.for_cancel if isinstance(change, Undo) else True


def _is_due(row: InstanceRow, now_us: int) -> bool:
    return row.owner is None and row.claimable_at_us is not None and row.claimable_at_us <= now_us


def _at_once(row: InstanceRow, now_us: int) -> int | None:
    """`claimable_at_us` of a row that should run now; while it is owned it has none."""
    if row.owner is not None:
        return row.claimable_at_us
    return now_us if row.claimable_at_us is None else min(row.claimable_at_us, now_us)


class _MemoryLeaseLine:
    """Presence lasts until `close`, or until a test takes the worker out of `MemoryStore.presence`."""

    threaded = False

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._mine: set[WorkerId] = set()

    async def connect(self) -> None:
        pass

    async def register(self, worker: WorkerId, *, service: str, lease_us: int) -> int:
        now_us = self._store.now_us()
        self._store.presence.add(worker)
        self._mine.add(worker)
        self._store.workers.setdefault(
            worker, KnownWorker(service=service, lease_until_us=now_us + lease_us, started_at_us=now_us)
        )
        return now_us

    async def renew(self, worker: WorkerId, *, lease_us: int) -> Renewal:
        now_us = self._store.now_us()
        known = self._store.workers.get(worker)
        if known is None or not known.alive:
            return Renewal(now_us=now_us, alive=False)
        known.lease_until_us = now_us + lease_us
        return Renewal(now_us=now_us, alive=True)

    async def close(self) -> None:
        self._store.presence -= self._mine


@dataclass(slots=True)
class _MemorySession:
    """What stands for an `AsyncSession`: collects rows."""

    rows: list[Any] = field(default_factory=list[Any])

    def add(self, row: Any) -> None:
        self.rows.append(row)


class _MemoryTransaction:
    """Rows and starts wait here, and land together with the commit."""

    def __init__(self, store: MemoryStore, worker: WorkerId) -> None:
        self._store = store
        self._worker = worker
        self._session = _MemorySession()
        self._starts: list[NewInstance] = []

    @property
    def session(self) -> _MemorySession:
        return self._session

    @property
    def opened(self) -> bool:
        return bool(self._session.rows or self._starts)

    async def flush(self) -> bool:
        return self.opened

    async def commit(self, commit: Commit) -> Verdict:
        outcome = self._store.write_now(self._worker, Batch(commits=(commit,)))
        (verdict,) = outcome.verdicts
        if verdict in ACCEPTED:
            self._store.write_now(self._worker, Batch(starts=tuple(self._starts)))
            self._store.effects.extend(self._session.rows)
        await self.rollback()
        return verdict

    async def start(self, new: NewInstance) -> Creation:
        if new.id in self._store.rows:
            return self._store.create_now(new, self._store.now_us())
        self._starts.append(new)
        return Creation(created=True, workflow=new.workflow, args_hash=new.args_hash)

    async def rollback(self) -> None:
        self._session.rows.clear()
        self._starts.clear()
