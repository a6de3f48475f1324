"""How workers look after those that are gone."""

from __future__ import annotations

from random import Random
from typing import Any

from edda.core.history import WorkerId
from edda.engine.environment import Environment
from edda.engine.reaper import Reaper
from edda.storage.port import Reaped

GONE = tuple(WorkerId(f"w{number:02}") for number in range(20))


async def order_of(seed: int) -> list[str]:
    """In which order a worker with this chance reaps those that are gone."""
    reaped: list[str] = []

    class Store:
        async def absentees(self, worker: WorkerId) -> tuple[WorkerId, ...]:
            return GONE

        async def reap(self, dead: WorkerId) -> Reaped:
            reaped.append(dead)
            return Reaped(freed=(), quarantined=())

    store: Any = Store()
    environment = Environment(random=Random(seed))
    reaper = Reaper(store, WorkerId("me"), environment, may_reap=lambda: True, on_reaped=lambda _: None)
    await reaper.reap_absentees()
    return reaped


async def test_the_living_share_out_the_dead() -> None:
    """In one order for all they would queue up at the first, and the last would wait for as long as all take."""
    orders = [await order_of(seed) for seed in range(8)]
    assert all(sorted(order) == sorted(GONE) for order in orders)
    assert len({order[0] for order in orders}) > 3
