"""What is outside of a simulated world: a receiver of events, the sinks that lead to it, people who requeue.

A process with a relayer has a sink. A call of it travels like a call to the database, and the same can befall it
(`FaultyStore.call`): it is lost, its answer is lost or late, or who made it dies or stands still. What arrives is
taken, put off or refused, as chance will have it; after a few times the receiver takes whatever it is. What it refused
for good somebody requeues, at most `REQUEUES_MAX` times. Chance is of its own here: worlds without relayers stay as
they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Final

from edda.exceptions import DeadLetterNotFoundError, EddaError
from edda.outbox.relayer import Relayer, RelaySettings
from edda.outbox.sink import Answer, Delivered, Outgoing, Reject, Retry
from edda.storage.memory_outbox import Relay
from edda.storage.outbox import DEAD, DELIVERED, PENDING
from edda.storage.port import UnknownOutcome
from tests.simulation.relay_checks import RelayChecks

if TYPE_CHECKING:
    from tests.simulation.world import Node, World

TROUBLES_MAX: Final = 4
"""Times that the receiver does not take a message; so back-offs stay short."""
REQUEUES_MAX: Final = 2
REFUSED: Final = 0.3
"""The share of troubles that are for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaying:
    """How a world relays."""

    seed: int
    relayers: int = 1
    """Of each process."""
    trouble: float = 0.2
    """How often the receiver does not take what it could."""
    outage_us: tuple[int, int] = (0, 0)
    """From when, and until when, it takes nothing."""
    lease_seconds: float = 3.0
    poll_seconds: float = 1.0
    retention_seconds: float = 1000.0
    hints: bool = True
    refuses: float = REFUSED


class SimSink:
    """A sink of one process."""

    def __init__(self, outside: Outside, node: Node) -> None:
        self._outside = outside
        self._node = node
        self.batch_max = outside.random.choice((1, 3))
        self.calls_max = outside.random.choice((1, 2, 4))

    async def publish(self, events: Sequence[Outgoing]) -> Sequence[Answer]:
        outside, node = self._outside, self._node
        with outside.checks.under_way(node, events):
            answers: Sequence[Answer] = await node.store.call("publish", lambda: outside.arrive(node, events))
        return answers

    async def close(self) -> None:
        pass


class Outside:
    """See the head of this file."""

    def __init__(self, world: World, relaying: Relaying) -> None:
        self.relaying = relaying
        self.random = Random(relaying.seed)
        self.checks = RelayChecks(world)
        self._world = world
        self._troubles: Counter[str] = Counter()
        self._requeues: Counter[str] = Counter()
        self._requeuing: dict[str, Node] = {}

    # -- relayers ----------------------------------------------------------------------------------------------------

    def relayers_of(self, node: Node) -> list[Relayer]:
        """The relayers of a process that has just begun."""
        relaying = self.relaying
        settings = RelaySettings(
            lease_seconds=relaying.lease_seconds,
            poll_seconds=relaying.poll_seconds,
            retention_seconds=relaying.retention_seconds,
        )
        relayers = [
            Relayer(
                node.store,
                SimSink(self, node),
                name=worker_of(node),
                settings=settings,
                steady_us=node.environment.steady_us,
                random=node.environment.random,
            )
            for _ in range(relaying.relayers)
        ]
        for relayer in relayers:
            relayer.begin()
        return relayers

    # -- the receiver ------------------------------------------------------------------------------------------------

    def arrive(self, node: Node, events: Sequence[Outgoing]) -> list[Any]:
        answers = [self._take(each) for each in events]
        if self._world.trace is not None:
            told = ", ".join(
                f"{each.key} {each.event.type} {type(answer).__name__}"
                for each, answer in zip(events, answers, strict=True)
            )
            self._world.note(node, f"publish -> {told}")
        return answers[:-1] if self.random.random() < 0.02 and self._has_patience(events[-1]) else answers

    def _take(self, one: Outgoing) -> Any:
        begin_us, end_us = self.relaying.outage_us
        if begin_us <= self._world.loop.now_us < end_us:
            self._world.put_off()
            return Retry("503")
        if self._has_patience(one) and self.random.random() < self.relaying.trouble:
            return self._trouble(one)
        self.checks.received(one)
        return Delivered()

    def _trouble(self, one: Outgoing) -> Any:
        self._troubles[one.event.id] += 1
        self._world.put_off()
        if self.random.random() < self.relaying.refuses:
            self.checks.refused(one)
            return Reject("400")
        if self.random.random() < 0.1:
            return "no answer that anybody knows"
        return Retry("429", self.random.choice((None, None, 0.3, 2.0)))

    def _has_patience(self, one: Outgoing) -> bool:
        return self._troubles[one.event.id] < TROUBLES_MAX

    # -- people ------------------------------------------------------------------------------------------------------

    def look_after(self) -> None:
        """Requeue what is dead."""
        serving = self._world.serving()
        for letter in self._world.dead_letters():
            event_id = letter.message.id
            asked = self._requeuing.get(event_id)
            if self._requeues[event_id] < REQUEUES_MAX and serving and (asked is None or asked.process.dead):
                node = self._requeuing[event_id] = self.random.choice(serving)
                self._world.loop.spawn(node.process, self._requeue_at(node, event_id))

    async def _requeue_at(self, node: Node, event_id: str) -> None:
        try:
            await node.app.requeue(event_id)
        except DeadLetterNotFoundError:
            self._requeues[event_id] += 1  # an answer was lost
        except (EddaError, UnknownOutcome) as error:
            self._world.note(node, f"requeue of {event_id}: {error}")
        else:
            self._requeues[event_id] += 1
        self._requeuing.pop(event_id, None)

    def finished(self) -> bool:
        """Everything is delivered, or dead and not wanted."""
        store = self._world.store
        return all(
            relay.status == DELIVERED or (relay.status == DEAD and self._requeues[message.id] >= REQUEUES_MAX)
            for message, relay in ((each, store._relay(each)) for each in store.outbox)
        )

    def unfinished(self) -> str:
        store = self._world.store
        pending: list[tuple[str, Relay]] = [
            (message.id, store._relay(message))
            for message in store.outbox
            if store._relay(message).status in (PENDING, DEAD)
        ]
        return ", ".join(f"message {name}: {relay}" for name, relay in pending)


def worker_of(node: Node) -> Callable[[], str]:
    """The worker that a process has now."""

    def worker_id() -> str:
        assert node.engine is not None
        return node.engine.worker_id

    return worker_id


def relaying_of(random: Random, *, purges: bool, refuses: bool) -> Relaying:
    """Drawn for one world. `purges`, `refuses`: that has to happen in it."""
    begin_us = int(10 ** random.uniform(3.0, 6.5))
    outage_us = (begin_us, begin_us + int(10 ** random.uniform(5.0, 6.7))) if random.random() < 0.2 else (0, 0)
    short = purges or random.random() < 0.2
    return Relaying(
        seed=random.getrandbits(48),
        relayers=random.choice((1, 1, 2)),
        trouble=max(random.choice((0.0, 0.2, 0.5)), 0.5 if refuses else 0.0),
        outage_us=outage_us,
        lease_seconds=random.choice((0.6, 3.0, 3.0)),
        poll_seconds=random.choice((0.3, 1.0)),
        retention_seconds=random.choice((0.5, 3.0)) if short else 1000.0,
        hints=random.random() < 0.6,
        refuses=0.8 if refuses else random.choice((0.0, 0.3)),
    )


__all__ = ["Outside", "Relaying", "SimSink", "relaying_of"]
