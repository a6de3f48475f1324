"""One connection to a database server, and the running of verbs on it: whole transactions, one after the other.

It knows no SQL and no driver: a `Wire` does. Laws:
- A verb runs to its end whatever becomes of its caller: nothing sent to the server is ever cancelled, so no answer is
  left in the socket for the next one, and no COMMIT is in doubt because somebody lost patience.
- After any error: ROLLBACK, or the connection is closed. Retrying means the whole verb, from the beginning.
- A connection that breaks before COMMIT was sent has written nothing, and the verb runs again on a new one. After that
  it is `UnknownOutcome`, unless the verb may be repeated.
- No answer for `ANSWER_SECONDS_MAX`: the socket is closed, and the same rules apply.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Coroutine
from functools import lru_cache
from typing import Any, Final, Literal, Protocol, TypeVar

from edda.careful_log import CarefulLogger
from edda.core.history import WorkerId
from edda.exceptions import DatabaseUnavailableError, StorageError
from edda.storage.port import UnknownOutcome
from edda.storage.sql import workers
from edda.storage.sql.dialects.base import Dialect, Problem
from edda.storage.sql.verb import Rows, Statement, Verb, drive

T = TypeVar("T")
StatementHook = Callable[[str, Statement | Literal["COMMIT"]], Awaitable[None]]
"""Awaited before each statement and before COMMIT, with the name of the verb; an error from it rolls back."""

ATTEMPTS_MAX: Final = 10
BACKOFF_SECONDS_FIRST: Final = 0.01
BACKOFF_SECONDS_MAX: Final = 1.0
ANSWER_SECONDS_MAX: Final = 30.0
CLOSE_SECONDS_MAX: Final = 5.0

_logger = CarefulLogger("edda.storage")


class DuplicateKeyError(Exception):
    """A row with this key exists. Nothing was written."""


class Wire(Protocol):
    """A driver's connection."""

    @property
    def server_id(self) -> int: ...

    @property
    def is_closed(self) -> bool: ...

    async def begin(self) -> None: ...

    async def execute(self, statement: Statement) -> Rows: ...

    async def commit(self) -> None: ...

    async def rollback(self) -> None: ...

    def drop(self) -> None:
        """Close the socket now, without a word; whoever waits on it gets an error."""
        ...

    async def close(self) -> None: ...


