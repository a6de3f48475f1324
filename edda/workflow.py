"""Workflows: async functions that survive crashes. Starting one returns a handle, which is its instance id."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    cast,
    overload,
)
from weakref import WeakSet

from edda.context import NewEvent, WorkflowContext, current_run, described, run_of
from edda.core.declaration import check_function, search_fields_of
from edda.exceptions import NoAppError
from edda.history import HistoryEntry
from edda.naming import Registry

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

P = ParamSpec("P")
R = TypeVar("R")

OnConflict = Literal["error", "return"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOptions:
    """How an instance is started; see `Workflow.options`."""

    id: str | None = None
    on_conflict: OnConflict = "error"
    detached: bool = False
    session: AsyncSession | Session | None = None


AS_IT_IS: Final = StartOptions()


class App(Protocol):
    """What a workflow needs of an app."""

    def direct(self, event: NewEvent) -> NewEvent:
        """Decide whether an event goes to the app's own inbox or to the outside."""
        ...

    async def send(self, event: NewEvent) -> str:
        """Send an event from outside of any run; durable when it returns its id."""
        ...

    @property
    def running(self) -> bool:
        """Initialised, and not shut down."""
        ...

    async def start_instance(
        self, workflow: Workflow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: StartOptions
    ) -> WorkflowHandle[Any]: ...

    async def result_of(self, instance_id: str, *, timeout: float | None) -> Any: ...  # noqa: ASYNC109
    async def status_of(self, instance_id: str) -> str: ...
    async def reason_of(self, instance_id: str) -> str: ...
    async def history_of(self, instance_id: str) -> list[HistoryEntry]: ...
    async def cancel(self, instance_id: str) -> None: ...
    async def retry(self, instance_id: str) -> None: ...


current_app: ContextVar[App | None] = ContextVar("edda_current_app", default=None)
"""The app on whose behalf this code runs (a workflow, an activity, a request)."""

constructed_apps: Final[WeakSet[App]] = WeakSet()
"""Every app that exists, so that the only one need not be named."""


def find_app() -> App:
    """The app of the running context, else the only one there is. Raises `NoAppError`."""
    app = current_app.get()
    if app is not None:
        return app
    apps = list(constructed_apps)
    if len(apps) > 1:
        apps = [app for app in apps if app.running] or apps
    if len(apps) == 1:
        return apps[0]
    if not apps:
        raise NoAppError("There is no EddaApp yet: create one, app = EddaApp(db_url=...), before starting workflows.")
    raise NoAppError(
        f"There are {len(apps)} EddaApps, so it must be said which one is meant: await app.start(workflow, ...)."
    )


class WorkflowHandle(str, Generic[R]):
    """A started instance. It *is* the instance id, so it can be stored, sent and compared as a string."""

    __slots__ = ("_app",)

    _app: App | None

    def __new__(cls, instance_id: str, app: App | None = None) -> WorkflowHandle[R]:
        handle = super().__new__(cls, instance_id)
        handle._app = app
        return handle

    def __getnewargs__(self) -> tuple[str]:
        return (str(self),)

    @property
    def id(self) -> str:
        """The instance id as a plain string."""
        return str.__str__(self)

    async def result(self, timeout: float | None = None) -> R:  # noqa: ASYNC109 - reads well at the call
        """Wait for the end and return the workflow's result.

        Raises the workflow's own error, `WorkflowCancelledException`, `CompensationFailedError`, or TimeoutError after
        `timeout` seconds, saying what the instance waits for. An instance that is set aside is waited for. In a
        workflow function it is a durable wait that holds no worker, for children only.
        """
        run = current_run.get()
        if run is not None:
            return cast(R, await run.child_result(self.id))
        return cast(R, await self._runtime().result_of(self.id, timeout=timeout))

    async def status(self) -> str:
        """The status now, such as `running` or `waiting_for_timer`."""
        return await self._runtime().status_of(self.id)

    async def reason(self) -> str:
        """What it waits for, why it was set aside or how it failed, in words; empty while it runs."""
        return await self._runtime().reason_of(self.id)

    async def history(self) -> list[HistoryEntry]:
        """All history events, oldest first."""
        return await self._runtime().history_of(self.id)

    async def cancel(self) -> None:
        """Ask it to cancel and undo what it did. Returns when the request is durable.

        Raises `InstanceNotFoundError`, and `NotCancellableError` where it has ended or is already undoing.
        """
        await self._runtime().cancel(self.id)

    async def retry(self) -> None:
        """Let a `compensation_failed`, `nondeterministic` or `quarantined` instance go on. Else
        `NotRepairableError`."""
        await self._runtime().retry(self.id)

    def _runtime(self) -> App:
        return self._app or find_app()


