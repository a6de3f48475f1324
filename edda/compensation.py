"""Compensations: how the effect of a completed activity is undone when the workflow fails or is cancelled.

`@on_failure(undo)` below `@activity` links them; `register_compensation` in a workflow function owes one by hand. What
is owed runs newest first, each as a durable, retried step of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar, overload

from edda.context import WorkflowContext, run_of
from edda.naming import Registry
from edda.retry import RetryPolicy

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

LINK: Final = "__edda_on_failure__"
"""Attribute of an activity's function: its `OnFailure`."""


@dataclass(frozen=True, slots=True, eq=False)
class Compensation:
    """A registered compensation."""

    name: str
    function: Callable[..., Any]
    retry_policy: RetryPolicy | None = None
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class OnFailure:
    """The link from an activity to its compensation."""

    compensation: Compensation
    when_unknown: bool


compensations: Final[Registry[Compensation]] = Registry("compensation")


@overload
def compensation(func: F) -> F: ...
@overload
def compensation(
    *, name: str | None = None, retry_policy: RetryPolicy | None = None, timeout: float | None = None
) -> Callable[[F], F]: ...
def compensation(
    func: F | None = None,
    *,
    name: str | None = None,
    retry_policy: RetryPolicy | None = None,
    timeout: float | None = None,
) -> F | Callable[[F], F]:
    """Declare a function that undoes an activity; returns it unchanged.

    `name` is what history knows it by (default: the function's name). `timeout` in seconds for one attempt.
    """

    def declare(function: F) -> F:
        compensations.add(
            Compensation(name=name or function.__name__, function=function, retry_policy=retry_policy, timeout=timeout)
        )
        return function

    return declare if func is None else declare(func)


class _SameParametersAfterResult(Protocol[P, R]):
    """Accepts an activity with these parameters and this result."""

    def __call__(
        self, activity: Callable[Concatenate[WorkflowContext, P], Awaitable[R]], /
    ) -> Callable[Concatenate[WorkflowContext, P], Awaitable[R]]: ...


class _SameParameters(Protocol[P]):
    """Accepts any activity with the compensation's own parameters, whatever it returns."""

    def __call__(
        self, activity: Callable[Concatenate[WorkflowContext, P], R], /
    ) -> Callable[Concatenate[WorkflowContext, P], R]: ...


def on_failure(
    compensation_func: Callable[Concatenate[WorkflowContext, P], Any], *, when_unknown: bool = False
) -> _SameParameters[P]:
    """Undo the activity below with `compensation_func` when the workflow fails or is cancelled after it completed.

    The compensation is called with the activity's arguments by name and, for parameters that are no arguments, the keys
    of a dict or model result; a parameter named `result` gets the whole result. For type checkers it has the activity's
    own parameters (use `on_failure_with_result` for one that takes the result first). `when_unknown`: also run it when
    a crash or cancel left it unknown whether the activity had its effect.
    """
    link: _SameParameters[P] = _link(compensation_func, when_unknown=when_unknown)
    return link


def on_failure_with_result(
    compensation_func: Callable[Concatenate[WorkflowContext, R, P], Any], *, when_unknown: bool = False
) -> _SameParametersAfterResult[P, R]:
    """Like `on_failure`, for a compensation `(ctx, result, *the activity's parameters)`, checked by type checkers."""
    link: _SameParametersAfterResult[P, R] = _link(compensation_func, when_unknown=when_unknown)
    return link


def _link(compensation_func: Callable[..., Any], *, when_unknown: bool) -> Any:
    declared = getattr(compensation_func, "function", compensation_func)  # an @activity may undo another one
    known = next((item for item in compensations if item.function is declared), None)
    if known is None:
        known = Compensation(name=declared.__name__, function=declared)
        compensations.add(known)

    def link(activity: Callable[..., Any]) -> Callable[..., Any]:
        if not inspect.isfunction(activity):
            raise TypeError(f"@on_failure goes below @activity, on the function itself, not on {activity!r}")
        _check_parameters(known, activity)
        setattr(activity, LINK, OnFailure(compensation=known, when_unknown=when_unknown))
        return activity

    return link


def _check_parameters(undo: Compensation, activity: Callable[..., Any]) -> None:
    """Refuse at import what could never be called: a required parameter that nothing can supply."""
    offered = set(inspect.signature(activity).parameters)
    returns = inspect.signature(activity).return_annotation
    fields: set[str] | None = None  # None: any keys are possible
    if isinstance(returns, type) and returns not in (dict, inspect.Signature.empty):
        fields = set(getattr(returns, "model_fields", None) or getattr(returns, "__annotations__", None) or ())
    for parameter in list(inspect.signature(undo.function).parameters.values())[1:]:
        if (
            parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            or parameter.default is not parameter.empty
        ):
            continue
        if parameter.name == "result" or parameter.name in offered or fields is None or parameter.name in fields:
            continue
        raise TypeError(
            f"compensation {undo.name}() needs '{parameter.name}', which is neither a parameter of "
            f"{activity.__name__}() nor a field of its result"
        )


async def register_compensation(
    ctx: WorkflowContext,
    compensation_func: Callable[Concatenate[WorkflowContext, P], Any],
    *args: P.args,
    **kwargs: P.kwargs,
) -> None:
    """Owe a compensation from here on, with these arguments. A recorded step: a replay does not owe it twice.

    An `activity_id=` keyword is accepted as its id.
    """
    call_id = kwargs.pop("activity_id", None)
    function = getattr(compensation_func, "function", compensation_func)
    known = next((item for item in compensations if item.function is function), None)
    if known is None:
        known = Compensation(name=function.__name__, function=function)
        compensations.add(known)
    await run_of(ctx).owe(known.name, args, kwargs, call_id=None if call_id is None else str(call_id))
