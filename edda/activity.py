"""Activities: the units of work whose result is recorded. Calling one in a workflow makes one durable step of it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar, overload

from edda.compensation import LINK, OnFailure, check_attempt_options
from edda.context import WorkflowContext, described, run_of
from edda.core.declaration import check_function
from edda.naming import Registry
from edda.retry import RetryPolicy

P = ParamSpec("P")
R = TypeVar("R")

activities: Final[Registry[Activity[..., Any]]] = Registry("activity")


class Activity(Generic[P, R]):
    """A function as an activity. Call it with the context: `await charge(ctx, order_id, amount=9.5)`."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        retry_policy: RetryPolicy | None = None,
        timeout: float | None = None,
        takes_context: bool = True,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name: str = name or function.__name__
        check_attempt_options(f"activity {self.name}", retry_policy, timeout)
        self.retry_policy = retry_policy
        self.timeout = timeout
        self.takes_context = takes_context
        self.is_async = inspect.iscoroutinefunction(function)
        self.on_failure: OnFailure | None = getattr(function, LINK, None)
        self.plan: Any = None
        """A slot for the engine: how to encode arguments and results, prepared once."""

    def __repr__(self) -> str:
        return f"<activity {self.name}>"

    def __call__(self, ctx: WorkflowContext, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Make the call. Its id (`name:n`) is fixed now, whenever it is awaited; `activity_id=` chooses another.

        In an activity or compensation the function is simply called, as part of that step.
        """
        try:
            run = run_of(ctx)
        except TypeError:
            raise TypeError(
                f"activity {self.name} is called in a workflow function, with its context first: "
                f"await {self.function.__name__}(ctx, ...). Here its first argument is {described(ctx)}."
            ) from None
        call_id = kwargs.pop("activity_id", None)
        return run.activity(self, args, kwargs, call_id=None if call_id is None else str(call_id))


class _AnyActivity:
    """Type of `@activity(...)` with arguments."""

    @overload
    def __call__(self, func: Callable[Concatenate[WorkflowContext, P], Awaitable[R]], /) -> Activity[P, R]: ...
    @overload
    def __call__(self, func: Callable[Concatenate[WorkflowContext, P], R], /) -> Activity[P, R]: ...
    def __call__(self, func: Any, /) -> Any:
        raise NotImplementedError


@overload
def activity(func: Callable[Concatenate[WorkflowContext, P], Awaitable[R]], /) -> Activity[P, R]: ...
@overload
def activity(func: Callable[Concatenate[WorkflowContext, P], R], /) -> Activity[P, R]: ...
@overload
def activity(
    *, retry_policy: RetryPolicy | None = None, timeout: float | None = None, name: str | None = None
) -> _AnyActivity: ...
def activity(
    func: Callable[..., Any] | None = None,
    /,
    *,
    retry_policy: RetryPolicy | None = None,
    timeout: float | None = None,
    name: str | None = None,
) -> Any:
    """Declare an activity. `async def` runs in the event loop, `def` in a thread of edda's pool.

    `retry_policy` overrides the app's; `timeout` is in seconds for one attempt; `name` is what history knows it by.
    """

    def declare(function: Callable[..., Any]) -> Activity[..., Any]:
        if not inspect.isroutine(function):
            raise TypeError(f"an activity is a function whose first parameter is the context, not {function!r}")
        check_function("activity", function)
        declared = Activity[..., Any](function, name=name, retry_policy=retry_policy, timeout=timeout)
        activities.add(declared)
        return declared

    return declare if func is None else declare(func)
