"""SimLoop: an asyncio event loop in virtual time, on which several simulated processes live together.

Each process has a first-in-first-out queue, as a real loop has; which process runs next is drawn from the seed. Time
jumps to the next timer when every queue is empty. There is no I/O, no thread and no sleeping, so a run is a function of
its seed. Laws:
- A crashed process runs nothing any more: its queue and timers are dropped, so no `finally` of it can cheat. What is
  left of it is closed only when the world is over, and then every call into the world is refused.
- A paused process keeps its queue; its timers fall due meanwhile, and all of it goes on when the pause ends.
- Tasks hash by their number, so that sets of them have the same order in every run.

Must not know: edda.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from asyncio.events import _set_running_loop
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from random import Random
from typing import Any

STEPS_MAX = 400_000
"""Callbacks in one run: beyond it something spins."""


class Process:
    """Whatever lives and dies together: one operating-system process of the simulated world."""

    __slots__ = ("dead", "held", "name", "queued", "ready")

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready: deque[SimHandle] = deque()
        self.dead = False
        self.held = False
        self.queued = False
        """Among those from which the next to run is drawn."""

    def __repr__(self) -> str:
        return f"<{self.name}{' dead' if self.dead else ''}>"


class SimHandle:
    """A queued callback, or a timer."""

    __slots__ = ("_cancelled", "args", "callback", "context", "process", "when_us")

    def __init__(
        self, process: Process, callback: Callable[..., Any], args: tuple[Any, ...], context: Context, when_us: int = 0
    ) -> None:
        self.process = process
        self.callback = callback
        self.args = args
        self.context = context
        self.when_us = when_us
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled

    def when(self) -> float:
        return self.when_us / 1e6


class SimTask(asyncio.Task[Any]):
    """A task with a stable hash."""

    number: int

    def __hash__(self) -> int:
        return self.number


class SimLoop(asyncio.AbstractEventLoop):
    """See the head of this file."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.now_us = 0
        self.world = Process("world")
        """What is outside all processes: the database, the people, the chance."""
        self.current = self.world
        self.unhandled: list[dict[str, Any]] = []
        """Errors that nobody handled: there must be none."""
        self.steps = 0
        self._runnable: list[Process] = []
        self._timers: list[tuple[int, int, SimHandle]] = []
        self._numbers = 0
        self._tasks: list[SimTask] = []
        self._over = False
        self._stopped = False

    # -- processes ---------------------------------------------------------------------------------------------------

    def spawn(self, process: Process, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Begin a task in a process."""
        before, self.current = self.current, process
        try:
            return self.create_task(coroutine, context=Context())
        finally:
            self.current = before

    def after(self, process: Process, delay_us: int, callback: Callable[..., Any], *args: Any) -> None:
        """Call back in a process."""
        self._numbers += 1
        handle = SimHandle(process, callback, args, _EMPTY, self.now_us + delay_us)
        heapq.heappush(self._timers, (handle.when_us, self._numbers, handle))

    def crash(self, process: Process) -> None:
        process.dead = True
        process.ready.clear()

    def pause(self, process: Process, duration_us: int) -> None:
        if not process.held and not process.dead:
            process.held = True
            self.after(self.world, duration_us, self._go_on, process)

    def _go_on(self, process: Process) -> None:
        process.held = False
        self._queue(process)

    def _queue(self, process: Process) -> None:
        if process.ready and not process.queued and not process.held:
            process.queued = True
            self._runnable.append(process)

    # -- running -----------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End `run` after the current callback."""
        self._stopped = True

    def run(self, *, until_us: int) -> None:
        """Run until `stop()`, until that time, or until nothing is left."""
        self._stopped = False
        _set_running_loop(self)
        try:
            while not self._stopped:
                if self._runnable:
                    self._run_one_process()
                elif not self._advance(until_us):
                    return
        finally:
            self.current = self.world
            _set_running_loop(None)

    def _run_one_process(self) -> None:
        """Some callbacks of a process drawn by chance."""
        runnable = self._runnable
        place = int(self.random.random() * len(runnable)) if len(runnable) > 1 else 0
        process = self.current = runnable[place]
        ready = process.ready
        left = len(ready) if len(runnable) == 1 else 1 + int(self.random.random() * len(ready))
        self.steps += left
        assert self.steps < STEPS_MAX, "the world spins"
        while left and ready:
            left -= 1
            handle = ready.popleft()
            if handle._cancelled:
                continue
            try:
                handle.context.run(handle.callback, *handle.args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.call_exception_handler({"message": f"in {process.name}: {handle.callback!r}", "exception": error})
            if process.held or self._stopped:
                break
        if not ready or process.held:
            process.queued = False
            runnable.remove(process)

    def _advance(self, until_us: int) -> bool:
        timers = self._timers
        while timers:
            when_us, _, handle = timers[0]
            process = handle.process
            if handle._cancelled or process.dead:
                heapq.heappop(timers)
                continue
            if when_us > until_us:
                break
            if when_us > self.now_us and self._runnable:
                return True
            heapq.heappop(timers)
            self.now_us = max(self.now_us, when_us)
            process.ready.append(handle)
            if not process.queued and not process.held:
                process.queued = True
                self._runnable.append(process)
        if self._runnable:
            return True
        self.now_us = max(self.now_us, until_us)
        return False

    # -- the end -----------------------------------------------------------------------------------------------------

    def close_tasks(self) -> None:
        """The world is over: end what is left of every coroutine, newest first."""
        self._over = True
        _set_running_loop(self)
        try:
            for task in reversed(self._tasks):
                if not task.done():
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    coroutine: Any = task.get_coro()
                    for _ in range(5):
                        with contextlib.suppress(BaseException):
                            coroutine.close()
                            break
        finally:
            _set_running_loop(None)
            self._tasks.clear()
            self._timers.clear()
            self._runnable.clear()

    # -- what asyncio calls ------------------------------------------------------------------------------------------

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:
        process = self.current
        handle = SimHandle(process, callback, args, copy_context() if context is None else context)
        if self._over or process.dead:
            return handle
        process.ready.append(handle)
        if not process.queued and not process.held:
            process.queued = True
            self._runnable.append(process)
        return handle

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:
        return self.call_soon(callback, *args, context=context)

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:
        return self._at(self.now_us + max(-int(-delay * 1_000_000 // 1), 0), callback, args, context)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:
        return self._at(max(-int(-when * 1_000_000 // 1), self.now_us), callback, args, context)

    def _at(
        self, when_us: int, callback: Callable[..., Any], args: tuple[Any, ...], context: Context | None
    ) -> SimHandle:
        handle = SimHandle(self.current, callback, args, copy_context() if context is None else context, when_us)
        if not self._over:
            self._numbers += 1
            heapq.heappush(self._timers, (when_us, self._numbers, handle))
        return handle

    def time(self) -> float:
        return self.now_us / 1e6

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Context | None = None, **options: Any
    ) -> asyncio.Task[Any]:
        if self._over:
            coro.close()
            nothing: Any = self.create_future()
            nothing.set_result(None)
            return nothing
        SimTask.number = self._numbers = self._numbers + 1  # asyncio hashes it while it is made
        task = SimTask(coro, loop=self, name=name or f"Task-{self._numbers}", context=context)
        task.number = self._numbers
        tasks = self._tasks
        tasks.append(task)
        if len(tasks) > 400:
            tasks[:] = [each for each in tasks if not each.done()]
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self._over

    def is_closed(self) -> bool:
        return self._over

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._over:
            self.unhandled.append(context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)


_EMPTY = Context()
