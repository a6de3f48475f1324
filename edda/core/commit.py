"""The one value through which an instance changes: everything its next step wants written, together or not at all.

The driver makes it, the committer batches it, storage writes it. What becomes of the instance's own row is one of four
things: it *stays* untouched (a step: history rows only), is *parked*, *turns to undoing*, or *ends*.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NamedTuple

from edda.core.event import CloudEvent
from edda.core.history import HistoryEvent, InstanceId, WorkerId
from edda.core.lifecycle import Status
from edda.core.routing import Route
from edda.core.search import Term


class NewInstance(NamedTuple):
    """An instance to be created."""

    id: InstanceId
    workflow: str
    input: str
    """JSON text of the arguments after validation."""
    args_hash: str
    """Hash of the caller's own arguments: the same id with the same hash is the same start."""
    owner: WorkerId | None = None
    """The worker that runs it at once (then `claim` is 1), or None: whoever claims it first."""
    parent_id: InstanceId | None = None
    detached: bool = False
    """Survives the end of its parent."""
    source_hash: str = ""
    python: str = ""
    """Minor version of the Python that started it, such as `3.11`."""
    trace: str | None = None
    """The trace context of what started it; see `core.trace`."""
    terms: tuple[Term, ...] = ()
    """By which it is found; see `core.search`."""

    @property
    def claim(self) -> int:
        return 0 if self.owner is None else 1

    def owned_by(self, worker: WorkerId) -> NewInstance:
        """The same, to be run at once by this worker."""
        return self._replace(owner=worker)


class OutboxMessage(NamedTuple):
    """An event to be relayed to the outside, in the same transaction as what caused it."""

    id: str
    """Stable: a duplicate delivery has the same."""
    instance_id: InstanceId
    seq: int
    """Place in the instance's order: the history row it was written with."""
    ordinal: int
    """Place among those of the same history row."""
    type: str
    source: str
    data: str | None
    """JSON text, or None when `blob` holds it."""
    blob: bytes | None
    content_type: str
    at_us: int
    trace: str | None = None
    """The trace context of what sent it; see `core.trace`."""
    subject: str | None = None
    target: str | None = None
    """The instance that it is addressed to, at the receiver."""


class Post(NamedTuple):
    """An event for our own inbox, sent by the history row with this `seq`."""

    seq: int
    event: CloudEvent


class EventWait(NamedTuple):
    """A call of the body that waits for an event, as others see it: an event with this route wakes the instance."""

    call_id: str
    type: str
    route: Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """The instance's row is not touched and the claim is kept."""


REASON_CHARS_MAX: Final = 255
"""Of what an instance waits for, in words."""


class Park(NamedTuple):
    """All branches wait: give the claim back, to be claimed again at `due_us` or when something wakes the instance.

    A wake that came after `seen_wakes` was read makes it claimable at once, so none is ever overwritten.
    """

    status: Status
    reason: str
    """What it waits for, in words; shown to people."""
    due_us: int | None
    """None: only a wake makes it run again."""
    seen_wakes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """The body is over: the instance turns to `compensating`, the claim is kept."""

    for_cancel: bool
    """False: refused (`Verdict.CANCEL_FIRST`) if a cancel was accepted meanwhile."""


class End(NamedTuple):
    """The instance reaches an ended status, or is set aside; the claim is given back.

    `completed`, and `failed` without a preceding `Undo`, are refused (`Verdict.CANCEL_FIRST`) if a cancel was accepted:
    that is what `unless_cancelled` says.
    """

    status: Status
    output: str | None = None
    blob: bytes | None = None
    error: str | None = None
    unless_cancelled: bool = False


RowChange = Stay | Park | Undo | End

STAY = Stay()


class Commit(NamedTuple):
    """What one instance wants written now. All of it becomes durable together, or none of it."""

    instance_id: InstanceId
    claim: int
    records: tuple[HistoryEvent, ...] = ()
    row: RowChange = STAY
    children: tuple[NewInstance, ...] = ()
    outbox: tuple[OutboxMessage, ...] = ()
    wakes: tuple[InstanceId, ...] = ()
    """Instances to wake in the same transaction (the parent, when a child ends).

    Those, and the ones to cancel, exist already: what this commit creates, or another at that moment, is passed over.
    """
    cancels: tuple[InstanceId, ...] = ()
    """Instances to cancel in the same transaction (children, when their parent fails or is cancelled)."""
    waits: tuple[EventWait, ...] = ()
    """Waits that are to be known from now on; one of the same call is replaced."""
    waits_over: tuple[str, ...] = ()
    """Calls whose waits are over."""
    no_waits_left: bool = False
    """The body is over: forget every wait of the instance."""
    posts: tuple[Post, ...] = ()
    """Events for our own inbox."""


class Verdict(Enum):
    """What became of one commit of a batch."""

    COMMITTED = "committed"
    WOKEN = "woken"
    """Committed and parked, but a wake came first: it is claimable now."""
    CANCEL_FIRST = "cancel first"
    """Nothing was written: a cancel had been accepted, so the instance may not end like this."""
    CLAIM_LOST = "claim lost"
    """Nothing was written: another worker has the instance."""


class Creation(NamedTuple):
    """What became of one `NewInstance`: created, or there already (then whose it is)."""

    created: bool
    workflow: str = ""
    args_hash: str = ""
    status: Status = Status.RUNNING
    owner: WorkerId | None = None
    """Of the one that was there: this very worker, if the answer to its first attempt was lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What travels in one transaction."""

    commits: tuple[Commit, ...] = ()
    starts: tuple[NewInstance, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOutcome:
    """The verdicts, in the order of the batch, and the database's time."""

    now_us: int
    verdicts: tuple[Verdict, ...] = field(default=())
    creations: tuple[Creation, ...] = field(default=())
