"""The worker: one registered place in the database, the instances it holds, and the one loop that claims more.

A worker lives until it is stopped or declared dead; then a new one, under a new id, takes its place in the process.
Nothing it knows is needed to go on: *runnable* is a predicate on a row, so every wake-up here is a hint, and the poll
finds what a hint missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from edda.core.commit import Batch, Commit, Creation, End, NewInstance, Verdict
from edda.core.history import HistoryEvent, InstanceId, WorkerId
from edda.core.lifecycle import Status
from edda.core.retry import RetryPolicy
from edda.core.routing import event_key
from edda.engine.attempts import Attempts
from edda.engine.committer import Ack, Committer
from edda.engine.driver import Driver
from edda.engine.environment import DatabaseClock, Environment
from edda.engine.event_waits import Question
from edda.engine.heartbeat import Heartbeat, Lease
from edda.engine.hook_queue import HookQueue
from edda.engine.inbox import Inbox
from edda.engine.instance import Survivor
from edda.engine.questions import Questions
from edda.engine.reaper import Reaper
from edda.engine.residents import Residents
from edda.engine.telemetry import Telemetry
from edda.engine.turns import Turns
from edda.exceptions import DatabaseUnavailableError, StorageError
from edda.storage.port import Fenced, InstanceRow, Reaped, Store, UnknownOutcome
from edda.telemetry import Gauges
from edda.workflow import App, Workflow

log = logging.getLogger("edda.engine")

CLAIM_MAX: Final = 100
"""Instances taken in one claim."""

NOTICE_SECONDS: Final = 0.5
"""How often a worker asks whether its own instances were woken or cancelled by others."""

ORPHAN_SECONDS: Final = 5.0
"""How often a worker compares what it holds with what it drives."""

DUE_MAX: Final = 100_000
"""Timers of parked instances remembered for punctuality; the poll finds the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much a worker takes upon itself."""

    running_max: int
    residents_max: int
    poll_seconds: float
    shutdown_grace_seconds: float
    payload_bytes_max: int


Legacy = dict[InstanceId, tuple[int, dict[str, Survivor]]]
"""Unacknowledged results of a worker that was declared dead: the claim they were made under, and they by call id."""


class Endings(Protocol):
    """Who is told that an instance has ended."""

    def ended(self, driver: Driver, end: End) -> None: ...


class Worker:
    """See the head of this file. It is the `House` of its drivers."""

    def __init__(
        self,
        *,
        worker_id: WorkerId,
        app: App,
        store: Store,
        clock: DatabaseClock,
        environment: Environment,
        attempts: Attempts,
        hooks: HookQueue,
        observer: object | None,
        default_retry_policy: RetryPolicy,
        bounds: Bounds,
        lease: Lease,
        workflows: Callable[[], Mapping[str, Workflow[..., object]]],
        endings: Endings,
        inbox: Inbox,
        on_dead: Callable[[Worker], None],
        on_outbox: Callable[[], None],
        inheritance: Legacy,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.id = worker_id
        self.app = app
        self.clock = clock
        self.environment = environment
        self.attempts = attempts
        self.hooks = hooks
        self.turns = Turns()
        self.observer = observer
        self.telemetry = telemetry
        self.default_retry_policy = default_retry_policy
        self.payload_bytes_max = bounds.payload_bytes_max
        self.drivers: dict[InstanceId, Driver] = {}
        self.legacy: Legacy = {}
        """What a successor in this process may still write, filled when this worker is declared dead."""
        self._inheritance = inheritance
        self._store = store
        self._bounds = bounds
        self._lease = lease
        self._lease_us = lease.lease_us
        self._steady_us = environment.steady_us
        self._workflows = workflows
        self._endings = endings
        self._on_dead = on_dead
        self._on_outbox = on_outbox
        self._residents = Residents(residents_max=0 if environment.always_evict else bounds.residents_max)
        self._committer = Committer(
            store,
            worker_id,
            clock=clock,
            environment=environment,
            on_fenced=self._declared_dead,
            on_written=self.spread,
            meters=telemetry.meters if telemetry is not None else None,
        )
        self._inbox = inbox
        self._questions = Questions(store, environment, is_held=self._drives)
        self._reaper = Reaper(store, worker_id, environment, may_reap=self._may_reap, on_reaped=self._reaped)
        self._heartbeat: Heartbeat | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._hint = asyncio.Event()
        self._wanted: dict[InstanceId, None] = {}
        """Instances worth claiming by id: known to be due or woken."""
        self._due: list[tuple[int, InstanceId]] = []
        self._polled_us = 0
        self._starting: Counter[InstanceId] = Counter()
        """Starts in flight that will be driven here."""
        self._unclear: set[InstanceId] = set()
        """Starts asked for twice that found what one of us had made: the claim loop tells whether it runs already."""
        self._taking: set[InstanceId] = set()
        """Being looked up by the claim loop, which will drive them if they are ours."""
        self._announced: tuple[str, ...] | None = None
        """The workflows that others know to run here."""
        self._missing: dict[InstanceId, int] = {}
        self._looked_for_orphans_us = environment.steady_us()
        self._notice_hint = asyncio.Event()
        self._stopping = False
        self.dead = False
        self._renewed_us = environment.steady_us()
        self._gap_until_us = 0
        self._heard = False
        """The first news of our lease may come after a long wait for our place, which is no gap."""

    # -- life --------------------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Register, then work. On SQLite the registration waits for the place."""
        self._heartbeat = Heartbeat(
            self._store.lease_line(),
            self.id,
            self._lease,
            self.environment,
            on_renewed=self._renewed,
            on_dead=self._declared_dead,
        )
        await self._heartbeat.begin()
        self._committer.begin()
        loops = {
            "claim": self._claim_loop,
            "notices": self._notice_loop,
            "absentees": self._reaper.run,
            "questions": self._questions.run,
        }
        for name, loop in loops.items():
            self._spawn(loop(), f"edda-{name}")

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self.dead:
            log.critical("worker %s broke down and is replaced", self.id, exc_info=error)
            self._declared_dead()

    async def stop(self) -> None:
        """Take no more, let what runs end within the grace, then free everything. No crash is counted."""
        self._stopping = True
        deadline = self.environment.steady_us() + round(self._bounds.shutdown_grace_seconds * 1_000_000)
        while not self.dead and self.environment.steady_us() < deadline:
            if not any(driver.busy for driver in self.drivers.values()):
                break
            await asyncio.sleep(0.01)
        await self._end_tasks()
        if not self.dead:
            self.dead = True
            await self._retire()
        for driver in list(self.drivers.values()):
            driver.drop()
        self.drivers.clear()
        self._residents.clear()
        self._committer.abandon()
        if self._heartbeat is not None:
            await self._heartbeat.stop()

    async def _retire(self) -> None:
        try:
            await self._store.retire(WorkerId(self.id))
        except (StorageError, UnknownOutcome) as error:
            log.warning("worker %s could not say goodbye, its instances wait for its lease to end: %s", self.id, error)

    async def _end_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)

    def _declared_dead(self) -> None:
        """Nothing this worker writes counts any more: drop everything, and let the engine put a new one in its
        place."""
        if self.dead:
            return
        self.dead = True
        log.warning("worker %s was declared dead; what it held goes on elsewhere", self.id)
        for driver in list(self.drivers.values()):
            if survivors := driver.survivors():
                self.legacy[driver.instance_id] = (driver.claim, survivors)
            driver.drop()
        self.drivers.clear()
        self._residents.clear()
        self._committer.abandon()
        for task in self._tasks:
            task.cancel()
        self._on_dead(self)

    def crashed(self, error: MemoryError) -> None:
        """The process is at its end: as if this worker had died. Who makes it happen again and again is set aside."""
        log.critical("out of memory: worker %s gives up what it holds", self.id, exc_info=error)
        self._declared_dead()

    async def after_death(self) -> None:
        """Let the line go; awaited by the engine before the successor registers."""
        if self._heartbeat is not None:
            await self._heartbeat.stop()

    def _renewed(self, sent_us: int, now_us: int) -> None:
        self.clock.learn(sent_us=sent_us, now_us=now_us)
        waited = self._heard and sent_us - self._renewed_us > self._lease_us
        self._heard = True
        if waited:
            self._gap_until_us = self.environment.steady_us() + self._lease_us
        self._renewed_us = sent_us

    @property
    def trusted(self) -> bool:
        """Whether our own lease must still hold, measured from before its last renewal was sent."""
        return not self.dead and self._steady_us() < self._renewed_us + self._lease_us

    def gauges(self) -> Gauges:
        """As it is now."""
        left_us = self._renewed_us + self._lease_us - self._steady_us()
        return Gauges(
            running=len(self.drivers),
            resident=len(self._residents),
            attempts_running=self.attempts.running,
            attempts_waiting=self.attempts.queued,
            commits_waiting=self._committer.waiting,
            workers=0 if self.dead else 1,
            lease_seconds=0.0 if self.dead else max(left_us, 0) / 1_000_000,
        )

    # -- starting ----------------------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        taken = len(self.drivers) + len(self._starting)
        return 0 if self._stopping or self.dead else self._bounds.running_max - taken

    async def start(self, new: NewInstance) -> Creation:
        """Create an instance and run it here at once, if there is room."""
        if self.room <= 0:
            creation, _ = await self._committer.start(new)
            self._store.hint()
            return creation
        new = new.owned_by(WorkerId(self.id))
        before_us = self.clock.at_least_us()
        self._starting[new.id] += 1
        try:
            creation, asked_twice = await self._committer.start(new)
        finally:
            self._starting[new.id] -= 1
            if not self._starting[new.id]:
                del self._starting[new.id]
        if creation.created:
            self._adopt_new(new, created_at_us=before_us)
        elif asked_twice and creation.owner == self.id:
            self._look_later(new.id)
        return creation

    def _look_later(self, instance_id: InstanceId) -> None:
        self._unclear.add(instance_id)
        self._hint.set()

    def _adopt_new(self, new: NewInstance, *, created_at_us: int) -> None:
        """`created_at_us` is not after its creation, however late that was answered: from then on events count."""
        if self.dead:
            return
        if new.id in self._taking:
            self._look_later(new.id)
            return
        self._drive(
            [],
            InstanceRow(
                id=new.id, workflow=new.workflow, status=Status.RUNNING, reason="", owner=WorkerId(self.id), claim=1,
                wakes=0, claimable_at_us=None, cancel_requested_at_us=None, cancelled_by="", crashes=0,
                input=new.input, args_hash=new.args_hash, output=None, blob=None, error=None,
                parent_id=new.parent_id, detached=new.detached, source_hash=new.source_hash, python=new.python,
                created_at_us=created_at_us, updated_at_us=created_at_us, ended_at_us=None, trace=new.trace,
            ),
        )  # fmt: skip

    def _drive(self, history: list[HistoryEvent], row: InstanceRow) -> None:
        workflow = self._workflows().get(row.workflow)
        assert workflow is not None, f"claimed {row.id} of workflow {row.workflow}, which is not registered here"
        if row.id in self.drivers:  # two starts of one id, of which one found what the other had made
            return
        driver = self.drivers[row.id] = Driver(self, row, history, workflow, self._survivors_of(row))
        driver.begin()

    def _survivors_of(self, row: InstanceRow) -> dict[str, Survivor]:
        """Results that our predecessor could not write, if nobody had the instance in between."""
        claim, survivors = self._inheritance.pop(row.id, (0, {}))
        return survivors if row.claim == claim + 1 else {}

    # -- claiming ----------------------------------------------------------------------------------------------------

    def want(self, ids: Collection[InstanceId]) -> None:
        """These may be claimable now."""
        if not self._stopping:
            self._wanted.update(dict.fromkeys(ids))
            self._hint.set()

    def look_now(self) -> None:
        """Something may be claimable, or may have woken what we hold; nobody knows what."""
        if not self._stopping:
            self._polled_us = 0
            self._hint.set()
            self._notice_hint.set()

    def clock_moved(self) -> None:
        """Time was made to pass (in `edda.testing`): what is due now shall not wait for a timer of the loop."""
        for driver in self.drivers.values():
            driver.clock_moved()
        self.look_now()

    async def _claim_loop(self) -> None:
        delay = 0.0
        while True:
            try:
                if self.environment.steady_us() - self._looked_for_orphans_us > ORPHAN_SECONDS * 1_000_000:
                    self._looked_for_orphans_us = self.environment.steady_us()
                    await self._look_for_orphans()
                await self._announce()
                if self._unclear:
                    await self._look_at_unclear()
                more = await self._claim()
                delay = 0.0
            except Fenced:
                self._declared_dead()
                return
            except (DatabaseUnavailableError, UnknownOutcome, StorageError) as error:
                log.warning("cannot claim: %s", error)
                more, delay = False, min(delay * 2 + 0.1, 5.0)
            if more:
                continue
            await self._wait_for_hint(max(delay, self._next_look_seconds()))

    async def _wait_for_hint(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._hint.wait()
        except TimeoutError:
            pass
        self._hint.clear()
        now = self.clock.at_least_us()
        while self._due and self._due[0][0] <= now:
            self._wanted[heapq.heappop(self._due)[1]] = None

    def _next_look_seconds(self) -> float:
        """Until the next poll, or the next timer that is known to be due."""
        seconds = self.environment.jitter(self._bounds.poll_seconds)
        if self._due:
            seconds = min(seconds, max((self._due[0][0] - self.clock.at_least_us()) / 1_000_000, 0))
        return seconds

    async def _claim(self) -> bool:
        """Claim once; True when there may be more to take at once."""
        room = self.room
        if room <= 0 or not self.trusted:
            return False
        limit = min(room, CLAIM_MAX)
        sent = self.environment.steady_us()
        overdue = sent - self._polled_us >= self._bounds.poll_seconds * 1_000_000
        ids: list[InstanceId] | None = None
        if self._wanted and not overdue:
            ids = [self._wanted.popitem()[0] for _ in range(min(limit, len(self._wanted)))]
        else:
            self._polled_us = sent
        claims = await self._store.claim(
            WorkerId(self.id),
            workflows=list(self._workflows()),
            limit=limit,
            suspects=not any(driver.suspect for driver in self.drivers.values()),
            ids=ids,
        )
        self.clock.learn(sent_us=sent, now_us=claims.now_us)
        if self.telemetry is not None and (meters := self.telemetry.meters) is not None:
            for row, due_us in zip(claims.rows, claims.due_us, strict=False):
                meters.claimed(row.workflow, lag_seconds=max(claims.now_us - due_us, 0) / 1_000_000)
        await self._take_up(claims.rows)
        return bool(self._wanted) or (ids is None and len(claims.rows) >= limit)

    async def _take_up(self, rows: Collection[InstanceRow]) -> None:
        """Resume what is resident, replay the rest."""
        rest: list[InstanceRow] = []
        for row in rows:
            if (old := self.drivers.pop(row.id, None)) is not None:
                old.drop()  # its park is durable, or we could not have claimed; it has not been told yet
            driver = self._residents.take(row.id, claim=row.claim)
            if driver is not None:
                self.drivers[row.id] = driver
                driver.resume(row)
            else:
                rest.append(row)
        if not rest:
            return
        histories = await self._read_histories([row.id for row in rest])
        for row in rest:
            if not self.dead:
                self._drive(histories[row.id], row)

    async def _read_histories(self, ids: list[InstanceId]) -> Mapping[InstanceId, list[HistoryEvent]]:
        """Until it succeeds: these instances are ours, and nobody else will ever look after them."""
        delay = 0.05
        while True:
            try:
                return await self._store.histories(ids)
            except StorageError as error:
                log.warning("cannot read the histories of %d claimed instances: %s", len(ids), error)
                await asyncio.sleep(self.environment.jitter(delay))
                delay = min(delay * 2, 5.0)

    async def _look_at_unclear(self) -> None:
        """Starts whose answer was lost: take up what is there under the first claim, which only we can have made."""
        ids = [instance_id for instance_id in self._unclear if instance_id not in self._starting]
        if not ids:
            return
        self._unclear.difference_update(ids)
        try:
            await self._take_back(ids, of_claim=1)
        except StorageError:
            self._unclear.update(ids)
            raise

    async def _take_back(self, ids: Collection[InstanceId], *, of_claim: int | None = None) -> None:
        """Run those of these instances that belong to this worker although nothing here drives them.

        Only the claim loop does this, and no start begins to drive one of them meanwhile: what is read here is true
        until it is driven.
        """
        self._taking = {name for name in ids if name not in self.drivers and name not in self._starting}
        try:
            rows = (await self._store.instances(sorted(self._taking))).values()
            await self._take_up([row for row in rows if row.owner == self.id and of_claim in (None, row.claim)])
        finally:
            self._taking = set()

    async def _look_for_orphans(self) -> None:
        """Instances that are ours without a driver: the answer to their claim was lost, and nobody else may run them.

        One look may come in the middle of a start or an end; what is missing in two looks running is missing.
        """
        held = await self._store.held(WorkerId(self.id))
        missing = {instance_id: claim for instance_id, claim in held.items() if instance_id not in self.drivers}
        orphans = [name for name, claim in missing.items() if self._missing.get(name) == claim]
        self._missing = missing
        if orphans:
            log.warning("taking up %d instances whose claim went unanswered", len(orphans))
            await self._take_back(orphans)

    # -- wakes and cancels of what we hold ---------------------------------------------------------------------------

    def poke(self, ids: Collection[InstanceId]) -> None:
        """These were woken by this process: look at once, whoever holds them."""
        held = [instance_id for instance_id in ids if instance_id in self.drivers]
        if held:
            self._notice_hint.set()
        if len(held) < len(ids):
            self.want([instance_id for instance_id in ids if instance_id not in self.drivers])

    async def _notice_loop(self) -> None:
        while True:
            try:
                async with asyncio.timeout(NOTICE_SECONDS):
                    await self._notice_hint.wait()
            except TimeoutError:
                pass
            self._notice_hint.clear()
            if not self.drivers:
                continue
            try:
                notices = await self._store.notices(WorkerId(self.id))
            except (StorageError, UnknownOutcome) as error:
                log.warning("cannot look for wakes: %s", error)
                continue
            for notice in notices:
                driver = self.drivers.get(notice.instance_id)
                if driver is not None:
                    driver.notice(wakes=notice.wakes, cancel_requested=notice.cancel_requested)

    def spread(self, commit: Commit) -> None:
        """After a commit: tell those whom it woke, and run the children that it created here."""
        if commit.outbox:
            self._on_outbox()
        for child in commit.children:
            if child.owner is not None:
                self._adopt_new(child, created_at_us=commit.records[0].at_us)
        if unowned := [child.id for child in commit.children if child.owner is None]:
            self.want(unowned)
            self._store.hint()
        if woken := (*commit.wakes, *commit.cancels):
            self.poke(woken)
            if not all(instance_id in self.drivers for instance_id in woken):
                self._store.hint()
        if commit.posts:
            self._inbox.routable([event_key(post.event) for post in commit.posts])

    def _drives(self, driver: Driver) -> bool:
        return self.drivers.get(driver.instance_id) is driver

    # -- others ------------------------------------------------------------------------------------------------------

    def _may_reap(self) -> bool:
        return self.trusted and self.environment.steady_us() >= self._gap_until_us

    def _reaped(self, reaped: Reaped) -> None:
        if self.telemetry is not None and (meters := self.telemetry.meters) is not None:
            meters.worker_lost(freed=len(reaped.freed), crashed_out=len(reaped.quarantined))
        self._on_outbox()  # what its relayer had leased is due
        self._hint.set()

    async def _announce(self) -> None:
        """For people, who wonder why nobody runs an instance; nothing depends on it."""
        names = tuple(sorted(self._workflows()))
        if names != self._announced:
            with contextlib.suppress(StorageError, UnknownOutcome):
                await self._store.announce(WorkerId(self.id), names)
                self._announced = names

    # -- House: what drivers ask for ---------------------------------------------------------------------------------

    def submit(self, commit: Commit, ack: Ack) -> None:
        if commit.children and self.room > len(commit.children):
            names = self._workflows()
            mine = WorkerId(self.id)
            children = tuple(
                child._replace(owner=mine) if child.workflow in names and _id_is_its_own(child) else child
                for child in commit.children
            )
            commit = commit._replace(children=children)
        self._committer.submit(commit, ack)

    async def settle(self, commit: Commit) -> Verdict | None:
        return (await self._committer.settled(Batch(commits=(commit,))))[0]

    def look_up_children(self, driver: Driver, ids: tuple[InstanceId, ...]) -> None:
        self._spawn(self._look_up(driver, ids), "edda-children")

    async def _look_up(self, driver: Driver, ids: tuple[InstanceId, ...]) -> None:
        delay = 0.05
        while self.drivers.get(driver.instance_id) is driver:
            try:
                driver.children_looked_up(dict(await self._store.instances(ids)))
                return
            except (StorageError, UnknownOutcome) as error:
                log.warning("cannot look up the children of %s: %s", driver.instance_id, error, extra=driver.about())
                await asyncio.sleep(self.environment.jitter(delay))
                delay = min(delay * 2, 5.0)

    def ask_inbox(self, driver: Driver, question: Question) -> None:
        self._questions.ask(driver, question)

    def released(self, driver: Driver, *, due_us: int | None, woken: bool) -> None:
        """Parked. Kept in memory where there is room; its timer is remembered, so that it is punctual."""
        del self.drivers[driver.instance_id]
        self._residents.keep(driver)
        if woken:
            self.want([driver.instance_id])
        elif due_us is not None and len(self._due) < DUE_MAX:
            heapq.heappush(self._due, (due_us, driver.instance_id))
            if self._due[0][1] == driver.instance_id:
                self._hint.set()

    def ended(self, driver: Driver, end: End) -> None:
        had_no_room = self.room <= 0
        del self.drivers[driver.instance_id]
        self._endings.ended(driver, end)
        if had_no_room:
            self._hint.set()

    def cleared(self, driver: Driver) -> None:
        """The one suspect is none any more: the next may be claimed, and is known to nobody but the database."""
        self._polled_us = 0
        self._hint.set()

    def lost(self, driver: Driver) -> None:
        if self.drivers.get(driver.instance_id) is driver:
            log.warning("the claim of %s is lost; it goes on elsewhere", driver.instance_id, extra=driver.about())
            del self.drivers[driver.instance_id]
            if driver.suspect:
                self.cleared(driver)
            driver.drop()


def _id_is_its_own(child: NewInstance) -> bool:
    """Made from the parent's id, so nobody else can have created it."""
    return child.parent_id is not None and child.id.startswith(f"{child.parent_id[:100]}/")
