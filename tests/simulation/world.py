"""A simulated world: one database, some worker processes that crash, pause and come back, and people who use them.

`World(scenario).run()` plays one schedule to its end and gives the violations it saw. All chance comes from the seed of
the scenario, and all time from the loop, so the same scenario is the same run to the last callback.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final

from edda.app import EddaApp
from edda.core.commit import Batch, BatchOutcome, Commit, NewInstance, OutboxMessage, Verdict
from edda.core.history import InstanceId, Kind, WorkerId
from edda.core.lifecycle import ENDED, REPAIRABLE, SET_ASIDE, Status
from edda.core.routing import Criteria
from edda.engine import event_waits
from edda.engine.engine import Engine
from edda.engine.environment import Environment
from edda.exceptions import EddaError, NotCancellableError, StorageError
from edda.outbox import backoff
from edda.storage import memory_inbox
from edda.storage.inbox import FOUND_MAX, WOKEN_MAX
from edda.storage.memory import MemoryStore
from edda.storage.outbox import DeadLetter
from edda.storage.port import Claims, UnknownOutcome
from edda.workflow import Workflow, constructed_apps
from tests.simulation import handling
from tests.simulation.checkers import Incarnation, Records
from tests.simulation.faults import Fault, Plan, plan_of, relay_faults_of
from tests.simulation.faulty_store import FaultyStore, FaultyTransaction, run_now
from tests.simulation.handling import HANDLERS, Order, orders_of
from tests.simulation.kitchen_sink import Node as Tree
from tests.simulation.kitchen_sink import has, has_children, kitchen_sink, messages, tree_of, waiting
from tests.simulation.loop import Process, SimLoop
from tests.simulation.outside import Outside, Relaying, relaying_of
from tests.simulation.relay_checks import RelayChecks
from tests.simulation.senders import Senders

EPOCH_US: Final = 1_700_000_000_000_000
LEASE_SECONDS: Final = 3.0
PAUSES_US: Final = (4_200_000, 5_500_000)
"""Longer than the lease, so that others take over while the process stands still."""
QUIET_US: Final = 40_000_000
"""After the last fault everything must end within this; what waits longest are the back-offs and timers of the tree."""
LONGEST_US: Final = 240_000_000
BACK_OFF_SECONDS_MAX: Final = 6.0
ORDERING: Final = 0.06
"""The share of worlds with events that start instances."""
RELAYING: Final = 0.12
"""The share of worlds with relayers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """An instance that somebody starts, and maybe cancels."""

    id: str
    workflow: Workflow[..., Any]
    arguments: dict[str, Any]
    at_us: int = 0
    cancel_at_us: int | None = None


@dataclass(slots=True, kw_only=True)
class Scenario:
    """One schedule."""

    seed: int
    starts: Sequence[Start]
    plan: Plan
    workers: int = 2
    always_evict: float = 0.5
    """The share of processes that unload a body at every wait."""
    presence: float = 0.6
    """The share of crashes that others notice at once."""
    shutdowns: tuple[int, ...] = ()
    """Times at which some process is shut down in order."""
    glitches: tuple[int, ...] = ()
    """Times at which the presence of a living worker is lost."""
    crashes: tuple[int, ...] = ()
    pauses: tuple[int, ...] = ()
    restart_us: tuple[int, int] = (20_000, 2_500_000)
    early: float = 0.5
    """The share of events that are sent before anybody waits for them."""
    copies: float = 0.2
    """The chance that an event is sent twice, though it was answered."""
    letters_max: int = 1_000_000
    woken_max: int = WOKEN_MAX
    found_max: int = FOUND_MAX
    one_writer: bool = False
    """As on SQLite: an open session keeps all writes waiting."""
    relaying: Relaying | None = None
    """Its processes have relayers."""
    orders: Sequence[Order] = ()
    """Events that start instances."""
    handling: bool = False
    """Events start instances even where nobody orders."""

    @property
    def handles(self) -> bool:
        return self.handling or bool(self.orders)


