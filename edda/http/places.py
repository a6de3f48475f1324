"""Back-pressure: how many bodies are on their way, how many of them from one client, and how many requests are handled.

Two kinds of places, because two things are scarce: memory while bodies come in, at the pace of the clients, and the
database afterwards. So slow clients, however many, keep nobody from it whose body is there. Who finds no place is
refused at once, with a time to come again: a queue here would only hide that the database is the bottleneck, and grow
while it is.
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
        self._options = options
        self._in_flight = 0
        self._reading: Counter[str | None] = Counter()
        self._reading_in_all = 0

    def check(self) -> None:
        """Before the body is read: raises Refusal where it would be in vain."""
        if self._in_flight >= self._options.max_in_flight:
            raise self._full("Too many requests are under way here")

    @contextmanager
    def reading(self, client: str | None) -> Generator[None, None, None]:
        """While a body is on its way."""
        if self._reading_in_all >= self._options.max_reading:
            raise self._full("Too many bodies are on their way")
        if client is not None and self._reading[client] >= self._options.max_reading_per_client:
            raise self._full("Too many bodies from this address are on their way")
        self._reading[client] += 1
        self._reading_in_all += 1
        try:
            yield
        finally:
            self._reading_in_all -= 1
            self._reading[client] -= 1
            if not self._reading[client]:
                del self._reading[client]

    @contextmanager
    def in_flight(self) -> Generator[None, None, None]:
        """While a request is handled."""
        self.check()
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    def _full(self, text: str) -> Refusal:
        return Refusal(later(429, "too_many_requests", f"{text}; try again", seconds=self._options.retry_after_seconds))
