"""Between the engine and those who watch it: what is told of slices and attempts, and where trace contexts are kept.

An engine that nobody watches has none of this. The context of a slice is written into the `meta` of the first row of
history that the slice writes: so whoever takes the instance up next, in whatever process and after whatever crash,
knows what it follows. That of the start is a column of the instance. A slice that wrote nothing leaves no trace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from edda.core.commit import Commit, End
from edda.core.event import CloudEvent
from edda.core.history import HistoryEvent, Kind
from edda.core.trace import trace_of
from edda.engine.attempts import Client, Order, Outcome
from edda.engine.draft import META
from edda.storage.port import InstanceRow
from edda.telemetry import AttemptFacts, EventFacts, Meters, SliceFacts, Span, Tracing

TRACE: Final = "trace"
"""In the `meta` of a row: the context of the slice that wrote it."""


class Telemetry:
    """Of one engine."""

    def __init__(self, tracing: Tracing | None, meters: Meters | None, *, steady_us: Callable[[], int]) -> None:
        self.tracing = tracing
        self.meters = meters
        self.steady_us = steady_us

    def slice(
        self, row: InstanceRow, history: Sequence[HistoryEvent], *, worker: str, before: Slice | None = None
    ) -> Slice:
        """`before`: the slice that parked it, where its body stayed in memory."""
        if before is not None:
            root, follows, replayed = before.root, before.trace or before.follows, 0
        else:
            root, follows, replayed = row.trace or _first_trace(history), _last_trace(history), len(history)
        return Slice(self, row, worker=worker, root=root, follows=follows, replayed=replayed)

    def attempt(self, client: Client, order: Order, *, worker: str) -> RunningAttempt:
        """To be called in the context of the attempt."""
        return RunningAttempt(self, client, order, worker=worker)

    def seconds_since(self, began_us: int) -> float:
        return (self.steady_us() - began_us) / 1_000_000


class Slice:
    """One stay of an instance with this worker."""

    __slots__ = ("_began_us", "_row", "_stamped", "_telemetry", "follows", "root", "span", "trace")

    def __init__(
        self,
        telemetry: Telemetry,
        row: InstanceRow,
        *,
        worker: str,
        root: str | None,
        follows: str | None,
        replayed: int,
    ) -> None:
        self._telemetry = telemetry
        self._row = row
        self._began_us = telemetry.steady_us()
        self._stamped = False
        self.follows = follows
        self.span: Span | None = None
        if telemetry.tracing is not None:
            facts = SliceFacts(
                instance_id=row.id, workflow=row.workflow, worker=worker, claim=row.claim, replayed=replayed
            )
            self.span = telemetry.tracing.slice(facts, parent=root, follows=follows)
        self.trace = self.span.trace if self.span is not None else None
        self.root = root or self.trace

    def stamp(self, commit: Commit) -> Commit:
        """The same, with the trace context in its first row, until one that has it is durable."""
        if self._stamped or self.trace is None or not commit.records:
            return commit
        first = commit.records[0]
        stamped = first._replace(meta=META.encode(first.details() | {TRACE: self.trace}))
        return commit._replace(records=(stamped, *commit.records[1:]))

    def written(self, commit: Commit) -> None:
        """This commit is durable."""
        if not commit.records:
            return
        self._stamped = True
        meters = self._telemetry.meters
        if meters is not None and commit.records[0].kind == Kind.WORKFLOW_STARTED:
            meters.instance_started(self._row.workflow)

    def received(self, event: CloudEvent) -> None:
        """The body got an event."""
        if self.span is not None and (trace := trace_of(event.extensions)) is not None:
            facts = EventFacts(id=event.id, source=event.source, type=event.type, subject=event.subject)
            self.span.received(trace, facts)

    def parked(self) -> None:
        self._over("parked", None)

    def dropped(self) -> None:
        """The claim is lost, or was given up: the instance goes on elsewhere."""
        self._over("dropped", None)

    def ended(self, end: End, error: BaseException | None, *, now_us: int) -> None:
        if self._telemetry.meters is not None:
            seconds = max(now_us - self._row.created_at_us, 0) / 1_000_000
            self._telemetry.meters.instance_ended(self._row.workflow, end.status.value, seconds=seconds)
        self._over(end.status.value, error)

    def _over(self, outcome: str, error: BaseException | None) -> None:
        telemetry = self._telemetry
        if telemetry.meters is not None:
            seconds = telemetry.seconds_since(self._began_us)
            telemetry.meters.slice_ended(self._row.workflow, outcome, seconds=seconds)
        if self.span is not None:
            self.span.end(outcome, error)


class RunningAttempt:
    """One attempt that is being watched."""

    __slots__ = ("_began_us", "_name", "_telemetry", "span")

    def __init__(self, telemetry: Telemetry, client: Client, order: Order, *, worker: str) -> None:
        self._telemetry = telemetry
        self._name = order.code.name
        self._began_us = telemetry.steady_us()
        self.span: Span | None = None
        if telemetry.tracing is not None:
            facts = AttemptFacts(
                instance_id=client.instance_id,
                workflow=client.workflow_name,
                worker=worker,
                claim=client.claim,
                activity=order.code.name,
                activity_id=order.call_id,
                attempt=order.number,
            )
            self.span = telemetry.tracing.attempt(facts, parent=client.trace)

    def enter(self) -> None:
        """What the code traces is a part of the attempt."""
        if self.span is not None:
            self.span.enter()

    def ended(self, outcome: Outcome) -> None:
        word = "failed" if outcome.error is not None else "interrupted" if outcome.interrupted else "completed"
        telemetry = self._telemetry
        if telemetry.meters is not None:
            telemetry.meters.attempt_ended(self._name, word, seconds=telemetry.seconds_since(self._began_us))
        if self.span is not None:
            self.span.end(word, outcome.error)


def _last_trace(history: Sequence[HistoryEvent]) -> str | None:
    return next((trace for event in reversed(history) if (trace := _trace_in(event)) is not None), None)


def _first_trace(history: Sequence[HistoryEvent]) -> str | None:
    return next((trace for event in history if (trace := _trace_in(event)) is not None), None)


def _trace_in(event: HistoryEvent) -> str | None:
    if event.meta is None or '"trace"' not in event.meta:
        return None
    trace = event.details().get(TRACE)
    return trace if isinstance(trace, str) else None
