"""What a driver and its phases need of the worker that holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from edda.core.commit import Commit, End, Verdict
from edda.core.history import InstanceId
from edda.core.retry import RetryPolicy
from edda.engine.attempts import Attempts
from edda.engine.committer import Ack
from edda.engine.environment import DatabaseClock, Environment
from edda.engine.hook_queue import HookQueue
from edda.engine.turns import Turns
from edda.workflow import App

if TYPE_CHECKING:
    from edda.engine.driver import Driver
    from edda.engine.event_waits import Question
    from edda.engine.telemetry import Telemetry


class House(Protocol):
    """Implemented by the worker."""

    app: App
    clock: DatabaseClock
    environment: Environment
    attempts: Attempts
    hooks: HookQueue
    turns: Turns
    observer: object | None
    telemetry: Telemetry | None
    default_retry_policy: RetryPolicy
    payload_bytes_max: int

    @property
    def id(self) -> str:
        """Id of the worker."""
        ...

    @property
    def trusted(self) -> bool:
        """Whether the worker's lease must still hold, by its own steady clock."""
        ...

    def submit(self, commit: Commit, ack: Ack) -> None:
        """Give a commit to the committer."""
        ...

    async def settle(self, commit: Commit) -> Verdict | None:
        """What became of a commit whose COMMIT went unanswered; None: nothing of it is there."""
        ...

    def look_up_children(self, driver: Driver, ids: tuple[InstanceId, ...]) -> None:
        """Read these rows soon, and tell the driver through `children_looked_up`."""
        ...

    def ask_inbox(self, driver: Driver, question: Question) -> None:
        """Look for these events soon, and tell the driver through `inbox_answered`."""
        ...

    def spread(self, commit: Commit) -> None:
        """A commit is durable: tell those whom it concerns."""
        ...

    def released(self, driver: Driver, *, due_us: int | None, woken: bool) -> None:
        """The instance is parked, durably; `woken`: it is claimable again already."""
        ...

    def ended(self, driver: Driver, end: End) -> None:
        """The instance has ended, or is set aside, durably."""
        ...

    def cleared(self, driver: Driver) -> None:
        """It was a suspect, and has written something or given its claim back."""
        ...

    def crashed(self, error: MemoryError) -> None:
        """The workflow function ran out of memory: a crash of the worker, not a failure of the instance."""
        ...

    def lost(self, driver: Driver) -> None:
        """Storage refused: somebody else has the claim."""
        ...
