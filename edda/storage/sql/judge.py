"""What a batch does to the rows of instances, decided in Python on rows that are locked.

For databases where a transaction is several statements anyway; PostgreSQL decides the same in one statement (see
`dialects/postgresql_write`). Pure: rows in, verdicts and new rows out. The order is the model's: all are judged on the
rows as they were; then come row changes, wakes, cancels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from edda.core.commit import Commit, End, Park, Stay, Undo, Verdict
from edda.core.history import InstanceId, WorkerId
from edda.core.lifecycle import CANCELLABLE, ENDED, SET_ASIDE, Status
from edda.storage.sql.verb import Row

LOCKED_COLUMNS: Final = (
    "id",
    "owner",
    "claim",
    "status",
    "reason",
    "wakes",
    "claimable_at_us",
    "cancel_requested_at_us",
    "cancelled_by",
)
MOVED_COLUMNS: Final = (*LOCKED_COLUMNS[1:2], *LOCKED_COLUMNS[3:], "updated_at_us")
"""What may change of any row; `claim` never does here."""
ENDED_COLUMNS: Final = (*MOVED_COLUMNS, "output", "bytes", "error", "ended_at_us")


@dataclass(slots=True)
class LockedRow:
    """A row of `edda_instance` in the hands of this transaction; the fields are `LOCKED_COLUMNS`."""

    id: InstanceId
    owner: str | None
    claim: int
    status: str
    reason: str
    wakes: int
    claimable_at_us: int | None
    cancel_requested_at_us: int | None
    cancelled_by: str
    end: End | None = None
    touched: bool = False

    def claim_at(self, time_us: int | None) -> None:
        """Give the claim back, to be claimed again at this time."""
        self.owner = None
        self.claimable_at_us = time_us
        self.touched = True

    def hurry(self, now_us: int) -> None:
        """Make it claimable now, if nobody has it."""
        if self.owner is None and (self.claimable_at_us is None or self.claimable_at_us > now_us):
            self.claimable_at_us = now_us
        self.touched = True

    def moved(self, now_us: int) -> tuple[Any, ...]:
        """Its id, and the values of `MOVED_COLUMNS`."""
        return (
            self.id,
            self.owner,
            self.status,
            self.reason,
            self.wakes,
            self.claimable_at_us,
            self.cancel_requested_at_us,
            self.cancelled_by,
            now_us,
        )

    def ended(self, end: End, now_us: int) -> tuple[Any, ...]:
        """Its id, and the values of `ENDED_COLUMNS`."""
        ended_at_us = now_us if end.status in ENDED else None
        return (*self.moved(now_us), end.output, end.blob, end.error, ended_at_us)


@dataclass(slots=True)
class Judgement:
    verdicts: list[Verdict]
    moved: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])
    ended: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])


def targets(commits: Iterable[Commit]) -> list[InstanceId]:
    """The instances whose rows these commits may change, in the order in which everybody locks them."""
    found: set[InstanceId] = set()
    for commit in commits:
        if not isinstance(commit.row, Stay):
            found.add(commit.instance_id)
        if commit.wakes:
            found.update(commit.wakes)
        if commit.cancels:
            found.update(commit.cancels)
    return sorted(found)


def judge(worker: WorkerId, commits: Sequence[Commit], locked: Sequence[Row], now_us: int) -> Judgement:
    """Decide, given `LOCKED_COLUMNS` of all `targets`."""
    rows = {row[0]: LockedRow(*row) for row in locked}
    verdicts = [_verdict(worker, commit, rows.get(commit.instance_id)) for commit in commits]
    accepted = [
        (commit, verdict)
        for commit, verdict in zip(commits, verdicts, strict=True)
        if verdict in (Verdict.COMMITTED, Verdict.WOKEN)
    ]
    for commit, verdict in accepted:
        _change(rows.get(commit.instance_id), commit, verdict, now_us)
    for commit, _ in accepted:
        for woken in commit.wakes:
            _wake(rows.get(woken), now_us)
    for commit, _ in accepted:
        for cancelled in commit.cancels:
            _cancel(rows.get(cancelled), by=commit.instance_id, now_us=now_us)
    judgement = Judgement(verdicts)
    for row in rows.values():
        if row.end is not None:
            judgement.ended.append(row.ended(row.end, now_us))
        elif row.touched:
            judgement.moved.append(row.moved(now_us))
    return judgement


def wake(locked: Sequence[Row], now_us: int) -> list[tuple[Any, ...]]:
    """Wake every one of these; returns the rows that changed: id and `MOVED_COLUMNS`."""
    rows = [LockedRow(*row) for row in locked]
    for row in rows:
        _wake(row, now_us)
    return [row.moved(now_us) for row in rows if row.touched]


def _verdict(worker: WorkerId, commit: Commit, row: LockedRow | None) -> Verdict:
    change = commit.row
    if isinstance(change, Stay):
        return Verdict.COMMITTED
    if row is None or row.owner != worker or row.claim != commit.claim:
        return Verdict.CLAIM_LOST
    cancelled = row.cancel_requested_at_us is not None
    match change:
        case Park():
            return Verdict.COMMITTED if row.wakes == change.seen_wakes else Verdict.WOKEN
        case Undo():
            return Verdict.CANCEL_FIRST if cancelled and not change.for_cancel else Verdict.COMMITTED
        case End():
            return Verdict.CANCEL_FIRST if cancelled and change.unless_cancelled else Verdict.COMMITTED


def _change(row: LockedRow | None, commit: Commit, verdict: Verdict, now_us: int) -> None:
    change = commit.row
    if row is None or isinstance(change, Stay):
        return
    match change:
        case Park():
            row.status, row.reason = change.status.value, change.reason
            row.claim_at(now_us if verdict is Verdict.WOKEN else change.due_us)
        case Undo():
            row.status, row.reason = Status.COMPENSATING.value, ""
            row.touched = True
        case End():
            cancelling = row.cancel_requested_at_us is not None and row.status != Status.COMPENSATING
            to_cancel = change.status in SET_ASIDE and cancelling
            row.status, row.reason = change.status.value, ""
            row.claim_at(now_us if to_cancel else None)
            row.end = change


def _wake(row: LockedRow | None, now_us: int) -> None:
    if row is not None and row.status not in ENDED | SET_ASIDE:
        row.wakes += 1
        row.hurry(now_us)


def _cancel(row: LockedRow | None, *, by: str, now_us: int) -> None:
    if row is not None and row.status in CANCELLABLE and row.cancel_requested_at_us is None:
        row.cancel_requested_at_us = now_us
        row.cancelled_by = by
        row.wakes += 1
        row.hurry(now_us)