def scenario_of(seed: int, *, relayed: bool | None = None, ordered: bool | None = None) -> Scenario:
    """A swarm: each seed draws which kinds of faults there are, and how many.

    `relayed`, `ordered`: whether there are relayers, and events that start instances; drawn, too, if nobody says.
    """
    random = Random(seed)
    plan = plan_of(random)
    starts: list[Start] = []
    for number in range(random.choice((1, 1, 1, 2, 2, 3))):
        size = random.choice((2, 3, 4, 5, 6, 8))
        tree = random.randrange(1 << 30)
        if number == 0:
            while not _suits(tree_of(tree, size), plan):
                tree += 1
        at_us = random.choice((0, 0, 1_000, 200_000))
        cancelled = random.random() < 0.27 or (number == 0 and "cancel" in plan)
        starts.append(
            Start(
                id=f"i{number}",
                workflow=kitchen_sink,
                arguments={"seed": tree, "size": size},
                at_us=at_us,
                cancel_at_us=at_us + int(10 ** random.uniform(3, 6.6)) if cancelled else None,
            )
        )

    def times(chance: float, most: int) -> tuple[int, ...]:
        if random.random() > chance:
            return ()
        return tuple(int(10 ** random.uniform(3.0, 6.5)) for _ in range(random.randint(1, most)))

    one_writer = random.random() < 0.12
    scenario = Scenario(
        seed=seed,
        starts=starts,
        plan=plan,
        one_writer=one_writer,
        early=random.choice((0.0, 0.5, 1.0)),
        copies=random.choice((0.0, 0.2, 0.6)),
        woken_max=random.choice((WOKEN_MAX, 1, 2)),
        found_max=random.choice((FOUND_MAX, 1, 2)),
        workers=1 if one_writer else random.choice((1, 2, 2, 2, 3)),
        always_evict=random.choice((0.0, 0.0, 0.5, 1.0)),
        presence=random.choice((0.0, 1.0, 1.0)),
        shutdowns=times(1.0 if "retire" in plan else 0.1, 1),
        glitches=times(0.12, 2),
        crashes=times(0.25, 3),
        pauses=times(0.15, 2),
    )
    more = Random(f"relaying {seed}")
    by_chance = more.random() < RELAYING
    if by_chance if relayed is None else relayed:
        _add_relayers(scenario, more)
    more = Random(f"orders {seed}")
    by_chance = more.random() < ORDERING
    if by_chance if ordered is None else ordered:
        scenario.orders = orders_of(more)
    return scenario


def _add_relayers(scenario: Scenario, random: Random) -> None:
    """The same world, with relayers, and with more to relay; its chance is of its own, so that others stay the same."""
    scenario.plan.add(relay_faults_of(random))
    plan = scenario.plan
    scenario.relaying = relaying_of(random, purges="relay purge" in plan, refuses="relay requeue" in plan)
    scenario.starts = [
        replace(start, arguments=_sending(start.arguments, plan if number == 0 else None))
        for number, start in enumerate(scenario.starts)
    ]


def _sending(arguments: dict[str, Any], plan: Plan | None) -> dict[str, Any]:
    """Of a tree that sends two events or more, if it is no leaf."""
    tree, size = arguments["seed"], max(arguments["size"], 3)
    while messages(tree_of(tree, size)) < 2 or (plan is not None and not _suits(tree_of(tree, size), plan)):
        tree += 1
    return {"seed": tree, "size": size}


def _suits(tree: Tree, plan: Plan) -> bool:
    """Whether there is in it what the faults of the plan are to hit."""
    if ("write child" in plan or "children" in plan) and not has_children(tree):
        return False
    if "learn" in plan and not has(tree, "paid", "deadline", "echo"):
        return False
    return not ("accept" in plan or "route" in plan or "look" in plan) or any(waiting(tree))


