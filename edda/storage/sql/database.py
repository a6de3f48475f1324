"""What a kind of database has to offer, so that `store` can be one class for all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from edda.core.history import WorkerId
from edda.storage.port import LeaseLine, Reaped
from edda.storage.sql.dialects.base import Dialect
from edda.storage.sql.url import DatabaseUrl
from edda.storage.sql.verb import Verb

if TYPE_CHECKING:
    from edda.storage.sql.session_line import Lines

T = TypeVar("T")


class Lane(Enum):
    """Which connection a verb goes over; a server has one for each."""

    COMMIT = "commit"
    """The group commit alone, so that nothing stands in its way."""
    DESK = "desk"
    """Everything else."""
    READ = "read"
    """The desk too, but nothing is written, so no transaction is needed."""
    LOOK = "look"
    """What people ask: it may take a while, and so has a connection of its own, made with the first question."""


class Database(Protocol):
    """Connections to one database, and the running of verbs over them."""

    @property
    def dialect(self) -> Dialect: ...

    @property
    def url(self) -> DatabaseUrl: ...

    sessions_exclude_writes: bool
    """An open session keeps all other writes waiting."""

    on_statement: Any
    """Called with the name of the verb and a `Statement` or "COMMIT", before each. See `SqlStore.on_statement`."""

    async def open(self, *, read_only: bool = False) -> None:
        """Connect, and bring the tables up to date. `read_only`: see that they are, and never write."""
        ...

    async def close(self) -> None: ...

    async def run(
        self,
        name: str,
        make: Callable[[], Verb[T]],
        *,
        lane: Lane,
        repeat: bool = True,
        worker: WorkerId | None = None,
    ) -> T:
        """Run a verb; see `runner.Runner.run`. Raises `DuplicateKeyError`, `UnknownOutcome` or `StorageError`."""
        ...

    async def reap(self, dead: WorkerId, make: Callable[[], Verb[Reaped | None]]) -> Reaped | None:
        """Run `workers.reap`, which may have to wait for connections that only a kill brings to an end."""
        ...

    def present(self) -> Collection[WorkerId] | None:
        """The workers known to live, where presence is not the database's business."""
        ...

    def present_as_seen(self) -> Collection[WorkerId] | None:
        """The same for those who only look, from whatever process: nobody is reaped by it, for a worker may begin
        in the next moment."""
        ...

    def lease_line(self) -> LeaseLine: ...

    def listen(self, heard: Callable[[], None]) -> None:
        """See `Store.listen`."""
        ...

    def hint(self) -> None:
        """See `Store.hint`."""
        ...

    def session_lines(self) -> Lines:
        """Where `ctx.session` gets its transactions from. Imports SQLAlchemy."""
        ...
