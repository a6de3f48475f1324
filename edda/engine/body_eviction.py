"""Unloading a body: every frame of it is ended without any of it taking effect.

`Evicted` is thrown straight into each coroutine while the loop is inert (it queues nothing and refuses new futures).
Cancelling would run `except CancelledError` and be turned into results by `timeout`, `wait_for` and `gather`; closing
fails on async generators and on an `await` in a `finally`. Both were tried, both let user code see it.

Law: when this is done nothing of the body is left for the garbage collector to run, save what refuses to end.
Must not know: history, storage, activities.
"""

from __future__ import annotations

import asyncio
import inspect
from asyncio.tasks import _enter_task, _leave_task  # pyright: ignore[reportPrivateUsage]  # no public way to be "in" a task
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from types import CoroutineType
from typing import Any, TypeAlias, TypeGuard, cast

from edda.engine.body_guard import suspended_frames
from edda.engine.body_order import BodyTask
from edda.engine.log import log

_Coroutine: TypeAlias = "CoroutineType[Any, Any, Any]"  # a name for checkers: 3.11 cannot subscript it


THROWS_MAX = 50
"""How often a coroutine that awaits again (a `finally` with `await` inside) is asked to end before it is dropped."""


class Evicted(BaseException):
    """Thrown into a body's coroutines to unload it. It means nothing happened: the body will be replayed."""


def unwind_task(loop: asyncio.AbstractEventLoop, task: BodyTask) -> None:
    """End the task's coroutine. `loop` is the running loop and inert."""
    unstarted = list(_unstarted_coroutines(task.coroutine))
    # As in a step of the task: timeout() and wait_for() in a `finally` ask for the current task, and their
    # RuntimeError would be an ordinary Exception that user code catches.
    _enter_task(loop, task)
    try:
        ended = _throw_until_ended(lambda: task.body_context.run(task.coroutine.throw, Evicted()))
    finally:
        _leave_task(loop, task)
        _close_unstarted(unstarted)
    if not ended:
        log.warning("Workflow task %s does not end when its instance is unloaded; it is dropped", task.get_name())


def unwind_generator(generator: AsyncGenerator[Any, Any]) -> None:
    """End an async generator that stands at a `yield`. The body's loop is the running loop and inert."""
    step = generator.athrow(Evicted())
    ended = _throw_until_ended(lambda: step.send(None), throws_max=1)
    if not ended and not _throw_until_ended(lambda: step.throw(Evicted())):
        log.warning("Async generator %s does not end when its instance is unloaded", repr(generator))


def _throw_until_ended(throw: Callable[[], object], *, throws_max: int = THROWS_MAX) -> bool:
    for _ in range(throws_max):
        try:
            awaited = throw()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # Evicted, a return, an error in a `finally`: over, without effect
            return True
        # No task takes the future that it waits for; left so, another `await` of it would raise a RuntimeError.
        if asyncio.isfuture(awaited):
            awaited._asyncio_future_blocking = False
    return False


def _unstarted_coroutines(coroutine: object) -> Iterator[_Coroutine]:
    """Coroutines in local variables that nobody awaited yet: dropped with the frame they would warn about that."""
    for frame in suspended_frames(coroutine):
        for value in list(frame.f_locals.values()):
            candidates = cast("Sequence[object]", value) if isinstance(value, list | tuple) else (value,)
            for candidate in candidates:
                if _is_unstarted(candidate):
                    yield candidate


def _is_unstarted(value: object) -> TypeGuard[_Coroutine]:
    return inspect.iscoroutine(value) and inspect.getcoroutinestate(value) == inspect.CORO_CREATED


def _close_unstarted(coroutines: Iterable[_Coroutine]) -> None:
    # After the throw, not before: awaiting a closed coroutine in a `finally` would raise an ordinary RuntimeError.
    for coroutine in coroutines:
        if _is_unstarted(coroutine):
            coroutine.close()