class Node:
    """A worker process: its queue, its app, and the store as it sees it."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.process = Process(f"p{number}")
        self.workers: list[WorkerId] = []
        """Ids under which it has registered."""
        self.ready = False
        self.leaving = False
        self.has_stood_still = False
        self.engine: Engine | None = None
        random = Random(world.loop.random.getrandbits(48))
        skew_us = random.choice((0, -3_600_000_000, 3_600_000_000, 30_000_000))
        loop = world.loop
        self.environment = Environment(
            steady_us=lambda: loop.now_us + 1_000_000 * number + 77,
            wall_us=lambda: loop.now_us + EPOCH_US + skew_us,
            random=random,
            always_evict=random.random() < world.scenario.always_evict,
        )
        self.store = FaultyStore(world, self)
        self.app = SimApp(self)


class SimApp(EddaApp):
    """An app on the simulated store and environment. `world` is where its user code makes notes."""

    def __init__(self, node: Node) -> None:
        super().__init__(
            node.process.name,
            "simulated",
            lease_seconds=LEASE_SECONDS,
            shutdown_grace_seconds=1.0,
            max_residents=node.world.loop.random.choice((1, 100)),
        )
        constructed_apps.discard(self)
        self._handlers.update(HANDLERS)
        self.node = node
        self.world = node.world
        self.bench = node.world.bench

    async def initialize(self) -> None:
        self._home = (asyncio.get_running_loop(), os.getpid())
        engine = Engine(
            app=self,
            store=self.node.store,  # type: ignore[arg-type]  # its verbs return futures
            settings=self._settings,
            observer=None,
            workflows=self._registered,
            environment=self.node.environment,
            on_outbox=self._hint_relayer,
            subscriptions=self._subscriptions if self.world.scenario.handles else frozenset,
        )
        self._engine = self.node.engine = engine
        await engine.begin()
        if self.world.outside is not None:
            self._relayer, *self._relayers = self.world.outside.relayers_of(self.node)

    def _hint_relayer(self) -> None:
        if self.world.scenario.relaying is not None and self.world.scenario.relaying.hints:
            super()._hint_relayer()

    def __del__(self) -> None:
        pass


class World:
    """See the head of this file."""

    def __init__(self, scenario: Scenario, *, trace: bool = False) -> None:
        self.scenario = scenario
        self.random = Random(scenario.seed * 2 + 1)
        self.loop = SimLoop(Random(scenario.seed * 2))
        self.plan = scenario.plan
        self.store = MemoryStore(now_us=self._now_us)
        self.records = Records(self)
        self.mail = self.records.mail
        self.nodes: list[Node] = []
        self.hits: Counter[tuple[str, str]] = Counter()
        """(operation, fault) -> how often; fault "ok" counts the calls that went well."""
        self.bench: object = None
        """What canonical workflows find their surroundings by."""
        self.gate: FaultyTransaction | None = None
        self.over = False
        self.pause_us = self.random.choice(PAUSES_US)
        self.disturbances = 0
        """Crashes, pauses, lost presences: each may cost an attempt."""
        self.trace: list[str] | None = [] if trace else None
        self.senders = Senders(self)
        self.outside = Outside(self, scenario.relaying) if scenario.relaying is not None else None
        self._last_fault_us = 0
        self._acknowledged: set[str] = set()
        self._starting: dict[str, Node] = {}
        self._cancelled: dict[str, str] = {}
        self._repairs: Counter[str] = Counter()

    # -- playing -----------------------------------------------------------------------------------------------------

    def run(self) -> list[str]:
        """Play it; returns the violations."""
        loop, scenario = self.loop, self.scenario
        guard = _Logs(self)
        limits = (memory_inbox.WOKEN_MAX, memory_inbox.FOUND_MAX, backoff.LONGEST_SECONDS)
        try:
            self._limit(scenario.woken_max, scenario.found_max, BACK_OFF_SECONDS_MAX)
            for _ in range(scenario.workers):
                self._boot()
            for start in scenario.starts:
                loop.after(loop.world, start.at_us, self._start, start)
                if start.cancel_at_us is not None:
                    loop.after(loop.world, start.cancel_at_us, self._cancel, start)
                self.senders.ahead(start)
            for order in scenario.orders:
                self.senders.order(order)
            for at_us in scenario.crashes:
                loop.after(loop.world, at_us, self._disturb, "crash", self.crash)
            for at_us in scenario.pauses:
                loop.after(loop.world, at_us, self._disturb, "pause", self.pause)
            for at_us in scenario.shutdowns:
                loop.after(loop.world, at_us, self._disturb, "shutdown", self._shut_down)
            for at_us in scenario.glitches:
                loop.after(loop.world, at_us, self._disturb, "presence lost", self._lose_presence)
            loop.after(loop.world, 500_000, self._look_after)
            loop.run(until_us=LONGEST_US)
            if not self._finished():
                self.records.violate("I52", f"not finished at {loop.now_us / 1e6:.1f} s: {self._unfinished()}")
            for context in loop.unhandled:
                error = context.get("exception")
                self.records.violate("engine", f"unhandled: {context.get('message')}: {error!r}")
            self.records.check_end()
        except AssertionError as error:
            if "spins" not in str(error):
                raise
            self.records.violate("I52", str(error))
        finally:
            self._put_away()
            self._limit(*limits)
            guard.remove()
        return self.records.violations

    def _limit(self, woken_max: int, found_max: int, back_off_seconds_max: float) -> None:
        """Small worlds have chunks, too, if chunks are small; and short ones see it when something is tried again."""
        setattr(backoff, "LONGEST_SECONDS", back_off_seconds_max)  # noqa: B010
        setattr(memory_inbox, "WOKEN_MAX", woken_max)  # noqa: B010
        for module in (memory_inbox, event_waits):
            setattr(module, "FOUND_MAX", found_max)  # noqa: B010

    def _now_us(self) -> int:
        return EPOCH_US + self.loop.now_us

    def _put_away(self) -> None:
        self.over = True
        for node in self.nodes:
            worker = node.engine.worker if node.engine is not None else None
            if worker is not None:
                for driver in [*worker.drivers.values(), *worker._residents._parked.values()]:
                    phase = driver._phase
                    if phase is not None:
                        phase.evict()
            node.app._engine = None
        self.loop.close_tasks()

    # -- processes ---------------------------------------------------------------------------------------------------

    def _boot(self) -> None:
        node = Node(self, len(self.nodes))
        self.nodes.append(node)
        self.note(node, "boots" + (" (always evicts)" if node.environment.always_evict else ""))
        self.loop.spawn(node.process, self._initialize(node))

    async def _initialize(self, node: Node) -> None:
        try:
            await node.app.initialize()
        except (StorageError, UnknownOutcome):
            self.crash(node)  # as a process whose start-up fails: somebody starts it again
            return
        node.ready = True

    def _restart_later(self) -> None:
        low, high = self.scenario.restart_us
        self.loop.after(self.loop.world, low + int(self.random.random() * (high - low)), self._boot)

    def crash(self, node: Node) -> None:
        """From this instant the world refuses whatever the process does."""
        if node.process.dead:
            return
        self.disturbances += 1
        self._last_fault_us = self.loop.now_us
        self.note(node, "CRASHES")
        self.loop.crash(node.process)
        node.ready = False
        if self.random.random() < self.scenario.presence:
            self.store.presence.difference_update(node.workers)
        self._restart_later()

    def pause(self, node: Node) -> None:
        if node.process.dead or node.process.held:
            return
        self.disturbances += 1
        self._last_fault_us = self.loop.now_us + self.pause_us
        self.note(node, "PAUSES")
        node.has_stood_still = True
        self.loop.pause(node.process, self.pause_us)

    def _shut_down(self, node: Node) -> None:
        if node.ready and not node.leaving:
            node.leaving, node.ready = True, False
            self.disturbances += 1
            self._last_fault_us = self.loop.now_us
            self.note(node, "SHUTS DOWN")
            self.loop.spawn(node.process, self._leave(node))

    async def _leave(self, node: Node) -> None:
        await node.app.shutdown()
        if not node.process.dead:
            self.note(node, "has left")
            self.loop.crash(node.process)
            self.loop.after(self.loop.world, 10_000, self._replace_left, node)

    def _replace_left(self, node: Node) -> None:
        self._restart_later()

    def _lose_presence(self, node: Node) -> None:
        self.disturbances += 1
        self._last_fault_us = self.loop.now_us
        self.note(node, "loses its presence")
        self.store.presence.difference_update(node.workers)

    def _disturb(self, name: str, what: Callable[[Node], None]) -> None:
        living = [node for node in self.nodes if not node.process.dead and not node.leaving and node.workers]
        if living:
            self.hits["process", name] += 1
            what(self.random.choice(living))

    # -- people ------------------------------------------------------------------------------------------------------

    def serving(self) -> list[Node]:
        return [node for node in self.nodes if node.ready and not node.process.dead and not node.process.held]

    def _start(self, start: Start) -> None:
        serving = self.serving()
        if serving:
            node = self._starting[start.id] = self.random.choice(serving)
            self.loop.spawn(node.process, self._start_at(node, start))
        else:
            self.loop.after(self.loop.world, 20_000, self._start, start)

    async def _start_at(self, node: Node, start: Start) -> None:
        try:
            await node.app.start(start.workflow.options(id=start.id), **start.arguments)
        except EddaError as error:
            self.note(node, f"start of {start.id} failed: {error}")
            self._starting.pop(start.id, None)
        else:
            self._acknowledged.add(start.id)
            if start.id not in self.store.rows:
                self.records.violate("202", f"{start.id} was acknowledged, and is not there")

    def _cancel(self, start: Start) -> None:
        serving = self.serving()
        if serving and start.id in self.store.rows and self._cancelled.get(start.id) != "done":
            node = self.random.choice(serving)
            self.loop.spawn(node.process, self._cancel_at(node, start.id))

    async def _cancel_at(self, node: Node, instance_id: str) -> None:
        try:
            await node.app.cancel(instance_id)
        except NotCancellableError:
            self._cancelled[instance_id] = "done"
            row, history = self.store.rows[InstanceId(instance_id)], self.store.history[InstanceId(instance_id)]
            undoing = any(event.kind == Kind.COMPENSATION_STARTED for event in history)
            if row.cancel_requested_at_us is None and row.status not in ENDED and not undoing:
                self.records.violate("I37", f"cancel of {instance_id} was refused for no reason")
        except EddaError:
            self.note(node, f"cancel of {instance_id}: no answer")
        else:
            self._cancelled[instance_id] = "done"
            if self.store.rows[InstanceId(instance_id)].cancel_requested_at_us is None:
                self.records.violate("I37", f"cancel of {instance_id} was accepted, and is not there")

    async def _repair_at(self, node: Node, instance_id: str) -> None:
        try:
            await node.app.retry(instance_id)
        except EddaError:
            self.note(node, f"retry of {instance_id}: no answer")
        else:
            self._repairs[instance_id] += 1

    def _look_after(self) -> None:
        """Twice a second: start again what nobody acknowledged, repair what was set aside, see whether all is done."""
        loop = self.loop
        for start in self.scenario.starts:
            if start.id not in self._acknowledged and start.at_us <= loop.now_us:
                node = self._starting.get(start.id)
                if node is None or node.process.dead:
                    self._start(start)
        for row in list(self.store.rows.values()):
            if row.status in REPAIRABLE and self._repairs[row.id] < self._repairs_allowed(row.status):
                serving = self.serving()
                if serving:
                    node = self.random.choice(serving)
                    loop.spawn(node.process, self._repair_at(node, row.id))
        self.senders.look_after()
        self.mail.look_after(loop.now_us - self._last_fault_us)
        if self.outside is not None:
            self.outside.look_after()
        if self._finished():
            loop.stop()
            return
        if loop.now_us - max(self._last_fault_us, self.scenario.starts[-1].at_us) > QUIET_US:
            self.records.violate("I52", f"stuck: {self._unfinished()}")
            self._acknowledged.update(start.id for start in self.scenario.starts)
            loop.stop()
            return
        loop.after(loop.world, 500_000, self._look_after)

    def _repairs_allowed(self, status: Status) -> int:
        return {Status.QUARANTINED: 6, Status.COMPENSATION_FAILED: 1}.get(status, 0)

    def _finished(self) -> bool:
        if any(start.id not in self._acknowledged for start in self.scenario.starts):
            return False
        if self.outside is not None and not self.outside.finished():
            return False
        if self.scenario.orders and not handling.all_started(self):
            return False
        return all(
            row.status in ENDED | SET_ASIDE and self._repairs[row.id] >= self._repairs_allowed(row.status)
            for row in self.store.rows.values()
        )

    def _unfinished(self) -> str:
        return (
            ", ".join(
                f"{row.id} {row.status} ({row.reason}) owner {row.owner and row.owner[-8:]} claim {row.claim} "
                f"due {row.claimable_at_us and (row.claimable_at_us - EPOCH_US) / 1e6} wakes {row.wakes}"
                for row in self.store.rows.values()
                if row.status not in ENDED
            )
            or (self.outside is not None and self.outside.unfinished())
            or (handling.all_started(self) and "a start was never acknowledged")
            or "an event has not started what it should"
        )

    # -- what happens at the database --------------------------------------------------------------------------------

    def write(self, node: Node, worker: WorkerId, batch: Batch, operation: str) -> BatchOutcome:
        before = self.records.before(batch.commits)
        try:
            outcome: BatchOutcome = run_now(self.store.write(worker, batch))
        except BaseException as error:
            self.note(node, f"{operation}: {type(error).__name__}")
            raise
        if self.trace is not None:
            for commit, verdict in zip(batch.commits, outcome.verdicts, strict=True):
                self.note(node, f"{operation} {_shown(commit)} -> {verdict.value}")
            for new in batch.starts:
                self.note(node, f"start {new.id}")
        self.records.written(node, worker, batch.commits, outcome.verdicts, before)
        return outcome

    def session_commit(
        self, node: Node, worker: WorkerId, commit: Commit, rows: Sequence[Any], starts: Sequence[NewInstance]
    ) -> Verdict:
        transaction = self.store.transaction(worker, label="")
        for row in rows:
            transaction.session.add(row)
        for new in starts:
            run_now(transaction.start(new))
        before = self.records.before((commit,))
        try:
            verdict: Verdict = run_now(transaction.commit(commit))
        except BaseException as error:
            self.note(node, f"session commit: {type(error).__name__}")
            raise
        if self.trace is not None:
            self.note(node, f"session commit {_shown(commit)} -> {verdict.value}")
        self.records.written(node, worker, (commit,), (verdict,), before)
        return verdict

    def claim(self, node: Node, worker: WorkerId, **options: Any) -> Claims:
        claims: Claims = run_now(self.store.claim(worker, **options))
        if self.trace is not None and claims.rows:
            self.note(node, "claims " + ", ".join(f"{row.id}#{row.claim}" for row in claims.rows))
        if claims.rows:
            self.records.changed()
        return claims

    def verb(self, node: Node, name: str, verb: Any) -> Any:
        answer = run_now(verb)
        if self.trace is not None:
            self.note(node, f"{name} -> {_short(answer)}")
        self.records.changed()
        return answer

    def mail_verb(self, node: Node, name: str, verb: Any) -> Any:
        answer = self.verb(node, name, verb)
        self.mail.mail_changed()
        return answer

    @property
    def relay_checks(self) -> RelayChecks:
        assert self.outside is not None
        return self.outside.checks

    def relay_verb(self, node: Node, name: str, verb: Any) -> Any:
        self.relay_checks.note_committed()
        answer = run_now(verb)
        if self.trace is not None:
            self.note(node, f"{name} -> {_short(answer)}")
        self.relay_checks.changed()
        return answer

    def dead_letters(self, *, limit: int = 100) -> tuple[DeadLetter, ...]:
        letters: tuple[DeadLetter, ...] = run_now(self.store.dead_letters(limit=limit))
        return letters

    def messages(self) -> Iterable[OutboxMessage]:
        """All that ever were in the outbox."""
        if self.outside is None:
            return self.store.outbox
        self.outside.checks.note_committed()
        return self.outside.checks.committed.values()

    def look(self, node: Node, verb: Any) -> Any:
        found = run_now(verb)
        if self.trace is not None:
            told = {name: [f"{one.event.source}/{one.event.id}" for one in mail] for name, mail in found.items()}
            self.note(node, f"look -> {told}")
        return found

    # -- notes -------------------------------------------------------------------------------------------------------

    def count(self, operation: str) -> None:
        self.hits[operation, "ok"] += 1

    def hit(self, operation: str, fault: Fault) -> None:
        self.hits[operation, fault.value] += 1
        self.disturbances += 1
        self._last_fault_us = max(self._last_fault_us, self.loop.now_us)

    def put_off(self) -> None:
        """The receiver did not take something: whoever waits for that has to wait on."""
        self._last_fault_us = max(self._last_fault_us, self.loop.now_us)

    def note(self, node: Node | None, text: str) -> None:
        if self.trace is not None:
            who = node.process.name if node is not None else "world"
            self.trace.append(f"{self.loop.now_us / 1e6:10.6f} {who:5} {text}")

    # what user code tells (see `kitchen_sink.Notes`)

    def entered_body(self, instance_id: str, worker_id: str) -> list[Any]:
        return self.records.entered_body(instance_id, worker_id)

    def entered(self, instance_id: str, call_id: str, worker_id: str, attempt: int, name: str, args: Any) -> None:
        if self.trace is not None:
            self.note(self.node_of(worker_id), f"  {instance_id} enters {call_id} attempt {attempt}")
        self.records.entered(instance_id, call_id, worker_id, attempt, name, args)

    def left(self, instance_id: str, call_id: str, worker_id: str, attempt: int) -> None:
        if self.trace is not None:
            self.note(self.node_of(worker_id), f"  {instance_id} leaves {call_id}")

    def not_before(self, instance_id: str, due_us: int) -> None:
        if self._now_us() < due_us:
            self.records.violate("I29", f"{instance_id}: a timer due at {due_us} fired at {self._now_us()}")

    def wanted(self, instance_id: str, call_id: str, worker_id: str, criteria: Criteria, due_us: int | None) -> None:
        self.mail.wanted(instance_id, call_id, worker_id, criteria, due_us)
        self.senders.wanted(instance_id, call_id, criteria, due_us)

    def node_of(self, worker_id: str) -> Node | None:
        return next((node for node in self.nodes if worker_id in node.workers), None)


class _Logs(logging.Handler):
    """While a world runs, the engine's log goes into its trace; what says that the engine broke is a violation."""

    BROKEN = ("broke down",)

    def __init__(self, world: World) -> None:
        super().__init__(logging.WARNING if world.trace is not None else logging.ERROR)
        self._world = world
        self._logger = logging.getLogger("edda")
        self._before = (self._logger.propagate, self._logger.level)
        self._logger.propagate = False
        self._logger.setLevel(self.level)
        self._logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if self._world.trace is not None:
            self._world.note(None, f"log: {text}")
        if any(words in text for words in self.BROKEN) and not self._world.over:
            error = record.exc_info[1] if record.exc_info else None
            self._world.records.violate("engine", f"{text}: {error!r}")

    def remove(self) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate, level = self._before
        self._logger.setLevel(level)


