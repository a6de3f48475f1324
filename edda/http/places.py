"""Back-pressure: how many requests are under way, and how many of them one slow client may hold.

Who finds no place is refused at once, with a time to come again: a queue here would only hide that the database is the
bottleneck, and grow while it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from edda.http.answers import Refusal, later
from edda.http.options import HttpOptions


class Places:
    """Of one app."""

    def __init__(self, options: HttpOptions) -> None:
        self._max = options.max_in_flight
        self._per_client = options.max_reading_per_client
        self._retry_after_seconds = options.retry_after_seconds
        self.taken = 0
        self._reading: Counter[str] = Counter()

    @contextmanager
    def take(self) -> Generator[None, None, None]:
        """A place for a whole request."""
        if self.taken >= self._max:
            raise self._full("Too many requests are under way here")
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    @contextmanager
    def reading(self, client: str | None) -> Generator[None, None, None]:
        """While a body is on its way."""
        if client is None or self._per_client is None:
            yield
            return
        if self._reading[client] >= self._per_client:
            raise self._full("Too many bodies from this address are on their way")
        self._reading[client] += 1
        try:
            yield
        finally:
            self._reading[client] -= 1
            if not self._reading[client]:
                del self._reading[client]

    def _full(self, text: str) -> Refusal:
        return Refusal(later(429, "too_many_requests", f"{text}; try again", seconds=self._retry_after_seconds))
