"""The engine of one app: its store, its results, and always one worker, replaced by a new one when it is declared
dead."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from edda.core.commit import Creation, End, NewInstance
from edda.core.history import InstanceId, WorkerId
from edda.core.lifecycle import REPAIRABLE, Status
from edda.core.retry import RetryPolicy
from edda.core.subscription import Subscription
from edda.engine.attempts import Attempts
from edda.engine.driver import Driver
from edda.engine.environment import DatabaseClock, Environment
from edda.engine.heartbeat import Lease
from edda.engine.hook_queue import HookQueue
from edda.engine.inbox import Inbox
from edda.engine.log import log
from edda.engine.results import Ending, Results
from edda.engine.retention import Retention
from edda.engine.telemetry import Telemetry
from edda.engine.worker import Bounds, Legacy, Worker
from edda.storage.outbox import OUTBOX_COUNT_MAX, OutboxState
from edda.storage.port import InstanceRow, Store, UnknownOutcome
from edda.telemetry import Gauges, Meters, Tracing
from edda.workflow import App, Workflow

ASK_AGAIN_SECONDS = 0.05
"""After the answer to a verb was lost."""

REGISTRATION_SECONDS = 2.0
"""How long `begin` waits for a place as a worker; after that the app is a client until it gets one (SQLite)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything about an engine that an app can choose."""

    lease: Lease
    bounds: Bounds
    activities_max: int
    activity_threads: int
    default_retry_policy: RetryPolicy
    retention_us: int | None = None
    """After so long instances that ended are forgotten; None: never."""


def _nobody_relays() -> None:
    """Events were put into the outbox: a hint for a relayer, where there is one."""


class Engine:
    """Runs workflows for one app, in one event loop."""

    def __init__(
        self,
        *,
        app: App,
        store: Store,
        settings: Settings,
        observer: object | None,
        workflows: Callable[[], Mapping[str, Workflow[..., object]]],
        environment: Environment | None = None,
        subscriptions: Callable[[], frozenset[Subscription]] = frozenset,
        on_outbox: Callable[[], None] = _nobody_relays,
        tracing: Tracing | None = None,
        meters: Meters | None = None,
    ) -> None:
        self.store = store
        self.environment = environment or Environment()
        self._app = app
        self._settings = settings
        self._observer = observer
        self._workflows = workflows
        self._on_outbox = on_outbox
        self._clock = DatabaseClock(self.environment)
        self._telemetry: Telemetry | None = None
        if tracing is not None or meters is not None:
            self._telemetry = Telemetry(tracing, meters, steady_us=self.environment.steady_us)
        self._hooks = HookQueue(observer)
        self._results = Results(store, self.environment, runs_here=self._runs_here)
        self._attempts = Attempts(
            app=app,
            store=store,
            worker=lambda: WorkerId(self.worker_id),
            clock=self._clock,
            environment=self.environment,
            hooks=observer,
            activities_max=settings.activities_max,
            threads=settings.activity_threads,
            payload_bytes_max=settings.bounds.payload_bytes_max,
            on_crash=self._crashed,
            telemetry=self._telemetry,
        )
        self.inbox = Inbox(
            store,
            self.environment,
            poll_seconds=settings.bounds.poll_seconds,
            poke=self._poke_all,
            subscriptions=subscriptions,
            meters=meters,
        )
        self.worker_id = ""
        """Id of the worker, also while it waits for its place."""
        self.worker: Worker | None = None
        """The registered worker; None while this process is only a client."""
        self._legacy: Legacy = {}
        self._joining: asyncio.Task[None] | None = None
        self._stopping = False
        self._retention = (
            Retention(store, self.environment, age_us=settings.retention_us)
            if settings.retention_us is not None
            else None
        )

    async def begin(self) -> None:
        await self.store.open()
        await self.inbox.begin()
        if self._retention is not None:
            self._retention.begin()
        self.store.listen(self._hear)
        self._joining = asyncio.get_running_loop().create_task(self._join(), name="edda-join")
        done, _ = await asyncio.wait({self._joining}, timeout=REGISTRATION_SECONDS)
        if done:
            self._joining.result()
        else:
            log.warning("another process works on this database; this one starts and cancels until it gets its place")

    async def stop(self) -> None:
        self._stopping = True
        if self._retention is not None:
            await self._retention.stop()
        await self.inbox.stop()
        if self._joining is not None and not self._joining.done():
            self._joining.cancel()
            await asyncio.wait({self._joining})
        if self.worker is not None:
            await self.worker.stop()
        await self._attempts.stop()
        await self._results.stop()
        await self._hooks.drain(seconds_max=5)
        await self.store.close()

    async def crash(self) -> None:
        """Stop as a process that is killed: nothing ends in order, nothing is given back. For `edda.testing`."""
        if self.worker is not None:
            self.worker.dead = True
        await self.stop()

    async def _join(self) -> None:
        self.worker_id = self._new_worker_id()
        worker = Worker(
            worker_id=WorkerId(self.worker_id),
            app=self._app,
            store=self.store,
            clock=self._clock,
            environment=self.environment,
            attempts=self._attempts,
            hooks=self._hooks,
            observer=self._observer,
            default_retry_policy=self._settings.default_retry_policy,
            bounds=self._settings.bounds,
            lease=self._settings.lease,
            workflows=self._workflows,
            endings=self,
            inbox=self.inbox,
            on_dead=self._replace,
            on_outbox=self._on_outbox,
            inheritance=self._legacy,
            telemetry=self._telemetry,
        )
        try:
            await worker.begin()
        except asyncio.CancelledError:
            await worker.after_death()
            raise
        self.worker = worker

    def _crashed(self, error: MemoryError) -> None:
        if self.worker is not None:
            self.worker.crashed(error)

    def _new_worker_id(self) -> str:
        host = socket.gethostname()[:20]
        return f"{host}-{os.getpid()}-{self.environment.random.getrandbits(32):08x}"

    def _replace(self, dead: Worker) -> None:
        self.worker = None
        self._legacy = dead.legacy
        if not self._stopping:
            self._joining = asyncio.get_running_loop().create_task(self._rejoin(dead), name="edda-join")

    async def _rejoin(self, dead: Worker) -> None:
        delay = 0.1
        while not self._stopping:
            try:
                await dead.after_death()
                await self._join()
                return
            except Exception as error:
                log.warning("cannot register a new worker: %s", error)
                await asyncio.sleep(self.environment.jitter(delay))
                delay = min(delay * 2, 5.0)

    # -- verbs -------------------------------------------------------------------------------------------------------

    async def start(self, new: NewInstance) -> Creation:
        """Create an instance; it runs here if this process is a worker and has room."""
        if self.worker is not None:
            return await self.worker.start(new)
        while True:
            try:
                creation = await self.store.create(new)
                self.store.hint()
                return creation
            except UnknownOutcome as error:  # asked again, it finds what it made itself
                log.warning("no answer to the start of %s, asking again: %s", new.id, error)
                await asyncio.sleep(self.environment.jitter(ASK_AGAIN_SECONDS))

    def gauges(self) -> Gauges:
        """What this process does now; all 0 where it has no place as a worker."""
        return self.worker.gauges() if self.worker is not None else Gauges()

    async def outbox_state(self) -> OutboxState:
        return await self.store.outbox_state(count_max=OUTBOX_COUNT_MAX)

    async def wait(self, instance_id: InstanceId) -> Ending:
        return await self._results.wait(instance_id)

    def _runs_here(self, instance_id: InstanceId) -> bool:
        return self.worker is not None and instance_id in self.worker.drivers

    async def cancel(self, instance_id: InstanceId, *, by: str) -> InstanceRow | None:
        """The row as it was before."""
        return await self._ask(
            instance_id,
            lambda: self.store.cancel(instance_id, by=by),
            done=lambda row: row.cancel_requested_at_us is not None,
        )

    async def retry(self, instance_id: InstanceId) -> InstanceRow | None:
        """The row as it was before."""
        return await self._ask(
            instance_id, lambda: self.store.retry(instance_id), done=lambda row: row.status not in REPAIRABLE
        )

    async def _ask(
        self,
        instance_id: InstanceId,
        verb: Callable[[], Awaitable[InstanceRow | None]],
        *,
        done: Callable[[InstanceRow], bool],
    ) -> InstanceRow | None:
        """Ask until there is an answer. If one was lost and what it asked for is done, it was done by that."""
        unheard: InstanceRow | None = None
        while True:
            before = await self.store.instance(instance_id)
            try:
                row = await verb()
            except UnknownOutcome as error:
                log.warning("no answer about %s, asking again: %s", instance_id, error)
                unheard = unheard or before
                await asyncio.sleep(self.environment.jitter(ASK_AGAIN_SECONDS))
            else:
                self._poke_all([instance_id])
                return unheard if unheard is not None and row is not None and done(row) else row

    def _poke_all(self, ids: Collection[InstanceId]) -> None:
        """These were woken by this process; another one may hold them, or have to claim them."""
        if self.worker is not None:
            self.worker.poke(ids)
        if not all(map(self._runs_here, ids)):
            self.store.hint()

    def _hear(self) -> None:
        """Another process says that there may be work."""
        if self.worker is not None:
            self.worker.look_now()
        self._on_outbox()

    def ended(self, driver: Driver, end: End) -> None:
        self._results.ended(driver, end)
        if end.status in (Status.FAILED, Status.COMPENSATION_FAILED):
            log.error(
                "workflow instance %s ended as %s",
                driver.instance_id,
                end.status,
                exc_info=driver.outcome.error,
                extra=driver.about(),
            )
        if self._hooks.observed:
            self._call_hooks(driver, end)

    def _call_hooks(self, driver: Driver, end: End) -> None:
        name = driver.workflow_name
        match end.status:
            case "completed":
                self._hooks.call("on_workflow_complete", driver.instance_id, name, driver.outcome.value)
            case "cancelled":
                self._hooks.call("on_workflow_cancelled", driver.instance_id, name)
            case "failed" | "compensation_failed":
                self._hooks.call("on_workflow_failed", driver.instance_id, name, driver.outcome.error)
            case _:
                pass
