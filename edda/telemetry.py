"""What the house needs of those who watch it: `Tracing` makes spans, `Meters` counts. `edda.otel` and `edda.metrics`
implement them; with neither, nothing is made and nothing is asked.

Laws: they are called from the event loop, in the middle of the work, so they are quick, wait for nothing and never
raise; and they change nothing. A trace context is text (`core.trace`), because it is stored and sent. No value of the
user's (arguments, results, data of events, texts of errors) is handed over but for the errors themselves, of which
only the type may be told without being asked for more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceFacts:
    """One stay of an instance with a worker: from its claim to its park or end."""

    instance_id: str
    workflow: str
    worker: str
    claim: int
    replayed: int
    """Rows of history that were there; 0 where the body stayed in memory, or is entered for the first time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFacts:
    """One attempt of an activity or compensation."""

    instance_id: str
    workflow: str
    worker: str
    claim: int
    activity: str
    activity_id: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFacts:
    """What may be told of an event."""

    id: str
    source: str
    type: str
    subject: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """What one process does at a moment."""

    running: int = 0
    """Instances that it holds: running, or waiting for something that comes soon."""
    resident: int = 0
    """Parked instances whose bodies it keeps in memory."""
    attempts_running: int = 0
    attempts_waiting: int = 0
    """Attempts for which there is no place yet (`max_activities`)."""
    commits_waiting: int = 0
    workers: int = 0
    """1: it is registered as a worker."""
    lease_seconds: float = 0.0
    """What is left of its lease, by its own clock."""


class Span(Protocol):
    """A piece of work that is being traced."""

    @property
    def trace(self) -> str | None:
        """Its trace context, for what it causes."""
        ...

    def enter(self) -> None:
        """From here on, in this context of a task or thread, what is traced is a part of it."""
        ...

    def received(self, trace: str, event: EventFacts) -> None:
        """An event arrived here that was made somewhere else."""
        ...

    def end(self, outcome: str, error: BaseException | None = None) -> None:
        """`outcome` is a word of ours, such as `parked` or `failed`."""
        ...


class Tracing(Protocol):
    """Makes spans."""

    def current(self) -> str | None:
        """The trace context of the code that runs now."""
        ...

    def slice(self, facts: SliceFacts, *, parent: str | None, follows: str | None) -> Span:
        """`parent`: what started the instance; `follows`: the slice before this one."""
        ...

    def attempt(self, facts: AttemptFacts, *, parent: str | None) -> Span: ...

    def delivery(self, event: EventFacts, *, system: str, attempt: int, parent: str | None) -> Span:
        """An event is handed to a sink. `parent`: what sent it."""
        ...


class Meters(Protocol):
    """Counts. Whatever comes from outside without bound (types of events, ids) is not handed over."""

    def instance_started(self, workflow: str) -> None:
        """Its body was entered for the first time, durably."""
        ...

    def instance_ended(self, workflow: str, status: str, *, seconds: float) -> None:
        """It ended or was set aside, durably. `seconds` since it was created."""
        ...

    def slice_ended(self, workflow: str, outcome: str, *, seconds: float) -> None: ...

    def claimed(self, workflow: str, *, lag_seconds: float) -> None:
        """A worker took up an instance that could have been taken up for so long."""
        ...

    def attempt_ended(self, activity: str, outcome: str, *, seconds: float) -> None: ...

    def batch_written(self, *, commits: int, seconds: float) -> None: ...

    def worker_lost(self, *, freed: int, crashed_out: int) -> None:
        """Another worker was declared dead by this one. `crashed_out`: of its instances, those that are set aside
        because too many workers died with them."""
        ...

    def events_accepted(self, receipt: str, count: int) -> None: ...

    def events_routed(self, count: int) -> None: ...

    def delivery_ended(self, outcome: str, *, seconds: float) -> None: ...
