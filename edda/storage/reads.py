"""What people and their tools may ask of a database: pages of everything, counts, and who does what.

It must not know SQL, HTTP or what is made of the answers. Laws, for every back end:
- Nothing is written and nothing is locked: the right to SELECT suffices, and a look never hinders a worker.
- Every answer is bounded, and found by an index. Where a question cannot be answered so (text in a reason, the value of
  an argument), the newest `SCANNED_MAX` candidates are looked at, and the answer says that there are more.
- Pages go on behind the last row of the one before, by an opaque token; what is new meanwhile shifts nothing.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeGuard, TypeVar

from edda.core.commit import EventWait, OutboxMessage
from edda.core.event import CloudEvent
from edda.core.history import HistoryEvent, InstanceId, WorkerId
from edda.core.lifecycle import SET_ASIDE, Status
from edda.core.routing import EventKey
from edda.core.tree import is_list, is_object, is_place, member_of
from edda.exceptions import EddaError

T = TypeVar("T")

PAGE_MAX: Final = 200
"""Rows in a page."""
PAGE: Final = 50
SCANNED_MAX: Final = 10_000
"""Candidates that one page may look at."""
PREFIX_MAX: Final = 1_000
"""Ids that begin alike and are sorted by time; beyond that, the newest instances are looked at."""
COUNT_MAX: Final = 100_000
"""Counting ends here, for each pair of workflow and status."""
ENDINGS_MAX: Final = 10_000
"""Instances from which durations are measured."""
WORKFLOWS_MAX: Final = 1_000
"""Names of workflows that are told apart."""
LEASED: Final = "leased"
"""To ask for those pending messages that a relayer has in its hands."""
SMALLEST_PLAIN: Final = 1e-3
LARGEST_PLAIN: Final = 1e15
"""Between them every encoder of JSON writes a number without an exponent."""


class PageTokenError(EddaError):
    """This page token is not one that was given out for such a list. Begin again without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """Some rows, and where to go on. `scanned_all`: nothing was left out because looking had to end somewhere."""

    rows: tuple[T, ...]
    next_page: str | None = None
    """None: these were the last. With `scanned_all` False there may be more even where this page is empty."""
    scanned_all: bool = True


# -- instances --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceFilter:
    """Which instances: all that is given must hold. Times are microseconds; `from` is inclusive, `before` is not."""

    statuses: frozenset[Status] = frozenset()
    """One of these; empty: any."""
    workflows: frozenset[str] = frozenset()
    """One of these; empty: any."""
    id_prefix: str = ""
    """The whole id, or how it begins."""
    parent_id: str = ""
    created_from_us: int | None = None
    created_before_us: int | None = None
    updated_from_us: int | None = None
    updated_before_us: int | None = None
    text: str = ""
    """In the reason or in the error, whether in capitals or not (ASCII)."""
    argument: tuple[str, Any] | None = None
    """Path and value, such as `("order.id", "ORD-1")`: a recorded argument, found by the names of parameters, keys of
    objects and numbers of elements. A path that begins with a number is an argument passed by position. Where the
    workflow declares it as a search field, it is found by an index."""

    @classmethod
    def set_aside(cls, **more: Any) -> InstanceFilter:
        """Those that will not run by themselves."""
        return cls(statuses=SET_ASIDE, **more)

    def is_scanning(self) -> bool:
        """Whether rows have to be looked at that an index alone does not tell."""
        return bool(self.text or self.argument or self.updated_from_us or self.updated_before_us)


class InstanceSummary(NamedTuple):
    """An instance in a list: everything short."""

    id: InstanceId
    workflow: str
    status: Status
    reason: str
    owner: WorkerId | None
    claimable_at_us: int | None
    cancel_requested_at_us: int | None
    crashes: int
    parent_id: InstanceId | None
    created_at_us: int
    updated_at_us: int
    ended_at_us: int | None


@dataclass(frozen=True, slots=True)
class InstanceCount:
    """How many instances of a workflow have a status."""

    workflow: str
    status: Status
    count: int
    capped: bool
    """There are at least so many: counting ended there."""


class Source(NamedTuple):
    """The text of a workflow, as it was when a process first began with it."""

    workflow: str
    source_hash: str
    text: str


class HistoryPage(NamedTuple):
    """History from `seq` on."""

    rows: tuple[HistoryEvent, ...]
    next_seq: int | None
    """None: there is no more yet."""


class Wait(NamedTuple):
    """An instance that waits for an event."""

    instance_id: InstanceId
    wait: EventWait


# -- workers ----------------------------------------------------------------------------------------------------------