class Runner:
    """Runs verbs on a connection that it makes when it is needed, and makes anew when it was lost."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Wire]],
        dialect: Dialect,
        *,
        answer_seconds_max: float | None = ANSWER_SECONDS_MAX,
    ) -> None:
        self.on_statement: StatementHook | None = None
        self._connect = connect
        self._dialect = dialect
        self._answer_seconds_max = answer_seconds_max
        self._wire: Wire | None = None
        self._noted: set[WorkerId] = set()
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def server_id(self) -> int | None:
        return self._wire.server_id if self._wire is not None else None

    async def run(
        self,
        name: str,
        make: Callable[[], Verb[T]],
        *,
        atomic: bool = True,
        repeat: bool = True,
        worker: WorkerId | None = None,
    ) -> T:
        """Run a verb in a transaction, or, if not `atomic`, as statements that are transactions of their own.

        `repeat`: running it again does no harm when nobody knows whether it happened. `worker`: for whom it writes.
        """
        return await self._shielded(self._run(name, make, atomic=atomic, repeat=repeat, worker=worker))

    async def close(self, *, farewell: Statement | None = None) -> None:
        """Wait for what is under way, within reason. `farewell` is the last that the server hears, if it can."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS_MAX)
            for task in late:
                task.cancel()  # which drops the connection, too
            if late:
                await asyncio.wait(late)
        if self._wire is not None:
            wire, self._wire = self._wire, None
            with contextlib.suppress(Exception):
                if farewell is not None:
                    await self._answered(wire, wire.execute(farewell))
                await self._answered(wire, wire.close())

    async def _shielded(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked may have been cancelled meanwhile: then nobody else looks at it

    async def _run(
        self, name: str, make: Callable[[], Verb[T]], *, atomic: bool, repeat: bool, worker: WorkerId | None
    ) -> T:
        async with self._lock:
            attempt = 0
            while True:
                attempt += 1
                try:
                    wire = await self._connected()
                    await self._note(wire, worker)
                    return await self._once(wire, name, make, atomic=atomic)
                except (asyncio.CancelledError, StorageError, DuplicateKeyError):
                    raise
                except UnknownOutcome as error:
                    if not repeat:
                        raise
                    cause: BaseException = error
                except Exception as error:
                    if not self._may_pass(error):
                        # Drivers leave it to Python to say what UTF-8 cannot.
                        if self._dialect.is_of_driver(error) or isinstance(error, UnicodeEncodeError):
                            raise StorageError(f"The database refused: {error}") from error
                        raise
                    cause = error
                if attempt == ATTEMPTS_MAX:
                    raise self._final(name, cause) from cause
                _logger.debug("%s is tried again: %s", name, cause)
                await asyncio.sleep(_backoff_seconds(attempt))

    async def _connected(self) -> Wire:
        if self._wire is not None and self._wire.is_closed:
            self._forget(self._wire)
        if self._wire is None:
            self._wire = await self._connect()
            self._noted.clear()
        return self._wire

    async def _note(self, wire: Wire, worker: WorkerId | None) -> None:
        """Before a worker writes on a new connection, its row says so: a reaper must be able to end it."""
        if worker is not None and worker not in self._noted:
            dialect, server_id = self._dialect, wire.server_id
            noting = workers.note_server_id(dialect, worker, server_id)
            if await self._once(wire, "note_server_id", lambda: noting, atomic=True):
                self._noted.add(worker)

    async def _once(self, wire: Wire, name: str, make: Callable[[], Verb[T]], *, atomic: bool) -> T:
        committing = not atomic
        hook = self.on_statement

        async def execute(statement: Statement) -> Rows:
            if hook is not None:
                await hook(name, statement)
            return await self._answered(wire, wire.execute(statement))

        try:
            if atomic:
                await self._answered(wire, wire.begin())
            result = await drive(make(), execute)
            if atomic:
                if hook is not None:
                    await hook(name, "COMMIT")
                committing = True
                await self._answered(wire, wire.commit())
        except BaseException as error:
            await self._recover(wire, error, atomic=atomic, committing=committing)
            raise
        return result

    async def _recover(self, wire: Wire, error: BaseException, *, atomic: bool, committing: bool) -> None:
        """Leave no transaction behind. Raises what the error means, where that is not the error itself."""
        if isinstance(error, asyncio.CancelledError):  # the loop is being torn down
            self._forget(wire)
            return
        problem = self._dialect.problem(error)
        if problem is Problem.LOST or wire.is_closed:
            self._forget(wire)
            if committing:
                raise UnknownOutcome(f"the connection broke before the answer: {error}") from error
            raise ConnectionError(f"the connection broke: {error}") from error
        if atomic and committing and problem is not Problem.RETRY:
            # A refusal of COMMIT that is none of those that say "rolled back".
            self._forget(wire)
            raise UnknownOutcome(f"COMMIT was answered with {error}") from error
        if atomic:
            try:
                await self._answered(wire, wire.rollback())
            except Exception:
                self._forget(wire)
        if problem is Problem.DUPLICATE:
            raise DuplicateKeyError(str(error)) from error
        if problem is Problem.OTHER and self._dialect.is_of_driver(error):
            raise StorageError(f"The database refused: {error}") from error

    def _forget(self, wire: Wire) -> None:
        wire.drop()
        if self._wire is wire:
            self._wire = None

    def _may_pass(self, error: Exception) -> bool:
        return self._dialect.problem(error) in (Problem.RETRY, Problem.LOST)

    def _final(self, name: str, error: BaseException) -> StorageError:
        if self._dialect.problem(error) is Problem.RETRY:
            return DatabaseUnavailableError(f"{name} was in the way of others {ATTEMPTS_MAX} times: {error}")
        return DatabaseUnavailableError(f"The database cannot be reached: {error}")

    async def _answered(self, wire: Wire, work: Awaitable[T]) -> T:
        """Wait for the server, but not for ever."""
        if self._answer_seconds_max is None:
            return await work
        timer = asyncio.get_running_loop().call_later(self._answer_seconds_max, wire.drop)
        try:
            return await work
        finally:
            timer.cancel()


def _backoff_seconds(attempt: int) -> float:
    """Doubling, and jittered: those who were in each other's way must not come back together."""
    longest = min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS_FIRST * 2**attempt)
    return random.uniform(longest / 2, longest)  # noqa: S311 - no secret


@lru_cache(maxsize=1024)
def numbered(text: str) -> str:
    """The statement with $1, $2 ... instead of `?`."""
    first, *others = text.split("?")
    return first + "".join(f"${number}{other}" for number, other in enumerate(others, start=1))


@lru_cache(maxsize=1024)
def formatted(text: str) -> str:
    """The statement with %s instead of `?`."""
    return text.replace("%", "%%").replace("?", "%s")
