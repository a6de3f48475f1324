"""Planted bugs of the outbox and of the relayer. `mutants` runs them, in worlds that relay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from edda.core.commit import OutboxMessage
from edda.outbox import relayer as relayer_module
from edda.outbox.relayer import Held, Relayer
from edda.outbox.sink import Delivered as Taken
from edda.outbox.sink import Reject, Retry
from edda.storage import memory_outbox
from edda.storage.memory_outbox import OutboxModel, key_of
from edda.storage.outbox import DEAD, DELIVERED, Delivered, Settlement
from tests.simulation.planting import MUTANTS, mutant, swapped

_BEFORE: Final = frozenset(MUTANTS)
NEVER_US: Final = 10**18


# -- leases ------------------------------------------------------------------------------------------------------------


@mutant("outbox: leased without a lease")
def no_lease() -> Any:
    """A claim leaves what it takes due, so the next one takes it, too."""

    def make(original: Any) -> Any:
        async def claim_outbox(self: OutboxModel, relayer: str, *, lease_us: int, **bounds: Any) -> Any:
            return await original(self, relayer, lease_us=0, **bounds)

        return claim_outbox

    return swapped(OutboxModel, "claim_outbox", make)


@mutant("outbox: a claim does not ask whether another one has it")
def claims_what_is_leased() -> Any:
    def make(original: Any) -> Any:
        async def claim_outbox(self: OutboxModel, relayer: str, *, lease_us: int, **bounds: Any) -> Any:
            for head in self._heads():
                if (relay := self._relay(head)).leased:
                    relay.due_at_us = self.now_us()
            return await original(self, relayer, lease_us=lease_us, **bounds)

        return claim_outbox

    return swapped(OutboxModel, "claim_outbox", make)


@mutant("outbox: what a dead relayer held is nobody's")
def held_for_ever() -> Any:
    def make(original: Any) -> Any:
        async def claim_outbox(self: OutboxModel, relayer: str, *, lease_us: int, **bounds: Any) -> Any:
            return await original(self, relayer, lease_us=NEVER_US, **bounds)

        return claim_outbox

    return swapped(OutboxModel, "claim_outbox", make)


@mutant("outbox: sent though the lease is over")
def sent_too_late() -> Any:
    return swapped(Relayer, "_is_good", lambda _: lambda self, held: True)


@mutant("outbox: settled by whoever asks")
def settled_by_anybody() -> Any:
    def make(original: Any) -> Any:
        def settle_message(self: OutboxModel, settlement: Settlement) -> bool:
            relay = self.relays.get(key_of(settlement.leased.message))
            if relay is not None and relay.claim_key is not None:
                settlement = settlement._replace(leased=settlement.leased._replace(claim_key=relay.claim_key))
            return original(self, settlement)  # type: ignore[no-any-return]

        return settle_message

    return swapped(OutboxModel, "_settle_message", make)


# -- order -------------------------------------------------------------------------------------------------------------


def _passed_over(passes: Any) -> Any:
    """What this is true of does not hold up what is behind it."""

    def make(original: Any) -> Any:
        def heads(self: OutboxModel) -> list[OutboxMessage]:
            everything = self.outbox
            self.outbox = [each for each in everything if not passes(self, self._relay(each))]
            try:
                others: list[OutboxMessage] = original(self)
            finally:
                self.outbox = everything
            found = {each.instance_id for each in others}
            return [*others, *(each for each in original(self) if each.instance_id not in found)]

        return heads

    return swapped(OutboxModel, "_heads", make)


@mutant("outbox: the order is lost when a relayer dies")
def order_lost_in_a_crash() -> Any:
    """What it held comes last."""
    return _passed_over(lambda model, relay: relay.leased and relay.due_at_us <= model.now_us())


@mutant("outbox: one that is under way does not hold up the next")
def next_at_once() -> Any:
    return _passed_over(lambda model, relay: relay.leased and relay.due_at_us > model.now_us())


@mutant("outbox: one that is tried again is overtaken")
def overtaken() -> Any:
    return _passed_over(lambda model, relay: not relay.leased and relay.due_at_us > model.now_us())


@mutant("outbox: the head is the latest")
def latest_first() -> Any:
    def make(original: Any) -> Any:
        def heads(self: OutboxModel) -> list[OutboxMessage]:
            last: dict[str, OutboxMessage] = {}
            for message, _ in self._with_status("pending"):
                if message.instance_id not in last or key_of(message) > key_of(last[message.instance_id]):
                    last[message.instance_id] = message
            return list(last.values())

        return heads

    return swapped(OutboxModel, "_heads", make)


# -- what became of it -------------------------------------------------------------------------------------------------


@mutant("outbox: settled before it is sent")
def settled_first() -> Any:
    def make(original: Any) -> Any:
        async def call(self: Relayer, batch: list[Held]) -> None:
            for held in batch:
                self._settle_later(held, Delivered())
            await self._answers_to(batch)

        return call

    return swapped(Relayer, "_call", make)


@mutant("outbox: no answer counts as delivered")
def silence_is_consent() -> Any:
    def make(original: Any) -> Any:
        async def answers_to(self: Relayer, batch: list[Held]) -> Sequence[Any]:
            answers = await original(self, batch)
            return [Taken() if isinstance(each, Retry) and "simulated" in each.reason else each for each in answers]

        return answers_to

    return swapped(Relayer, "_answers_to", make)


@mutant("outbox: a missing answer counts as delivered")
def missing_is_delivered() -> Any:
    def make(original: Any) -> Any:
        async def answers_to(self: Relayer, batch: list[Held]) -> Sequence[Any]:
            answers = await original(self, batch)
            return [Taken() if each == Retry("429") else each for each in answers]

        return answers_to

    return swapped(Relayer, "_answers_to", make)


@mutant("outbox: an outage makes dead letters")
def outage_kills() -> Any:
    def make(original: Any) -> Any:
        async def answers_to(self: Relayer, batch: list[Held]) -> Sequence[Any]:
            answers = await original(self, batch)
            return [Reject(each.reason) if isinstance(each, Retry) else each for each in answers]

        return answers_to

    return swapped(Relayer, "_answers_to", make)


@mutant("outbox: a settlement that nobody answered ends the relayer")
def settles_once() -> Any:
    async def settle(self: Relayer, batch: list[tuple[Held, Any]]) -> None:
        await self._store.settle_outbox([Settlement(held.leased, outcome) for held, outcome in batch])

    return swapped(Relayer, "_settle", lambda _: settle)


@mutant("outbox: what is purged is only old")
def purges_the_dead() -> Any:
    """Dead letters, too."""

    def make(original: Any) -> Any:
        async def purge_outbox(self: OutboxModel, **options: Any) -> int:
            dead = [relay for relay in self.relays.values() if relay.status == DEAD]
            for relay in dead:
                relay.status = DELIVERED
            deleted: int = await original(self, **options)
            for relay in dead:
                relay.status = DEAD
            return deleted

        return purge_outbox

    return swapped(OutboxModel, "purge_outbox", make)


# -- what is sent ------------------------------------------------------------------------------------------------------


@mutant("outbox: a requeued message forgets its id")
def new_id() -> Any:
    def make(original: Any) -> Any:
        async def requeue(self: OutboxModel, event_id: str) -> bool:
            found: bool = await original(self, event_id)
            self.outbox[:] = [
                each._replace(id=f"again {event_id}") if found and each.id == event_id else each for each in self.outbox
            ]
            return found

        return requeue

    return swapped(OutboxModel, "requeue", make)


@mutant("outbox: a delivery bears the time of its own")
def own_time() -> Any:
    def make(original: Any) -> Any:
        def outgoing(message: OutboxMessage) -> Any:
            calls[0] += 1
            return original(message._replace(at_us=message.at_us + calls[0]))

        return outgoing

    calls = [0]
    return swapped(relayer_module, "outgoing", make)


@mutant("outbox: what was requeued is no longer there")
@contextmanager
def requeued_and_gone() -> Iterator[None]:
    def make(original: Any) -> Any:
        async def requeue(self: OutboxModel, event_id: str) -> bool:
            found: bool = await original(self, event_id)
            for message in self.outbox:
                if found and message.id == event_id:
                    self._relay(message).status = memory_outbox.DELIVERED
            return found

        return requeue

    with swapped(OutboxModel, "requeue", make):
        yield


RELAY_MUTANTS: Final = tuple(title for title in MUTANTS if title not in _BEFORE)

__all__ = ["RELAY_MUTANTS"]
