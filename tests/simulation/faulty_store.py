"""The store as one simulated process has it: calls that take their time, get lost, and may kill who makes them.

Behind all of them is one `MemoryStore`, whose verbs are atomic. A call travels to the database (the process may be
paused meanwhile), is done there by the world, and its answer travels back into the process. What is under way when a
process dies is done or not, as chance will have it. A dead process gets no answer, ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from edda.core.commit import Batch, BatchOutcome, Commit, Creation, End, NewInstance, Park, Undo, Verdict
from edda.core.event import CloudEvent, Receipt
from edda.core.history import HistoryEvent, InstanceId, WorkerId
from edda.core.lifecycle import Status
from edda.core.routing import EventKey, Fields
from edda.core.subscription import Subscription
from edda.exceptions import DatabaseUnavailableError, StorageError
from edda.storage.inbox import InboxEvent, Look, Routed
from edda.storage.memory import MemoryStore
from edda.storage.outbox import OUTBOX_BYTES_MAX, OUTBOX_LIMIT_MAX, OutboxClaims, Settlement
from edda.storage.port import Claims, Fenced, InstanceRow, Notice, Reaped, Renewal, UnknownOutcome
from tests.simulation.faults import Fault

if TYPE_CHECKING:
    from tests.simulation.world import Node, World


class Gone(BaseException):
    """What a dead process gets from the world while its remains are put away."""


class SerializationFailure(Exception):
    """What stands for error 40001 in a user's transaction."""


TRAVEL_US_MAX: Final = 2_000
SLOW_US: Final = (300_000, 3_500_000)
LATE_US_MAX: Final = 1_500_000
_ERRORS: Final = (Fenced, StorageError, UnknownOutcome, SerializationFailure)
_WAIT_FOR_THE_GATE: Final = frozenset(
    {"write start", "write step", "write child", "write park", "write undo", "write end", "claim", "settle", "reap"}
    | {"accept", "route", "learn"}
    | {"relay claim", "relay settle", "relay requeue", "relay purge"}
)
"""What cannot be done while another transaction is open, where the database has one writer."""


def kind_of(batch: Batch) -> str:
    """The operation that a batch counts as: the most that one of its commits does."""
    if not batch.commits:
        return "write start"
    kinds = {type(commit.row) for commit in batch.commits}
    if End in kinds:
        return "write end"
    if Undo in kinds:
        return "write undo"
    if any(commit.children for commit in batch.commits):
        return "write child"
    if Park in kinds:
        return "write park"
    return "write step"