def _shown(commit: Commit) -> str:
    records = " ".join(f"{record.seq}:{record.kind}({record.call_id})" for record in commit.records)
    row = type(commit.row).__name__
    status = getattr(commit.row, "status", "")
    extras = "".join(
        f" {name}={len(getattr(commit, name))}"
        for name in ("children", "outbox", "wakes", "cancels", "waits", "waits_over", "posts")
        if getattr(commit, name)
    )
    return f"{commit.instance_id}#{commit.claim} [{records}] {row}{f' {status}' if status else ''}{extras}"


def _short(answer: Any) -> str:
    if answer is None or isinstance(answer, tuple):
        return str(answer)
    status = getattr(answer, "status", None)
    return str(status) if status is not None else str(answer)[:200]


@dataclass(slots=True)
class Result:
    """What one schedule gave."""

    seed: int
    violations: list[str]
    hits: Counter[tuple[str, str]]
    trace: list[str] = field(default_factory=list[str])
    histories: int = 0


def play(scenario: Scenario, *, trace: bool = False) -> Result:
    """Play one schedule. The garbage collector rests meanwhile: it would cost a third of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        world = World(scenario, trace=trace)
        violations = world.run()
        rows = sum(map(len, world.store.history.values()))
        return Result(scenario.seed, violations, world.hits, world.trace or [], rows)
    finally:
        if collecting:
            gc.enable()


__all__ = ["Incarnation", "Node", "Result", "Scenario", "Start", "World", "play", "scenario_of"]
