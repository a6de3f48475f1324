"""Callbacks of a body: those in its queue, and those that wait for a time.

A timer is known by its number in the body. Setting one records nothing: its due time follows from the clock, and the
clock from the records. The engine fires it, under its id, when the record of the firing is delivered.

Must not know: when timers really fire, history, storage.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable, Mapping
from contextvars import Context
from typing import Any

NEVER_US = 253_402_300_799_000_000
"""The end of the year 9999: when a timer of infinite length is due."""

_ID_PREFIX = "timer:"


class BodyHandle(asyncio.Handle):
    """A queued callback. Its own `__init__` saves half of the time that asyncio's takes."""

    __slots__ = ("arguments", "callback", "context", "dropped")

    def __init__(self, callback: Callable[..., object], arguments: tuple[Any, ...], context: Context) -> None:
        self.callback = callback
        self.arguments = arguments
        self.context = context
        self.dropped = False

    def cancel(self) -> None:
        self.dropped = True

    def cancelled(self) -> bool:
        return self.dropped

    def __repr__(self) -> str:
        return f"<BodyHandle {self.callback!r}{' cancelled' if self.dropped else ''}>"


class BodyTimer(asyncio.TimerHandle):
    """A callback for later. Fired, it goes into the queue itself, where it can still be cancelled."""

    __slots__ = ("_timers", "arguments", "callback", "context", "dropped", "due_us", "number")

    def __init__(
        self,
        number: int,
        due_us: int,
        callback: Callable[..., object],
        arguments: tuple[Any, ...],
        context: Context,
        timers: dict[int, BodyTimer],
    ) -> None:
        self.number = number
        self.due_us = due_us
        self.callback = callback
        self.arguments = arguments
        self.context = context
        self.dropped = False
        self._timers = timers

    def cancel(self) -> None:
        self.dropped = True
        self._timers.pop(self.number, None)

    def cancelled(self) -> bool:
        return self.dropped

    def when(self) -> float:
        return self.due_us / 1e6

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other

    def __lt__(self, other: asyncio.TimerHandle) -> bool:
        return self.when() < other.when()

    def __repr__(self) -> str:
        return f"<BodyTimer {_ID_PREFIX}{self.number} due_us={self.due_us}{' cancelled' if self.dropped else ''}>"


class BodyTimers:
    """The timers that are set, by number and by due time."""

    __slots__ = ("_by_due", "_made", "_set")

    def __init__(self) -> None:
        self._made = 0
        self._set: dict[int, BodyTimer] = {}
        self._by_due: list[tuple[int, int]] = []  # a heap of (due_us, number); cancelled ones are still in it

    def make(
        self, when: float, callback: Callable[..., object], arguments: tuple[Any, ...], context: Context
    ) -> BodyTimer:
        """A timer that is not set; `when` is in seconds, as asyncio has it."""
        if math.isnan(when):
            raise ValueError("A timer cannot be due at NaN")
        due_us = NEVER_US if when * 1e6 >= NEVER_US else round(max(when, 0.0) * 1e6)
        return BodyTimer(self._made + 1, due_us, callback, arguments, context, self._set)

    def set(self, timer: BodyTimer) -> None:
        self._made = timer.number
        self._set[timer.number] = timer
        by_due = self._by_due
        heapq.heappush(by_due, (timer.due_us, timer.number))
        if len(by_due) > 2 * len(self._set) + 64:  # mostly cancelled: a timeout() around each of many calls
            by_due[:] = [(live.due_us, live.number) for live in self._set.values()]
            heapq.heapify(by_due)

    def number_of(self, timer_id: str) -> int:
        """LookupError if the body never set such a timer: then it is not the body that was recorded."""
        number = timer_id.removeprefix(_ID_PREFIX)
        if number == timer_id or not number.isdecimal() or not 0 < int(number) <= self._made:
            raise LookupError(f"The body never set a timer {timer_id!r}; it has set {self._made}")
        return int(number)

    def take(self, number: int) -> BodyTimer | None:
        return self._set.pop(number, None)

    def next(self) -> tuple[str, int] | None:
        by_due = self._by_due
        while by_due:
            due_us, number = by_due[0]
            if number in self._set:
                return f"{_ID_PREFIX}{number}", due_us
            heapq.heappop(by_due)
        return None

    def due_times(self) -> Mapping[str, int]:
        return {f"{_ID_PREFIX}{number}": timer.due_us for number, timer in self._set.items()}

    def clear(self) -> None:
        self._set.clear()
        self._by_due.clear()
