"""The worker: one registered place in the database, and the instances it holds. Its claimer takes up more.

A worker lives until it is stopped or declared dead; then a new one, under a new id, takes its place in the process.
Nothing it knows is needed to go on: *runnable* is a predicate on a row, and who claims it next reads all from there.
"""

from __future__ import annotations

import asyncio
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
from edda.engine.claimer import Claimer
from edda.engine.committer import Ack, Committer
from edda.engine.driver import Driver
from edda.engine.environment import DatabaseClock, Environment
from edda.engine.event_waits import Question
from edda.engine.heartbeat import Heartbeat, Lease
from edda.engine.hook_queue import HookQueue
from edda.engine.inbox import Inbox
from edda.engine.instance import Survivor
from edda.engine.log import log
from edda.engine.questions import Questions
from edda.engine.reaper import Reaper
from edda.engine.residents import Residents
from edda.engine.telemetry import Telemetry
from edda.engine.turns import Turns
from edda.exceptions import StorageError
from edda.storage.port import InstanceRow, Reaped, Store, UnknownOutcome
from edda.telemetry import Gauges
from edda.workflow import App, Workflow

NOTICE_SECONDS: Final = 0.5
"""How often a worker asks whether its own instances were woken or cancelled by others."""


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
            on_fenced=self.declared_dead,
            on_written=self.spread,
            meters=telemetry.meters if telemetry is not None else None,
        )
        self._inbox = inbox
        self._questions = Questions(store, environment, is_held=self._drives)
        self._reaper = Reaper(store, worker_id, environment, may_reap=self._may_reap, on_reaped=self._reaped)
        self._heartbeat: Heartbeat | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._claimer = Claimer(self, store, self._residents, workflows=workflows, poll_seconds=bounds.poll_seconds)
        self.starting: Counter[InstanceId] = Counter()
        """Starts in flight that will be driven here."""
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
            on_dead=self.declared_dead,
        )
        await self._heartbeat.begin()
        self._committer.begin()
        loops = {
            "claim": self._claimer.run,
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
            self.declared_dead()

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

    def declared_dead(self) -> None:
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
        self.declared_dead()

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
        taken = len(self.drivers) + len(self.starting)
        return 0 if self._stopping or self.dead else self._bounds.running_max - taken

    async def start(self, new: NewInstance) -> Creation:
        """Create an instance and run it here at once, if there is room."""
        if self.room <= 0:
            creation, _ = await self._committer.start(new)
            self._store.hint()
            return creation
        new = new.owned_by(WorkerId(self.id))
        before_us = self.clock.at_least_us()
        self.starting[new.id] += 1
        try:
            creation, asked_twice = await self._committer.start(new)
        finally:
            self.starting[new.id] -= 1
            if not self.starting[new.id]:
                del self.starting[new.id]
        if creation.created:
            self._adopt_new(new, created_at_us=before_us)
        elif asked_twice and creation.owner == self.id:
            self._claimer.unclear(new.id)
        return creation

    def _adopt_new(self, new: NewInstance, *, created_at_us: int) -> None:
        """`created_at_us` is not after its creation, however late that was answered: from then on events count."""
        if self.dead:
            return
        if self._claimer.is_taking(new.id):
            self._claimer.unclear(new.id)
            return
        self.drive(
            [],
            InstanceRow(
                id=new.id, workflow=new.workflow, status=Status.RUNNING, reason="", owner=WorkerId(self.id), claim=1,
                wakes=0, claimable_at_us=None, cancel_requested_at_us=None, cancelled_by="", crashes=0,
                input=new.input, args_hash=new.args_hash, output=None, blob=None, error=None,
                parent_id=new.parent_id, detached=new.detached, source_hash=new.source_hash, python=new.python,
                created_at_us=created_at_us, updated_at_us=created_at_us, ended_at_us=None, trace=new.trace,
            ),
        )  # fmt: skip

    def drive(self, history: list[HistoryEvent], row: InstanceRow) -> None:
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

    # -- hints -------------------------------------------------------------------------------------------------------

    def want(self, ids: Collection[InstanceId]) -> None:
        """These may be claimable now."""
        if not self._stopping:
            self._claimer.want(ids)

    def look_now(self) -> None:
        """Something may be claimable, or may have woken what we hold; nobody knows what."""
        if not self._stopping:
            self._claimer.poll_now()
            self._notice_hint.set()

    def clock_moved(self) -> None:
        """Time was made to pass (in `edda.testing`): what is due now shall not wait for a timer of the loop."""
        for driver in self.drivers.values():
            driver.clock_moved()
        self.look_now()

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
        self._claimer.look_again()

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
        elif due_us is not None:
            self._claimer.due_at(due_us, driver.instance_id)

    def ended(self, driver: Driver, end: End) -> None:
        had_no_room = self.room <= 0
        del self.drivers[driver.instance_id]
        self._endings.ended(driver, end)
        if had_no_room:
            self._claimer.look_again()

    def cleared(self, driver: Driver) -> None:
        """The one suspect is none any more: the next may be claimed, and is known to nobody but the database."""
        self._claimer.poll_now()

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
