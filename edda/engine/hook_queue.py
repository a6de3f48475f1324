"""Hooks run beside the work: in order, from a bounded queue, each for at most five seconds. They change nothing."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from edda.careful_log import CarefulLogger

log = CarefulLogger("edda.hooks")

QUEUE_MAX: Final = 10_000
"""Calls that may wait. Beyond it the oldest are dropped, with one warning: an observer must not eat the memory."""

HOOK_SECONDS_MAX: Final = 5.0


class HookQueue:
    """Calls the methods that an observer has; without an observer it costs nothing."""

    def __init__(self, observer: object | None) -> None:
        self._observer = observer
        self._queue: deque[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._dropped = 0

    @property
    def observed(self) -> bool:
        return self._observer is not None

    def wants(self, hook: str) -> bool:
        return self._observer is not None and hasattr(self._observer, hook)

    def call(self, hook: str, *args: Any, **kwargs: Any) -> None:
        """Queue a call of this hook, if the observer has it."""
        if self._observer is None or (method := getattr(self._observer, hook, None)) is None:
            return
        if len(self._queue) >= QUEUE_MAX:
            self._queue.popleft()
            if self._dropped == 0:
                log.warning("hooks are slower than the work: more than %d wait, the oldest are dropped", QUEUE_MAX)
            self._dropped += 1
        self._queue.append((method, args, kwargs))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="edda-hooks")

    async def drain(self, *, seconds_max: float) -> None:
        """Wait for what is queued, but not for ever."""
        if self._task is not None and not self._task.done():
            await asyncio.wait({self._task}, timeout=seconds_max)
            self._task.cancel()

    async def _run(self) -> None:
        while self._queue:
            method, args, kwargs = self._queue.popleft()
            clock = asyncio.timeout(HOOK_SECONDS_MAX)
            try:
                async with clock:
                    answer = method(*args, **kwargs)
                    if inspect.isawaitable(answer):
                        await answer
            except (Exception, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
                    raise
                if isinstance(error, TimeoutError) and clock.expired():
                    log.warning("hook %s took longer than %s seconds and was given up", method, HOOK_SECONDS_MAX)
                else:
                    log.exception("hook %s raised", method)


def _is_being_cancelled() -> bool:
    """Whether it is us who are cancelled, and not something that the hook waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
