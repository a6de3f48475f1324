"""Random programs on the body loop give the same calls, history and result, evicted and replayed or not.

Each program runs once undisturbed and once with evictions: when idle, between a record and its delivery, and in the
middle of a drain. The planted bugs at the end show that the comparison can fail.

`EDDA_PROGRAMS=20000 pytest …` runs more of them; `python -m tests.engine.test_body_loop_programs --programs 20000`
needs nothing but an interpreter.
"""

from __future__ import annotations

import argparse
import asyncio
import contextvars
import gc
import itertools
import logging
import os
import random
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

if __name__ == "__main__":  # a bare interpreter lacks what `edda/__init__` imports; the body loop needs none of it
    package = sys.modules.setdefault("edda", ModuleType("edda"))
    package.__path__ = [str(Path(__file__).parents[2] / "edda")]

try:
    import pytest
except ImportError:  # a bare interpreter
    pytest = None  # type: ignore[assignment]

from edda.engine.body_loop import BodyFuture, BodyLoop, BodyTask, Evicted
from tests.engine.programs import Body, CallFailed, Node, described, program_of

FREEZE_AFTER = 200
RECORDS_MAX = 300
LATENCIES_US = (0, 0, 10_000, 10_000, 10_000, 20_000, 30_000, 50_000, 75_000)


@dataclass(frozen=True, slots=True)
class Record:
    id: str
    at_us: int
    value: int | None = None
    error: str | None = None


