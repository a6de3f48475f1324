"""What the engine takes from the world: time, randomness, ids. Tests and the simulation pass in their own.

Law: leases and due times are decided on the database's clock alone. A worker knows that clock only between two bounds;
it dates a record with the upper one and fires a timer by the lower one, so no timer is ever early.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

_FRESH_US = 10_000_000


_BOOTTIME: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def _boot_time_us() -> int:
    """A clock that never steps and, where the system has one, goes on while the machine sleeps."""
    return time.clock_gettime_ns(_BOOTTIME) // 1000


@dataclass(slots=True)
class Environment:
    """Time, randomness and ids."""

    steady_us: Callable[[], int] = _boot_time_us
    wall_us: Callable[[], int] = lambda: time.time_ns() // 1000
    random: Random = field(default_factory=lambda: Random(int.from_bytes(os.urandom(16))))  # noqa: S311
    always_evict: bool = field(default_factory=lambda: os.environ.get("EDDA_ALWAYS_EVICT", "") not in ("", "0"))
    """Unload every body at every wait, so that each wait is also a replay."""

    def sortable_id(self) -> str:
        """32 hex digits that sort by time (UUID version 7)."""
        milliseconds = self.wall_us() // 1000
        noise = self.random.getrandbits(74)
        value = (
            (milliseconds & (1 << 48) - 1) << 80 | 0x7 << 76 | (noise >> 62) << 64 | 0b10 << 62 | noise & (1 << 62) - 1
        )
        return f"{value:032x}"

    def jitter(self, seconds: float) -> float:
        """Seconds, more or less: between 75 and 125 per cent."""
        return seconds * (0.75 + self.random.random() / 2)


class DatabaseClock:
    """The database's clock as this worker knows it."""

    def __init__(self, environment: Environment) -> None:
        self._steady_us = environment.steady_us
        self._low = 0
        self._high = 0
        self._learned = -_FRESH_US

    def learn(self, *, sent_us: int, now_us: int) -> None:
        """The database said `now_us` at some moment between `sent_us` (steady clock) and this call.

        The narrowest window of the last seconds counts, and one that contradicts it replaces it: a clock may be set.
        """
        received = self._steady_us()
        low, high = now_us - received, now_us - sent_us
        stale = received - self._learned > _FRESH_US
        if stale or high - low <= self._high - self._low or low > self._high or high < self._low:
            self._low, self._high, self._learned = low, high, received

    def at_least_us(self) -> int:
        """The database's clock shows this or more."""
        return self._steady_us() + self._low

    def at_most_us(self) -> int:
        """The database's clock shows this or less."""
        return self._steady_us() + self._high
