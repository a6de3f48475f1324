"""Plays the cases: the first is stopped at each place while the second runs; counts what came of it.

Laws:
- A place is before a statement, or before COMMIT. At place 0 the first has sent nothing, so the second comes before it.
- The second runs until it ends or the server says that it waits; there is no pause in which it might have run.
- Every exception that the model does not know is a violation, and so is whatever takes longer than `PATIENCE_SECONDS`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from edda.storage.memory import MemoryStore
from tests.storage.verb_pairs import contents
from tests.storage.verb_pairs.arena import Arena, arena
from tests.storage.verb_pairs.forgetting import SITUATIONS, VERBS
from tests.storage.verb_pairs.orders import Order, Orders, Outcome, answer, arranged, orders
from tests.storage.verb_pairs.situations import MEETING, Act, Situation

PATIENCE_SECONDS: Final = 20.0
CASES_OF_A_SAMPLE: Final = 5
"""Per pair: all pairs then take half a minute on each server."""
CASES_OF_ONE_SITUATION: Final = 1
"""Where a pair has no more situations than one."""
FIRST_LOOK_SECONDS: Final = 0.003
"""Most verbs have ended by then, and nobody has to ask the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    situation: Situation
    first: Act
    second: Act

    @property
    def pair(self) -> tuple[str, str]:
        return self.first.verb, self.second.verb

    def are_apart(self, begin: MemoryStore) -> bool:
        """They have no row in common, so neither should wait for the other."""
        one, two = self.first, self.second
        same_worker = one.worker is not None and one.worker == two.worker
        return not same_worker and not one.touches(begin) & two.touches(begin)

    def __str__(self) -> str:
        return f"{self.situation.name}: {self.first.title} | {self.second.title}"


def cases(
    *, first: str | None = None, second: str | None = None, situations: Iterable[Situation] = SITUATIONS
) -> Iterator[Case]:
    """All of them, or those of these verbs."""
    for situation in situations:
        for one in situation.acts:
            for two in situation.acts:
                apart = situation.only and not {one.verb, two.verb} & situation.only
                if first in (None, one.verb) and second in (None, two.verb) and not apart:
                    yield Case(situation=situation, first=one, second=two)


