"""When the app behind HTTP begins and ends.

A server that speaks the lifespan protocol says so; a framework takes `lifespan=app.lifespan`; and a mount gets neither,
so the first request begins it. It begins once, whoever asks first. What ended by a lifespan stays ended: a late request
is told to go elsewhere, and does not begin it anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager

from edda.careful_log import CarefulLogger
from edda.exceptions import ShuttingDownError
from edda.http.asgi import Receive, Send
from edda.http.door import Door

log = CarefulLogger("edda.http")


class Life:
    """Of the app behind one door."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._begun = False
        self._over = False
        self._beginning: asyncio.Task[None] | None = None

    async def ensure(self) -> None:
        """Begun, when this returns. A caller that goes away does not stop a beginning that others wait for."""
        if self._over:
            raise ShuttingDownError
        if self._begun:
            return
        loop = asyncio.get_running_loop()
        if self._beginning is None or self._beginning.get_loop() is not loop:
            self._beginning = loop.create_task(self._begin(), name="edda-http-begin")
            self._beginning.add_done_callback(_heard)
        await asyncio.shield(self._beginning)

    async def _begin(self) -> None:
        try:
            await self._door.initialize()
            self._begun = True
        finally:
            self._beginning = None

    async def begin(self) -> None:
        self._over = False
        await self.ensure()

    async def end(self) -> None:
        self._over = True
        if self._beginning is not None:
            await asyncio.wait({self._beginning})
        self._begun = False
        await self._door.shutdown()

    @asynccontextmanager
    async def span(self) -> AsyncGenerator[dict[str, Door], None]:
        """For frameworks that take a lifespan; what it yields becomes `request.state.edda`."""
        await self.begin()
        try:
            yield {"edda": self._door}
        finally:
            await self.end()

    async def serve(self, receive: Receive, send: Send) -> None:
        """The lifespan protocol."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                if not await self._step(self.begin(), send, "lifespan.startup"):
                    return
            elif message["type"] == "lifespan.shutdown":
                await self._step(self.end(), send, "lifespan.shutdown")
                return

    async def _step(self, doing: Coroutine[None, None, None], send: Send, name: str) -> bool:
        try:
            await doing
        except Exception as error:
            log.exception("%s failed", name)
            await send({"type": f"{name}.failed", "message": f"{type(error).__name__}: {error}"})
            return False
        await send({"type": f"{name}.complete"})
        return True


def _heard(task: asyncio.Task[None]) -> None:
    """If nobody waits any more, the next request meets the same error and tells it."""
    if not task.cancelled():
        task.exception()
