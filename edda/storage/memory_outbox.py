"""The outbox of the model: what the verbs of `edda.storage.outbox` mean, as plain Python.

It must not know SQL. Laws: a verb awaits nothing, so each is atomic; a message without a `Relay` is pending, and due
since it was written.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edda.core.commit import OutboxMessage
from edda.core.history import InstanceId
from edda.storage.outbox import (
    DEAD,
    DELIVERED,
    OUTBOX_BYTES_MAX,
    OUTBOX_LIMIT_MAX,
    PENDING,
    Again,
    Dead,
    DeadLetter,
    Delivered,
    GivenBack,
    LeasedMessage,
    OutboxClaims,
    OutboxState,
    Outcome,
    Settlement,
    size_bytes,
)

Key = tuple[InstanceId, int, int]


@dataclass(slots=True)
class Relay:
    """How far a message has come."""

    due_at_us: int
    """While pending: not before that (a lease, a back-off). Afterwards: when it was settled."""
    status: str = PENDING
    attempts: int = 0
    claim_key: int | None = None
    leased: bool = False
    relayer: str = ""
    reason: str = ""


class OutboxModel:
    """The part of `MemoryStore` that a relayer uses."""

    now_us: Callable[[], int]
    outbox: list[OutboxMessage]

    def __init__(self) -> None:
        self.outbox = []
        self.relays: dict[Key, Relay] = {}
        self._claim_keys = itertools.count(1)

    async def enqueue(self, messages: Sequence[OutboxMessage]) -> None:
        known = {key_of(message) for message in self.outbox}
        self.outbox.extend(message for message in messages if key_of(message) not in known)

    async def claim_outbox(
        self, relayer: str, *, limit: int, lease_us: int, bytes_max: int = OUTBOX_BYTES_MAX
    ) -> OutboxClaims:
        now_us = self.now_us()
        due = sorted((self._relay(head).due_at_us, key_of(head)) for head in self._heads())
        keys = [key for due_at_us, key in due if due_at_us <= now_us]
        claim_key = next(self._claim_keys)
        leased: list[LeasedMessage] = []
        for key in keys[:limit]:
            if sum(size_bytes(each.message) for each in leased) >= bytes_max:
                break
            message, relay = self._message(key), self.relays[key]
            relay.claim_key, relay.leased, relay.due_at_us = claim_key, True, now_us + lease_us
            relay.relayer = relayer
            leased.append(LeasedMessage(message, relay.attempts, claim_key))
        later = [relay.due_at_us for _, relay in self._with_status(PENDING) if relay.due_at_us > now_us]
        return OutboxClaims(
            now_us=now_us, leased=tuple(leased), more=len(keys) > len(leased), next_due_us=min(later, default=None)
        )

    def end_leases(self, relayer: str) -> None:
        """Its worker is dead. Its claims keep their keys: until somebody takes them over, a late settlement counts."""
        now_us = self.now_us()
        for _, relay in self._with_status(PENDING):
            if relay.leased and relay.relayer == relayer:
                relay.due_at_us = min(relay.due_at_us, now_us)

    async def settle_outbox(self, settlements: Sequence[Settlement]) -> tuple[bool, ...]:
        return tuple(self._settle_message(settlement) for settlement in settlements)

    def _settle_message(self, settlement: Settlement) -> bool:
        leased, outcome = settlement
        relay = self.relays.get(key_of(leased.message))
        if relay is None or relay.claim_key != leased.claim_key:
            return False
        if relay.leased:
            relay.leased = False
            _apply(relay, outcome, self.now_us())
        return True

    async def outbox_state(self, *, count_max: int) -> OutboxState:
        pending = sorted((relay.due_at_us, message.at_us) for message, relay in self._with_status(PENDING))[:count_max]
        return OutboxState(
            now_us=self.now_us(),
            pending=len(pending),
            dead=min(sum(1 for _ in self._with_status(DEAD)), count_max),
            oldest_at_us=min((at_us for _, at_us in pending), default=None),
        )

    async def dead_letters(self, *, limit: int = 100) -> tuple[DeadLetter, ...]:
        dead = [
            DeadLetter(message, relay.attempts, relay.reason, relay.due_at_us)
            for message, relay in self._with_status(DEAD)
        ]
        dead.sort(key=lambda letter: (letter.died_at_us, key_of(letter.message)), reverse=True)
        return tuple(dead[:limit])

    async def requeue(self, event_id: str) -> bool:
        dead = [relay for message, relay in self._with_status(DEAD) if message.id == event_id]
        for relay in dead:
            relay.status, relay.attempts, relay.reason = PENDING, 0, ""
            relay.due_at_us, relay.claim_key = self.now_us(), None
        return bool(dead)

    async def purge_outbox(self, *, age_us: int, limit: int = OUTBOX_LIMIT_MAX) -> int:
        before_us = self.now_us() - age_us
        old = sorted(
            (relay.due_at_us, key_of(message))
            for message, relay in self._with_status(DELIVERED)
            if relay.due_at_us < before_us
        )
        gone = {key for _, key in old[:limit]}
        self.outbox[:] = [message for message in self.outbox if key_of(message) not in gone]
        for key in gone:
            del self.relays[key]
        return len(gone)

    # -- looking -----------------------------------------------------------------------------------------------------

    def _relay(self, message: OutboxMessage) -> Relay:
        return self.relays.setdefault(key_of(message), Relay(message.at_us))

    def _with_status(self, status: str) -> Iterator[tuple[OutboxMessage, Relay]]:
        for message in self.outbox:
            relay = self._relay(message)
            if relay.status == status:
                yield message, relay

    def _heads(self) -> list[OutboxMessage]:
        """The earliest pending message of each instance."""
        heads: dict[InstanceId, OutboxMessage] = {}
        for message, _ in self._with_status(PENDING):
            head = heads.get(message.instance_id)
            if head is None or key_of(message) < key_of(head):
                heads[message.instance_id] = message
        return list(heads.values())

    def _message(self, key: Key) -> OutboxMessage:
        return next(message for message in self.outbox if key_of(message) == key)


def key_of(message: OutboxMessage) -> Key:
    """Its place among all messages."""
    return message.instance_id, message.seq, message.ordinal


def _apply(relay: Relay, outcome: Outcome, now_us: int) -> None:
    relay.due_at_us = now_us
    match outcome:
        case Delivered():
            relay.status = DELIVERED
        case Dead(reason=reason):
            relay.status, relay.reason = DEAD, reason
        case Again(delay_us=delay_us, reason=reason):
            relay.due_at_us, relay.reason = now_us + delay_us, reason
        case GivenBack():
            relay.reason = ""
            return
    relay.attempts += 1
