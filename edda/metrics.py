"""Prometheus metrics of an app: `EddaApp(metrics=Metrics())`, scraped at `metrics.asgi` or wherever the registry goes.

Counters and histograms are counted where the work is done, once it is durable. Gauges of this process are read when
they are scraped; how the outbox is, which is the same for every process on a database, is asked for now and then (show
the maximum over processes, not their sum).

Laws: the number of time series is bounded. Labels are names out of the user's code, at most `names_max` of each kind
(the rest is `other`), and words of ours; nothing that comes from outside is a label.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from edda.careful_log import CarefulLogger
from edda.core.event import Receipt
from edda.core.lifecycle import ENDED, SET_ASIDE
from edda.exceptions import MissingExtraError
from edda.storage.outbox import OutboxState
from edda.telemetry import Gauges

try:
    import prometheus_client
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.registry import Collector
except ImportError as error:
    raise MissingExtraError(what="Counting", package="prometheus-client", extra="prometheus") from error

log = CarefulLogger("edda.metrics")

QUICK_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""For what the database and the claimer do."""
WORK_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""For activities, slices and deliveries."""
LIFE_SECONDS: Final = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800, 3600, 21600, 86400, 604800)
"""For whole instances, which may wait for weeks."""
BATCH_COMMITS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
OTHER: Final = "other"

_STATUSES: Final = tuple(sorted(status.value for status in ENDED | SET_ASIDE))
_ATTEMPTS: Final = ("completed", "failed", "interrupted")
_DELIVERIES: Final = ("delivered", "retried", "rejected", "cut_off")


def _word(receipt: str) -> str:
    return receipt.replace(" ", "_")


_RECEIPTS: Final = tuple(_word(receipt.value) for receipt in Receipt)


class Source(Protocol):
    """An engine, as the gauges see it."""

    def gauges(self) -> Gauges: ...

    async def outbox_state(self) -> OutboxState: ...


class Metrics:
    """What an app counts. One is enough for all apps of a process; the registry must not have another one."""

    def __init__(
        self, registry: CollectorRegistry = REGISTRY, *, refresh_seconds: float = 10.0, names_max: int = 200
    ) -> None:
        """`refresh_seconds`: how often to ask how the outbox is."""
        self.registry = registry
        self._refresh_seconds = refresh_seconds
        self._workflows = Names(names_max)
        self._activities = Names(names_max)
        self._watched: dict[int, Watched] = {}

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"edda_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"edda_{name}", text, labels, buckets=buckets, registry=registry)

        self._started = counter("instances_started", "Workflow instances entered for the first time", "workflow")
        self._ended = counter("instances_ended", "Instances that ended or were set aside", "workflow", "status")
        self._life = histogram(
            "instance_duration_seconds", "From the creation of an instance to its end", LIFE_SECONDS, "workflow"
        )
        self._slices = counter("slices", "Stays of instances with this worker", "workflow", "outcome")
        self._slice_seconds = histogram("slice_duration_seconds", "From claim to park or end", WORK_SECONDS, "workflow")
        self._lag = histogram(
            "claim_lag_seconds", "From when an instance could have been claimed to its claim", QUICK_SECONDS, "workflow"
        )
        self._attempts = counter("activity_attempts", "Attempts of activities", "activity", "outcome")
        self._attempt_seconds = histogram(
            "activity_attempt_duration_seconds", "One attempt of an activity", WORK_SECONDS, "activity"
        )
        self._batch_commits = histogram("commit_batch_commits", "Commits in one transaction", BATCH_COMMITS)
        self._batch_seconds = histogram("commit_batch_duration_seconds", "One transaction of commits", QUICK_SECONDS)
        self._lost = counter("workers_lost", "Other workers that this one declared dead")
        self._freed = counter("instances_freed", "Instances of dead workers that went on")
        self._crashed_out = counter("instances_crashed_out", "Instances set aside: too many workers died with them")
        self._accepted = counter("events_accepted", "Events that were handed in", "receipt")
        self._routed = counter("events_routed", "Events that were led to whoever waited")
        self._deliveries = counter("outbox_deliveries", "Deliveries from the outbox", "outcome")
        self._delivery_seconds = histogram("outbox_delivery_duration_seconds", "One call of a sink", WORK_SECONDS)
        registry.register(_Gauges(self))
        for word in _RECEIPTS:
            self._accepted.labels(word)
        for word in _DELIVERIES:
            self._deliveries.labels(word)

    @property
    def asgi(self) -> Exposition:
        """An ASGI application, for `Route("/metrics", metrics.asgi)` or `app.mount("/metrics", metrics.asgi)`."""
        return Exposition(self.registry)

    # -- Meters ------------------------------------------------------------------------------------------------------

    def instance_started(self, workflow: str) -> None:
        self._started.labels(self._workflow(workflow)).inc()

    def instance_ended(self, workflow: str, status: str, *, seconds: float) -> None:
        name = self._workflow(workflow)
        self._ended.labels(name, status).inc()
        self._life.labels(name).observe(seconds)

    def slice_ended(self, workflow: str, outcome: str, *, seconds: float) -> None:
        name = self._workflow(workflow)
        self._slices.labels(name, outcome).inc()
        self._slice_seconds.labels(name).observe(seconds)

    def claimed(self, workflow: str, *, lag_seconds: float) -> None:
        self._lag.labels(self._workflow(workflow)).observe(lag_seconds)

    def attempt_ended(self, activity: str, outcome: str, *, seconds: float) -> None:
        name = self._activity(activity)
        self._attempts.labels(name, outcome).inc()
        self._attempt_seconds.labels(name).observe(seconds)

    def batch_written(self, *, commits: int, seconds: float) -> None:
        self._batch_commits.observe(commits)
        self._batch_seconds.observe(seconds)

    def worker_lost(self, *, freed: int, crashed_out: int) -> None:
        self._lost.inc()
        self._freed.inc(freed)
        self._crashed_out.inc(crashed_out)

    def events_accepted(self, receipt: str, count: int) -> None:
        self._accepted.labels(_word(receipt)).inc(count)

    def events_routed(self, count: int) -> None:
        self._routed.inc(count)

    def delivery_ended(self, outcome: str, *, seconds: float) -> None:
        self._deliveries.labels(outcome).inc()
        self._delivery_seconds.observe(seconds)

    def _workflow(self, name: str) -> str:
        """With its counters at 0: from nothing to 1 is no increase that Prometheus would see."""
        if name not in self._workflows:
            name = self._workflows.bounded(name)
            for status in _STATUSES:
                self._ended.labels(name, status)
        return name

    def _activity(self, name: str) -> str:
        if name not in self._activities:
            name = self._activities.bounded(name)
            for outcome in _ATTEMPTS:
                self._attempts.labels(name, outcome)
        return name

    # -- gauges ------------------------------------------------------------------------------------------------------

    def watch(self, owner: object, source: Source) -> None:
        """From now on the gauges tell of it, too. Ended by `forget`."""
        watched = self._watched[id(owner)] = Watched(source)
        watched.task = asyncio.get_running_loop().create_task(self._refresh(watched), name="edda-metrics")

    async def forget(self, owner: object) -> None:
        watched = self._watched.pop(id(owner), None)
        if watched is not None and watched.task is not None:
            watched.task.cancel()
            await asyncio.wait({watched.task})

    async def _refresh(self, watched: Watched) -> None:
        while True:
            try:
                watched.outbox = await watched.source.outbox_state()
            except Exception as error:
                watched.outbox = None  # no number rather than an old one
                log.warning("cannot ask how the outbox is: %s", error)
            await asyncio.sleep(self._refresh_seconds)

    @property
    def watched(self) -> list[Watched]:
        return list(self._watched.values())


class Exposition:
    """What Prometheus reads, as an ASGI application. An object and not a function, which routers take for a handler."""

    def __init__(self, registry: CollectorRegistry) -> None:
        app = prometheus_client.make_asgi_app(registry)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        self._app: Callable[[Any, Any, Any], Awaitable[None]] = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)


@dataclass(slots=True, eq=False)
class Watched:
    """One engine, and what was heard of its outbox last."""

    source: Source
    outbox: OutboxState | None = None
    task: asyncio.Task[None] | None = None


class Names:
    """The first names that come, up to a limit."""

    def __init__(self, names_max: int) -> None:
        self._names_max = names_max
        self._known: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def bounded(self, name: str) -> str:
        if name in self._known:
            return name
        if len(self._known) >= self._names_max:
            return OTHER
        self._known.add(name)
        return name


_OF_PROCESS: Final[dict[str, tuple[str, Callable[[Gauges], float]]]] = {
    "instances_running": ("Instances that this worker holds", lambda now: now.running),
    "instances_resident": ("Parked instances whose bodies are in memory", lambda now: now.resident),
    "activity_attempts_running": ("Attempts of activities under way", lambda now: now.attempts_running),
    "activity_attempts_waiting": ("Attempts that wait for a place", lambda now: now.attempts_waiting),
    "commits_waiting": ("Commits that wait for the transaction before them", lambda now: now.commits_waiting),
    "workers": ("Workers of this process that are registered in the database", lambda now: now.workers),
    "worker_lease_remaining_seconds": ("What is left of the worker's lease", lambda now: now.lease_seconds),
}
_OF_OUTBOX: Final[dict[str, tuple[str, Callable[[OutboxState], float]]]] = {
    "outbox_pending_messages": ("Messages to be delivered, counted up to 10,000", lambda now: now.pending),
    "outbox_dead_messages": ("Dead letters, counted up to 10,000", lambda now: now.dead),
    "outbox_oldest_pending_age_seconds": (
        "Age of the oldest message to be delivered; 0 without any",
        lambda now: 0.0 if now.oldest_at_us is None else max(now.now_us - now.oldest_at_us, 0) / 1_000_000,
    ),
}


class _Gauges(Collector):
    """What is read when it is scraped, from any thread."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[GaugeMetricFamily]:
        watched = self._metrics.watched
        gauges = [one.source.gauges() for one in watched]
        for name, (text, of_process) in _OF_PROCESS.items():
            yield GaugeMetricFamily(f"edda_{name}", text, value=sum(map(of_process, gauges)))
        states = [one.outbox for one in watched if one.outbox is not None]
        for name, (text, of_outbox) in _OF_OUTBOX.items():
            family = GaugeMetricFamily(f"edda_{name}", text)
            if states:
                family.add_metric([], max(map(of_outbox, states)))
            yield family

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Without asking anybody: registering must not."""
        for name, (text, _) in (*_OF_PROCESS.items(), *_OF_OUTBOX.items()):
            yield GaugeMetricFamily(f"edda_{name}", text)
