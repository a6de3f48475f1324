"""A clock that passes as any other, and can be set forward: hours of waiting take no time.

It is the clock of the database and of the engine, both at once, so a skip is never seen by one of them alone. It never
goes back.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

from edda.context import utc_us


class VirtualClock:
    """Microseconds since 1970. `start_at`: the time that it shows first (naive means UTC), by default the real one."""

    def __init__(self, start_at: datetime | None = None) -> None:
        start_us = time.time_ns() // 1000 if start_at is None else utc_us(start_at)
        self._ahead_us = start_us - _steady_us()

    def __repr__(self) -> str:
        return f"<VirtualClock {self.now().isoformat()}>"

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.now_us() / 1_000_000, UTC)

    def now_us(self) -> int:
        return _steady_us() + self._ahead_us

    def skip_to(self, at_us: int) -> None:
        """Be there at once; a time that has passed changes nothing."""
        self._ahead_us += max(0, at_us - self.now_us())


def _steady_us() -> int:
    return time.monotonic_ns() // 1000
