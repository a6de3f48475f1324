"""Planted bugs: a simulation is only as good as what it catches. Each mutant is a context manager that plants one.

`python -m tests.simulation.mutants` runs schedules under each until one is caught, and prints what caught it. Those at
the end are bugs that the simulation found in edda itself; they must stay catchable.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from edda.core.commit import Batch, BatchOutcome, Commit, End, Park, Undo, Verdict
from edda.core.history import Kind, WorkerId
from edda.engine import undoing
from edda.engine.attempts import Attempt, Outcome
from edda.engine.body_loop import BodyLoop
from edda.engine.body_phase import BodyPhase
from edda.engine.claimer import Claimer
from edda.engine.committer import Committer
from edda.engine.driver import Driver
from edda.engine.environment import DatabaseClock
from edda.engine.instance import Instance
from edda.engine.phases import Write
from edda.engine.residents import Residents
from edda.engine.step import Step
from edda.engine.undoing import UndoingPhase
from edda.storage import memory
from edda.storage.memory import MemoryStore
from edda.storage.port import Reaped, Renewal
from tests.simulation.canonical import CANONICAL
from tests.simulation.crash_matrix import play_canonical
from tests.simulation.faults import Fault, Plan
from tests.simulation.faulty_store import FaultyStore
from tests.simulation.kitchen_sink import kitchen_sink, tree_of
from tests.simulation.mail_mutants import MAIL_MUTANTS
from tests.simulation.order_mutants import ORDER_MUTANTS
from tests.simulation.planting import MUTANTS, mutant, swapped
from tests.simulation.relay_mutants import RELAY_MUTANTS
from tests.simulation.run import COLLECT_EVERY
from tests.simulation.world import Scenario, Start, play, scenario_of

SCHEDULES_MAX: Final = 3000
assert set(MAIL_MUTANTS) < {*MUTANTS, ""}, "those of events are planted by their import"


# -- fences ------------------------------------------------------------------------------------------------------------


def _unfenced(changes: type[Any]) -> Any:
    """Writes of this kind are accepted from anybody."""

    def make(original: Any) -> Any:
        def judge(self: MemoryStore, worker: WorkerId, commit: Commit) -> Verdict:
            if isinstance(commit.row, changes):
                row = self.rows[commit.instance_id]
                return original(self, row.owner, commit._replace(claim=row.claim))  # type: ignore[no-any-return]
            return original(self, worker, commit)  # type: ignore[no-any-return]

        return judge

    return swapped(MemoryStore, "_judge", make)


def _no_fence_where(applies: Callable[[Batch], bool]) -> Any:
    def make(original: Any) -> Any:
        def write_now(self: MemoryStore, worker: WorkerId, batch: Batch) -> BatchOutcome:
            known = self.workers.get(worker)
            if known is None or known.alive or not applies(batch):
                return original(self, worker, batch)  # type: ignore[no-any-return]
            known.alive = True
            try:
                return original(self, worker, batch)  # type: ignore[no-any-return]
            finally:
                known.alive = False

        return write_now

    return swapped(MemoryStore, "write_now", make)


@mutant("no fence in park")
@contextmanager
def no_fence_in_park() -> Iterator[None]:
    with _no_fence_where(lambda batch: any(isinstance(c.row, Park) for c in batch.commits)), _unfenced(Park):
        yield


@mutant("no fence in finish")
@contextmanager
def no_fence_in_finish() -> Iterator[None]:
    with (
        _no_fence_where(lambda batch: any(isinstance(c.row, End | Undo) for c in batch.commits)),
        _unfenced(End | Undo),
    ):  # type: ignore[arg-type]
        yield


@mutant("no fence in a step")
def no_fence_in_step() -> Any:
    return _no_fence_where(lambda batch: bool(batch.commits))


@mutant("no fence in a session")
def no_fence_in_session() -> Any:
    def make(original: Any) -> Any:
        async def commit(self: Any, commit: Commit) -> Verdict:
            known = self._store.workers.get(self._worker)
            alive, known.alive = known.alive, True
            try:
                return await original(self, commit)  # type: ignore[no-any-return]
            finally:
                known.alive = alive

        return commit

    return swapped(memory._MemoryTransaction, "commit", make)  # pyright: ignore[reportPrivateUsage]


@mutant("reaper by plain update: the dead one may go on writing")
def reaper_by_plain_update() -> Any:
    def make(original: Any) -> Any:
        async def reap(self: MemoryStore, dead: WorkerId) -> Reaped | None:
            reaped: Reaped | None = await original(self, dead)
            if reaped is not None:
                self.workers[dead].alive = True
            return reaped

        return reap

    return swapped(MemoryStore, "reap", make)


@mutant("release without the claim number")
@contextmanager
def release_without_claim_number() -> Iterator[None]:
    def judge(original: Any) -> Any:
        def judge(self: MemoryStore, worker: WorkerId, commit: Commit) -> Verdict:
            row = self.rows.get(commit.instance_id)
            if isinstance(commit.row, Park | End) and row is not None:
                commit = commit._replace(claim=row.claim)
            return original(self, worker, commit)  # type: ignore[no-any-return]

        return judge

    def settle(original: Any) -> Any:
        def settle(self: MemoryStore, worker: WorkerId, commit: Commit) -> Verdict | None:
            row = self.rows.get(commit.instance_id)
            if isinstance(commit.row, Park | End) and row is not None and not commit.records:
                return None if row.owner == worker else Verdict.COMMITTED
            return original(self, worker, commit)  # type: ignore[no-any-return]

        return settle

    with swapped(MemoryStore, "_judge", judge), swapped(MemoryStore, "_settle", settle):
        yield


@mutant("a renewal revives a dead worker")
def renewal_revives() -> Any:
    def make(original: Any) -> Any:
        async def renew(self: Any, worker: WorkerId, *, lease_us: int) -> Renewal:
            known = self._store.workers.get(worker)
            if known is not None:
                known.alive = True
            return await original(self, worker, lease_us=lease_us)  # type: ignore[no-any-return]

        return renew

    return swapped(memory._MemoryLeaseLine, "renew", make)  # pyright: ignore[reportPrivateUsage]


# -- waiting and waking ------------------------------------------------------------------------------------------------


@mutant("park overwrites a wake")
def park_overwrites_wake() -> Any:
    def make(original: Any) -> Any:
        def write_now(self: MemoryStore, worker: WorkerId, batch: Batch) -> BatchOutcome:
            blind = tuple(
                commit._replace(row=commit.row._replace(seen_wakes=self.rows[commit.instance_id].wakes))
                if isinstance(commit.row, Park)
                else commit
                for commit in batch.commits
            )
            return original(self, worker, replace(batch, commits=blind))  # type: ignore[no-any-return]

        return write_now

    return swapped(MemoryStore, "write_now", make)


@mutant("look before commit: what comes after the look is not looked at")
@contextmanager
def look_before_commit() -> Iterator[None]:
    """The children are looked up as soon as the body asks; a wake that comes later counts as looked after."""

    def collect(original: Any) -> Any:
        def collect(self: BodyPhase) -> None:
            original(self)
            driver: Any = self._instance.client
            if (children := self.children_to_look_up()) and not self._journal.replaying:
                self._house.look_up_children(driver, children)

        return collect

    with swapped(BodyPhase, "_collect", collect), swapped(BodyPhase, "woken", lambda _: lambda self: None):
        yield


@mutant("a resident is resumed whatever the claim number")
@contextmanager
def resident_without_claim_number() -> Iterator[None]:
    def take(original: Any) -> Any:
        def take(self: Residents, instance_id: Any, *, claim: int) -> Driver | None:
            driver = self._parked.get(instance_id)
            if driver is None or driver.claim >= claim:
                return original(self, instance_id, claim=claim)  # type: ignore[no-any-return]
            return original(self, instance_id, claim=driver.claim + 1)  # type: ignore[no-any-return]

        return take

    def reclaimed(original: Any) -> Any:
        def reclaimed(self: Instance, row: Any) -> None:
            self.row = self.row._replace(claim=row.claim - 1)
            original(self, row)

        return reclaimed

    with swapped(Residents, "take", take), swapped(Instance, "reclaimed", reclaimed):
        yield


@mutant("a timer fires by the upper bound of the database's clock")
def early_timer() -> Any:
    return swapped(DatabaseClock, "at_least_us", lambda _: DatabaseClock.at_most_us)


# -- commits -----------------------------------------------------------------------------------------------------------


@mutant("a lost COMMIT counts as a failure")
def lost_commit_is_failure() -> Any:
    def make(original: Any) -> Any:
        async def settled(self: Committer, batch: Batch) -> tuple[Verdict | None, ...]:
            return tuple(None for _ in await original(self, batch))

        return settled

    return swapped(Committer, "settled", make)


@mutant("a retryable error is ignored: half of a batch is applied")
def half_applied() -> Any:
    """As 1205 does it: the statement is rolled back, the transaction goes on."""

    def make(original: Any) -> Any:
        def change_row(self: MemoryStore, commit: Commit, now_us: int) -> None:
            count = self.__dict__["_statements"] = self.__dict__.get("_statements", 0) + 1
            if count % 7:
                original(self, commit, now_us)

        return change_row

    return swapped(MemoryStore, "_change_row", make)


@mutant("the outbox is written after the commit, not with it")
def outbox_apart() -> Any:
    def make(original: Any) -> Any:
        def write(self: FaultyStore, worker: WorkerId, batch: Batch) -> Any:
            bare = replace(batch, commits=tuple(commit._replace(outbox=()) for commit in batch.commits))
            messages = [message for commit in batch.commits for message in commit.outbox]
            answer = original(self, worker, bare)
            loop, store = self.world.loop, self.world.store
            answer.add_done_callback(lambda _: loop.after(self.node.process, 500, store.outbox.extend, messages))
            return answer

        return write

    return swapped(FaultyStore, "write", make)


@mutant("an effect begins before the acknowledgement")
def effect_before_ack() -> Any:
    def make(original: Any) -> Any:
        def write(self: Driver, write: Write) -> None:
            if isinstance(self._phase, BodyPhase):
                self._instance.steps.begin(self, self._house.attempts, self._house.hooks)
            original(self, write)

        return write

    return swapped(Driver, "_write", make)


@mutant("a cancel is checked outside the completion's update")
def cancel_checked_outside() -> Any:
    def make(original: Any) -> Any:
        def judge(self: MemoryStore, worker: WorkerId, commit: Commit) -> Verdict:
            verdict: Verdict = original(self, worker, commit)
            return Verdict.COMMITTED if verdict is Verdict.CANCEL_FIRST else verdict

        return judge

    return swapped(MemoryStore, "_judge", make)


@mutant("two completions are delivered without draining in between")
@contextmanager
def two_without_draining() -> Iterator[None]:
    def begin_delivery(original: Any) -> Any:
        def begin_delivery(self: BodyLoop, at_us: int) -> None:  # without the assertions that would find it at once
            self.advance(at_us)
            self._ran = 0

        return begin_delivery

    def deliver_first(original: Any) -> Any:
        def deliver_first(self: BodyPhase) -> None:
            original(self)
            if self._instance.arrived:
                original(self)

        return deliver_first

    with (
        swapped(BodyLoop, "_begin_delivery", begin_delivery),
        swapped(BodyPhase, "_deliver_first", deliver_first),
    ):
        yield


# -- retries and undoing -----------------------------------------------------------------------------------------------


@mutant("retries are counted in memory")
def retries_in_memory() -> Any:
    return swapped(Step, "resume", lambda _: lambda self, failures: None)


@mutant("the undo list is lost in a crash")
def undo_list_lost() -> Any:
    def make(original: Any) -> Any:
        def take_next(self: UndoingPhase) -> bool:
            begun = undoing_began(self._instance.journal.events)
            return begun == self._instance.claim and original(self)

        return take_next

    return swapped(UndoingPhase, "_take_next", make)


def undoing_began(events: Any) -> int:
    return next(event.claim for event in events if event.kind == Kind.COMPENSATION_STARTED)


@mutant("undo in the order of the start")
def undo_in_order() -> Any:
    return swapped(undoing, "owed", lambda original: lambda history: original(history)[::-1])


# -- bugs that were ours -----------------------------------------------------------------------------------------------


@mutant("ours: after a crash the undoing trips over the completions that no body took")
def ours_undoing_after_crash() -> Any:
    def make(original: Any) -> Any:
        def init(self: UndoingPhase, instance: Instance, *rest: Any) -> None:
            journal = instance.journal
            position, left = journal.position, journal._left  # pyright: ignore[reportPrivateUsage]
            original(self, instance, *rest)
            journal.position, journal._left = position, left  # pyright: ignore[reportPrivateUsage]

        return init

    return swapped(UndoingPhase, "__init__", make)


@mutant("ours: a recorded result waits behind others")
def ours_recorded_behind() -> Any:
    return swapped(Instance, "outcome_arrived", lambda _: lambda self, outcome: self.arrived.append(outcome))


@mutant("ours: what the body does at once overtakes a recorded result")
def ours_instants_first() -> Any:
    def make(original: Any) -> Any:
        def deliver_first(self: BodyPhase) -> None:
            first = self._instance.arrived[0]
            if isinstance(first, Outcome) and first.recorded is not None and self._instants:
                self._perform(self._instants.pop(next(iter(self._instants))))
            else:
                original(self)

        return deliver_first

    return swapped(BodyPhase, "_deliver_first", make)


@mutant("ours: claimed instances whose histories cannot be read are forgotten")
@contextmanager
def ours_forgotten_claims() -> Iterator[None]:
    def read(original: Any) -> Any:
        async def read_histories(self: Claimer, ids: Any) -> Any:
            return await self._store.histories(ids)

        return read_histories

    async def look_for_orphans(self: Claimer) -> None:
        pass

    with swapped(Claimer, "_read_histories", read), swapped(Claimer, "_look_for_orphans", lambda _: look_for_orphans):
        yield


@mutant("ours: a claim overtakes the answer of the park before it")
@contextmanager
def ours_claim_overtakes_park() -> Iterator[None]:
    def take_up(original: Any) -> Any:
        async def take_up(self: Claimer, rows: Any) -> None:
            await original(self, [row for row in rows if row.id not in self._claimant.drivers])

        return take_up

    async def look_for_orphans(self: Claimer) -> None:
        pass

    with swapped(Claimer, "_take_up", take_up), swapped(Claimer, "_look_for_orphans", lambda _: look_for_orphans):
        yield


@mutant("ours: starts in flight are not answered when the worker dies")
def ours_unanswered_starts() -> Any:
    return swapped(Committer, "_fail_starts", lambda _: lambda self, waiting: None)


@mutant("ours: an interruption during the rollback, and nobody hears of the attempt")
def ours_interrupted_rollback() -> Any:
    def make(original: Any) -> Any:
        def interrupt(self: Attempt) -> None:
            if self.task is not None and self.run.transaction is not None and self.run.transaction.opened:
                self.dropped = True
            original(self)

        return interrupt

    return swapped(Attempt, "interrupt", make)


# -- where the swarm is too wide ---------------------------------------------------------------------------------------


def _order(seed: int) -> list[str]:
    """Three sessions that commit one right after the other."""
    order = next(each for each in CANONICAL if each.workflow.name == "canon_order")
    return play_canonical(order, (), seed=seed)[0]


def _unanswered_park(seed: int) -> list[str]:
    """A park whose answer is lost, found out slowly while the instance falls due again."""
    scenario = scenario_of(seed)
    plan = Plan([("write park", seed % 3, Fault.LOST), *[("settle", 0, Fault.AWAY)] * 5])
    return play(replace(scenario, plan=plan, always_evict=1.0, crashes=(), pauses=(), shutdowns=())).violations


def _broadcast(seed: int) -> list[str]:
    """One event for three instances that wait for nothing else, of which only one is woken at a time."""
    tree = next(number for number in range(seed * 1000, seed * 1000 + 1000) if tree_of(number, 1)[3][0] == "event")
    starts = [Start(id=f"i{n}", workflow=kitchen_sink, arguments={"seed": tree, "size": 1}) for n in range(3)]
    scenario = Scenario(seed=seed, starts=starts, plan=Plan(()), early=0.0, letters_max=1, woken_max=1, workers=2)
    return play(scenario).violations


def _two_deadlines(seed: int) -> list[str]:
    """Two deadlines one right after the other, and the look that follows the first is answered late."""

    def suits(leaf: Any) -> bool:
        return leaf[0] == "gather" and all(child[0] == "deadline" and child[2] in (2, 3) for child in leaf[3:])

    tree = next(number for number in range(seed * 5000, seed * 5000 + 5000) if suits(tree_of(number, 1)[3]))
    start = Start(id="i0", workflow=kitchen_sink, arguments={"seed": tree, "size": 1})
    plan = Plan([("look", seed % 2 + 1, Fault.SLOW)])
    return play(Scenario(seed=seed, starts=[start], plan=plan, early=0.0, workers=1)).violations


def _slow_start(seed: int) -> list[str]:
    """A process stands still while its start is answered; what it waits for had been sent shortly before."""
    tree = next(number for number in range(seed * 5000, seed * 5000 + 5000) if tree_of(number, 1)[3][0] == "paid")
    start = Start(id="i0", workflow=kitchen_sink, arguments={"seed": tree, "size": 1}, at_us=1_500_000)
    plan = Plan([("write start", 0, Fault.PAUSE_BEFORE)])
    scenario = Scenario(seed=seed, starts=[start], plan=plan, early=1.0, workers=1, always_evict=0.0)
    return play(scenario).violations


def _two_for_one(seed: int) -> list[str]:
    """Two waits of one instance for the same events, which are there before it is, and found one at a time."""

    def suits(leaf: Any) -> bool:
        return leaf[0] == "gather" and all(child[0] == "event" for child in leaf[3:])

    tree = next(number for number in range(seed * 5000, seed * 5000 + 5000) if suits(tree_of(number, 1)[3]))
    starts = [Start(id=f"i{n}", workflow=kitchen_sink, arguments={"seed": tree, "size": 1}) for n in range(2)]
    return play(Scenario(seed=seed, starts=starts, plan=Plan(()), early=1.0, workers=1, found_max=1)).violations


def _slow_step(seed: int) -> list[str]:
    """An event is there already, and the inbox says so while the result of something beside it is being written."""
    waits, works = {"event", "paid", "note"}, {"plain", "flaky", "slow_answer", "patient"}

    def suits(leaf: Any) -> bool:
        kinds = {child[0] for child in leaf[3:]}
        return leaf[0] in ("gather", "group") and bool(kinds & waits and kinds & works) and kinds <= waits | works

    tree = next(number for number in range(seed * 3000, seed * 3000 + 90_000) if suits(tree_of(number, 2)[3]))
    start = Start(id="i0", workflow=kitchen_sink, arguments={"seed": tree, "size": 2})
    plan = Plan([("write step", seed % 3, Fault.SLOW)])
    scenario = Scenario(seed=seed, starts=[start], plan=plan, early=1.0, workers=1, always_evict=0.0)
    return play(scenario).violations


def _slow_claim(seed: int) -> list[str]:
    """A relayer hears what it has leased when the lease is over."""
    scenario = scenario_of(seed, relayed=True)
    assert scenario.relaying is not None
    relaying = replace(scenario.relaying, lease_seconds=0.6)
    plan = Plan([("relay claim", nth, Fault.SLOW) for nth in range(6)])
    return play(replace(scenario, plan=plan, relaying=relaying, crashes=(), pauses=(), shutdowns=())).violations


TARGETED: Final[dict[str, Callable[[int], list[str]]]] = {
    "ours: what the body does at once overtakes a recorded result": _order,
    "release without the claim number": _unanswered_park,
    "ours: a deadline that passes during a look is over with it": _two_deadlines,
    "ours: an instance whose creation was answered late counts from the answer": _slow_start,
    "events: a chunk counts as everybody": _broadcast,
    "ours: nobody looks for what is behind the first few events found": _two_for_one,
    "ours: an answer of the inbox during a write is not read before the park": _slow_step,
    "outbox: sent though the lease is over": _slow_claim,
    "events: the cursor of a broadcast begins behind the next one": _broadcast,
}
"""Scenarios of their own for mutants that need a rare conjunction; without the mutant they must show no violation."""


def _relayed(seed: int) -> list[str]:
    return play(scenario_of(seed, relayed=True)).violations


def _ordered(seed: int) -> list[str]:
    return play(scenario_of(seed, ordered=True)).violations


def _swarm(seed: int) -> list[str]:
    return play(scenario_of(seed)).violations


# -- running -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Caught:
    """How a mutant was caught; `seed` is None if it was not."""

    title: str
    seed: int | None
    schedules: int
    by: str
    seconds: float


def hunt(title: str, *, first_seed: int = 0, schedules_max: int = SCHEDULES_MAX) -> Caught:
    """Play schedules under a mutant until one shows a violation."""
    began = time.process_time()
    swarm = _relayed if title in RELAY_MUTANTS else _ordered if title in ORDER_MUTANTS else _swarm
    scenario = TARGETED.get(title, swarm)
    with MUTANTS[title]():
        for number in range(schedules_max):
            try:
                violations = scenario(first_seed + number)
            except Exception as error:
                violations = [f"exception: {error!r}"]
            if number % COLLECT_EVERY == 0:
                gc.collect()
            if violations:
                seconds = time.process_time() - began
                seed = first_seed + number
                return Caught(title=title, seed=seed, schedules=number + 1, by=violations[0], seconds=seconds)
    seconds = time.process_time() - began
    return Caught(title=title, seed=None, schedules=schedules_max, by="NOT CAUGHT", seconds=seconds)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("--only", help="part of a title")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--schedules", type=int, default=SCHEDULES_MAX)
    options = parser.parse_args()
    missed = 0
    needed: list[int] = []
    for title in MUTANTS:
        if options.only is None or options.only in title:
            caught = hunt(title, first_seed=options.seed, schedules_max=options.schedules)
            missed += caught.seed is None
            needed.append(caught.schedules)
            print(
                f"{title}\n    {caught.schedules:>5} schedules, {caught.seconds:5.1f} s: {caught.by[:150]}", flush=True
            )
    needed.sort()
    print(f"{len(needed) - missed} of {len(needed)} mutants caught; median {needed[len(needed) // 2]} schedules")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
