"""A relayer on the model, with a sink and a clock in the test's hands."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from random import Random
from typing import Any

from edda.core.history import InstanceId
from edda.outbox.relayer import Relayer, RelaySettings
from edda.outbox.sink import Answer, Delivered, Outgoing
from edda.storage.memory import MemoryStore
from edda.storage.memory_outbox import key_of
from tests.storage.support import message

SOON = 10.0
SECOND_US = 1_000_000


class Clock:
    """Goes on only when told to."""

    def __init__(self) -> None:
        self.us = 1_800_000_000 * SECOND_US

    def __call__(self) -> int:
        return self.us

    def go_on(self, seconds: float) -> None:
        self.us += round(seconds * SECOND_US)


class FakeSink:
    """Notes what it gets; `answer` decides, and may wait or raise."""

    def __init__(
        self, answer: Callable[[Outgoing], Any] = lambda _: Delivered(), *, batch_max: int = 1, calls_max: int = 4
    ) -> None:
        self.batch_max = batch_max
        self.calls_max = calls_max
        self.answer = answer
        self.batches: list[list[str]] = []
        self.seen: list[str] = []
        self.under_way = 0
        self.most_under_way = 0
        self.closed = False
        self._news = asyncio.Condition()

    async def publish(self, events: Sequence[Outgoing]) -> Sequence[Answer]:
        self.batches.append([each.event.id for each in events])
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            answers: list[Answer] = []
            for each in events:
                self.seen.append(each.event.id)
                async with self._news:
                    self._news.notify_all()
                answer = self.answer(each)
                answers.append(await answer if asyncio.iscoroutine(answer) else answer)
            return answers
        finally:
            self.under_way -= 1

    async def close(self) -> None:
        self.closed = True

    async def has_seen(self, count: int) -> list[str]:
        """Wait until so many events have come."""
        async with asyncio.timeout(SOON), self._news:
            await self._news.wait_for(lambda: len(self.seen) >= count)
        return self.seen


class Bench:
    """A model, a clock, and relayers on them."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore(self.clock)
        self.name = "r"

    def post(self, name: str, *seqs: int, **more: Any) -> None:
        self.store.outbox.extend(message(name, seq, **more) for seq in seqs)

    def relayer(self, sink: FakeSink, *, store: Any = None, **settings: Any) -> Relayer:
        return Relayer(
            store or self.store,
            sink,
            name=lambda: self.name,
            settings=RelaySettings(poll_seconds=0.005, **settings),
            steady_us=self.clock,
            random=Random(1),
        )

    @contextlib.asynccontextmanager
    async def relaying(self, sink: FakeSink, **more: Any) -> AsyncGenerator[Relayer]:
        relayer = self.relayer(sink, **more)
        relayer.begin()
        try:
            yield relayer
        finally:
            await relayer.stop(grace_seconds=1)

    def status(self, name: str, seq: int = 1) -> str:
        found = self.store.relays.get((InstanceId(name), seq, 0))
        return found.status if found is not None else "pending"

    async def settled(self, condition: Callable[[], bool]) -> None:
        """Let everything run until the store looks as wished."""
        async with asyncio.timeout(SOON):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0)  # the model has no news to wait for

    @property
    def leased(self) -> list[str]:
        return [each.id for each in self.store.outbox if (r := self.store.relays.get(key_of(each))) and r.leased]
