"""EddaApp: the composition root. It picks the implementations; it is the one object that lives in a user's process."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from edda.app_events import AppEvents
from edda.app_instances import AppInstances, source_of
from edda.careful_log import CarefulLogger
from edda.core.history import InstanceId
from edda.core.options import check_count, check_seconds
from edda.core.retry import check_policy
from edda.engine.engine import Engine, Settings
from edda.engine.environment import Environment
from edda.engine.heartbeat import Lease
from edda.engine.worker import Bounds
from edda.exceptions import (
    ShuttingDownError,
    StorageError,
    WrongLoopError,
)
from edda.outbox.relayer import Relayer, RelaySettings
from edda.outbox.sink import Sink
from edda.outbox.sinks import sink_for
from edda.outbox.watching import system_of
from edda.retry import DEFAULT_RETRY_POLICY, RetryPolicy
from edda.storage.port import Store
from edda.telemetry import Tracing
from edda.workflow import (
    Workflow,
    constructed_apps,
)
from edda.workflow import (
    workflows as declared_workflows,
)

if TYPE_CHECKING:  # loaded with the first request
    from edda.http import Authorizer, Door, HttpApp, HttpOptions
    from edda.http.asgi import Receive, Scope, Send
    from edda.metrics import Metrics

log = CarefulLogger("edda.app")


LEASE_SECONDS_MIN: Final = 1.0
"""It is renewed every third: below this, a short pause of the machine would lose the lease."""
LOOP_STALL_SECONDS_MIN: Final = 1.0
"""The loop's answers are noted four times a second: much below this, a healthy loop would look stalled."""

RELAY_GRACE_SECONDS: Final = 5.0
"""How long `shutdown()` waits for deliveries under way: those that are cut off are made again, by anyone."""


