"""Fakes: what an activity does in a test instead of what it really does.

Everything around it stays as it is: the call is recorded, retried, timed out and undone, and its result goes through
the codec, as the real one's would. A fake is of the world outside: a crash of the process changes nothing about it.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Concatenate, Final, Generic, NamedTuple, ParamSpec, Self, TypeVar, cast, overload

from edda.activity import Activity
from edda.context import WorkflowContext
from edda.engine.plans import Plan, plan_of

P = ParamSpec("P")
R = TypeVar("R")

BEHAVIOURS: Final = frozenset({"returns", "raises", "outcomes", "by"})


class FakeCall(NamedTuple):
    """One attempt that reached a fake."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    attempt: int


class Calls:
    """What a fake was called with."""

    def __init__(self) -> None:
        self.calls: list[FakeCall] = []

    def rewind(self) -> None:
        """Forget the calls, and begin with the first of the `outcomes` again."""
        self.calls.clear()


class Fake(Calls, Generic[R]):
    """Stands in for an activity within its `with` block. `calls`: the attempts, without the context, oldest first."""

    def __init__(self, activity: Activity[..., R], behaviour: str, what: Any) -> None:
        super().__init__()
        self._activity = activity
        self._behaviour = behaviour
        self._what = what
        self._before: tuple[Callable[..., Any], bool, Any] | None = None

    def __repr__(self) -> str:
        return f"<fake of {self._activity.name}: {self._behaviour}>"

    def __enter__(self) -> Self:
        activity = self._activity
        if self._before is not None:
            raise RuntimeError(f"{self!r} is in place already")
        plan = plan_of(activity)
        self._before = (activity.function, activity.is_async, activity.plan)
        activity.function, activity.is_async = self, True
        activity.plan = Plan(plan.signature, plan.code._replace(function=self, is_async=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._before is not None
        self._activity.function, self._activity.is_async, self._activity.plan = self._before
        self._before = None

    async def __call__(self, *args: Any, **kwargs: Any) -> R:
        """One attempt; the context comes first where the activity takes one."""
        ctx: WorkflowContext | None = None
        if self._activity.takes_context:
            ctx, args = args[0], args[1:]
        self.calls.append(FakeCall(args, kwargs, ctx.activity.attempt if ctx is not None else 1))
        match self._behaviour:
            case "returns":
                return cast(R, self._what)
            case "raises":
                raise self._what
            case "outcomes":
                return self._next_outcome()
            case _:
                answer = self._what(*(() if ctx is None else (ctx,)), *args, **kwargs)
                return cast(R, await answer if inspect.isawaitable(answer) else answer)

    def _next_outcome(self) -> R:
        outcome = self._what[min(len(self.calls), len(self._what)) - 1]
        if isinstance(outcome, BaseException):
            raise outcome
        return cast(R, outcome)


@overload
def fake(activity: Activity[P, R], *, returns: R) -> Fake[R]: ...
@overload
def fake(activity: Activity[P, R], *, raises: BaseException) -> Fake[R]: ...
@overload
def fake(activity: Activity[P, R], *, outcomes: Sequence[object]) -> Fake[R]: ...
@overload
def fake(activity: Activity[P, R], *, by: Callable[Concatenate[WorkflowContext, P], Awaitable[R]]) -> Fake[R]: ...
@overload
def fake(activity: Activity[P, R], *, by: Callable[Concatenate[WorkflowContext, P], R]) -> Fake[R]: ...
def fake(activity: Any, **behaviour: Any) -> Fake[Any]:
    """Have an activity do something else: `with fake(charge, returns="paid") as charged: ...; charged.calls`.

    Exactly one of: `returns`, a result; `raises`, an error in every attempt; `outcomes`, one for each attempt in turn,
    errors among them are raised, and the last one stays; `by`, a function with the same parameters.
    """
    if not isinstance(activity, Activity):
        raise TypeError(f"only an activity can be faked, not {activity!r}")
    if len(behaviour) != 1 or not behaviour.keys() <= BEHAVIOURS or behaviour.get("outcomes", True) in ([], ()):
        raise TypeError("fake() takes exactly one of returns=, raises=, outcomes= (one at least) and by=")
    ((kind, what),) = behaviour.items()
    return Fake(cast(Activity[..., Any], activity), kind, what)