class WorkerView(NamedTuple):
    """A worker process."""

    id: WorkerId
    service: str
    alive: bool
    """Nobody has declared it dead."""
    present: bool | None
    """It holds its session lock; None: nothing is known of that here."""
    lease_until_us: int
    started_at_us: int
    held: int
    """Instances that belong to it."""
    workflows: tuple[str, ...] | None
    """What it runs, as it said itself; None: it has not said so (yet, or its edda is older)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """The alive ones first, then the latest dead."""

    now_us: int
    rows: tuple[WorkerView, ...]

    def of_whom_are_present(self, present: Collection[WorkerId]) -> Workers:
        return replace(self, rows=tuple(row._replace(present=row.id in present) for row in self.rows))


class Backlog(NamedTuple):
    """What could be claimed now, and is not."""

    workflow: str
    claimable: int
    capped: bool
    oldest_us: int
    """Since when the first of them has waited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlogs:
    now_us: int
    rows: tuple[Backlog, ...]


# -- events and outbox ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events of the inbox."""

    type: str = ""
    source: str = ""
    id: str = ""
    target: str = ""
    """Addressed to this instance."""
    unrouted: bool = False
    """Only those that have not been led to all who wait."""


class EventView(NamedTuple):
    """An event in the inbox."""

    key: EventKey
    accepted_at_us: int
    event: CloudEvent
    routed: bool


class Handler(NamedTuple):
    """Events of a type start instances of a workflow, as long as some process says so."""

    type: str
    workflow: str
    until_us: int


class OutboxView(NamedTuple):
    """A message in the outbox."""

    message: OutboxMessage
    status: str
    attempts: int
    due_at_us: int
    """Pending: not before that (a lease, a back-off). Otherwise: when it was delivered or died."""
    relayer: str | None
    """Who has the lease."""
    reason: str | None
    """Why the last delivery failed."""


@dataclass(frozen=True, slots=True)
class OutboxCount:
    status: str
    count: int
    capped: bool


# -- how it goes ------------------------------------------------------------------------------------------------------


class Ending(NamedTuple):
    """When an instance began, and when and how it ended, if it did."""

    status: Status
    created_at_us: int
    ended_at_us: int | None


class Bucket(NamedTuple):
    """What happened from `from_us` on, for the length of a bucket."""

    from_us: int
    started: int
    completed: int
    failed: int
    """Failed, or could not be undone."""
    cancelled: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How instances of one workflow went of late."""

    buckets: tuple[Bucket, ...]
    ended: int
    """How many of them durations were measured from."""
    p50_us: int | None
    p95_us: int | None
    p99_us: int | None
    whole: bool
    """False: more began in that time than were looked at, so the earlier buckets lack some."""


class Reads(Protocol):
    """Part of `Store`. `limit` is at most `PAGE_MAX`; a `page` is the `next_page` of the page before."""

    async def clock(self) -> int:
        """The time on the database's clock."""
        ...

    async def schema_version(self) -> int:
        """The newest migration that was applied."""
        ...

    async def instance_page(
        self, which: InstanceFilter | None = None, *, limit: int = PAGE, page: str | None = None
    ) -> Page[InstanceSummary]:
        """Newest first. Raises `PageTokenError`."""
        ...

    async def instance_counts(self) -> tuple[InstanceCount, ...]:
        """For each workflow and status that there are, by workflow. Counting ends at `COUNT_MAX` of a kind."""
        ...

    async def history_page(
        self, instance_id: InstanceId, *, from_seq: int = 1, limit: int = PAGE_MAX, latest: bool = False
    ) -> HistoryPage:
        """By `seq`. `latest`: the last `limit` rows instead, by `seq` too."""
        ...

    async def errors(self, ids: Sequence[InstanceId]) -> Mapping[InstanceId, str]:
        """How those of these instances failed that have an error, as it is stored."""
        ...

    async def has_result(self, instance_id: InstanceId, output: str) -> bool:
        """Whether a row of its history has exactly this output."""
        ...

    async def waits_of(self, instance_id: InstanceId) -> tuple[EventWait, ...]:
        """What it waits for, by call; at most `PAGE_MAX`."""
        ...

    async def wait_page(self, *, type: str = "", limit: int = PAGE, page: str | None = None) -> Page[Wait]:
        """Who waits for events (of this type), by instance."""
        ...

    async def event_page(
        self, which: EventFilter | None = None, *, limit: int = PAGE, page: str | None = None
    ) -> Page[EventView]:
        """Events in the inbox, newest first."""
        ...

    async def source(self, workflow: str, source_hash: str = "") -> Source | None:
        """The text that an instance was started with; where that is not known, the newest of this workflow."""
        ...

    async def handlers(self) -> tuple[Handler, ...]:
        """Which workflows events start; at most `WORKFLOWS_MAX`."""
        ...

    async def outbox_page(
        self, *, status: str, instance_id: str = "", type: str = "", limit: int = PAGE, page: str | None = None
    ) -> Page[OutboxView]:
        """Messages with this status: pending ones by when they are due, others by when that was settled, latest first.

        `LEASED`: pending, and in the hands of a relayer. With an instance: all of its messages in their order, whatever
        their status.
        """
        ...

    async def outbox_counts(self) -> tuple[OutboxCount, ...]:
        """By status. Counting ends at `COUNT_MAX`."""
        ...

    async def worker_views(self, *, limit: int = PAGE_MAX) -> Workers:
        """Who runs, or ran, instances."""
        ...

    async def backlogs(self) -> Backlogs:
        """By workflow: what is claimable now, up to `SCANNED_MAX` each. A workflow without any is not in it."""
        ...

    async def endings(self, workflow: str, *, limit: int = ENDINGS_MAX) -> tuple[Ending, ...]:
        """The newest instances of a workflow, newest first."""
        ...


