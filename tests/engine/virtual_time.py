"""A real event loop in virtual time: when everything waits, the clock jumps to the next timer.

So a test may wait for seconds and takes none. Where no timer is left nothing will ever happen: that fails at once.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, ParamSpec

from edda.engine.environment import Environment

P = ParamSpec("P")


class _Jumping(selectors.DefaultSelector):
    """Does not wait for files (no test of the engine has any), but moves the clock."""

    now_seconds = 1_000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everything waits, and nothing will ever happen"
        self.now_seconds += max(timeout, 0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Jumping()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now_seconds


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an `async def` test on a loop of its own, in virtual time."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def now_us() -> int:
    return round(asyncio.get_running_loop().time() * 1_000_000)


def environment() -> Environment:
    """The engine's view of virtual time, without chance."""
    return Environment(steady_us=now_us, wall_us=now_us, random=Random(0), always_evict=False)
