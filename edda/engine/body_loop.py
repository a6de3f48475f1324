"""One workflow body's own event loop: ordinary asyncio code, run so that it can be run again.

It has a first-in-first-out queue of callbacks and timers that fire only when told to, and nothing else. The engine
delivers one recorded completion (`resolve`, `reject`, `fire`), drains the queue, and delivers the next.

Laws:
- Between two deliveries the body is a function of its code, its state and what was delivered. So nothing else may
  enter: sockets, threads and other loops are refused (`body_guard`), sets of tasks have a stable order (`body_order`),
  the clock is the time of the last delivery, and the garbage collector finishes no async generator.
- A delivery is made only when the queue is empty, live and on replay alike, or when the body is frozen: a body that
  polls (`while not flag: await sleep(0)`) never empties it and stops after a fixed number of callbacks instead.
- A timer is known by its number; setting one needs no record, because its deadline follows from the clock.

Must not know: history, storage, activities, the database's clock.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import sys
import weakref
from asyncio.events import _get_running_loop, _set_running_loop  # pyright: ignore[reportPrivateUsage]
from asyncio.tasks import _enter_task, _leave_task  # pyright: ignore[reportPrivateUsage]  # how a loop nests in another
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping
from contextvars import Context, copy_context
from typing import Any, TypeVar, overload

from edda.engine.body_eviction import Evicted, unwind_generator, unwind_task
from edda.engine.body_guard import ForbiddenCalls, forbidden, forbidden_await
from edda.engine.body_order import ENSURE_FUTURE, ArgumentOrder, BodyFuture, BodyTask, as_completed_above
from edda.engine.body_timers import BodyHandle, BodyTimer, BodyTimers
from edda.engine.log import log
from edda.exceptions import ForbiddenInBody

__all__ = ["BodyFuture", "BodyLoop", "BodyTask", "Evicted"]


UNHANDLED_MAX = 100
"""How many errors that nobody awaited are kept; all of them are logged."""

_WRAP_FUTURE = asyncio.wrap_future.__code__
_frame = sys._getframe  # pyright: ignore[reportPrivateUsage]  # inspect.currentframe cannot give the caller's

Future = TypeVar("Future", bound=BodyFuture)

F = TypeVar("F", bound=BodyFuture)

_Outside = tuple[asyncio.AbstractEventLoop | None, "asyncio.Task[Any] | None", Any, bool]


class BodyLoop(ForbiddenCalls):
    """See the head of this file. `seed` is added to the numbers that futures hash by; it must be the same on replay.

    Give each instance its own seed (a checksum of its id): asyncio keeps all tasks of a process in one WeakSet; with
    5,000 residents whose tasks all hash to 1, 2, 3 a start took 150-190 us instead of 33-47 (3.11, 3.12, 3.13).
    """

    root: BodyTask
    """The task of the workflow function, from `start` to `evict`."""
    now_us: int
    """Time of the last delivered record."""
    freeze_after: int
    """After so many callbacks without a delivery the body counts as idle. Store it: replay needs the same."""
    evicting: bool
    quiet: bool
    """True while replaying: errors nobody awaited are kept in `unhandled`, but were logged by the first run."""
    unhandled: list[dict[str, Any]]
    """What `call_exception_handler` was given: errors that nobody awaited."""
    intrusion: ForbiddenInBody | None
    """The last attempt to wake the body from outside. It was refused, so a body that waited for it never goes on."""

    def __init__(self, *, now_us: int, freeze_after: int = 10_000, seed: int = 0) -> None:
        self.now_us = now_us
        self.freeze_after = freeze_after
        self.evicting = False
        self.quiet = False
        self.unhandled = []
        self.intrusion = None
        self._open = False  # callbacks may be queued: the body itself runs, or a delivery is being made
        self._draining = False
        self._ready: deque[BodyHandle | BodyTimer] = deque()
        self._ran = 0  # callbacks since the last delivery
        self._seed = seed
        self._next_number = itertools.count(1).__next__
        self._argument_order: ArgumentOrder | None = None  # made when there is an as_completed()
        self._tasks: list[BodyTask] = []  # oldest first; finished ones are removed now and then
        self._prune_tasks_at = 64
        self._timers = BodyTimers()
        self._generators: weakref.WeakSet[AsyncGenerator[Any, Any]] | None = None  # made when there is one: 2 us
        self._stray_generators: list[AsyncGenerator[Any, Any]] = []
        self._uses_generators = False

    # -- the engine's side: start, deliver, drain, evict -----------------------------------------------------------

    def start(self, coro: Coroutine[Any, Any, Any], *, context: contextvars.Context) -> BodyTask:
        """Make the root task. It takes its first step in `drain`."""
        self._open = True
        try:
            self.root = self._spawn(coro, context=context)
        finally:
            self._open = False
        return self.root

    @overload
    def future(self) -> BodyFuture: ...
    @overload
    def future(self, future_class: type[Future]) -> Future: ...
    def future(self, future_class: type[BodyFuture] = BodyFuture) -> BodyFuture:
        """The future of one durable call, for the engine to `resolve` or `reject`."""
        if self.evicting:
            raise Evicted
        future = future_class(loop=self)
        future.order = self._seed + self._next_number()
        return future

    def resolve(self, future: BodyFuture, value: object, *, at_us: int) -> None:
        """Deliver a recorded result. A call that the body cancelled meanwhile is skipped."""
        self._begin_delivery(at_us)
        if not future.done() and not self.evicting:
            self._open = True
            try:
                future.set_result(value)
            finally:
                self._open = False

    def reject(self, future: BodyFuture, error: BaseException, *, at_us: int) -> None:
        """Deliver a recorded failure. A call that the body cancelled meanwhile is skipped."""
        self._begin_delivery(at_us)
        if isinstance(error, StopIteration):  # no future takes it: it would end the awaiting coroutine instead
            error = RuntimeError(f"A call raised StopIteration({error.value!r})")
        if not future.done() and not self.evicting:
            self._open = True
            try:
                future.set_exception(error)
            finally:
                self._open = False

    def fire(self, timer_id: str, *, at_us: int) -> bool:
        """Deliver a recorded firing; False if the body cancelled that timer meanwhile.

        LookupError if the body never set such a timer: it is not the body that was recorded.
        """
        number = self._timers.number_of(timer_id)
        self._begin_delivery(at_us)
        timer = self._timers.take(number)
        if timer is None:
            return False
        self._ready.append(timer)
        return True

    def advance(self, at_us: int) -> None:
        """Move the clock on; it never goes back."""
        if at_us > self.now_us:
            self.now_us = at_us

    def drain(self, *, handles_max: int | None = None) -> bool:
        """Run the body until it waits for a delivery, is frozen, or the root has ended.

        False if `handles_max` callbacks came first. Such a slice is invisible to the body, as nothing is delivered
        between slices. To be called from a callback of the outer loop, from a task of it, or without any loop.
        """
        if not self._ready or self.evicting or self.root.done():
            return True
        assert not self._draining, "a body was drained from inside itself"
        stop_at = self.freeze_after
        if handles_max is not None:
            stop_at = min(stop_at, self._ran + handles_max)
        outside = self._enter()
        self._draining = self._open = True
        try:
            self._run_ready(stop_at)
        finally:
            self._draining = self._open = False
            self._leave(outside)
        return not self._ready or self.root.done() or self._ran >= self.freeze_after

    @property
    def frozen(self) -> bool:
        """The body ran its fill of callbacks since the last delivery and has more: idle by decree."""
        return bool(self._ready) and self._ran >= self.freeze_after

    def next_timer(self) -> tuple[str, int] | None:
        """Id and due time of the earliest timer that is set; of two due at once, the one set first."""
        return self._timers.next()

    def timers(self) -> Mapping[str, int]:
        """Due times of all timers that are set, by id."""
        return self._timers.due_times()

    def evict(self) -> None:
        """Unload the body, newest task first. From here on the loop is inert: no queue, no new futures.

        To be called in any case, also when the root has ended: other tasks and generators may be left, and what is just
        dropped is ended by the garbage collector, which runs `finally` blocks where they do not belong.
        """
        assert not self._draining, "a body was evicted from inside itself"
        if self.evicting:
            return
        self.evicting = True
        self._ready.clear()
        self._timers.clear()
        unfinished = [task for task in reversed(self._tasks) if not task.done()]
        generators = [*(self._generators or ()), *self._stray_generators]
        if unfinished or generators:
            self._unwind(unfinished, generators)
        self._tasks.clear()
        self._stray_generators.clear()
        self._argument_order = None
        self.__dict__.pop("root", None)  # it refers to its loop: a cycle, left to the garbage collector

    # -- what asyncio calls ----------------------------------------------------------------------------------------

    def call_soon(  # type: ignore[override]  # typeshed types the arguments by a TypeVarTuple
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = BodyHandle(callback, args, copy_context() if context is None else context)
        if self._open:
            self._ready.append(handle)
        elif not self.evicting:
            self.intrusion = forbidden(
                "Waking a workflow from outside (through a future, queue or event that it shares)"
            )
            raise self.intrusion
        return handle

    def call_soon_threadsafe(  # type: ignore[override]  # as call_soon
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        if _get_running_loop() is not self and not self.evicting:
            # The stack of that thread says nothing; the line that helps is the one where the body waits for it.
            self.intrusion = forbidden_await("Waiting for another thread", self.root.coroutine)
            raise self.intrusion
        return self.call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override]  # as call_soon
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self._set_timer(self.now_us / 1e6 + delay, callback, args, context)

    def call_at(  # type: ignore[override]  # as call_soon
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self._set_timer(when, callback, args, context)

    def time(self) -> float:
        return self.now_us / 1e6

    def create_future(self) -> BodyFuture:
        if self.evicting:
            raise Evicted
        if _frame(1).f_code is _WRAP_FUTURE:
            # Its result would arrive from a thread, at a time that no record knows.
            raise forbidden("Waiting for a future of a thread or process")
        future = BodyFuture(loop=self)
        future.order = self._seed + self._next_number()
        return future

    def create_task(
        self,
        coro: Any,
        *,
        name: str | None = None,
        context: Context | None = None,
        **options: Any,
    ) -> BodyTask:
        if not self._open:
            coro.close()  # else Python warns that it was never awaited
            if self.evicting:
                raise Evicted
            raise forbidden("Starting a task in a workflow from outside")
        caller = _frame(1)
        if caller.f_code is ENSURE_FUTURE:
            as_completed = as_completed_above(caller)
            if as_completed is not None:
                if self._argument_order is None:
                    self._argument_order = ArgumentOrder(self._spawn)
                return self._argument_order.task_for(coro, as_completed)
        return self._spawn(coro, name=name, context=context, **options)

    def get_debug(self) -> bool:
        return False

    def get_task_factory(self) -> None:
        return None

    def get_exception_handler(self) -> None:
        return None

    def is_running(self) -> bool:
        return _get_running_loop() is self

    def is_closed(self) -> bool:
        return self.evicting

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """An error that nobody awaited. After an eviction there are none: whatever was lost will be replayed."""
        if self.evicting:
            return
        if len(self.unhandled) < UNHANDLED_MAX:
            self.unhandled.append(context)
        if not self.quiet:
            error = context.get("exception")
            log.error("In a workflow body: %s", context.get("message", "unhandled error"), exc_info=error)

    def _unwind(self, tasks: Iterable[BodyTask], generators: Iterable[AsyncGenerator[Any, Any]]) -> None:
        outside = self._enter()
        try:
            for task in tasks:
                if not task.done():
                    unwind_task(self, task)
            for generator in generators:
                unwind_generator(generator)
        finally:
            self._leave(outside)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _begin_delivery(self, at_us: int) -> None:
        assert not self._draining, "a delivery was made from inside the body"
        assert not self._ready or self.frozen or self.root.done(), "a delivery was made before drain() had said True"
        if at_us > self.now_us:
            self.now_us = at_us
        self._ran = 0

    def _run_ready(self, stop_at: int) -> None:
        ready = self._ready
        root_ended = self.root.done
        ran = self._ran
        try:
            while ready:
                handle = ready[0]
                if handle.dropped:
                    ready.popleft()
                    continue
                if ran >= stop_at:
                    break
                ready.popleft()
                ran += 1
                try:
                    handle.context.run(handle.callback, *handle.arguments)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:
                    self.call_exception_handler(
                        {"message": f"Exception in callback {handle!r}", "exception": error, "handle": handle}
                    )
                if root_ended():  # what other tasks would still do is nobody's any more
                    break
        finally:
            self._ran = ran

    def _spawn(
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: Context | None = None,
        **options: Any,
    ) -> BodyTask:
        tasks = self._tasks
        if len(tasks) >= self._prune_tasks_at:
            tasks[:] = [task for task in tasks if not task.done()]
            self._prune_tasks_at = 2 * len(tasks) + 64
        number = self._next_number()
        task = BodyTask(
            coro,
            loop=self,
            order=self._seed + number,
            # asyncio would count over the whole process, and a name read by the body would differ on replay.
            name=f"Task-{number}" if name is None else name,
            context=copy_context() if context is None else context,
            **options,
        )
        tasks.append(task)
        return task

    def _set_timer(
        self, when: float, callback: Callable[..., object], arguments: tuple[Any, ...], context: Context | None
    ) -> BodyTimer:
        timer = self._timers.make(when, callback, arguments, copy_context() if context is None else context)
        if self._open:
            self._timers.set(timer)
        elif not self.evicting:
            raise forbidden("Setting a timer in a workflow from outside")
        return timer

    def _enter(self) -> _Outside:
        """Become the running loop of this thread; what was running is put aside and given back by `_leave`."""
        loop = _get_running_loop()
        task = None if loop is None else asyncio.current_task(loop)
        if loop is not None and task is not None:
            _leave_task(loop, task)  # from 3.14 a thread has one current task, not one for each loop
        hooks = sys.get_asyncgen_hooks()
        _set_running_loop(self)
        sys.set_asyncgen_hooks(self._generator_started, self._generator_dropped)
        collecting = gc.isenabled()
        if self._uses_generators:
            gc.disable()
        return loop, task, hooks, collecting

    def _leave(self, outside: _Outside) -> None:
        loop, task, hooks, collecting = outside
        sys.set_asyncgen_hooks(*hooks)
        _set_running_loop(loop)
        if loop is not None and task is not None:
            _enter_task(loop, task)
        if collecting and self._uses_generators:
            gc.enable()

    # An async generator that the body drops half-way is ended in a new task, as everywhere in asyncio. That is
    # repeatable if its last reference went away by what the body did, not when the collector found a cycle. So once a
    # body uses async generators the collector pauses while it runs; one found at another time waits for the eviction.

    def _generator_started(self, generator: AsyncGenerator[Any, Any]) -> None:
        if self._generators is None:
            self._generators = weakref.WeakSet()
        self._generators.add(generator)
        if not self._uses_generators:
            self._uses_generators = True
            gc.disable()

    def _generator_dropped(self, generator: AsyncGenerator[Any, Any]) -> None:
        if self._open:
            self._spawn(generator.aclose())
        elif not self.evicting:
            self._stray_generators.append(generator)
        elif _get_running_loop() is self:
            unwind_generator(generator)
        else:
            outside = self._enter()
            try:
                unwind_generator(generator)
            finally:
                self._leave(outside)
