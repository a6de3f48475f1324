"""Turns: the callbacks of one event loop's iteration that concern many instances, taken together and in slices.

A hundred instances that have something to do cost one callback of the loop for each slice, not one each. Between two
slices the loop runs: what the first slice wants written is on its way to the database while the next is worked on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

SLICE_TURNS: Final = 50
"""Turns in one callback of the loop: some milliseconds."""


class Turns:
    """First come, first served."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._scheduled = False

    def soon(self, turn: Callable[[], None]) -> None:
        """Call it in one of the loop's next iterations."""
        self._waiting.append(turn)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._take)

    def _take(self) -> None:
        waiting = self._waiting
        try:
            for _ in range(min(len(waiting), SLICE_TURNS)):
                waiting.popleft()()
        finally:
            self._scheduled = bool(waiting)
            if waiting:
                asyncio.get_running_loop().call_soon(self._take)
