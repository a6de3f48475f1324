"""The store as a process has it that may be killed: from its death on, every call of it stays without an answer.

The database behind it lives on. A call that is under way when the process dies is done or not, as on a real one. It
counts the transactions in which instances are written, because these are the points at which a crash makes a
difference: between two of them nothing is remembered.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

from edda.core.commit import Batch, BatchOutcome, Commit, Creation, NewInstance, Verdict
from edda.core.history import WorkerId
from edda.storage.port import LeaseLine, Store, UserTransaction

T = TypeVar("T")

When = Literal["before", "after"]


class CrashPlan(NamedTuple):
    """Die at the `commit`-th commit from the beginning of the plan: before it is written, or before it is heard of."""

    commit: int
    when: When


class Life:
    """One process, from its begin to its death, and what is planned for it."""

    def __init__(self, on_death: Callable[[], None]) -> None:
        self.death = asyncio.Event()
        self.under_way = 0
        """Calls of the database that have not been answered."""
        self.commits = 0
        self.plan: CrashPlan | None = None
        self.last_words = ""
        """What it was about to write, or had written, when it died as planned."""
        self._on_death = on_death

    @property
    def dead(self) -> bool:
        return self.death.is_set()

    def die(self) -> None:
        if not self.dead:
            self.death.set()
            self._on_death()

    async def goes_on(self) -> None:
        """The dead hear nothing any more."""
        if self.dead:
            await asyncio.get_running_loop().create_future()

    async def ask(self, call: Callable[[], Awaitable[T]]) -> T:
        await self.goes_on()
        self.under_way += 1
        try:
            answer = await call()
        finally:
            self.under_way -= 1
        await self.goes_on()
        return answer

    async def commit(self, call: Callable[[], Awaitable[T]], what: Callable[[], str]) -> T:
        """A call that writes instances; if it is the planned one, the process dies before or after it."""
        await self.goes_on()
        self.commits += 1
        number = self.commits
        await self._dies_at(CrashPlan(number, "before"), what)
        answer = await self.ask(call)
        await self._dies_at(CrashPlan(number, "after"), what)
        return answer

    async def _dies_at(self, place: CrashPlan, what: Callable[[], str]) -> None:
        if self.plan == place and not self.dead:
            self.last_words = what()
            self.die()
        await self.goes_on()


class MortalStore:
    """A `Store`, as far as the life goes. Verbs that need nothing special are passed on as they are."""

    def __init__(self, store: Store, life: Life) -> None:
        self._store = store
        self._life = life

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._store, name)
        if not inspect.iscoroutinefunction(verb):
            return verb

        async def ask(*args: Any, **kwargs: Any) -> Any:
            return await self._life.ask(partial(verb, *args, **kwargs))

        setattr(self, name, ask)
        return ask

    async def write(self, worker: WorkerId, batch: Batch) -> BatchOutcome:
        return await self._life.commit(lambda: self._store.write(worker, batch), lambda: _in_words(batch))

    async def create(self, new: NewInstance) -> Creation:
        return await self._life.commit(lambda: self._store.create(new), lambda: f"start of {new.id}")

    async def close(self) -> None:
        """The database outlives its users; `InMemoryApp` closes it in the end."""

    def lease_line(self) -> LeaseLine:
        """Without a thread: nothing that blocks for long is to be survived here, and time makes leaps."""
        line = self._store.lease_line()
        line.threaded = False
        return line

    def transaction(
        self, worker: WorkerId, *, label: str, before_open: Callable[[], Awaitable[None]] | None = None
    ) -> UserTransaction:
        return _MortalTransaction(self._store.transaction(worker, label=label, before_open=before_open), self._life)


class _MortalTransaction:
    """Its commit is one of those at which a process may die; its rollback is what the database does then."""

    def __init__(self, transaction: UserTransaction, life: Life) -> None:
        self._transaction = transaction
        self._life = life

    @property
    def session(self) -> Any:
        return self._transaction.session

    @property
    def opened(self) -> bool:
        return self._transaction.opened

    async def flush(self) -> bool:
        return await self._transaction.flush()

    async def commit(self, commit: Commit) -> Verdict:
        batch = Batch(commits=(commit,))
        return await self._life.commit(lambda: self._transaction.commit(commit), lambda: _in_words(batch))

    async def start(self, new: NewInstance) -> Creation:
        return await self._transaction.start(new)

    async def rollback(self) -> None:
        await self._transaction.rollback()


def _in_words(batch: Batch) -> str:
    words = [f"start of {new.id}" for new in batch.starts]
    for commit in batch.commits:
        words += [f"{record.kind} {record.call_id or record.name}".strip() for record in commit.records]
        words.append(f"{type(commit.row).__name__} {commit.instance_id}")
    return ", ".join(words)
