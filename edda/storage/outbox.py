"""The verbs of the outbox relayer, and their exact meaning: claim with a lease, settle, look after dead letters.

It must not know SQL, sinks or back-off. Laws, for every back end:
- The *head* of an instance is its earliest pending message, by (seq, ordinal). Only heads are ever claimed, so the
  second message of an instance is first sent when the first has been delivered or is dead: first deliveries are in
  order, whatever number of relayers there are and whenever one of them dies. Commit order is not time order, so nothing
  asks "newer than the last one"; within one instance rows do become visible in the order of their `seq`.
- A lease and a back-off are the same thing to others: the row is not due until then, on the database's clock.
- The leases of a relayer whose worker was declared dead (`Store.reap`, `Store.retire`) are over at that moment. That
  is a help and no promise: what is locked just then, or claimed after it, waits for the end of its lease.
- A message leaves the state `pending` only by a settlement under the claim that holds it. A relayer that dies, stalls
  or is never answered leaves it pending: a duplicate delivery is possible, a loss is not.
- `delivered` rows stay until they are purged, `dead` ones until somebody requeues them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from edda.core.commit import OutboxMessage

OUTBOX_LIMIT_MAX: Final = 100
"""Messages in one claim, one settlement or one step of a purge: the database is asked for them by their keys."""

OUTBOX_BYTES_MAX: Final = 16 << 20
"""Data in one claim, unless a single message is larger: a relayer holds it in memory."""

PENDING: Final = "pending"
DELIVERED: Final = "delivered"
DEAD: Final = "dead"


class LeasedMessage(NamedTuple):
    """A message that belongs to one relayer until its lease ends."""

    message: OutboxMessage
    attempts: int
    """Deliveries that were tried and settled before this one."""
    claim_key: int
    """Names the claim: who settles has to show it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxClaims:
    """Messages of different instances, and when there will be more."""

    now_us: int
    leased: tuple[LeasedMessage, ...]
    more: bool
    """Asking again at once may give more."""
    next_due_us: int | None
    """When the next message that is not due now may become due; None: nothing waits."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The sink has it."""


@dataclass(frozen=True, slots=True)
class Again:
    """Not delivered; to be tried again after `delay_us` on the database's clock."""

    delay_us: int
    reason: str


@dataclass(frozen=True, slots=True)
class Dead:
    """The sink will never take it; the messages behind it go on without it."""

    reason: str


@dataclass(frozen=True, slots=True)
class GivenBack:
    """Nothing was tried: due again at once, for anybody."""


Outcome = Delivered | Again | Dead | GivenBack


class Settlement(NamedTuple):
    """What became of one leased message."""

    leased: LeasedMessage
    outcome: Outcome


class DeadLetter(NamedTuple):
    """A message that a sink refused for good."""

    message: OutboxMessage
    attempts: int
    reason: str
    died_at_us: int


def size_bytes(message: OutboxMessage) -> int:
    """Of its data, as stored."""
    return len((message.data or "").encode()) + len(message.blob or b"")


OUTBOX_COUNT_MAX: Final = 10_000
"""Counting goes no further: more than that is simply much."""


class OutboxState(NamedTuple):
    """How the outbox is, at a moment."""

    now_us: int
    pending: int
    dead: int
    oldest_at_us: int | None
    """When the oldest of the pending messages was written; of those that are counted."""


class OutboxStore(Protocol):
    """What a relayer, and people who look after it, need from storage."""

    async def claim_outbox(
        self, relayer: str, *, limit: int, lease_us: int, bytes_max: int = OUTBOX_BYTES_MAX
    ) -> OutboxClaims:
        """Lease up to `limit` heads that are due, one for each instance, roughly the longest waiting first.

        `limit` is at most `OUTBOX_LIMIT_MAX`. It takes no more once their data (`size_bytes`) come to `bytes_max`; one
        message is taken however large it is. `relayer` gives no rights: it is the worker it belongs to, with whose
        death its leases end, or, for a relayer without one, any name.
        """
        ...

    async def enqueue(self, messages: Sequence[OutboxMessage]) -> None:
        """Put messages of nobody's history into the outbox. Repeating it changes nothing."""
        ...

    async def settle_outbox(self, settlements: Sequence[Settlement]) -> tuple[bool, ...]:
        """Write down what became of leased messages. False: another claim has it, and nothing of it was changed.

        A lease that is over but that nobody has taken over still counts. Repeating a settlement whose answer was lost
        changes nothing and answers True.
        """
        ...

    async def outbox_state(self, *, count_max: int) -> OutboxState:
        """For those who watch. Counts up to `count_max` of each kind, those that are due first."""
        ...

    async def dead_letters(self, *, limit: int = 100) -> tuple[DeadLetter, ...]:
        """The latest to die come first."""
        ...

    async def requeue(self, event_id: str) -> bool:
        """Make a dead letter pending and due now, with no attempts behind it. False: no dead letter has this id."""
        ...

    async def purge_outbox(self, *, age_us: int, limit: int = OUTBOX_LIMIT_MAX) -> int:
        """Delete up to `limit` messages that were delivered longer ago than `age_us`. Returns how many."""
        ...
