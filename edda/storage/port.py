"""The verbs the engine and the edges need from storage, and their exact meaning.

Laws, for every back end:
- Each verb is one transaction: it happens whole or not at all, and alone among the others (as if one at a time).
- Times are integer microseconds since 1970 on the *database's* clock; only it decides about leases and due times.
- `write` succeeds only for a worker that is alive; a worker declared dead never writes again.
- Retryable failures (deadlock, serialization) are retried inside; `Fenced`, `UnknownOutcome`, `StorageError` come out.

`edda.storage.memory` is the model: where a comment here and the model disagree, one of them is a bug.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from edda.core.commit import Batch, BatchOutcome, Commit, Creation, NewInstance, Verdict
from edda.core.history import HistoryEvent, InstanceId, WorkerId
from edda.core.lifecycle import Status
from edda.storage.inbox import InboxStore
from edda.storage.outbox import OutboxStore
from edda.storage.reads import Reads, Source
from edda.storage.retention import RetentionStore


class Fenced(BaseException):
    """This worker has been declared dead: nothing it writes counts any more. Never seen by user code."""


class UnknownOutcome(Exception):
    """The connection broke at COMMIT: the transaction may or may not have happened. Ask `settle`."""


class InstanceRow(NamedTuple):
    """An instance as stored. `claimable_at_us` counts only while `owner` is None."""

    id: InstanceId
    workflow: str
    status: Status
    reason: str
    owner: WorkerId | None
    claim: int
    wakes: int
    claimable_at_us: int | None
    cancel_requested_at_us: int | None
    cancelled_by: str
    crashes: int
    input: str
    args_hash: str
    output: str | None
    blob: bytes | None
    error: str | None
    parent_id: InstanceId | None
    detached: bool
    source_hash: str
    python: str
    created_at_us: int
    updated_at_us: int
    ended_at_us: int | None
    trace: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """Instances that now belong to the worker, and the database's time."""

    now_us: int
    rows: tuple[InstanceRow, ...]
    due_us: tuple[int, ...] = ()
    """Since when each could have been claimed; empty where the first answer was lost, and nobody knows any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """Answer to `renew`. Not alive: declared dead, stop everything."""

    now_us: int
    alive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """An owned instance whose row was woken or cancelled by somebody since it was claimed."""

    instance_id: InstanceId
    wakes: int
    cancel_requested: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaped:
    """Instances freed by `reap`; the quarantined ones will not run by themselves."""

    freed: tuple[InstanceId, ...]
    quarantined: tuple[InstanceId, ...]


class UserTransaction(Protocol):
    """The transaction behind one `ctx.session`: the user's rows and one `Commit`, together.

    Made without awaiting anything; the database hears of it at the first SQL statement.
    """

    @property
    def session(self) -> Any:
        """The `sqlalchemy.ext.asyncio.AsyncSession` that user code sees."""
        ...

    @property
    def opened(self) -> bool:
        """Whether a statement has opened the transaction."""
        ...

    async def flush(self) -> bool:
        """Send what the session still holds back; returns `opened`. Raises the user's own database error."""
        ...

    async def commit(self, commit: Commit) -> Verdict:
        """Flush, write `commit` with the fence check, COMMIT. With any verdict but COMMITTED it was rolled back.

        Raises the user's own database error (constraint, serialization), `Fenced` or `UnknownOutcome`.
        """
        ...

    async def start(self, new: NewInstance) -> Creation:
        """Create an instance inside this transaction."""
        ...

    async def rollback(self) -> None:
        """Idempotent; does nothing where nothing was opened."""
        ...


class LeaseLine(Protocol):
    """One connection that does nothing but keep a worker alive, so that no long query can make it late.

    Used from one event loop only, which may be another than the store's: the engine runs it in a thread of its own
    where `threaded` says so.
    """

    threaded: bool

    async def connect(self) -> None: ...

    async def register(self, worker: WorkerId, *, service: str, lease_us: int) -> int:
        """Make the worker known and alive, holding its presence where there is such a thing. Returns the time."""
        ...

    async def renew(self, worker: WorkerId, *, lease_us: int) -> Renewal: ...

    async def close(self) -> None:
        """Gives up the presence, too."""
        ...


