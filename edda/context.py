"""What user code may see and do while it runs: the `ctx` of workflows, activities and compensations.

A context is a thin, typed face over a `Run`, which the engine implements: one for the body of a workflow (where every
effect becomes a durable call) and one for an attempt of an activity (where effects happen). This module knows neither.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload
from uuid import UUID

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from edda.activity import Activity
    from edda.callbacks import Callback
    from edda.core.routing import Criteria
    from edda.events import ReceivedEvent
    from edda.logger import ContextLogger
    from edda.workflow import StartOptions, Workflow, WorkflowHandle

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityInfo:
    """Where in its life the running activity is."""

    id: str
    """Its id within the instance, such as `charge:1`."""
    name: str
    attempt: int
    """1 for the first: 1 + recorded failures + crashes since the last record."""
    idempotency_key: str
    """The same in every attempt and after every crash: hand it to the outside system."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event that user code wants sent."""

    type: str
    source: str
    data: object
    datacontenttype: str | None = None
    subject: str | None = None
    target: str | None = None
    """The instance it is addressed to."""
    to_outbox: bool = False
    """To the outside, whatever the app would choose."""


class Run(Protocol):
    """What the engine does for a context. Which of it is possible depends on where the code runs."""

    @property
    def instance_id(self) -> str: ...
    @property
    def workflow_name(self) -> str: ...
    @property
    def worker_id(self) -> str: ...
    @property
    def claim(self) -> int: ...
    @property
    def replaying(self) -> bool: ...
    @property
    def silent(self) -> bool:
        """What the code does now it did before, up to here, and whoever listens has heard it."""
        ...

    @property
    def attempt(self) -> ActivityInfo | None:
        """The running activity; None in a workflow function."""
        ...

    @property
    def hooks(self) -> object | None: ...
    @property
    def executed(self) -> set[str]: ...
    @property
    def info(self) -> ActivityInfo: ...
    @property
    def session(self) -> AsyncSession: ...
    @property
    def in_transaction(self) -> bool: ...

    def savepoint(self) -> AbstractAsyncContextManager[None]: ...
    def now_us(self) -> int: ...
    def seed(self, purpose: str) -> bytes: ...
    def patched(self, patch_id: str) -> bool: ...

    def activity(
        self,
        activity: Activity[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        call_id: str | None,
    ) -> Coroutine[Any, Any, Any]: ...

    def timer(self, prefix: str, *, due_us: int, timer_id: str | None) -> Coroutine[Any, Any, None]: ...

    def child(
        self,
        workflow: Workflow[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: StartOptions,
    ) -> Coroutine[Any, Any, WorkflowHandle[Any]]: ...

    def child_result(self, instance_id: str) -> Coroutine[Any, Any, Any]: ...

    def event(
        self, criteria: Criteria, *, model: Any, timeout_seconds: float | None, call_id: str | None
    ) -> Coroutine[Any, Any, ReceivedEvent]: ...

    def send(self, event: NewEvent) -> Coroutine[Any, Any, str]: ...

    def owe(
        self, compensation: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, call_id: str | None
    ) -> Coroutine[Any, Any, None]: ...


current_run: ContextVar[Run | None] = ContextVar("edda_current_run", default=None)
"""The run whose code is executing: how `start()` inside a workflow or activity knows where it is."""


class WorkflowContext:
    """The first argument of every workflow, activity and compensation."""

    __slots__ = ("_run",)

    def __init__(self, run: Run) -> None:
        self._run = run

    def __repr__(self) -> str:
        return (
            f"WorkflowContext(instance_id={self.instance_id!r}, workflow_name={self.workflow_name!r}, "
            f"executed_activities={len(self.executed_activity_ids)}, is_replaying={self.is_replaying})"
        )

    # -- who and where -----------------------------------------------------------------------------------------------

    @property
    def instance_id(self) -> str:
        return self._run.instance_id

    @property
    def workflow_name(self) -> str:
        return self._run.workflow_name

    @property
    def worker_id(self) -> str:
        """The worker process that runs this code now. Another one may have begun it."""
        return self._run.worker_id

    @property
    def is_replaying(self) -> bool:
        """True while results come from history. For logging only: decisions taken on it cannot be replayed."""
        return self._run.replaying

    @property
    def hooks(self) -> object | None:
        return self._run.hooks

    @property
    def executed_activity_ids(self) -> set[str]:
        """Ids of the activities whose completion this workflow function has seen."""
        return self._run.executed

    @property
    def activity(self) -> ActivityInfo:
        """The running activity. Raises RuntimeError in a workflow function."""
        return self._run.info

    @property
    def logger(self) -> ContextLogger:
        """A logger that names the instance, and is silent while the workflow function replays.

        Its records have the fields `instance_id`, `workflow`, `worker`, `claim`, `activity` and `attempt`. It writes to
        the loggers `edda.workflow` and, in activities and compensations, `edda.activity`.
        """
        from edda.logger import ContextLogger

        return ContextLogger(self._run)

    # -- the database ------------------------------------------------------------------------------------------------

    @property
    def session(self) -> AsyncSession:
        """A session on edda's own database, in the activity's transaction (opened by the first statement).

        What is written here, the activity's record and its outbox rows commit together, exactly once. Only in
        activities written with `async def`: elsewhere it raises `SessionUnavailableError`. No commit is needed; a
        commit or rollback of your own touches a savepoint only.
        """
        return self._run.session

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[None]:
        """A savepoint within the activity's transaction: an error inside undoes only what was written inside."""
        async with self._run.savepoint():
            yield

    def in_transaction(self) -> bool:
        """Whether the activity's transaction has been opened."""
        return self._run.in_transaction

    # -- determinism -------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        """The time in UTC, the same at every replay: in a workflow function that of its latest record."""
        return datetime.fromtimestamp(self._run.now_us() / 1_000_000, UTC)

    def random(self) -> Random:
        """A generator of random numbers, the same at every replay (seeded by the instance and the n-th call)."""
        return Random(self._run.seed("random"))  # noqa: S311 - not for secrets, and says so

    def uuid(self) -> UUID:
        """A random UUID (version 4 in form), the same at every replay."""
        return UUID(bytes=self._run.seed("uuid")[:16], version=4)

    def patched(self, patch_id: str) -> bool:
        """Whether this instance may take the new branch of changed code.

        True for instances that reach this line for the first time, and for ever after for the same ones; False for
        those whose history shows that they passed here with the old code.
        """
        return self._run.patched(patch_id)

    def callback(self, name: str = "callback") -> Coroutine[Any, Any, Callback]:
        """A one-shot token to hand to a person or a system: `callback = await ctx.callback()`, then give
        `callback.token` away and `await callback.wait(timeout_seconds=...)`. It is a recorded step named `name`."""
        from edda.callbacks import make_callback

        return make_callback(self, name)

    # -- steps -------------------------------------------------------------------------------------------------------

    @overload
    def run(
        self, name: str, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R]: ...
    @overload
    def run(self, name: str, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
    def run(self, name: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """Call any function as an activity named `name`: its result is recorded, it is retried and not repeated.

        `await ctx.run("fetch", client.get, url)`. A plain `def` runs in a thread. The function gets no context.
        """
        from edda.activity import Activity

        return self._run.activity(Activity(fn, name=name, takes_context=False), args, kwargs, call_id=None)


def run_of(ctx: WorkflowContext) -> Run:
    """The run behind a context, for the authoring functions of edda."""
    try:
        return ctx._run  # pyright: ignore[reportPrivateUsage]
    except AttributeError:
        raise TypeError(
            "the first argument must be the context, ctx, that a workflow or activity was called with, and not "
            f"{described(ctx)}"
        ) from None


def described(argument: object) -> str:
    """A misplaced argument, for an error: its kind only, because its value may be long or secret."""
    return "None" if argument is None else f"of type {type(argument).__name__}"


def utc_us(moment: datetime) -> int:
    """Microseconds since 1970; a naive datetime is UTC."""
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return round((aware - _EPOCH).total_seconds() * 1_000_000)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
