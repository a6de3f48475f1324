"""Pages that stay up to date: a stream of server-sent events that says when a page shows the past.

It tells nothing else: the page asks for itself again, and whoever may not look hears nothing. Laws: a stream ends by
itself, so that no visitor is forgotten for ever; a slow database is asked less often; what goes wrong is waited out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from time import monotonic
from typing import Final

log = logging.getLogger("edda.viewer")

LOOK_SECONDS: Final = 0.4
"""Between two looks at the same page."""
LOOK_SHARE_MAX: Final = 0.2
"""Of the time that looking may take."""
TROUBLE_SECONDS: Final = 3.0
"""Until the next look after one that failed."""
STREAM_SECONDS_MAX: Final = 600.0
"""Then the browser opens a new one."""
STREAMS_MAX: Final = 64
"""At once, of one viewer."""
SILENCE_SECONDS_MAX: Final = 15.0
"""Then a comment is sent, so that a connection that died is noticed."""


class Streams:
    """How many there are."""

    def __init__(self) -> None:
        self._open = 0

    @property
    def full(self) -> bool:
        return self._open >= STREAMS_MAX

    async def watch(self, mark: Callable[[], Awaitable[str]], *, seen: str) -> AsyncIterator[str]:
        """What to send: `seen` is the mark of what the browser shows."""
        self._open += 1
        try:
            async for line in _watch(mark, seen):
                yield line
        finally:
            self._open -= 1


async def _watch(mark: Callable[[], Awaitable[str]], seen: str) -> AsyncIterator[str]:
    began = spoke = monotonic()
    yield "retry: 1000\n\n"
    while monotonic() - began < STREAM_SECONDS_MAX:
        looked = monotonic()
        pause = LOOK_SECONDS
        try:
            found = await mark()
        except Exception:
            log.warning("a page could not be looked after", exc_info=True)
            found, pause = seen, TROUBLE_SECONDS
        if found != seen:
            seen, spoke = found, monotonic()
            yield f"event: changed\ndata: {found}\n\n"
        elif monotonic() - spoke > SILENCE_SECONDS_MAX:
            spoke = monotonic()
            yield ": still here\n\n"
        await asyncio.sleep(max(pause, (monotonic() - looked) / LOOK_SHARE_MAX))
