"""InMemoryApp: an EddaApp on SQLite in memory, whose time passes at will and whose process can be killed.

Time stands in for itself while anything happens, and leaps only where a test waits: for a result, or by `advance`.
So a time-out of hours is over at once, but never before what is under way has ended. A crash drops the whole engine and
all it remembers; the database lives on, and a new engine takes over. Laws:
- A leap is made only when nothing is under way, and only to the next moment at which something is due.
- What the test itself asked for is asked again after a crash, under the same id, as a client would.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from uuid import UUID

from edda.app import EddaApp
from edda.context import NewEvent, utc_us
from edda.core.event import CloudEvent, Receipt
from edda.core.history import InstanceId
from edda.core.lifecycle import SET_ASIDE, Status
from edda.engine.codec import decode_error, encode_event_data
from edda.engine.engine import Engine
from edda.engine.environment import Environment
from edda.engine.event_draft import EventDraft
from edda.events import ReceivedEvent
from edda.exceptions import EddaError, InstanceNotFoundError
from edda.outbox.relayer import Relayer, RelaySettings
from edda.outbox.sink import Sink
from edda.retry import RetryPolicy
from edda.storage.port import InstanceRow, Store
from edda.testing.clock import VirtualClock
from edda.testing.mortal_store import CrashPlan, Life, MortalStore, When
from edda.testing.sent import SentEvents
from edda.workflow import StartOptions, Workflow, WorkflowHandle

if TYPE_CHECKING:
    from sqlalchemy import MetaData

    from edda.storage.sql.sqlite_database import SqliteDatabase
    from edda.storage.sql.store import SqlStore

T = TypeVar("T")

BEYOND_ALL_LEAPS_SECONDS: Final = 1e9
"""Leases that no leap of time ends (30 years): here it is not time that tells who is dead."""

STILL_PASSES: Final = 12
"""So many turns of the event loop without anything under way: the longest chain of callbacks between two calls of the
database has fewer."""

LOOK_AGAIN_SECONDS: Final = 0.001

PATIENCE_SECONDS: Final = 1.0
"""Of real time: how long to wait for an activity that runs, or for a test that has something else to do."""

PAGE: Final = 500

_MAY_BE_DUE: Final = (Status.RUNNING, Status.WAITING_FOR_TIMER, Status.WAITING_FOR_EVENT, Status.COMPENSATING)


class InstanceStuckError(EddaError):
    """A result is waited for that will not come by itself: nothing is under way, and nothing will ever be due."""

    retryable = False

    def __init__(self, message: str | None = None, *, instance_id: str = "") -> None:
        super().__init__(message)
        self.instance_id = instance_id


class InMemoryApp(EddaApp):
    """For tests: `async with InMemoryApp() as app:`. What it stores is gone when it is shut down.

    Args:
        workflows: What it runs; default: every workflow that has been imported.
        like: Your own app, of which the workflows, event handlers, hooks, retry policy and HTTP options are taken.
        start_at: The time that its clock shows first; naive means UTC. Default: now.
        replay_always: Unload every workflow function at every wait, so that each wait is also a replay: a function
            that cannot be replayed fails here. False is as fast as production.
        broker: Events go to the outside, as with a broker, and from there into `sent`.
        hooks, default_retry_policy, max_payload_bytes: As in `EddaApp`.
    """

    def __init__(
        self,
        *,
        workflows: Iterable[Workflow[..., Any]] | None = None,
        like: EddaApp | None = None,
        start_at: datetime | None = None,
        replay_always: bool = True,
        broker: bool = False,
        hooks: object | None = None,
        default_retry_policy: RetryPolicy | None = None,
        max_payload_bytes: int = 1 << 20,
    ) -> None:
        super().__init__(
            "in-memory",
            "sqlite://",
            broker_url="in-memory://" if broker else None,
            hooks=hooks,
            default_retry_policy=default_retry_policy,
            workflows=workflows,
            lease_seconds=BEYOND_ALL_LEAPS_SECONDS,
            loop_stall_seconds=BEYOND_ALL_LEAPS_SECONDS,
            shutdown_grace_seconds=0.0,
            max_payload_bytes=max_payload_bytes,
        )
        self._relay_settings = RelaySettings(lease_seconds=3.0, poll_seconds=0.1)
        self._replay_always = replay_always
        self.clock = VirtualClock(start_at)
        self._sent = SentEvents()
        self._store: Store | None = None
        self._life = Life(self._died)
        self._relaying = Life(lambda: None)
        self._rebirth: asyncio.Task[None] | None = None
        self._crashes = 0
        self._last_words = ""
        if like is not None:
            self._take_after(like, hooks=hooks, workflows=workflows, default_retry_policy=default_retry_policy)

    def _take_after(
        self, app: EddaApp, *, hooks: object | None, workflows: object | None, default_retry_policy: object | None
    ) -> None:
        """What is said here counts more than what the other has."""
        self._handlers = dict(app._handlers)
        self._authorizer, self._http_options = app._authorizer, app._http_options
        if hooks is None:
            self.hooks = app.hooks
        if workflows is None and app._workflows is not None:
            self._workflows = dict(app._workflows)
        if default_retry_policy is None:
            self.default_retry_policy = app.default_retry_policy
            self._settings = replace(self._settings, default_retry_policy=app._settings.default_retry_policy)

    def __repr__(self) -> str:
        return "<InMemoryApp>"

    # -- parts -------------------------------------------------------------------------------------------------------

    def _make_store(self) -> Store:
        if self._store is None:
            from edda.storage.sql.sqlite_database import SqliteDatabase
            from edda.storage.sql.store import SqlStore
            from edda.storage.sql.url import parse

            database = SqliteDatabase(parse(self.db_url), now_us=self.clock.now_us)
            self._store = SqlStore(database)
        return cast(Store, MortalStore(self._store, self._life))

    def _make_environment(self) -> Environment:
        return Environment(steady_us=self.clock.now_us, wall_us=self.clock.now_us, always_evict=self._replay_always)

    def _make_sink(self) -> Sink:
        return self._sent

    def _begin_relaying(self, engine: Engine, sink: Sink) -> Relayer:
        """The relayer is another process, which does not die with this one."""
        if self._relayer is not None:
            return self._relayer
        relayer = Relayer(
            cast(Store, MortalStore(self._database(), self._relaying)),
            sink,
            name=lambda: "relayer",
            settings=self._relay_settings,
            steady_us=self.clock.now_us,
            random=engine.environment.random,
        )
        relayer.begin()
        return relayer

    async def _ready(self) -> Engine:
        await self._reborn()
        return await super()._ready()

    async def shutdown(self) -> None:
        await self._reborn()
        await super().shutdown()

    async def _close(self, engine: Engine) -> None:
        await super()._close(engine)
        store, self._store = self._store, None
        if store is not None:
            await store.close()

    # -- time --------------------------------------------------------------------------------------------------------

    async def advance(self, by: timedelta | None = None, /, **units: float) -> None:
        """Let time pass: `await app.advance(hours=2)`. What falls due on the way happens, one after the other."""
        span = (by or timedelta()) + timedelta(**units)
        if span < timedelta():
            raise ValueError(f"time does not go back: {span}")
        await self._advance_to(self.clock.now_us() + round(span.total_seconds() * 1_000_000))

    async def advance_to(self, moment: datetime) -> None:
        """Let time pass until then; naive means UTC."""
        await self._advance_to(utc_us(moment))

    async def _advance_to(self, at_us: int) -> None:
        await self._ready()
        passed = False
        while not passed:
            await self.settle()
            due_us = await self._next_due_us()
            if due_us is None or due_us > at_us:
                passed = self._leap(at_us)
            else:
                self._leap(due_us)
        await self.settle()

    async def settle(self, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        """Return when nothing goes on any more without time, an event or the test.

        An activity that runs for longer than `patience_seconds` is not waited for.
        """
        await self._ready()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_seconds
        while not await self._is_still():
            if loop.time() > deadline and await self._rests_for_long(but_for_activities=True):
                return
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def _is_still(self) -> bool:
        """Nothing is under way, and nothing is due that waits to be taken up."""
        if not await self._rests_for_long():
            return False
        due_us = await self._next_due_us()
        if due_us is not None and due_us <= self.clock.now_us():
            self._leap(due_us)
            return False
        return self._rests()

    async def _rests_for_long(self, *, but_for_activities: bool = False) -> bool:
        for _ in range(STILL_PASSES):
            if not self._rests(but_for_activities=but_for_activities):
                return False
            await asyncio.sleep(0)
        return True

    def _rests(self, *, but_for_activities: bool = False) -> bool:
        engine = self._engine
        if engine is None or engine.worker is None or self._life.dead:
            return False
        if self._life.under_way or self._relaying.under_way:
            return False
        drivers = engine.worker.drivers.values()
        return not drivers or (but_for_activities and all(driver.busy for driver in drivers))

    def _something_runs(self) -> bool:
        """More than what always goes on: an engine that looks for work now and then."""
        engine = self._engine
        return engine is None or engine.worker is None or bool(engine.worker.drivers)

    async def _next_due_us(self) -> int | None:
        """When the first instance goes on that waits for time."""
        known = self._registered()
        due = [
            row.claimable_at_us
            async for row in self._rows(*_MAY_BE_DUE)
            if row.owner is None and row.claimable_at_us is not None and row.workflow in known
        ]
        return min(due, default=None)

    async def _rows(self, *statuses: Status) -> AsyncGenerator[InstanceRow]:
        store = self._database()
        for status in statuses:
            last: str | None = None
            while page := await store.list_instances(status=status, limit=PAGE, before=last):
                for row in page:
                    yield row
                last = page[-1].id

    def _leap(self, at_us: int) -> bool:
        """False: a call of the database is under way, which would take one end of the leap for the other."""
        if self._life.under_way or self._life.dead:
            return False
        self.clock.skip_to(at_us)
        if self._engine is not None and self._engine.worker is not None:
            self._engine.worker.clock_moved()
        return True

    def _database(self) -> Store:
        """The database itself, which outlives the process."""
        assert self._store is not None
        return self._store

    # -- your own tables ---------------------------------------------------------------------------------------------

    async def sql(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one SQL statement (`?` for each parameter) beside all workflows; returns its rows, if it has any."""
        await self._ready()
        database = cast("SqliteDatabase", cast("SqlStore", self._database()).database)
        async with database.gate:
            return await database.call(lambda connection: connection.execute(statement, parameters).fetchall())

    async def create_tables(self, metadata: MetaData) -> None:
        """Make the tables of your models, `Base.metadata`, and their indexes."""
        from sqlalchemy.dialects import sqlite
        from sqlalchemy.schema import CreateIndex, CreateTable

        dialect = sqlite.dialect()
        for table in metadata.sorted_tables:
            await self.sql(str(CreateTable(table).compile(dialect=dialect)))
            for index in table.indexes:
                await self.sql(str(CreateIndex(index).compile(dialect=dialect)))

    # -- results -----------------------------------------------------------------------------------------------------

    async def result_of(self, instance_id: str, *, timeout: float | None) -> Any:  # noqa: ASYNC109 - part of the API
        """What `handle.result()` does. Time leaps while it is waited for; `timeout` is in real seconds.

        Raises InstanceStuckError where the result can never come.
        """
        await self._ready()
        try:
            async with asyncio.timeout(timeout):
                await self._until_ended(instance_id)
        except TimeoutError:
            raise await self._no_result(instance_id, timeout) from None
        await self.settle(patience_seconds=0)
        return await self._surviving(lambda: super(InMemoryApp, self).result_of(instance_id, timeout=None))

    async def _until_ended(self, instance_id: str) -> None:
        loop = asyncio.get_running_loop()
        stuck_since: float | None = None
        while (row := await self._row(instance_id)).ended_at_us is None:
            if not await self._is_still():
                if self._something_runs():
                    stuck_since = None
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
            elif row.status in SET_ASIDE:
                raise _set_aside(row)
            elif (due_us := await self._next_due_us()) is not None:
                self._leap(due_us)
            elif stuck_since is None:
                stuck_since = loop.time()
            elif loop.time() - stuck_since > PATIENCE_SECONDS:
                raise _stuck(row)
            else:
                await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def _no_result(self, instance_id: str, seconds: float | None) -> TimeoutError:
        row = await self._row(instance_id)
        return TimeoutError(
            f"Workflow instance '{instance_id}' has no result after {seconds} real seconds: it is {row.status}"
            + (f" ({row.reason})" if row.reason else "")
        )

    async def _row(self, instance_id: str) -> InstanceRow:
        await self._ready()
        row = await self._database().instance(InstanceId(instance_id))
        if row is None:
            raise InstanceNotFoundError(instance_id)
        return row

    # -- events ------------------------------------------------------------------------------------------------------

    async def deliver(
        self,
        event_type: str,
        data: Any,
        source: str = "/test",
        *,
        id: str | None = None,
        subject: str | None = None,
        to: str | None = None,
    ) -> bool:
        """Have an event come in from outside, and let it do what it does without time. `to`: one instance's id.

        False: it was there already (the same `source` and `id`).
        """
        await self._ready()
        at_us = self.clock.now_us()
        wanted = NewEvent(type=event_type, source=source, data=data, subject=subject, target=to)
        draft = EventDraft(id or self._new_id(), wanted, encode_event_data(data))
        receipt = await self._accept_one(draft.for_inbox(at_us=at_us))
        await self.settle()
        return receipt is Receipt.STORED

    @property
    def sent(self) -> list[ReceivedEvent]:
        """The events that went to the outside, each once, as a receiver has them that knows duplicates by their id."""
        return self._sent.events

    def _new_id(self) -> str:
        assert self._engine is not None
        return str(UUID(hex=self._engine.environment.sortable_id()))

    # -- crashes -----------------------------------------------------------------------------------------------------

    async def crash(self) -> None:
        """Kill the process here and now. Returns when another has taken over."""
        await self._ready()
        self._life.die()
        await self._reborn()

    def crash_at(self, commit: int, when: When = "after") -> None:
        """Kill the process at its `commit`-th commit from now (1: the next).

        "before": what was done since the commit before is done, and will never be known. "after": it is durable, and
        nobody has heard of it.
        """
        if commit < 1:
            raise ValueError(f"the next commit is number 1, not {commit}")
        self._life.plan = CrashPlan(self._life.commits + commit, when)

    @property
    def crashes(self) -> int:
        """How often its process was killed."""
        return self._crashes

    @property
    def last_words(self) -> str:
        """What was being written when it was killed as `crash_at` had planned, in words."""
        return self._last_words

    def _died(self) -> None:
        self._crashes += 1
        self._last_words = self._life.last_words
        self._rebirth = asyncio.get_running_loop().create_task(self._begin_anew(), name="edda-rebirth")

    async def _begin_anew(self) -> None:
        engine = self._engine
        if engine is not None:
            await engine.crash()
        self._life = Life(self._died)
        self._engine = self._home = None
        await self.initialize()
        self._hint_relayer()  # what the dead process would have told it

    async def _reborn(self) -> None:
        while self._life.dead and self._rebirth is not None:
            await asyncio.shield(self._rebirth)

    async def _surviving(self, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Ask as a client does that outlives the process: what gets no answer is asked again."""
        while True:
            await self._reborn()
            life = self._life
            asking = asyncio.ensure_future(ask())
            try:
                await self._unless_dead(life, asking)
            finally:
                if not asking.done():
                    asking.cancel()
                    await asyncio.wait({asking})
            if not life.dead or (not asking.cancelled() and asking.exception() is None):
                return asking.result()

    async def _unless_dead(self, life: Life, asking: asyncio.Future[Any]) -> None:
        dying = asyncio.ensure_future(life.death.wait())
        try:
            await asyncio.wait({asking, dying}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            dying.cancel()

    # -- what a client asks for --------------------------------------------------------------------------------------

    async def start_instance(
        self, workflow: Workflow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: StartOptions
    ) -> WorkflowHandle[Any]:
        """As in `EddaApp`; the id is chosen first, so that a crash on the way starts nothing twice."""
        await self._ready()
        if options.session is not None:
            return await super().start_instance(workflow, args, kwargs, options)
        named = replace(options, id=options.id or f"{workflow.name}-{self._new_id()}")
        return await self._surviving(lambda: super(InMemoryApp, self).start_instance(workflow, args, kwargs, named))

    async def accept(self, events: Sequence[CloudEvent]) -> Sequence[Receipt]:
        return await self._surviving(lambda: super(InMemoryApp, self).accept(events))

    async def cancel(self, instance_id: str, *, by: str = "user") -> None:
        await self._surviving(lambda: super(InMemoryApp, self).cancel(instance_id, by=by))

    async def retry(self, instance_id: str) -> None:
        await self._surviving(lambda: super(InMemoryApp, self).retry(instance_id))


def _set_aside(row: InstanceRow) -> InstanceStuckError:
    cause = decode_error(row.error) if row.error is not None else None
    error = InstanceStuckError(
        f"Workflow instance '{row.id}' is set aside as {row.status}: {cause or row.reason}", instance_id=row.id
    )
    error.__cause__ = cause
    return error


def _stuck(row: InstanceRow) -> InstanceStuckError:
    return InstanceStuckError(
        f"Workflow instance '{row.id}' of {row.workflow} is {row.status}"
        + (f", and waits for {row.reason}" if row.reason else "")
        + ". Nothing is under way, and nothing will be due: what it waits for has to be brought about before its "
        "result is waited for.",
        instance_id=row.id,
    )
