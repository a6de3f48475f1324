"""The invariants of the outbox: what arrives at the receiver, compared with what instances have committed.

It reads the log of the receiver and the messages of the model. Laws:
- What arrives was committed, and is the same to the last byte each time (I40).
- When a message of an instance arrives for the first time, all before it have arrived, or have been dead letters (I41).
- What the outbox calls delivered has arrived; at the end everything has, or can be seen as a dead letter (I40, I42).
- A message is sent while its lease is good, of an instance one at a time, and is settled under its latest claim (I42).
  Only who stood still, or was declared dead, may be late.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from edda.core.commit import OutboxMessage
from edda.outbox.sink import Outgoing, outgoing
from edda.storage.memory_outbox import key_of
from edda.storage.outbox import DEAD, DELIVERED, OutboxClaims, Settlement

if TYPE_CHECKING:
    from tests.simulation.world import Node, World

VISIBLE_MAX: Final = 1000


class RelayChecks:
    """See the head of this file."""

    def __init__(self, world: World) -> None:
        self.committed: dict[str, OutboxMessage] = {}
        """All that ever was in the outbox, by id; delivered ones are purged from that."""
        self._world = world
        self._arrived: dict[str, Outgoing] = {}
        self._ever_dead: set[str] = set()
        self._refused: set[str] = set()
        self._claims: dict[str, int] = {}
        """The latest claim that had a message."""
        self._under_way: dict[str, list[Node]] = {}

    def note_committed(self) -> None:
        """Before anything is deleted."""
        for message in self._world.store.outbox:
            self.committed.setdefault(message.id, message)

    @contextmanager
    def under_way(self, node: Node, events: Sequence[Outgoing]) -> Iterator[None]:
        """A call of a sink. Who dies never comes back from it, so the dead do not count; nor does what was requeued."""
        events = [event for event in events if event.event.id not in self._ever_dead]
        for event in events:
            self._check_lease(node, event)
            others = [other for other in self._under_way.get(event.key, ()) if not other.process.dead]
            if others and not any(self._may_be_late(other) for other in (*others, node)):
                self._violate("I42", f"{_name(event)} is sent while another message of it is under way")
            self._under_way.setdefault(event.key, []).append(node)
        try:
            yield
        finally:
            for event in events:
                self._under_way[event.key].remove(node)

    def _check_lease(self, node: Node, one: Outgoing) -> None:
        """It is still leased as it leaves; by whom does not show in it."""
        store = self._world.store
        relay = store.relays[key_of(self.committed[one.event.id])]
        if not self._may_be_late(node) and not (relay.leased and relay.due_at_us > store.now_us()):
            self._violate("I42", f"{_name(one)} is sent, and the lease of it is over")

    def _may_be_late(self, node: Node) -> bool:
        """It stood still, or somebody has declared it dead and so ended its leases."""
        workers = self._world.store.workers
        return node.has_stood_still or any(not workers[each].alive for each in node.workers if each in workers)

    def received(self, one: Outgoing) -> None:
        event_id = one.event.id
        if event_id not in self.committed:
            self.note_committed()
        message = self.committed.get(event_id)
        if message is None:
            self._violate("I40", f"{_name(one)} arrived, and nobody has committed it")
            return
        first = self._arrived.setdefault(event_id, one)
        if one != outgoing(message) or one != first:
            self._violate("I40", f"{_name(one)} arrived as {one}, not as {outgoing(message)}")
        if first is one:
            self._check_order(message)

    def refused(self, one: Outgoing) -> None:
        """For good."""
        self._refused.add(one.event.id)

    def _check_order(self, message: OutboxMessage) -> None:
        self.note_committed()
        for other in self.committed.values():
            earlier = other.instance_id == message.instance_id and key_of(other) < key_of(message)
            if earlier and other.id not in self._arrived and other.id not in self._ever_dead:
                self._violate("I41", f"{_place(message)} arrived before {_place(other)}")

    def claimed(self, claims: OutboxClaims) -> None:
        for leased in claims.leased:
            self._claims[leased.message.id] = leased.claim_key

    def settled_by(self, settlements: Sequence[Settlement], held: Sequence[bool]) -> None:
        for (leased, _), was_held in zip(settlements, held, strict=True):
            if was_held and self._claims[leased.message.id] != leased.claim_key:
                self._violate("I42", f"{_place(leased.message)} was settled under a claim that another one had ended")

    def changed(self) -> None:
        """The outbox has changed."""
        store = self._world.store
        for message in store.outbox:
            relay = store.relays.get(key_of(message))
            if relay is None:
                continue
            if relay.status == DEAD:
                self._ever_dead.add(message.id)
                if message.id not in self._refused:
                    self._violate("I42", f"{_place(message)} is a dead letter, and nobody has refused it")
            elif relay.status == DELIVERED and message.id not in self._arrived:
                self._violate("I40", f"{_place(message)} is called delivered, and has not arrived")

    def check_end(self) -> None:
        self.note_committed()
        dead = {letter.message.id for letter in self._world.dead_letters(limit=VISIBLE_MAX)}
        for event_id, message in self.committed.items():
            if event_id not in self._arrived and event_id not in dead:
                self._violate("I40", f"{_place(message)} has never arrived, and is no dead letter")

    def _violate(self, invariant: str, text: str) -> None:
        self._world.records.violate(invariant, text)


def _name(one: Outgoing) -> str:
    return f"{one.key} {one.event.type} {one.event.id[-8:]}"


def _place(message: OutboxMessage) -> str:
    return f"{message.instance_id} {message.seq}.{message.ordinal} {message.type}"


__all__ = ["RelayChecks"]