class World:
    """What outlives an eviction: history, and the activities under way. All of it follows from the seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.history: list[Record] = []
        self.dispatched: list[str] = []
        self.outstanding: dict[str, int] = {}

    def dice(self, *what: object) -> int:
        return zlib.crc32(repr((self.seed, what)).encode())

    def dispatch(self, call_id: str, now_us: int) -> None:
        self.dispatched.append(call_id)
        latency_us = LATENCIES_US[self.dice("latency", call_id) % len(LATENCIES_US)]
        self.outstanding[call_id] = now_us + latency_us

    def outcome(self, call_id: str, at_us: int) -> Record:
        dice = self.dice("outcome", call_id)
        if dice % 6 == 0:
            return Record(call_id, at_us, error=call_id)
        return Record(call_id, at_us, value=dice % 1000)


class Incarnation:
    """One body loop with the body on it: what an eviction destroys and a replay has to rebuild."""

    def __init__(self, program: Node, world: World, loop_class: type[BodyLoop], *, early: bool = False) -> None:
        self.loop = loop_class(now_us=1_700_000_000_000_000, freeze_after=FREEZE_AFTER, seed=world.seed % 1000)
        self.calls: list[tuple[str, str, int]] = []
        self.futures: dict[str, BodyFuture] = {}
        self.delivered = 0
        self.world = world
        self.recorded = {record.id: record for record in world.history} if early else {}  # for a planted bug
        self.body = Body(self)
        self.loop.start(self.body.run(program), context=contextvars.Context())

    @property
    def evicting(self) -> bool:
        return self.loop.evicting

    def call(self, name: str, argument: int) -> Coroutine[Any, Any, int]:
        if self.evicting:
            raise Evicted
        call_id = f"{name}:{sum(called == name for _, called, _ in self.calls) + 1}"
        self.calls.append((call_id, name, argument))
        return self._await(call_id)

    async def _await(self, call_id: str) -> int:
        if call_id in self.recorded:
            return self.recorded[call_id].value or 0
        self.futures[call_id] = self.loop.future()
        return await self.futures[call_id]

    def deliver(self, record: Record) -> None:
        self.delivered += 1
        if record.id.startswith("timer:"):
            self.loop.fire(record.id, at_us=record.at_us)
        elif record.id not in self.recorded:
            future = self.futures[record.id]
            if record.error is not None:
                self.loop.reject(future, CallFailed(record.error), at_us=record.at_us)
            else:
                self.loop.resolve(future, record.value, at_us=record.at_us)

    def pending(self) -> list[str]:
        return [call_id for call_id, future in self.futures.items() if not future.done()]

    def state(self) -> dict[str, Any]:
        """Everything that a replay must bring back."""
        return {
            "calls": self.calls,
            "pending": self.pending(),
            "timers": dict(self.loop.timers()),
            "trace": self.body.trace,
            "now": self.loop.now_us,
            "frozen": self.loop.frozen,
        }

    def ending(self) -> str:
        if self.loop.root.cancelled():
            return "cancelled"
        error = self.loop.root.exception()
        return repr(self.loop.root.result()) if error is None else described(error)


@dataclass
class Outcome:
    ending: str = ""
    calls: list[tuple[str, str, int]] = field(default_factory=list)
    history: list[Record] = field(default_factory=list)
    dispatched: list[str] = field(default_factory=list)
    evictions: int = 0
    frozen: int = 0
    leaks: int = 0


class Driver:
    """The engine in small: drain, deliver what is recorded, dispatch what is new, record what ends next."""

    at_once = False
    early = False

    def __init__(self, program: Node, seed: int, loop_class: type[BodyLoop], evictor: random.Random | None) -> None:
        self.program = program
        self.loop_class = loop_class
        self.world = World(seed)
        self.evictor = evictor
        self.evictions_left = 0 if evictor is None else 8
        self.outcome = Outcome()
        self.body = Incarnation(program, self.world, loop_class)

    def run(self) -> Outcome:
        try:
            return self._run()
        finally:
            self._unload()

    def _run(self) -> Outcome:
        world = self.world
        while (ending := self._to_idle()) is None:
            for call_id in self.body.pending():
                if call_id not in world.dispatched:
                    world.dispatch(call_id, self.body.loop.now_us)
            if not self._record_next():
                ending = "spins" if self.body.loop.frozen else "stuck"
                break
        self.outcome.ending = ending
        self.outcome.calls = self.body.calls
        self.outcome.history = world.history
        self.outcome.dispatched = world.dispatched
        return self.outcome

    def _to_idle(self) -> str | None:
        """Replay and go on until everything recorded is delivered. The ending, if there is one."""
        while True:
            if not self._drain():
                self._evict()
                continue
            if self.body.loop.root.done():
                return self.body.ending()
            if self.body.delivered < len(self.world.history):
                if self._chance(0.12):
                    self._evict()
                    continue
                self._deliver()
            elif self._chance(0.3):
                before = self.body.state()
                self._evict()
                self._replay()
                if self.body.state() != before:
                    return f"replayed to {self.body.state()} instead of {before}"
            else:
                self.outcome.frozen += self.body.loop.frozen
                return None

    def _deliver(self) -> None:
        self.body.deliver(self.world.history[self.body.delivered])
        if self.at_once:
            while self.body.delivered < len(self.world.history):
                self.body.deliver(self.world.history[self.body.delivered])

    def _replay(self) -> None:
        self.body.loop.drain()
        while self.body.delivered < len(self.world.history) and not self.body.loop.root.done():
            self.body.deliver(self.world.history[self.body.delivered])
            self.body.loop.drain()

    def _drain(self) -> bool:
        """In random slices when disturbed; False if the eviction came in the middle."""
        if self.evictor is None:
            return self.body.loop.drain()
        while not self.body.loop.drain(handles_max=self.evictor.randint(1, 25)):
            if self._chance(0.15):
                return False
        return True

    def _chance(self, probability: float) -> bool:
        return self.evictor is not None and self.evictions_left > 0 and self.evictor.random() < probability

    def _evict(self) -> None:
        self.evictions_left -= 1
        self.outcome.evictions += 1
        self._unload()
        self.body = Incarnation(self.program, self.world, self.loop_class, early=self.early)

    def _unload(self) -> None:
        before = self.body.body.leaks
        self.body.loop.evict()
        self.outcome.leaks += self.body.body.leaks - before

    def _record_next(self) -> bool:
        """Record the next completion, and sometimes others that have ended by then. False: nothing will come."""
        world = self.world
        if len(world.history) >= RECORDS_MAX:
            return False
        for call_id in list(world.outstanding):
            if self.body.futures[call_id].done() and world.dice("lost", call_id) % 2:
                del world.outstanding[call_id]  # cancelled by the body; its result is not always recorded
        ends = {call_id: (at_us, world.dice(call_id)) for call_id, at_us in world.outstanding.items()}
        for timer_id, due_us in self.body.loop.timers().items():
            ends[timer_id] = (due_us + world.dice("late", timer_id) % 3 * 5_000, world.dice(timer_id))
        if not ends:
            return False
        in_order = sorted(ends, key=lambda some_id: ends[some_id])
        dice = world.dice("batch", len(world.history))
        until_us = max(ends[in_order[0]][0], self.body.loop.now_us) + dice % 3 * 10_000
        batch = [some_id for some_id in in_order if ends[some_id][0] <= until_us][: 1 + dice % 4]
        for some_id in batch:
            at_us = max(ends[some_id][0], self.body.loop.now_us)
            if some_id in world.outstanding:
                del world.outstanding[some_id]
                world.history.append(world.outcome(some_id, at_us))
            else:
                world.history.append(Record(some_id, at_us))
        return True


# -- the comparison ------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    programs: int = 0
    evictions: int = 0
    records: int = 0
    calls: int = 0
    frozen: int = 0
    leaks: int = 0
    unfinished: int = 0
    differences: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        numbers = {name: value for name, value in vars(self).items() if name != "differences"}
        return f"{numbers} differences: {len(self.differences)}"


def difference(undisturbed: Outcome, disturbed: Outcome) -> str | None:
    for what in ("ending", "calls", "history", "dispatched"):
        one, other = getattr(undisturbed, what), getattr(disturbed, what)
        if one != other:
            return f"{what}: {one} undisturbed, {other} disturbed"
    return None


def compare(
    seeds: range, *, driver: type[Driver] = Driver, loop_class: type[BodyLoop] = BodyLoop, stop_at: int = 5
) -> Tally:
    tally = Tally()
    for seed in seeds:
        program = program_of(seed)
        try:
            undisturbed = driver(program, seed, loop_class, None).run()
            disturbed = driver(program, seed, loop_class, random.Random(seed)).run()
        except (LookupError, AssertionError) as error:  # a record that the body never asked for
            found: str | None = f"{type(error).__name__}: {error}"
        else:
            found = difference(undisturbed, disturbed)
            tally.evictions += disturbed.evictions
            tally.records += len(disturbed.history)
            tally.calls += len(disturbed.calls)
            tally.frozen += disturbed.frozen
            tally.leaks += disturbed.leaks
            tally.unfinished += undisturbed.ending in ("spins", "stuck")
        tally.programs += 1
        if found is not None:
            tally.differences.append(f"seed {seed}: {found}\n  program: {program}")
            if len(tally.differences) >= stop_at:
                break
    gc.collect()  # while warnings of what programs did not await are ignored
    return tally


# -- planted bugs --------------------------------------------------------------------------------------------------


class AddressHashes(BodyLoop):
    """Tasks and futures as asyncio has them."""

    def create_future(self) -> BodyFuture:
        future = super().create_future()
        future.order = id(future) >> 4
        return future

    def _spawn(self, *arguments: Any, **options: Any) -> BodyTask:
        task = super()._spawn(*arguments, **options)
        task.order = id(task) >> 4
        return task


class SetOrder(BodyLoop):
    """`as_completed` over coroutines makes its tasks in the order of a set of addresses."""

    def create_task(self, coro: Any, **options: Any) -> BodyTask:
        return self._spawn(coro, **options)


class WallClock(BodyLoop):
    """`loop.time()` goes on by itself."""

    ticks: ClassVar[Callable[[], int]] = itertools.count().__next__

    def time(self) -> float:
        return super().time() + type(self).ticks() * 0.001

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)


class Unchecked(BodyLoop):
    """Deliveries are accepted at any time."""

    def _begin_delivery(self, at_us: int) -> None:
        self.advance(at_us)
        self._ran = 0


class AtOnce(Driver):
    """Everything recorded is delivered in one go, without draining in between."""

    at_once = True


class Early(Driver):
    """A recorded result is returned at the call, before its turn."""

    early = True


class FreezeBySlices(BodyLoop):
    """How many callbacks a frozen body has run depends on how it was sliced."""

    def drain(self, *, handles_max: int | None = None) -> bool:
        self.freeze_after = FREEZE_AFTER - (handles_max or 0) % 5
        return super().drain(handles_max=handles_max)


MUTANTS: dict[str, dict[str, Any]] = {
    "address hashes": {"loop_class": AddressHashes},
    "set order in as_completed": {"loop_class": SetOrder},
    "wall clock": {"loop_class": WallClock},
    "two completions at once": {"loop_class": Unchecked, "driver": AtOnce},
    "recorded results at the call": {"driver": Early},
    "freeze by slices": {"loop_class": FreezeBySlices},
}


# -- the tests -----------------------------------------------------------------------------------------------------


def ignoring_never_awaited(test: Callable[[], None]) -> Callable[[], None]:
    """A program that fails does not await all the coroutines that it made; that is its own affair."""
    return pytest.mark.filterwarnings("ignore")(test) if pytest is not None else test


@ignoring_never_awaited
def test_random_programs_replay_to_the_same_result() -> None:
    tally = compare(range(int(os.environ.get("EDDA_PROGRAMS", "400"))))
    print(tally)
    assert not tally.differences, "\n".join(tally.differences)
    assert tally.leaks == 0, "handlers of user code ran during an eviction"
    assert tally.evictions > tally.programs
    assert tally.unfinished < tally.programs / 10, "too many programs end nowhere to prove much"


@ignoring_never_awaited
def test_planted_bugs_are_found() -> None:
    for name, planted in MUTANTS.items():
        tally = compare(range(1500), stop_at=1, **planted)
        assert tally.differences, f"{name!r} was not found in {tally.programs} programs"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--programs", type=int, default=400)
    options.add_argument("--first-seed", type=int, default=0)
    options.add_argument("--mutant", choices=list(MUTANTS))
    chosen = options.parse_args()
    logging.getLogger("edda.engine").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore", RuntimeWarning)  # a program that fails does not await all that it made
    began = time.perf_counter()
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.programs)
    if chosen.mutant:
        tally = compare(seeds, stop_at=chosen.programs, **MUTANTS[chosen.mutant])
    else:
        tally = compare(seeds)
        print("\n".join(tally.differences))
    print(f"Python {sys.version.split()[0]}: {tally} in {time.perf_counter() - began:.0f} s")
    return 1 if tally.differences else 0


if __name__ == "__main__":
    sys.exit(main())