class FaultyStore:
    """The `Store` of one process."""

    def __init__(self, world: World, node: Node) -> None:
        self.world = world
        self.node = node
        self.late = 0
        """Transactions still under way of which the process has given up hope."""

    # -- travelling --------------------------------------------------------------------------------------------------

    def call(
        self, operation: str, do: Callable[[], Any], *, inside: FaultyTransaction | None = None
    ) -> asyncio.Future[Any]:
        """Send a call, maybe inside an open transaction; the future is its answer."""
        process = self.node.process
        if process.dead or self.world.over:
            raise Gone
        loop = self.world.loop
        answer = loop.create_future()
        chance = loop.random.random()
        fault = self.world.plan.draw(operation) if operation else None
        if fault is Fault.PAUSE_AFTER:
            # Sent, and stuck on the way for as long as the process is.
            self.world.hit(operation, fault)
            self.world.pause(self.node)
            loop.after(
                loop.world,
                self.world.pause_us + int(chance * TRAVEL_US_MAX),
                self._arrive,
                answer,
                operation,
                do,
                None,
                inside,
            )
        else:
            loop.after(loop.world, 20 + int(chance * TRAVEL_US_MAX), self._arrive, answer, operation, do, fault, inside)
        return answer

    def _arrive(
        self,
        answer: asyncio.Future[Any],
        operation: str,
        do: Callable[[], Any],
        fault: Fault | None,
        inside: FaultyTransaction | None,
    ) -> None:
        world, loop = self.world, self.world.loop
        gate = world.gate
        if gate is not None and gate is not inside and gate.alive and operation in _WAIT_FOR_THE_GATE:
            loop.after(loop.world, 2_000, self._arrive, answer, operation, do, fault, inside)
            return
        if self.node.process.dead:
            if loop.random.random() < 0.5:
                world.note(self.node, f"{operation}: lost with its sender")
                return
            world.note(self.node, f"{operation}: done after the death of its sender")
            self._do(do)
            return
        if operation == "settle" and self.late:
            loop.after(loop.world, 5_000, self._arrive, answer, operation, do, fault, inside)
            return
        if fault is not None:
            world.hit(operation, fault)
            world.note(self.node, f"{operation}: FAULT {fault}")
        match fault:
            case Fault.CRASH_BEFORE:
                world.crash(self.node)
            case Fault.CRASH_AFTER:
                self._do(do)
                world.crash(self.node)
            case Fault.LOST:
                self._do(do)
                self._reply(answer, None, UnknownOutcome("simulated: the answer is lost"))
            case Fault.NOT_DONE:
                self._reply(answer, None, UnknownOutcome("simulated: no answer"))
            case Fault.LATE:
                self.late += 1
                loop.after(loop.world, int(loop.random.random() * LATE_US_MAX), self._do_late, do)
                self._reply(answer, None, UnknownOutcome("simulated: no answer yet"))
            case Fault.AWAY:
                self._reply(answer, None, DatabaseUnavailableError("simulated: away"))
            case Fault.REFUSED if operation == "session commit":
                self._reply(answer, None, SerializationFailure("simulated: 40001"))
            case Fault.REFUSED:
                self._reply(answer, None, StorageError("simulated: refused"))
            case _:
                if operation:
                    world.count(operation)
                value, error = self._do(do)
                if fault is Fault.PAUSE_BEFORE:
                    world.pause(self.node)
                self._reply(answer, value, error, slow=fault is Fault.SLOW)

    def _do_late(self, do: Callable[[], Any]) -> None:
        self.late -= 1
        self.world.note(self.node, "the late transaction is over")
        self._do(do)

    def _do(self, do: Callable[[], Any]) -> tuple[Any, BaseException | None]:
        try:
            return do(), None
        except _ERRORS as error:
            return None, error

    def _reply(
        self, answer: asyncio.Future[Any], value: Any, error: BaseException | None, *, slow: bool = False
    ) -> None:
        loop = self.world.loop
        delay = 10 + int(loop.random.random() * TRAVEL_US_MAX)
        if slow:
            delay += int(SLOW_US[0] + loop.random.random() * (SLOW_US[1] - SLOW_US[0]))
        loop.after(self.node.process, delay, _answer, answer, value, error)

    # -- the verbs ---------------------------------------------------------------------------------------------------

    @property
    def model(self) -> MemoryStore:
        return self.world.store

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def listen(self, heard: Callable[[], None]) -> None:
        """Every hint is lost here."""

    def hint(self) -> None:
        pass

    def write(self, worker: WorkerId, batch: Batch) -> asyncio.Future[BatchOutcome]:
        operation = kind_of(batch)
        return self.call(operation, lambda: self.world.write(self.node, worker, batch, operation))

    def settle(self, worker: WorkerId, batch: Batch) -> asyncio.Future[tuple[Verdict | None, ...]]:
        return self.call("settle", lambda: self.world.verb(self.node, "settle", self.model.settle(worker, batch)))

    def create(self, new: NewInstance) -> asyncio.Future[Creation]:
        return self.call("write start", lambda: self.world.verb(self.node, "create", self.model.create(new)))

    def claim(
        self,
        worker: WorkerId,
        *,
        workflows: Collection[str],
        limit: int,
        suspects: bool = True,
        ids: Sequence[InstanceId] | None = None,
    ) -> asyncio.Future[Claims]:
        def do() -> Any:
            return self.world.claim(self.node, worker, workflows=workflows, limit=limit, suspects=suspects, ids=ids)

        return self.call("claim", do)

    def notices(self, worker: WorkerId) -> asyncio.Future[tuple[Notice, ...]]:
        return self.call("notices", lambda: run_now(self.model.notices(worker)))

    def held(self, worker: WorkerId) -> asyncio.Future[Mapping[InstanceId, int]]:
        return self.call("", lambda: run_now(self.model.held(worker)))

    def lease_line(self) -> FaultyLeaseLine:
        return FaultyLeaseLine(self)

    async def announce(self, worker: WorkerId, workflows: Sequence[str]) -> None:
        """For people only, of whom there are none here."""

    def absentees(self, worker: WorkerId) -> asyncio.Future[tuple[WorkerId, ...]]:
        return self.call("absentees", lambda: run_now(self.model.absentees(worker)))

    def reap(self, dead: WorkerId) -> asyncio.Future[Reaped | None]:
        return self.call("reap", lambda: self.world.verb(self.node, f"reap {dead[-8:]}", self.model.reap(dead)))

    def retire(self, worker: WorkerId) -> asyncio.Future[None]:
        return self.call("retire", lambda: self.world.verb(self.node, "retire", self.model.retire(worker)))

    def cancel(self, instance_id: InstanceId, *, by: str) -> asyncio.Future[InstanceRow | None]:
        return self.call("cancel", lambda: self.world.verb(self.node, "cancel", self.model.cancel(instance_id, by=by)))

    def retry(self, instance_id: InstanceId) -> asyncio.Future[InstanceRow | None]:
        return self.call("retry", lambda: self.world.verb(self.node, "retry", self.model.retry(instance_id)))

    def accept(self, events: Sequence[CloudEvent]) -> asyncio.Future[tuple[Receipt, ...]]:
        return self.call("accept", lambda: self.world.mail_verb(self.node, "accept", self.model.accept(events)))

    def route(self, keys: Sequence[EventKey]) -> asyncio.Future[Routed]:
        return self.call("route", lambda: self.world.mail_verb(self.node, "route", self.model.route(keys)))

    def subscribe(self, subscriptions: Collection[Subscription], *, lasting_us: int) -> asyncio.Future[None]:
        return self.call("", lambda: run_now(self.model.subscribe(subscriptions, lasting_us=lasting_us)))

    def unrouted(self, *, older_than_us: int, limit: int) -> asyncio.Future[tuple[EventKey, ...]]:
        return self.call("unrouted", lambda: run_now(self.model.unrouted(older_than_us=older_than_us, limit=limit)))

    def look(
        self, looks: Sequence[Look], *, unrouted: bool = False
    ) -> asyncio.Future[Mapping[InstanceId, Sequence[InboxEvent]]]:
        return self.call("look", lambda: self.world.look(self.node, self.model.look(looks, unrouted=unrouted)))

    def learn(self, event_type: str, fields: Fields, *, since_us: int) -> asyncio.Future[None]:
        def do() -> Any:
            learning = self.model.learn(event_type, fields, since_us=since_us)
            return self.world.mail_verb(self.node, f"learn {fields}", learning)

        return self.call("learn", do)

    def expire(self, *, before_us: int, limit: int) -> asyncio.Future[int]:
        return self.call("expire", lambda: run_now(self.model.expire(before_us=before_us, limit=limit)))

    def claim_outbox(
        self, relayer: str, *, limit: int, lease_us: int, bytes_max: int = OUTBOX_BYTES_MAX
    ) -> asyncio.Future[OutboxClaims]:
        def do() -> Any:
            verb = self.model.claim_outbox(relayer, limit=limit, lease_us=lease_us, bytes_max=bytes_max)
            claims: OutboxClaims = self.world.relay_verb(self.node, f"{relayer[-8:]} leases", verb)
            self.world.relay_checks.claimed(claims)
            return claims

        return self.call("relay claim", do)

    def settle_outbox(self, settlements: Sequence[Settlement]) -> asyncio.Future[tuple[bool, ...]]:
        def do() -> Any:
            verb = self.model.settle_outbox(settlements)
            name = ", ".join(f"{leased.message.id[-8:]} {outcome}" for leased, outcome in settlements)
            held: tuple[bool, ...] = self.world.relay_verb(self.node, f"settles {name}", verb)
            self.world.relay_checks.settled_by(settlements, held)
            return held

        return self.call("relay settle", do)

    def requeue(self, event_id: str) -> asyncio.Future[bool]:
        return self.call(
            "relay requeue",
            lambda: self.world.relay_verb(self.node, f"requeue {event_id[-8:]}", self.model.requeue(event_id)),
        )

    def purge_outbox(self, *, age_us: int, limit: int = OUTBOX_LIMIT_MAX) -> asyncio.Future[int]:
        return self.call(
            "relay purge",
            lambda: self.world.relay_verb(self.node, "purge", self.model.purge_outbox(age_us=age_us, limit=limit)),
        )

    def instance(self, instance_id: InstanceId) -> asyncio.Future[InstanceRow | None]:
        return self.call("", lambda: self.model.rows.get(instance_id))

    def instances(self, ids: Sequence[InstanceId]) -> asyncio.Future[Mapping[InstanceId, InstanceRow]]:
        return self.call("children", lambda: run_now(self.model.instances(ids)))

    def histories(self, ids: Sequence[InstanceId]) -> asyncio.Future[Mapping[InstanceId, list[HistoryEvent]]]:
        return self.call("histories", lambda: run_now(self.model.histories(ids)))

    def list_instances(
        self, *, status: Status | None = None, workflow: str | None = None, limit: int = 50, before: str | None = None
    ) -> asyncio.Future[tuple[InstanceRow, ...]]:
        return self.call(
            "",
            lambda: run_now(self.model.list_instances(status=status, workflow=workflow, limit=limit, before=before)),
        )

    @property
    def sessions_exclude_writes(self) -> bool:
        return self.world.scenario.one_writer

    def transaction(
        self, worker: WorkerId, *, label: str, before_open: Callable[[], Awaitable[None]] | None = None
    ) -> FaultyTransaction:
        return FaultyTransaction(self, worker, before_open)

    def is_serialization_failure(self, error: BaseException) -> bool:
        return isinstance(error, SerializationFailure)

    async def create_in(self, session: Any, new: NewInstance) -> Creation:
        raise StorageError("the simulation has no transactions of SQLAlchemy to join")


