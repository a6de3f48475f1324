"""A pool of daemon threads for activities written with `def`.

Not `ThreadPoolExecutor`: the interpreter joins its threads at exit, so one activity that hangs would keep a process
from ending whose `shutdown()` was forgotten. What still runs when the interpreter ends is a crash like any other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class DaemonThreads(Executor):
    """Starts a thread when none is idle, up to `threads_max`; further calls wait."""

    def __init__(self, threads_max: int) -> None:
        self._threads_max = threads_max
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        self._over = False

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        future: Future[R] = Future()
        with self._lock:
            if self._over:
                raise RuntimeError("the app is shut down: no activity can begin")
            self._queue.put((future, lambda: fn(*args, **kwargs)))
            if self._idle > 0:
                self._idle -= 1
            elif self._threads < self._threads_max:
                self._threads += 1
                threading.Thread(target=self._work, name=f"edda-activity-{self._threads}", daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Idle threads end; what runs is left to itself, whatever `wait` says."""
        with self._lock:
            self._over = True
            for _ in range(self._threads):
                self._queue.put(None)

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            future, call = job
            if future.set_running_or_notify_cancel():
                try:
                    result = call()
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
            del job, future, call  # an idle thread holds nobody's arguments
            with self._lock:
                if self._queue.empty():
                    self._idle += 1