class Workflow(Generic[P, R]):
    """An async function as a workflow: `handle = await order.start(order_id="ORD-1")`."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        event_handler: bool = False,
        search_fields: Sequence[str] = (),
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name: str = name or function.__name__
        self.event_handler = event_handler
        self.search_fields = search_fields_of(function, search_fields)
        self.plan: Any = None
        """A slot for the engine: how to encode arguments and results, prepared once."""

    def __repr__(self) -> str:
        return f"<workflow {self.name}>"

    async def start(self, *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[R]:
        """Start an instance; returns as soon as the start is durable. It runs in the background at once.

        Arguments are validated first: a bad one raises (pydantic's ValidationError, TypeError) and stores nothing.
        Inside a workflow the instance is a child; see `options` for ids and more.
        """
        return await BoundWorkflow(self).start(*args, **kwargs)

    async def run(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Start an instance and wait for its result. In a workflow function this is a child, waited for durably."""
        return await BoundWorkflow(self).run(*args, **kwargs)

    def options(
        self,
        *,
        id: str | None = None,
        on_conflict: OnConflict = "error",
        detached: bool = False,
        session: AsyncSession | Session | None = None,
    ) -> BoundWorkflow[P, R]:
        """Say how to start: `await order.options(id="order-7").start(...)`.

        `id`: your own instance id; starting it again with the same arguments returns the same instance, with others
        raises `ConflictError` (or returns it, with `on_conflict="return"`, unless it is one of another workflow).
        `detached`: a child that survives its parent.
        `session`: start within your own transaction on the same database: it begins to run after your commit.
        """
        if id is not None:
            check_id(id)
        if on_conflict not in ("error", "return"):
            raise ValueError(f"on_conflict must be 'error' or 'return', not {on_conflict!r}")
        return BoundWorkflow(self, StartOptions(id=id, on_conflict=on_conflict, detached=detached, session=session))

    async def __call__(self, ctx: WorkflowContext, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself, as part of the calling workflow."""
        try:
            run_of(ctx)
        except TypeError:
            raise TypeError(
                f"workflow {self.name} was called as a function, and its first argument is {described(ctx)}, not the "
                f"context of a workflow. To start it, await {self.function.__name__}.start(...); to call it as a part "
                f"of another workflow, await {self.function.__name__}(ctx, ...)."
            ) from None
        return cast(R, await self.function(ctx, *args, **kwargs))


class BoundWorkflow(Generic[P, R]):
    """A workflow with options, ready to start."""

    def __init__(self, workflow: Workflow[P, R], options: StartOptions = AS_IT_IS, *, app: App | None = None) -> None:
        self._workflow = workflow
        self._options = options
        self._app = app

    def on(self, app: App) -> BoundWorkflow[P, R]:
        """The same, on this app."""
        return BoundWorkflow(self._workflow, self._options, app=app)

    async def start(self, *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[R]:
        """As `Workflow.start`."""
        _drop_lock_timeout(self._workflow, kwargs)
        run = current_run.get()
        if run is not None and self._options.session is None:
            return await run.child(self._workflow, args, kwargs, self._options)
        app = self._app or find_app()
        return await app.start_instance(self._workflow, args, kwargs, self._options)

    async def run(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """As `Workflow.run`."""
        handle = await self.start(*args, **kwargs)
        return await handle.result()


def check_id(instance_id: object) -> None:
    """Refuse ids that some database cannot store, or takes for another: MySQL compares without trailing spaces."""
    if not isinstance(instance_id, str):
        raise TypeError(
            f"an instance id is a str, not {instance_id!r}: say options(id=str({instance_id!r})), or what it is the "
            'number of, options(id=f"order-{number}")'
        )
    if not 0 < len(instance_id) <= 255:
        raise ValueError(f"an instance id has 1 to 255 characters, not {len(instance_id)}")
    if instance_id.endswith(" ") or "\0" in instance_id:
        raise ValueError(f"an instance id neither ends in a space nor holds a NUL character, as {instance_id!r} does")
    if any("\ud800" <= letter <= "\udfff" for letter in instance_id):
        raise ValueError(f"an instance id is text that UTF-8 can say, and {instance_id!r} holds half a character")


def _drop_lock_timeout(workflow: Workflow[..., Any], kwargs: dict[str, Any]) -> None:
    """Code written for the reference may pass `lock_timeout_seconds`, which has no meaning here."""
    if "lock_timeout_seconds" in kwargs and "lock_timeout_seconds" not in _parameters(workflow.function):
        del kwargs["lock_timeout_seconds"]


@functools.lru_cache(maxsize=1024)
def _parameters(function: Callable[..., Any]) -> Sequence[str]:
    return tuple(inspect.signature(function).parameters)


workflows: Final[Registry[Workflow[..., Any]]] = Registry("workflow")


class _AnyWorkflow(Protocol):
    """Type of `@workflow(...)` with arguments."""

    def __call__(self, func: Callable[Concatenate[WorkflowContext, P], Awaitable[R]], /) -> Workflow[P, R]: ...


@overload
def workflow(func: Callable[Concatenate[WorkflowContext, P], Awaitable[R]], /) -> Workflow[P, R]: ...
@overload
def workflow(
    *,
    name: str | None = None,
    event_handler: bool = False,
    search_fields: Sequence[str] = (),
    lock_timeout_seconds: int | None = None,
) -> _AnyWorkflow: ...
def workflow(
    func: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    event_handler: bool = False,
    search_fields: Sequence[str] = (),
    lock_timeout_seconds: int | None = None,
) -> Any:
    """Declare a workflow: an `async def` whose first parameter is the context.

    `name` is what history knows it by. `event_handler`: a CloudEvent of that type starts it. `search_fields`: arguments
    by which people find instances at once, however many there are: names of parameters, or paths into them such as
    `"customer.city"`; each costs one row per instance. `lock_timeout_seconds` is accepted for code written for the
    reference and has no meaning: leases belong to workers here.
    """

    def declare(function: Callable[..., Any]) -> Workflow[..., Any]:
        if not inspect.iscoroutinefunction(function) and not inspect.isasyncgenfunction(function):
            raise TypeError(f"Workflow {getattr(function, '__name__', function)} must be an async function")
        check_function("workflow", function)
        if event_handler and search_fields:
            raise TypeError(
                f"workflow {function.__name__}() handles events, and what they bring has no search fields: search for "
                "the event instead"
            )
        declared = Workflow[..., Any](function, name=name, event_handler=event_handler, search_fields=search_fields)
        workflows.add(declared)
        return declared

    return declare if func is None else declare(func)


def get_all_workflows() -> dict[str, Workflow[..., Any]]:
    """The declared workflows by name."""
    return dict(workflows.by_name)