def sample(first: str) -> list[Case]:
    """Of the cases of this verb, some for each second verb, spread over the situations and over their acts."""
    chosen: list[Case] = []
    for turn, second in enumerate(VERBS):
        found = list(cases(first=first, second=second))
        most = CASES_OF_A_SAMPLE if len({case.situation.name for case in found}) > 1 else CASES_OF_ONE_SITUATION
        step = max(1, len(found) // most)
        chosen += found[turn % step :: step][:most]
    return chosen


@dataclass(slots=True)
class Cell:
    """What came of one pair of verbs."""

    cases: int = 0
    stops: int = 0
    waited: int = 0
    """How often the second had to wait for the first."""
    needless: int = 0
    """How often it had to, though the two have no row in common."""
    orders: Counter[Order] = field(default_factory=Counter[Order])
    retries: int = 0
    """How often a verb was tried again, because of a deadlock or the like."""
    violations: list[str] = field(default_factory=list[str])

    def add(self, other: Cell) -> None:
        self.cases += other.cases
        self.stops += other.stops
        self.waited += other.waited
        self.needless += other.needless
        self.orders.update(other.orders)
        self.retries += other.retries
        self.violations += other.violations


Table = dict[tuple[str, str], Cell]


def total(cells: Iterable[Cell]) -> Cell:
    sum_ = Cell()
    for cell in cells:
        sum_.add(cell)
    return sum_


@dataclass(slots=True)
class Matrix:
    """Plays cases on one database, one after the other."""

    url: str
    table: Table = field(default_factory=Table)
    places: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    """How many places an act has in a situation."""

    async def play(self, some: Iterable[Case]) -> None:
        todo = list(reversed(list(some)))
        while todo:
            async with arena(self.url) as here:
                while todo:
                    case = todo.pop()
                    cell = self.table.setdefault(case.pair, Cell())
                    try:
                        await self._play(here, case, cell)
                    except TimeoutError as error:
                        cell.violations.append(f"{case}: {error}")
                        break  # with new connections, nothing of it is left

    async def _play(self, here: Arena, case: Case, cell: Cell) -> None:
        begin = await arranged(case.situation)
        expected = await orders(case.situation, case.first, case.second)
        apart = case.are_apart(begin)
        cell.cases += 1
        for place in range(await self._places(here, case, begin)):
            cell.stops += 1
            before = here.retries.count
            outcome, waited = await _interleave(here, case, begin, place)
            cell.waited += waited
            cell.needless += waited and apart
            cell.retries += here.retries.count - before
            order = expected.which(outcome, undisturbed=place == 0)
            if order is not None:
                cell.orders[order] += 1
            else:
                cell.violations.append(_words(case, place, outcome, expected, waited=waited))

    async def _places(self, here: Arena, case: Case, begin: MemoryStore) -> int:
        """Found out by a run of the first alone."""
        key = case.situation.name, case.first.title
        if key not in self.places:
            await contents.load(begin, here.second.store)
            here.gate.arm(None)
            await answer(case.first.do(here.first.actor))
            self.places[key] = here.gate.passed
        return self.places[key]


async def _interleave(here: Arena, case: Case, begin: MemoryStore, place: int) -> tuple[Outcome, bool]:
    """Stop the first at a place, let the second run as far as it gets, let the first go on.

    Returns what came of it, and whether the second had to wait. Raises `TimeoutError`.
    """
    await contents.load(begin, here.second.store)
    here.gate.arm(place)
    first = asyncio.ensure_future(answer(case.first.do(here.first.actor)))
    try:
        await asyncio.wait_for(here.gate.reached.wait(), PATIENCE_SECONDS)
    except TimeoutError:
        raise TimeoutError(f"the first never came to place {place}") from None
    second = asyncio.ensure_future(answer(case.second.do(here.second.actor)))
    try:
        waited = await _ends_or_waits(here, second)
    except TimeoutError:
        raise TimeoutError(f"stopped at place {place}: the second neither ends nor waits for the first") from None
    finally:
        here.gate.go_on.set()
    _, late = await asyncio.wait({first, second}, timeout=PATIENCE_SECONDS)
    if late:
        names = " and ".join(name for name, task in (("the first", first), ("the second", second)) if task in late)
        raise TimeoutError(f"stopped at place {place}: {names} never ended")
    if case.situation.mail:
        await contents.lead_on(here.second.store)
    left = await contents.of_database(here.second.store)
    if case.situation.mail:
        left = left.without_counts()
    return Outcome(first.result(), second.result(), left), waited


async def _ends_or_waits(here: Arena, second: asyncio.Future[object]) -> bool:
    """Whether it waits for the first."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            await asyncio.wait({second}, timeout=FIRST_LOOK_SECONDS)
            if second.done():
                return False
            if await here.watch.waits(here.second.server_ids, here.first.server_ids):
                return True


def _words(case: Case, place: int, outcome: Outcome, expected: Orders, *, waited: bool) -> str:
    lines = [f"{case}: stopped at place {place}{', the second waited' if waited else ''}"]
    for name, order in ((Order.FIRST_SECOND, expected.first_second), (Order.SECOND_FIRST, expected.second_first)):
        lines += [f"    against {name.value}: {difference}" for difference in outcome.differences(order)]
    return "\n".join(lines)


async def missed(url: str) -> tuple[list[str], int]:
    """Whoever brings an event and whoever waits for it, stopped at each place: those who neither found it nor were
    woken, and how many places there were."""
    *bringing, waiting = MEETING.acts
    pairs = [pair for bring in bringing for pair in ((bring, waiting), (waiting, bring))]
    matrix, found, stops = Matrix(url), list[str](), 0
    async with arena(url) as here:
        for first, second in pairs:
            case = Case(situation=MEETING, first=first, second=second)
            begin = await arranged(MEETING)
            for place in range(await matrix._places(here, case, begin)):
                stops += 1
                outcome, _ = await _interleave(here, case, begin, place)
                looked = outcome.first if first is waiting else outcome.second
                row = outcome.contents.instances["a"][0]
                if looked != ["news"] and row.wakes == 0:
                    found.append(f"{case}, stopped at place {place}: found {looked}, and was not woken")
    return found, stops
