"""What the model says about two acts, one after the other; and whether what the database did is one of that.

A claim may pass over instances that the other act has locked: they stay claimable, and are found by the next look. So
for a claim that came while the other one held locks, the orders in which it did not see some of those count, too. The
same holds for a relayer that leases messages, and for the purge of old ones.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from itertools import combinations
from typing import Any, Final

from edda.core.history import InstanceId, WorkerId
from edda.storage.memory import MemoryStore
from edda.storage.memory_outbox import key_of
from edda.storage.outbox import OutboxClaims
from edda.storage.port import Claims, Fenced, Reaped
from tests.storage.support import World, comparable
from tests.storage.verb_pairs import contents
from tests.storage.verb_pairs.contents import Contents
from tests.storage.verb_pairs.situations import Act, Actor, Situation

PASSING: Final = frozenset({"claim", "lease", "purge", "reap", "release"})
"""They take what nobody has locked: instances, or messages (a reaper ends the leases of those)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What both acts answered, and what is stored then."""

    first: Any
    second: Any
    contents: Contents

    def differences(self, other: Outcome) -> list[str]:
        found = [
            f"{name} answered {mine} and not {theirs}"
            for name, mine, theirs in (
                ("the first", self.first, other.first),
                ("the second", self.second, other.second),
            )
            if mine != theirs
        ]
        return [*found, *self.contents.differences(other.contents)]


class Order(Enum):
    """As which serial order a case came out."""

    FIRST_SECOND = "A;B"
    SECOND_FIRST = "B;A"
    EITHER = "either"
    """Both orders give the same."""
    PASSED_OVER = "passed over"
    """One of them, but for instances that a claim passed over."""


async def answer(work: Awaitable[Any]) -> Any:
    """What a verb answers, in a form in which the model and a database can agree."""
    try:
        return comparable(await work)
    except Fenced:
        return "fenced"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@dataclass(slots=True)
class Orders:
    """Both serial orders; `passing`: those in which a claim passes over something."""

    first_second: Outcome
    second_first: Outcome
    passing: list[Outcome]

    def which(self, outcome: Outcome, *, undisturbed: bool) -> Order | None:
        """None: neither. `undisturbed`: the first held nothing yet when the second ran, so that was before it."""
        if undisturbed:
            same = self.first_second == self.second_first
            return (Order.EITHER if same else Order.SECOND_FIRST) if outcome == self.second_first else None
        if outcome == self.first_second:
            return Order.EITHER if outcome == self.second_first else Order.FIRST_SECOND
        if outcome == self.second_first:
            return Order.SECOND_FIRST
        return Order.PASSED_OVER if outcome in self.passing else None


async def orders(situation: Situation, first: Act, second: Act) -> Orders:
    begin = await arranged(situation)
    passing: list[Outcome] = []
    for claiming, other in ((first, second), (second, first)):
        if claiming.verb in PASSING:
            for passed in _subsets(_passable(claiming, other.touches(begin))):
                passing.append(await _one_after_the_other(situation, first, second, claiming, passed))
                passing.append(await _one_after_the_other(situation, second, first, claiming, passed, swapped=True))
    return Orders(
        first_second=await _one_after_the_other(situation, first, second),
        second_first=await _one_after_the_other(situation, second, first, swapped=True),
        passing=passing,
    )


def _passable(claiming: Act, names: Collection[str]) -> list[str]:
    """A claim passes over instances, the others over messages."""
    return [name for name in names if name.startswith("outbox of ") is not (claiming.verb == "claim")]


def _subsets(names: Collection[str]) -> list[frozenset[str]]:
    ordered = sorted(names)
    return [frozenset(some) for size in range(1, len(ordered) + 1) for some in combinations(ordered, size)]


async def arranged(situation: Situation) -> MemoryStore:
    """A model in the situation's starting state."""
    model = contents.model()
    await situation.arrange(World(model))
    return model


async def _one_after_the_other(
    situation: Situation,
    one: Act,
    two: Act,
    claiming: Act | None = None,
    passed: frozenset[str] = frozenset(),
    *,
    swapped: bool = False,
) -> Outcome:
    model = await arranged(situation)
    answers: list[Any] = []
    for act in (one, two):
        store = _Passing(model, passed) if act is claiming else model
        answers.append(await answer(act.do(Actor(store=store, line=model.lease_line()))))
    if swapped:
        answers.reverse()
    if situation.mail:
        await contents.lead_on(model)
        return Outcome(*answers, contents.of_model(model).without_counts())
    return Outcome(*answers, contents.of_model(model))


@dataclass(slots=True)
class _Passing:
    """The model, for a claim that does not see some instances."""

    model: MemoryStore
    passed: frozenset[str]

    async def claim(
        self,
        worker: WorkerId,
        *,
        workflows: Collection[str],
        limit: int,
        suspects: bool,
        ids: Sequence[InstanceId] | None,
    ) -> Claims:
        seen = [name for name in self.model.rows if name not in self.passed and (ids is None or name in ids)]
        return await self.model.claim(worker, workflows=workflows, limit=limit, suspects=suspects, ids=seen)

    async def claim_outbox(self, relayer: str, *, limit: int, lease_us: int) -> OutboxClaims:
        """What is passed over has taken its place among the first so many: then it is fewer, and there is more."""
        now_us, model = self.model.now_us(), self.model
        heads = sorted((model._relay(head).due_at_us, key_of(head)) for head in model._heads())
        due = [key for due_at_us, key in heads if due_at_us <= now_us][:limit]
        left = sum(f"outbox of {key[0]}" not in self.passed for key in due)
        with self._hidden():
            return await model.claim_outbox(relayer, limit=left, lease_us=lease_us)

    async def reap(self, dead: WorkerId) -> Reaped | None:
        with self._hidden():
            return await self.model.reap(dead)

    async def retire(self, worker: WorkerId) -> None:
        with self._hidden():
            await self.model.retire(worker)

    async def purge_outbox(self, *, age_us: int) -> int:
        with self._hidden():
            return await self.model.purge_outbox(age_us=age_us)

    @contextmanager
    def _hidden(self) -> Iterator[None]:
        """Messages of these instances are not there."""
        passed = [each for each in self.model.outbox if f"outbox of {each.instance_id}" in self.passed]
        self.model.outbox[:] = [each for each in self.model.outbox if each not in passed]
        yield
        self.model.outbox.extend(passed)
