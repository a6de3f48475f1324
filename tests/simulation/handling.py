"""Workflows of simulated worlds that events start: one is named after its event, two are handlers of another type.

The first is a kitchen sink whose tree is in the event, so all that is asked of kitchen sinks is asked of it, too. What
is checked besides: each event of these types that was accepted has started exactly one instance for each of them (I23).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Final

import edda
from edda.core.event import CloudEvent
from edda.core.history import InstanceId
from edda.core.subscription import WHOLE, Subscription, started_by
from edda.events import ReceivedEvent
from edda.handlers import handler_workflow
from tests.simulation.kitchen_sink import FAST, Body, tree_of

if TYPE_CHECKING:
    from tests.simulation.world import World

ORDERED: Final = "sink.ordered"
FILED: Final = "sink.filed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An event that somebody sends, and that starts something."""

    type: str
    seed: int
    size: int
    at_us: int


@edda.workflow(name=ORDERED, event_handler=True)
async def ordered(ctx: edda.WorkflowContext, seed: int, size: int) -> int:
    from tests.simulation.kitchen_sink import _notes

    seen = _notes().entered_body(ctx.instance_id, ctx.worker_id)
    await Body(ctx, seed, seen).run(tree_of(seed, size))
    return len(seen)


async def file_it(event: ReceivedEvent) -> None:
    """Fails for one event in three, so that its instance fails, and is seen."""
    if event.data["seed"] % 3 == 0:
        raise edda.TerminalError("simulated: cannot be filed")


async def count_it(event: ReceivedEvent) -> None:
    pass


HANDLERS: Final = {
    handler_workflow(FILED, function, name=None, retry_policy=FAST, timeout=None).name: FILED
    for function in (file_it, count_it)
}
SUBSCRIPTIONS: Final = frozenset(
    {Subscription(ORDERED, ORDERED, "seed,size,"), *(Subscription(FILED, name, WHOLE) for name in HANDLERS)}
)
NAMES: Final = frozenset({ORDERED, *HANDLERS})


def orders_of(random: Random) -> tuple[Order, ...]:
    return tuple(
        Order(
            type=random.choice((ORDERED, ORDERED, FILED)),
            seed=random.randrange(1 << 30),
            size=random.choice((1, 2, 3)),
            at_us=int(10 ** random.uniform(2.0, 6.2)),
        )
        for _ in range(random.choice((1, 2, 3)))
    )


def expected(world: World) -> Iterator[tuple[CloudEvent, Subscription]]:
    """For every event that is there, who is to hear of it."""
    for stored in world.store.inbox.values():
        for subscription in SUBSCRIPTIONS:
            if subscription.type == stored.event.type and world.scenario.orders:
                yield stored.event, subscription


def all_started(world: World) -> bool:
    """Everything ordered is accepted, and has begun."""
    accepted = sum(stored.event.type in (ORDERED, FILED) for stored in world.store.inbox.values())
    return accepted == len(world.scenario.orders) and all(
        started_by(event, subscription).id in world.store.rows for event, subscription in expected(world)
    )


def check_end(world: World) -> None:
    rows = world.store.rows
    due: set[InstanceId] = set()
    for event, subscription in expected(world):
        new = started_by(event, subscription)
        due.add(new.id)
        if event.target is not None or (event.source, event.id) not in world.senders.sent:
            world.records.violate("I23", f"{event.source}/{event.id} is an order that nobody has given")
        if new.id not in rows:
            world.records.violate("I23", f"{event.source}/{event.id} has not started {subscription.workflow}")
        elif rows[new.id].input != new.input:
            world.records.violate("I23", f"{new.id} was started with {rows[new.id].input}, not {new.input}")
    for row in rows.values():
        if row.workflow in NAMES and row.id not in due:
            world.records.violate("I23", f"{row.id} runs, and no event says so")


__all__ = ["FILED", "HANDLERS", "ORDERED", "SUBSCRIPTIONS", "Order", "orders_of"]