class Store(Reads, InboxStore, OutboxStore, RetentionStore, Protocol):
    """A database with the tables of edda in it."""

    # -- life --------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, and bring the tables up to date (many workers may do so at once)."""
        ...

    async def close(self) -> None: ...

    # -- hints -------------------------------------------------------------------------------------------------------

    def listen(self, heard: Callable[[], None]) -> None:
        """Call `heard` when another process gave a hint that there may be work, where the database can carry such.

        Hints get lost: whoever listens must also poll.
        """
        ...

    def hint(self) -> None:
        """Tell other processes, soon and without fail or promise, that there may be work."""
        ...

    # -- writing -----------------------------------------------------------------------------------------------------

    async def write(self, worker: WorkerId, batch: Batch) -> BatchOutcome:
        """Write a batch in one transaction; each commit of it is judged alone.

        Raises `Fenced` (nothing written), `UnknownOutcome`, or `StorageError` (nothing written).
        A commit whose history row exists already gets `CLAIM_LOST`; it never spoils its neighbours.
        `Batch.starts` insert if absent.
        """
        ...

    async def settle(self, worker: WorkerId, batch: Batch) -> tuple[Verdict | None, ...]:
        """After `UnknownOutcome`: wait until the old transaction is over, then say per commit what became of it.

        None: it is not there. Where the exact verdict of a park cannot be told any more, WOKEN. Raises `Fenced`.
        """
        ...

    async def create(self, new: NewInstance) -> Creation:
        """Create an unowned instance (used by clients that are no workers), if absent."""
        ...

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
        """Take up to `limit` instances that are unowned and due, earliest first, of these workflows (of these ids).

        Each gets claim + 1. `crashes` becomes 0 where history grew since the claim before. At most one instance with
        `crashes >= 2` is taken, and none when not `suspects`. Raises `Fenced`.
        """
        ...

    async def notices(self, worker: WorkerId) -> tuple[Notice, ...]:
        """Owned instances that were woken since they were claimed (or created)."""
        ...

    async def held(self, worker: WorkerId) -> Mapping[InstanceId, int]:
        """The instances that belong to the worker, and their claim numbers."""
        ...

    # -- workers -----------------------------------------------------------------------------------------------------

    def lease_line(self) -> LeaseLine:
        """The worker's own line to the database for its lease; not connected yet."""
        ...

    async def absentees(self, worker: WorkerId) -> tuple[WorkerId, ...]:
        """Other workers that count as alive but whose lease is over, or whose presence is gone."""
        ...

    async def reap(self, dead: WorkerId) -> Reaped | None:
        """Declare a worker dead and free what it held: crashes + 1, claimable now. At 3 crashes: quarantined.

        Messages that its relayer has leased are due now (see `storage.outbox`). The count begins anew (at 1) for what
        wrote something under the claim that the dead worker had.

        None when it is dead already, or when it turned out to be alive (its lease was renewed and presence is held).
        """
        ...

    async def announce(self, worker: WorkerId, workflows: Sequence[str]) -> None:
        """Say which workflows a worker runs, so that people can be told what nobody runs. Decides nothing."""
        ...

    async def retire(self, worker: WorkerId) -> None:
        """Clean end of a worker: dead, everything freed, messages it leased too, no crash counted. Idempotent."""
        ...

    # -- verbs of people ---------------------------------------------------------------------------------------------

    async def declare_search_fields(self, fields: Mapping[str, Collection[str]]) -> None:
        """Note the search fields of each of these workflows, and forget those that they no longer have. Every
        `NewInstance` of them must have its terms from then on. May be repeated."""
        ...

    async def keep_sources(self, sources: Sequence[Source]) -> None:
        """Note the texts of workflows, for people; what is there already stays. May be repeated."""
        ...

    async def cancel(self, instance_id: InstanceId, *, by: str) -> InstanceRow | None:
        """Ask an instance to cancel, waking it. Returns the row as it was *before*; None if there is none.

        Nothing changes where that row's status is not in `CANCELLABLE`. Asking twice changes nothing more. One that was
        set aside in the middle of undoing is not cancellable either, and the row returned calls it `compensating`.
        """
        ...

    async def retry(self, instance_id: InstanceId) -> InstanceRow | None:
        """Make a `REPAIRABLE` instance claimable now, `crashes` 0. Returns the row as it was before.

        `compensation_failed` becomes `compensating`, and a `RetryRequested` row is appended to history; the set-aside
        ones become `running`, or `compensating` where history says that undoing had begun. May raise `UnknownOutcome`.
        """
        ...

    # -- reading -----------------------------------------------------------------------------------------------------

    async def instance(self, instance_id: InstanceId) -> InstanceRow | None: ...

    async def instances(self, ids: Sequence[InstanceId]) -> Mapping[InstanceId, InstanceRow]: ...

    async def histories(self, ids: Sequence[InstanceId]) -> Mapping[InstanceId, list[HistoryEvent]]:
        """The whole history of each, by `seq`. An instance without history has an empty list."""
        ...

    async def list_instances(
        self, *, status: Status | None = None, workflow: str | None = None, limit: int = 50, before: str | None = None
    ) -> tuple[InstanceRow, ...]:
        """Newest first; `before` is the id of the last row of the page before."""
        ...

    # -- the user's own rows -----------------------------------------------------------------------------------------

    @property
    def sessions_exclude_writes(self) -> bool:
        """An open `transaction` keeps `write` waiting (SQLite has one writer)."""
        ...

    def transaction(
        self, worker: WorkerId, *, label: str, before_open: Callable[[], Awaitable[None]] | None = None
    ) -> UserTransaction:
        """The transaction behind one `ctx.session`. `label` names the activity in warnings.

        `before_open` is awaited before the first statement opens it.
        """
        ...

    def is_serialization_failure(self, error: BaseException) -> bool:
        """Whether a user's transaction failed only because of others (40001, 1213): it is tried again at once."""
        ...

    async def create_in(self, session: Any, new: NewInstance) -> Creation:
        """Create an unowned instance inside the caller's own SQLAlchemy transaction on the same database."""
        ...
