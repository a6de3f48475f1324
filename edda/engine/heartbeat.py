"""The heartbeat keeps a worker's lease, on a line of its own and, for real databases, in a thread of its own.

So a blocking activity does not lose the lease; but a loop that has not answered for `loop_stall_seconds` is as good as
dead, and then the renewals stop on purpose. It never judges others, and it decides nothing: it reports.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edda.core.history import WorkerId
from edda.engine.environment import Environment
from edda.engine.log import log
from edda.storage.port import LeaseLine

STALL_WARNING_SECONDS: Final = 1.0
CONNECT_RETRY_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """How a worker keeps its lease."""

    service: str
    lease_seconds: float
    loop_stall_seconds: float

    @property
    def lease_us(self) -> int:
        return round(self.lease_seconds * 1_000_000)


class Heartbeat:
    """Registers a worker, then renews its lease every third of it until stopped."""

    def __init__(
        self,
        line: LeaseLine,
        worker: WorkerId,
        lease: Lease,
        environment: Environment,
        *,
        on_renewed: Callable[[int, int], None],
        on_dead: Callable[[], None],
    ) -> None:
        self._line = line
        self._worker = worker
        self._lease = lease
        self._environment = environment
        self._on_renewed = on_renewed
        self._on_dead = on_dead
        self._house = asyncio.get_running_loop()
        self._registered: asyncio.Future[None] = self._house.create_future()
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._finished = threading.Event()
        self._answered_us = environment.steady_us()
        self._pulse: asyncio.TimerHandle | None = None
        self._house_thread = threading.get_ident()

    async def begin(self) -> None:
        """Returns when the worker is registered; on SQLite that may take until another process ends."""
        self._beat_pulse()
        if self._line.threaded:
            self._thread = threading.Thread(target=self._run_in_thread, name="edda-heartbeat", daemon=True)
            self._thread.start()
        else:
            self._task = self._house.create_task(self._run(), name="edda-heartbeat")
        await asyncio.shield(self._registered)

    async def stop(self) -> None:
        """No more renewals; the presence is given up."""
        if self._pulse is not None:
            self._pulse.cancel()
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself: the worker was found dead
                self._loop.call_soon_threadsafe(self._stop.set)
        else:
            self._stop.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=5)
        elif self._thread is not None:
            await self._house.run_in_executor(None, self._finished.wait, 5)

    def _beat_pulse(self) -> None:
        """The user's loop answers: noted every second, read by the thread."""
        self._answered_us = self._environment.steady_us()
        self._pulse = self._house.call_later(0.25, self._beat_pulse)

    def _run_in_thread(self) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._run())
        except Exception:
            log.exception("the heartbeat of worker %s broke down", self._worker)
            self._tell(self._on_dead)
        finally:
            self._finished.set()

    def _tell(self, callback: Callable[..., None], *args: object) -> None:
        try:
            self._house.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            self._stop.set()  # the user's loop is closed: nobody is left to renew for

    async def _run(self) -> None:
        if self._line.threaded:
            self._loop = asyncio.get_running_loop()
        try:
            await self._register()
            if not self._stop.is_set():
                self._tell(self._note_registered)
                await self._keep_renewing()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.exception("worker %s cannot keep its lease", self._worker)
            self._tell(self._note_failed, error)
        finally:
            await self._line.close()

    def _note_registered(self) -> None:
        if not self._registered.done():
            self._registered.set_result(None)

    def _note_failed(self, error: Exception) -> None:
        if not self._registered.done():
            self._registered.set_exception(error)
        else:
            self._on_dead()

    async def _register(self) -> None:
        """May take long where another process has the place; stopping ends the wait."""
        stopping = asyncio.ensure_future(self._stop.wait())
        registering = asyncio.ensure_future(self._connect_and_register())
        await asyncio.wait({stopping, registering}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if registering.done():
            sent, now = registering.result()
            self._tell(self._on_renewed, sent, now)
        else:
            registering.cancel()
            await asyncio.wait({registering})

    async def _connect_and_register(self) -> tuple[int, int]:
        await self._line.connect()
        sent = self._environment.steady_us()
        now = await self._line.register(self._worker, service=self._lease.service, lease_us=self._lease.lease_us)
        return sent, now

    async def _keep_renewing(self) -> None:
        warned = False
        while not await self._pause(min(self._lease.lease_seconds / 3, STALL_WARNING_SECONDS)):
            stalled = (self._environment.steady_us() - self._answered_us) / 1_000_000
            if stalled > STALL_WARNING_SECONDS and self._line.threaded:
                if not warned:
                    warned = True
                    log.warning("the event loop has not answered for %.1f s:\n%s", stalled, self._stack())
                if stalled > self._lease.loop_stall_seconds:
                    log.error("the event loop has not answered for %.0f s: the lease is given up", stalled)
                    return
            else:
                warned = False
            if not self._renewal_is_due():
                continue
            if not await self._renew():
                return

    async def _pause(self, seconds: float) -> bool:
        """True when told to stop."""
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return False
        return True

    _renewed_us = 0

    def _renewal_is_due(self) -> bool:
        now = self._environment.steady_us()
        if now - self._renewed_us < self._lease.lease_us // 3 - 50_000:
            return False
        self._renewed_us = now
        return True

    async def _renew(self) -> bool:
        """False: declared dead. A failure is only logged: the next renewal may succeed while the lease lasts."""
        sent = self._environment.steady_us()
        try:
            renewal = await self._line.renew(self._worker, lease_us=self._lease.lease_us)
        except Exception as error:
            log.warning("the lease of worker %s could not be renewed: %s", self._worker, error)
            self._renewed_us = 0
            return not await self._pause(CONNECT_RETRY_SECONDS)
        if not renewal.alive:
            self._tell(self._on_dead)
            return False
        self._tell(self._on_renewed, sent, renewal.now_us)
        return True

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._house_thread)  # pyright: ignore[reportPrivateUsage]
        return "".join(traceback.format_stack(frame)) if frame is not None else "(no stack)"
