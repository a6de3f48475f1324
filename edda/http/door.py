"""What HTTP needs of an app. The rest of the house is unknown here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edda.core.event import CloudEvent, Receipt


class Door(Protocol):
    """Where requests go in.

    Besides what each verb names, it may raise `DatabaseUnavailableError` and `ShuttingDownError`: try again later.
    """

    async def accept(self, events: Sequence[CloudEvent]) -> Sequence[Receipt]:
        """What became of each event, in their order. What it says is stored is durable when this returns."""
        ...

    async def cancel(self, instance_id: str, *, by: str) -> None:
        """Raises `InstanceNotFoundError`, `NotCancellableError`."""
        ...

    async def initialize(self) -> None:
        """Idempotent."""
        ...

    async def shutdown(self) -> None:
        """Idempotent."""
        ...

    async def check(self) -> bool:
        """False before `initialize()`, while shutting down, and while the database does not answer."""
        ...
