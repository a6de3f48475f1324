"""What makes asyncio's own tools repeatable: futures and tasks with a stable order.

`asyncio.wait`, `TaskGroup` and `as_completed` keep tasks in sets. An ordinary task hashes by its address, so the order
of such a set, and with it the order of cancels and results, changes from process to process. Here every future and task
hashes by its number in the body. `as_completed` also puts bare coroutines into a set, before any task exists; for those
the order of the arguments is read from its frame.

Laws: same code and same deliveries give the same numbers; where no order can be found, an error says so.
Must not know: the loop's queue, history, storage, activities.
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import tasks as asyncio_tasks
from collections.abc import Callable, Coroutine, KeysView, Sequence, ValuesView
from types import CodeType, FrameType
from typing import Any

from edda.engine.body_guard import Guard, forbidden


class BodyFuture(asyncio.Future[Any]):
    """A future of a body. The loop numbers it after construction: nothing hashes a future before its owner has it."""

    __slots__ = ("order",)
    order: int

    def __hash__(self) -> int:
        return self.order


class BodyTask(asyncio.Task[Any]):
    """A task of a body. It remembers its context (3.11 cannot tell it) and its coroutine, both needed for eviction."""

    __slots__ = ("body_context", "coroutine", "order")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Any],
        *,
        loop: asyncio.AbstractEventLoop,
        order: int,
        name: str,
        context: contextvars.Context,
        **options: Any,
    ) -> None:
        # Before super().__init__, because asyncio puts the task into a WeakSet there.
        self.order = order
        self.coroutine = coroutine
        self.body_context = context
        guard: Any = Guard(coroutine)  # a coroutine to asyncio, which looks for the methods
        super().__init__(guard, loop=loop, name=name, context=context, **options)

    def __hash__(self) -> int:
        return self.order

    def get_coro(self) -> Coroutine[Any, Any, Any]:
        return self.coroutine


def _code_of(function: object) -> CodeType | None:
    return getattr(function, "__code__", None)


# 3.11 has `_ensure_future` between `ensure_future` and the loop; from 3.13 `as_completed` is a class behind a function.
ENSURE_FUTURE = _code_of(getattr(asyncio_tasks, "_ensure_future", asyncio_tasks.ensure_future))
_AS_COMPLETED = _code_of(
    getattr(getattr(asyncio_tasks, "_AsCompletedIterator", None), "__init__", None)
    if hasattr(asyncio_tasks, "_AsCompletedIterator")
    else asyncio_tasks.as_completed
)
_TASKS_FILE = asyncio_tasks.__file__
_LOST_ORDER = "asyncio.as_completed() over coroutines in a set or generator (pass a list, or tasks)"
_MIXED = "asyncio.as_completed() over coroutines and finished futures together (make the coroutines tasks)"


class ArgumentOrder:
    """Makes the tasks for the bare coroutines of one `as_completed` call in the order of its arguments.

    `as_completed` asks for its tasks one by one, in the order of a set of addresses. At the first request all of them
    are made, in argument order; the later requests get the tasks that exist already.
    """

    __slots__ = ("_made", "_spawn")

    def __init__(self, spawn: Callable[[Coroutine[Any, Any, Any]], BodyTask]) -> None:
        self._spawn = spawn
        self._made: dict[Coroutine[Any, Any, Any], BodyTask] = {}

    def task_for(self, coroutine: Coroutine[Any, Any, Any], as_completed: FrameType) -> BodyTask:
        if coroutine not in self._made:
            self._make_all(coroutine, as_completed)
        return self._made.pop(coroutine)

    def _make_all(self, asked_for: Coroutine[Any, Any, Any], as_completed: FrameType) -> None:
        self._made.clear()  # leftovers of a call that failed half-way
        arguments = _arguments_of(as_completed)
        if arguments is None or not any(argument is asked_for for argument in arguments):
            asked_for.close()
            raise forbidden(_LOST_ORDER)
        # asyncio adds its callbacks in the order of another set, into which the tasks went by address. For pending
        # futures that order does not show; two finished ones would be reported in it.
        if sum(isinstance(argument, asyncio.Future) and argument.done() for argument in arguments) > 1:
            asked_for.close()
            raise forbidden(_MIXED)
        for argument in arguments:
            if asyncio.iscoroutine(argument) and argument not in self._made:
                self._made[argument] = self._spawn(argument)


def as_completed_above(frame: FrameType) -> FrameType | None:
    """The frame of `asyncio.as_completed` if that is who calls `ensure_future`, else None."""
    caller = frame.f_back
    while caller is not None and caller.f_code.co_filename == _TASKS_FILE:
        if caller.f_code is _AS_COMPLETED:
            return caller
        caller = caller.f_back
    return None


def _arguments_of(as_completed: FrameType) -> Sequence[Any] | None:
    """What the user passed, in order; None where it has none (a set) or it is used up (a generator)."""
    names = as_completed.f_locals
    passed: Any = names.get("aws", names.get("fs"))
    if isinstance(passed, Sequence | dict | KeysView | ValuesView):
        ordered: list[Any] = list(passed)  # pyright: ignore[reportUnknownArgumentType]  # any element type will do
        return ordered
    return None
