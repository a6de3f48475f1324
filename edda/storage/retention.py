"""Forgetting: whole instances that ended long ago, and workers that died long ago. The verbs, and their exact meaning.

Laws, for every back end:
- An instance goes whole, in one transaction: its row, history, waits, delivered messages and the events addressed to
  it. What dies in the middle has removed nothing of it.
- Only what can never run again goes: `completed`, `failed` and `cancelled`. What waits for a person stays.
- It stays, however old, while its parent or a child of it can still run, and while one of its messages is pending or
  dead.
- A step is bounded, so that it never stands in the way of work for long, and says where the next one begins.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from edda.core.lifecycle import Status

OVER: Final = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})
"""Nothing leads out of these."""
LOOKED_AT_MAX: Final = 200
"""Instances that one step looks at."""
ROWS_MAX: Final = 5_000
"""Rows of history that one step removes, unless a single instance has more."""


class Place(NamedTuple):
    """How far a walk from the oldest to the newest instance has come."""

    created_at_us: int
    id: str


BEGINNING: Final = Place(-1, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What one step removed, and where to go on; None: it has seen all that are old enough."""

    instances: int
    rows: int
    """Of history."""
    after: Place | None


class RetentionStore(Protocol):
    """Part of `Store`."""

    async def prune(self, *, age_us: int, after: Place = BEGINNING, dry: bool = False) -> Pruned:
        """One step of removing instances that ended longer ago than that. `dry`: only count them."""
        ...

    async def forget_workers(self, *, age_us: int) -> int:
        """Remove workers that are dead, hold nothing, and were last heard of longer ago than that. Returns how many."""
        ...


async def walk(store: RetentionStore, *, age_us: int, dry: bool = False) -> AsyncIterator[Pruned]:
    """All steps, one after the other."""
    after: Place | None = BEGINNING
    while after is not None:
        step = await store.prune(age_us=age_us, after=after, dry=dry)
        yield step
        after = step.after