def run_now(verb: Any) -> Any:
    """The result of a verb of the model, which awaits nothing."""
    try:
        verb.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("a verb of the model awaited something")


def _answer(answer: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if answer.done():  # the caller lost patience
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(value)


class FaultyLeaseLine:
    """The lease of one worker. Its death is noticed at once, if presence is in use, or by the end of its lease."""

    threaded = False

    def __init__(self, store: FaultyStore) -> None:
        self._store = store
        self._mine: set[WorkerId] = set()

    async def connect(self) -> None:
        pass

    def register(self, worker: WorkerId, *, service: str, lease_us: int) -> asyncio.Future[int]:
        store = self._store

        def do() -> Any:
            line = store.model.lease_line()
            self._mine.add(worker)
            store.node.workers.append(worker)
            store.world.note(store.node, f"register {worker[-8:]}")
            return run_now(line.register(worker, service=service, lease_us=lease_us))

        return store.call("register", do)

    def renew(self, worker: WorkerId, *, lease_us: int) -> asyncio.Future[Renewal]:
        store = self._store
        return store.call("renew", lambda: run_now(store.model.lease_line().renew(worker, lease_us=lease_us)))

    async def close(self) -> None:
        store = self._store
        if not store.node.process.dead and not store.world.over:
            store.model.presence -= self._mine


class FaultySession:
    """What stands for an `AsyncSession`: collects rows. `flush` is its first statement."""

    def __init__(self, transaction: FaultyTransaction) -> None:
        self.rows: list[Any] = []
        self._transaction = transaction

    def add(self, row: Any) -> None:
        self.rows.append(row)

    async def flush(self) -> None:
        await self._transaction.open()


class FaultyTransaction:
    """Rows wait here, and reach the model together with the commit. With one writer it holds the gate while open."""

    def __init__(self, store: FaultyStore, worker: WorkerId, before_open: Callable[[], Awaitable[None]] | None) -> None:
        self._store = store
        self._worker = worker
        self._before_open = before_open
        self._starts: list[NewInstance] = []
        self.session = FaultySession(self)
        self.opened = False
        self.over = False

    @property
    def alive(self) -> bool:
        return not self.over and not self._store.node.process.dead

    async def open(self) -> None:
        if self.opened:
            return
        if self._before_open is not None:
            await self._before_open()
        world = self._store.world
        while world.scenario.one_writer and world.gate is not None and world.gate.alive:  # noqa: ASYNC110
            await asyncio.sleep(0.003)
        self.opened = True
        if world.scenario.one_writer:
            world.gate = self

    async def flush(self) -> bool:
        if self.session.rows or self._starts:
            await self.open()
        return self.opened

    async def commit(self, commit: Commit) -> Verdict:
        """The statements can be interrupted; COMMIT runs to its end, and an interruption is felt afterwards."""
        world, node = self._store.world, self._store.node
        rows, starts = tuple(self.session.rows), tuple(self._starts)
        try:
            await self._store.call("", lambda: None, inside=self)
            answer = self._store.call(
                "session commit", lambda: world.session_commit(node, self._worker, commit, rows, starts), inside=self
            )
            verdict: Verdict = await to_the_end(answer)
        finally:
            await self.rollback()
        return verdict

    async def start(self, new: NewInstance) -> Creation:
        await self.open()
        if new.id in self._store.model.rows:
            return self._store.model.create_now(new)
        self._starts.append(new)
        return Creation(created=True, workflow=new.workflow, args_hash=new.args_hash)

    async def rollback(self) -> None:
        self.over = True
        self.session.rows.clear()
        self._starts.clear()
        if self._store.world.gate is self:
            self._store.world.gate = None


async def to_the_end(answer: asyncio.Future[Any]) -> Any:
    """As the real sessions do: whoever is cancelled while COMMIT is under way learns its outcome first."""
    cancellations = 0
    while not answer.done():
        try:
            await asyncio.wait({answer})
        except asyncio.CancelledError:
            cancellations += 1
    task = asyncio.current_task()
    assert task is not None
    for _ in range(cancellations):
        task.uncancel()
        task.cancel()
    return answer.result()
