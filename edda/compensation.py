"""Compensations: how the effect of a completed activity is undone when the workflow fails or is cancelled.

`@on_failure(undo)` below `@activity` links them; `register_compensation` in a workflow function owes one by hand. What
is owed runs newest first, each as a durable, retried step of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, is_dataclass
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar, is_typeddict, overload

from edda.context import WorkflowContext, run_of
from edda.core.declaration import PLAIN_TYPES, check_function, known_type, model_fields_of, parameters_of, signature_of
from edda.core.options import check_seconds
from edda.core.retry import check_policy
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
    """Declare a function that undoes an activity; returns it unchanged. An activity may be declared as one, too.

    `name` is what history knows it by (default: the function's name). `timeout` in seconds for one attempt.
    """

    def declare(undo: F) -> F:
        function = _function_of(undo)
        if not inspect.isroutine(function):
            raise TypeError(f"a compensation is a function whose first parameter is the context, not {undo!r}")
        check_function("compensation", function)
        declared = Compensation(
            name=name or function.__name__, function=function, retry_policy=retry_policy, timeout=timeout
        )
        check_attempt_options(f"compensation {declared.name}", retry_policy, timeout)
        compensations.add(declared)
        return undo

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
    known = _known("on_failure", compensation_func)

    def link(activity: Callable[..., Any]) -> Callable[..., Any]:
        if not inspect.isfunction(activity):
            raise TypeError(f"@on_failure goes below @activity, on the function itself, not on {activity!r}")
        _check_parameters(known, activity)
        setattr(activity, LINK, OnFailure(compensation=known, when_unknown=when_unknown))
        return activity

    return link


def _check_parameters(undo: Compensation, activity: Callable[..., Any]) -> None:
    """Refuse at import what could never be called: a required parameter that nothing can supply."""
    arguments = parameters_of(activity)[1:]
    offered = {parameter.name for parameter in arguments}
    fields = _fields_of_result(activity)
    for parameter in parameters_of(undo.function)[1:]:
        if (
            parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            or parameter.default is not parameter.empty
        ):
            continue
        if parameter.name == "result" or parameter.name in offered or fields is None or parameter.name in fields:
            continue
        raise TypeError(
            f"compensation {undo.name}() needs '{parameter.name}', which is neither a parameter of "
            f"{activity.__name__}() nor a field of its result. It is given {activity.__name__}()'s arguments by name, "
            "the keys of its result, and the whole result as 'result'."
        )


def _fields_of_result(activity: Callable[..., Any]) -> frozenset[str] | None:
    """The names that a result offers; None: that cannot be told, as of a dict."""
    returns = known_type(signature_of(activity).return_annotation, activity)
    if returns is None or returns is dict:
        return None
    if is_typeddict(returns):
        return frozenset(returns.__annotations__)
    fields = model_fields_of(returns)
    return frozenset() if fields is None and (returns in PLAIN_TYPES or is_dataclass(returns)) else fields


def _known(taker: str, undo: Callable[..., Any]) -> Compensation:
    """The compensation of a function, or of an activity; one that is not declared yet is declared by its use."""
    function = _function_of(undo)
    known = next((item for item in compensations if item.function is function), None)
    if known is None:
        if not inspect.isroutine(function):
            raise TypeError(
                f"{taker}() takes a compensation, and {undo!r} is none: declare the function that undoes with "
                "@compensation"
            )
        compensation(
            name=getattr(undo, "name", None),
            retry_policy=getattr(undo, "retry_policy", None),
            timeout=getattr(undo, "timeout", None),
        )(function)
        known = next(item for item in compensations if item.function is function)
    return known


def _function_of(undo: Callable[..., Any]) -> Callable[..., Any]:
    """Of an activity, what it runs: as a compensation it is undone by nothing, and has no step of its own inside."""
    function: Callable[..., Any] = getattr(undo, "function", undo)
    return function


def check_attempt_options(whose: str, retry_policy: object, timeout: object) -> None:
    """How an activity or compensation is tried: TypeError or ValueError for what is no policy or no duration."""
    check_policy(f"retry_policy of {whose}", retry_policy)
    if timeout is not None:
        check_seconds(f"timeout of {whose}", timeout, above=0)


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
    known = _known("register_compensation", compensation_func)
    await run_of(ctx).owe(known.name, args, kwargs, call_id=None if call_id is None else str(call_id))