class EddaApp(AppInstances, AppEvents):
    """Durable workflows in this process, kept in the database at `db_url`.

    `async with EddaApp(db_url=...) as app:`, or `initialize()` and `shutdown()`. It belongs to the event loop and the
    process in which it was initialised. Nothing is opened before that. It is an ASGI application, too: serve it with
    uvicorn, or mount it at any path of another one, with `lifespan=app.lifespan` there.

    Args:
        service_name: Shown with the worker; no meaning beyond that.
        db_url: `sqlite:///file.db`, `sqlite:///:memory:`, `postgresql://...`, `mysql://...`, `mariadb://...`.
        outbox_enabled: Relay events from the outbox to `broker_url`. They are stored in any case.
        broker_url: `http(s)://...` (CloudEvents), `kafka://...`, `nats://...`, `amqp://...`, `redis://...`.
        hooks: An object with some of the methods of `WorkflowHooks`.
        default_retry_policy: For activities that have none of their own.
        workflows: What this worker runs; default: every workflow that has been imported.
        lease_seconds: After so long without a renewal others may take over.
        poll_seconds: How often to look for work that no hint announced.
        max_running: Instances at once; further starts wait, unowned, for anyone.
        max_activities: Attempts at once.
        activity_threads: Threads for activities written with `def`.
        max_residents: Parked bodies kept in memory; others are replayed when they go on.
        max_payload_bytes: For one argument list, one result, or the data of one event that is sent, as stored.
        session_pool_size: Connections behind `ctx.session`.
        session_hold_seconds: The longest transaction of `ctx.session` on SQLite.
        shutdown_grace_seconds: How long `shutdown()` waits for attempts under way.
        outbox_retention_seconds: After so long events that were delivered are deleted.
        retention_seconds: After so long instances that completed, failed or were cancelled are deleted, with all that
            belongs to them; None: never. Their ids are free then.
        loop_stall_seconds: An event loop that does not answer for so long is given up, with its lease.
        notifications: Hints between processes by LISTEN and NOTIFY, on PostgreSQL; without them polls find everything.
        authorizer: Decides about every event and every cancel that comes over HTTP; see `edda.http`.
        http: `HttpOptions`: the limits of the HTTP face.
        tracing: What makes spans, an `edda.otel.OpenTelemetry`. By default one for the global tracer provider, if
            there is one when the app is initialised; False: none.
        metrics: What counts, an `edda.metrics.Metrics`.
    """

    def __init__(
        self,
        service_name: str | None = None,
        db_url: str = "sqlite:///edda.db",
        outbox_enabled: bool = False,
        broker_url: str | None = None,
        hooks: object | None = None,
        default_retry_policy: RetryPolicy | None = None,
        *,
        workflows: Iterable[Workflow[..., Any]] | None = None,
        lease_seconds: float = 30.0,
        poll_seconds: float = 1.0,
        max_running: int = 1000,
        max_activities: int = 200,
        activity_threads: int = 32,
        max_residents: int = 1000,
        max_payload_bytes: int = 1 << 20,
        session_pool_size: int = 5,
        session_hold_seconds: float = 20.0,
        shutdown_grace_seconds: float = 20.0,
        loop_stall_seconds: float = 300.0,
        authorizer: Authorizer | None = None,
        http: HttpOptions | None = None,
        outbox_retention_seconds: float = 7 * 86400.0,
        retention_seconds: float | None = None,
        notifications: bool = True,
        tracing: Tracing | Literal[False] | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        _check_name(service_name)
        check_policy("default_retry_policy", default_retry_policy)
        check_seconds("lease_seconds", lease_seconds, at_least=LEASE_SECONDS_MIN)
        check_seconds("poll_seconds", poll_seconds, above=0)
        check_count("max_running", max_running)
        check_count("max_activities", max_activities)
        check_count("activity_threads", activity_threads)
        check_count("max_residents", max_residents, at_least=0)
        check_count("max_payload_bytes", max_payload_bytes)
        check_count("session_pool_size", session_pool_size)
        check_seconds("session_hold_seconds", session_hold_seconds, above=0)
        check_seconds("shutdown_grace_seconds", shutdown_grace_seconds)
        check_seconds("loop_stall_seconds", loop_stall_seconds, at_least=LOOP_STALL_SECONDS_MIN)
        check_seconds("outbox_retention_seconds", outbox_retention_seconds, above=0)
        if retention_seconds is not None:
            check_seconds("retention_seconds", retention_seconds, above=0)
        self.service_name = service_name or "edda"
        self.db_url = db_url
        self.outbox_enabled = outbox_enabled
        self.broker_url = broker_url
        self.hooks = hooks
        self.default_retry_policy = default_retry_policy
        self._workflows = None if workflows is None else {workflow.name: workflow for workflow in workflows}
        self._max_payload_bytes = max_payload_bytes
        self._store_options: dict[str, Any] = {
            "session_pool_size": session_pool_size,
            "session_hold_seconds": session_hold_seconds,
            "session_idle_seconds": max(1, round(lease_seconds)),
            "notifications": notifications,
        }
        self._settings = Settings(
            lease=Lease(service=self.service_name, lease_seconds=lease_seconds, loop_stall_seconds=loop_stall_seconds),
            bounds=Bounds(
                running_max=max_running,
                residents_max=max_residents,
                poll_seconds=poll_seconds,
                shutdown_grace_seconds=shutdown_grace_seconds,
                payload_bytes_max=max_payload_bytes,
            ),
            activities_max=max_activities,
            activity_threads=activity_threads,
            default_retry_policy=default_retry_policy or DEFAULT_RETRY_POLICY,
            retention_us=None if retention_seconds is None else round(retention_seconds * 1_000_000),
        )
        self._tracing_wanted = tracing
        self._tracing: Tracing | None = None
        self._metrics = metrics
        self._authorizer = authorizer
        self._http_options = http
        self._relay_settings = RelaySettings(
            # Twice, because it is not renewed: a call of the sink and the wait for it have to fit in.
            lease_seconds=2 * lease_seconds,
            poll_seconds=poll_seconds,
            retention_seconds=outbox_retention_seconds,
        )
        self._handlers: dict[str, str] = {}
        """Workflows made of handlers, and the type of event that starts each."""
        self._engine: Engine | None = None
        self._relayer: Relayer | None = None
        self._home: tuple[asyncio.AbstractEventLoop, int] | None = None
        self._starting: asyncio.Lock | None = None
        self._closing: asyncio.Task[None] | None = None
        constructed_apps.add(self)

    # -- life --------------------------------------------------------------------------------------------------------

    async def initialize(self) -> None:
        """Connect, bring the tables up to date, and begin to work. Idempotent."""
        if self._closing:
            raise ShuttingDownError(f"{self!r} is shutting down: initialise it again after that")
        loop = asyncio.get_running_loop()
        if self._home is not None:
            self._must_be_home()
        else:
            self._home = (loop, os.getpid())
            self._starting = asyncio.Lock()
        assert self._starting is not None
        async with self._starting:
            if self._engine is not None:
                return
            try:
                sink = self._make_sink()
                self._tracing = self._make_tracing()
                engine = Engine(
                    app=self,
                    store=self._make_store(),
                    settings=self._settings,
                    observer=self.hooks,
                    workflows=self._registered,
                    subscriptions=self._subscriptions,
                    on_outbox=self._hint_relayer,
                    environment=self._make_environment(),
                    tracing=self._tracing,
                    meters=self._metrics,
                )
            except BaseException:
                self._home = None
                raise
            try:
                await engine.begin()
                await self._describe_workflows(engine)
            except BaseException:
                self._home = None
                await engine.stop()
                raise
            self._engine = engine
            if sink is not None:
                self._relayer = self._begin_relaying(engine, sink)
            if self._metrics is not None:
                self._metrics.watch(self, engine)

    async def _describe_workflows(self, engine: Engine) -> None:
        """For people who look from another process: search fields, and texts to draw. Without them no work fails."""
        workflows = tuple(self._registered().values())
        try:
            await engine.store.declare_search_fields(
                {workflow.name: [field.path for field in workflow.search_fields] for workflow in workflows}
            )
        except StorageError as error:
            log.warning("cannot note the search fields of the workflows, so a search looks at fewer: %s", error)
        try:  # in a thread: the first time it imports what reads code
            found = await asyncio.to_thread(lambda: [source_of(workflow) for workflow in workflows])
            if sources := [source for source in found if source is not None]:
                await engine.store.keep_sources(sources)
        except Exception as error:
            log.warning("cannot keep the texts of the workflows, so a viewer cannot draw them: %s", error)

    async def shutdown(self) -> None:
        """Stop taking work, let what runs end within the grace, free the rest for others. Idempotent.

        Whoever calls it meanwhile waits for the same end; a caller that is cancelled does not stop it half-way.
        """
        if self._engine is None:
            return
        self._must_be_home()
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(self._engine), name="edda-shutdown")
        await asyncio.shield(self._closing)

    async def _close(self, engine: Engine) -> None:
        try:
            if self._relayer is not None:
                grace = min(RELAY_GRACE_SECONDS, self._settings.bounds.shutdown_grace_seconds)
                await self._relayer.stop(grace_seconds=grace)
        finally:
            self._relayer = None
            if self._metrics is not None:
                await self._metrics.forget(self)
            await self._stop_engine(engine)

    async def _stop_engine(self, engine: Engine) -> None:
        try:
            await engine.stop()
        finally:
            self._engine = self._home = self._closing = None

    async def __aenter__(self) -> Self:
        await self.initialize()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.shutdown()

    def __del__(self) -> None:
        if getattr(self, "_engine", None) is not None:
            warnings.warn(f"{self!r} was not shut down", ResourceWarning, stacklevel=1)

    def __repr__(self) -> str:
        return f"<EddaApp {self.service_name}>"

    @property
    def _app(self) -> EddaApp:
        return self

    def _make_store(self) -> Store:
        from edda.storage.sql import open_store

        return open_store(self.db_url, **self._store_options)

    def _make_environment(self) -> Environment:
        return Environment()

    def _make_sink(self) -> Sink | None:
        if not self.outbox_enabled:
            return None
        if self.broker_url is None:
            log.warning("outbox_enabled=True without broker_url: events are stored, and nothing here delivers them")
            return None
        return sink_for(self.broker_url)

    def _make_tracing(self) -> Tracing | None:
        """Without being asked only where somebody has set up OpenTelemetry; nothing is imported to find that out."""
        if isinstance(self._tracing_wanted, bool):
            return None
        if self._tracing_wanted is not None:
            return self._tracing_wanted
        if "opentelemetry.trace" not in sys.modules:
            return None
        from edda.otel import OpenTelemetry, is_set_up

        return OpenTelemetry() if is_set_up() else None

    def _current_trace(self) -> str | None:
        return self._tracing.current() if self._tracing is not None else None

    def _begin_relaying(self, engine: Engine, sink: Sink) -> Relayer:
        relayer = Relayer(
            engine.store,
            sink,
            name=lambda: engine.worker_id,
            settings=self._relay_settings,
            steady_us=engine.environment.steady_us,
            random=engine.environment.random,
            tracing=self._tracing,
            meters=self._metrics,
            system=system_of(self.broker_url),
        )
        relayer.begin()
        return relayer

    def _hint_relayer(self) -> None:
        if self._relayer is not None:
            self._relayer.hint()

    def _registered(self) -> Mapping[str, Workflow[..., Any]]:
        return self._workflows if self._workflows is not None else declared_workflows.by_name

    def _must_be_home(self) -> None:
        assert self._home is not None
        loop, pid = self._home
        if pid != os.getpid():
            raise WrongLoopError(
                f"{self!r} was initialised in process {pid}; this is process {os.getpid()}, forked from it. "
                "Initialise the app after the fork."
            )
        if loop is not asyncio.get_running_loop():
            raise WrongLoopError(
                f"{self!r} was initialised in another event loop. Use it there, or `await app.shutdown()` there first."
            )

    async def _ready(self) -> Engine:
        if self._engine is None:
            await self.initialize()
        self._must_be_home()
        assert self._engine is not None
        if self._closing:
            raise ShuttingDownError(f"{self!r} is shutting down: it takes no more calls")
        return self._engine

    @property
    def running(self) -> bool:
        """Initialised, and not shut down."""
        return self._engine is not None

    @property
    def workflow_names(self) -> frozenset[str]:
        """The workflows that it runs."""
        return frozenset(self._registered())

    @property
    def store_in_use(self) -> Store | None:
        """What it runs on, for others that act on the same database in its event loop; None elsewhere, or at rest."""
        if self._engine is None or self._home != (asyncio.get_running_loop(), os.getpid()):
            return None
        return self._engine.store

    @property
    def worker_id(self) -> str:
        """Id of this process's worker; empty before `initialize()`."""
        return self._engine.worker_id if self._engine is not None else ""

    # -- HTTP --------------------------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application: CloudEvents on any path, `POST /cancel/{instance_id}`, `/healthz`, `/readyz`."""
        await self._http(scope, receive, send)

    def lifespan(self, app: object = None) -> AbstractAsyncContextManager[dict[str, Door]]:
        """For the framework that it is mounted in, `FastAPI(lifespan=app.lifespan)`: mounts are told of no lifespan."""
        return self._http.lifespan(app)

    @functools.cached_property
    def _http(self) -> HttpApp:
        from edda.http import HttpApp

        return HttpApp(self, authorizer=self._authorizer, options=self._http_options, tracing=lambda: self._tracing)

    async def check(self) -> bool:
        """Whether it can serve now: initialised, not shutting down, and the database answers."""
        if self._engine is None or self._closing:
            return False
        await self._engine.store.instances([InstanceId("")])
        return True


def _check_name(service_name: object) -> None:
    if service_name is None:
        return
    if not isinstance(service_name, str):
        raise TypeError(f"service_name must be a str, not {service_name!r}; the database is db_url=...")
    if "://" in service_name:
        scheme = service_name.partition("://")[0]  # the rest may hold a password
        raise ValueError(
            f"service_name, the first parameter of EddaApp, is a name, and was given a URL, '{scheme}://...'. "
            f'Name the parameter of the database: EddaApp(db_url="{scheme}://...").'
        )
