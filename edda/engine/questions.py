"""Looking into the inbox for many instances at once: what is asked while one look is under way goes with the next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from edda.core.routing import Fields
from edda.engine.driver import Driver
from edda.engine.environment import Environment
from edda.engine.event_waits import Question
from edda.engine.log import log
from edda.exceptions import DatabaseUnavailableError, StorageError
from edda.storage.port import Store, UnknownOutcome

LOOKS_MAX: Final = 500
"""Instances that look in one transaction."""

RETRY_SECONDS_MAX: Final = 5.0


class Questions:
    """The worker's one way to the inbox."""

    def __init__(self, store: Store, environment: Environment, *, is_held: Callable[[Driver], bool]) -> None:
        self._store = store
        self._environment = environment
        self._is_held = is_held
        self._asked: deque[tuple[Driver, Question]] = deque()
        self._hint = asyncio.Event()
        self._learned: dict[tuple[str, Fields], int] = {}
        """Fields for which events have routes, and since when."""

    def ask(self, driver: Driver, question: Question) -> None:
        self._asked.append((driver, question))
        self._hint.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._hint.wait()
            self._hint.clear()
            while self._asked:
                some = [self._asked.popleft() for _ in range(min(LOOKS_MAX, len(self._asked)))]
                for unrouted in (False, True):
                    await self._answer([one for one in some if one[1].unrouted is unrouted], unrouted=unrouted)

    async def _answer(self, asked: list[tuple[Driver, Question]], *, unrouted: bool) -> None:
        delay = 0.05
        while asked := [one for one in asked if self._is_held(one[0])]:
            try:
                for _, question in asked:
                    await self._learn(question)
                found = await self._store.look([question.look for _, question in asked], unrouted=unrouted)
            except (DatabaseUnavailableError, UnknownOutcome) as error:
                log.warning("cannot look for the events of %d instances: %s", len(asked), error)
                await asyncio.sleep(self._environment.jitter(delay))
                delay = min(delay * 2, RETRY_SECONDS_MAX)
            except StorageError as error:
                if len(asked) == 1:
                    self._ask_later(*asked[0], error)
                for one in asked if len(asked) > 1 else ():  # what the database refuses of one must not stop the others
                    await self._answer([one], unrouted=unrouted)
                return
            else:
                for driver, question in asked:
                    if self._is_held(driver):
                        driver.inbox_answered(list(found.get(driver.instance_id, ())), question=question)
                return

    def _ask_later(self, driver: Driver, question: Question, error: StorageError) -> None:
        log.error("the database refuses to look for the events of %s: %s", driver.instance_id, error)
        asyncio.get_running_loop().call_later(RETRY_SECONDS_MAX, self.ask, driver, question)

    async def _learn(self, question: Question) -> None:
        """See that events have routes for the fields that this look goes by."""
        since_us = question.look.since_us
        for wanted in question.look.wanted:
            place = (wanted.type, wanted.fields)
            if wanted.fields and self._learned.get(place, since_us + 1) > since_us:
                await self._store.learn(wanted.type, wanted.fields, since_us=since_us)
                self._learned[place] = since_us