class Reader(Reads, Protocol):
    """A database that is only looked at."""

    async def open(self) -> None:
        """Connect. Raises `SchemaError` where the tables are missing or older than this code; changes nothing."""
        ...

    async def close(self) -> None: ...

    async def instances(self, ids: Sequence[InstanceId]) -> Any: ...

    async def instance(self, instance_id: InstanceId) -> Any: ...

    async def histories(self, ids: Sequence[InstanceId]) -> Any: ...


# -- page tokens ------------------------------------------------------------------------------------------------------


def token_of(*place: int | str) -> str:
    """The token of a place in a list."""
    return base64.urlsafe_b64encode(json.dumps(place, separators=(",", ":")).encode()).decode().rstrip("=")


def place_of(token: str, *kinds: type[int] | type[str]) -> tuple[Any, ...]:
    """The place that a token stands for: values of these kinds. Raises `PageTokenError`."""
    try:
        found: Any = json.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
    except (ValueError, RecursionError):
        raise PageTokenError from None
    place = found if is_list(found) else []
    if [type(value) for value in place] != list(kinds):
        raise PageTokenError
    if any(isinstance(value, int) and abs(value) >= 1 << 63 for value in place):
        raise PageTokenError
    return tuple(place)


# -- arguments --------------------------------------------------------------------------------------------------------


def needle_of(value: Any) -> str:
    """Text that stands in the recorded arguments wherever this value does; empty where no text does."""
    if _is_number(value) and value and not SMALLEST_PLAIN <= abs(value) < LARGEST_PLAIN:
        return ""  # 1e16, 1e+16 and 10000000000000000 are one value, and so are 1e-7 and 1e-07
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if _is_storable(text) else json.dumps(value, separators=(",", ":"))


def _is_storable(text: str) -> bool:
    """Half a character is not: databases take UTF-8."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def has_argument(recorded: str, path: str, wanted: Any) -> bool:
    """Whether recorded arguments have this value there."""
    try:
        tree: Any = json.loads(recorded)
    except (ValueError, RecursionError):
        return False
    if not is_object(tree):
        return False
    first, *others = path.split(".")
    found = member_of(tree, "args" if is_place(first) else "kwargs")
    for name in (first, *others):
        found = member_of(found, name)
    return type(found) is not dict and type(found) is not list and _is_equal(found, wanted)


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_equal(found: Any, wanted: Any) -> bool:
    """`1` and `1.0` are equal, `1` and `True` are not."""
    return isinstance(found, bool) is isinstance(wanted, bool) and bool(found == wanted)


# -- pace -------------------------------------------------------------------------------------------------------------


def pace_of(endings: Sequence[Ending], *, from_us: int, until_us: int, bucket_us: int, whole: bool) -> Pace:
    """Buckets from `from_us` to `until_us`, and percentiles of the durations of all that ended.

    `whole`: these are all instances that began since `from_us`.
    """
    count = max(1, -(-(until_us - from_us) // bucket_us))
    tallies = [[0, 0, 0, 0] for _ in range(count)]

    def add(at_us: int | None, column: int) -> None:
        if at_us is not None and from_us <= at_us < from_us + count * bucket_us:
            tallies[(at_us - from_us) // bucket_us][column] += 1

    for ending in endings:
        add(ending.created_at_us, 0)
        add(ending.ended_at_us, _COLUMN.get(ending.status, 2))
    durations = sorted(end.ended_at_us - end.created_at_us for end in endings if end.ended_at_us is not None)
    return Pace(
        buckets=tuple(Bucket(from_us + place * bucket_us, *tally) for place, tally in enumerate(tallies)),
        ended=len(durations),
        p50_us=percentile(durations, 50),
        p95_us=percentile(durations, 95),
        p99_us=percentile(durations, 99),
        whole=whole,
    )


_COLUMN: Final = {Status.COMPLETED: 1, Status.FAILED: 2, Status.COMPENSATION_FAILED: 2, Status.CANCELLED: 3}


def percentile(ordered: Sequence[int], percent: int) -> int | None:
    """The smallest value that so many per cent do not exceed; None where there is none."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)] if ordered else None
