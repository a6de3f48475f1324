"""The inbox of a process, where the database loses answers or refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from edda.core.event import CloudEvent, Receipt
from edda.core.history import InstanceId
from edda.core.routing import Criteria
from edda.engine.environment import Environment
from edda.engine.event_waits import Question
from edda.engine.inbox import Inbox
from edda.engine.questions import Questions
from edda.exceptions import StorageError
from edda.storage.inbox import InboxEvent, Look
from edda.storage.memory import MemoryStore
from edda.storage.port import UnknownOutcome


class Unheard(MemoryStore):
    """Its first answer to an event is lost, and meanwhile somebody else may have stored one."""

    def __init__(self, before: Sequence[CloudEvent] = ()) -> None:
        super().__init__()
        self.before = before
        self.lost = False

    async def accept(self, events: Sequence[CloudEvent]) -> tuple[Receipt, ...]:
        if self.lost:
            return await super().accept(events)
        self.lost = True
        await super().accept([*self.before, *events])
        raise UnknownOutcome("nobody heard")


async def receipts_from(store: MemoryStore, *events: CloudEvent) -> list[Receipt]:
    inbox = Inbox(store, Environment(), poll_seconds=60, poke=lambda _: None, subscriptions=frozenset)
    await inbox.begin()
    try:
        return list(await inbox.accept(events))
    finally:
        await inbox.stop()


def answer(text: str) -> CloudEvent:
    return CloudEvent(id="1", source="/test", type="answered", json=text)


async def test_what_we_stored_before_the_answer_was_lost_is_no_duplicate() -> None:
    assert await receipts_from(Unheard(), answer("1")) == [Receipt.STORED]


async def test_what_somebody_else_stored_meanwhile_is_one() -> None:
    assert await receipts_from(Unheard([answer("2")]), answer("1")) == [Receipt.DUPLICATE]


async def test_a_look_that_is_refused_does_not_stop_those_of_others() -> None:
    class Refusing(MemoryStore):
        async def look(
            self, looks: Sequence[Look], *, unrouted: bool = False
        ) -> Mapping[InstanceId, Sequence[InboxEvent]]:
            if any(look.instance_id == "refused" for look in looks):
                raise StorageError("The database refused")
            return {look.instance_id: [] for look in looks}

    answered: asyncio.Queue[str] = asyncio.Queue()

    def driver(name: str) -> Any:
        return SimpleNamespace(
            instance_id=InstanceId(name), inbox_answered=lambda found, question: answered.put_nowait(name)
        )

    questions = Questions(Refusing(), Environment(), is_held=lambda _: True)
    for name in ("a", "refused", "b"):
        look = Look(instance_id=InstanceId(name), since_us=0, wanted=(Criteria.of("t"),))
        questions.ask(driver(name), Question(look, frozenset()))
    running = asyncio.create_task(questions.run())
    assert [await answered.get(), await answered.get()] == ["a", "b"]
    running.cancel()
