"""Two processes on one database, of which the first can be stopped."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from edda.storage.port import LeaseLine
from edda.storage.sql import open_store, server_database
from edda.storage.sql.server_database import ServerDatabase
from edda.storage.sql.store import SqlStore
from tests.storage.support import W1, W2
from tests.storage.verb_pairs import contents
from tests.storage.verb_pairs.forgetting import SITUATIONS
from tests.storage.verb_pairs.orders import arranged
from tests.storage.verb_pairs.situations import Actor, renew, step
from tests.storage.verb_pairs.stops import Gate, Watch, watching

REAPERS_PATIENCE_SECONDS: Final = 3600.0
"""A reaper kills whom it waits for after a second; here, whoever is stopped is no zombie."""


@dataclass(slots=True, kw_only=True)
class Process:
    """A store with its connections, and a lease line."""

    store: SqlStore
    line: LeaseLine

    @property
    def actor(self) -> Actor:
        return Actor(store=self.store, line=self.line)

    @property
    def database(self) -> ServerDatabase:
        assert isinstance(self.store.database, ServerDatabase)
        return self.store.database

    @property
    def server_ids(self) -> list[int]:
        runners = [self.database.runner(name) for name in ("commit", "desk", "reaper")]
        lines: Any = self.line
        return [number for each in (*runners, lines._line()) if (number := each.server_id) is not None]


class Retries(logging.Handler):
    """Counts the verbs that were tried again because others were in the way."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        if str(record.msg).endswith("is tried again: %s"):
            self.count += 1


@dataclass(slots=True, kw_only=True)
class Arena:
    """Two processes on one database; what the first sends goes through the gate."""

    first: Process
    second: Process
    gate: Gate
    watch: Watch
    retries: Retries


@contextmanager
def _counted() -> Iterator[Retries]:
    logger, retries = logging.getLogger("edda.storage"), Retries()
    before = logger.level
    logger.addHandler(retries)
    logger.setLevel(logging.DEBUG)
    try:
        yield retries
    finally:
        logger.setLevel(before)
        logger.removeHandler(retries)


@asynccontextmanager
async def arena(url: str) -> AsyncGenerator[Arena]:
    """On PostgreSQL a batch and a claim are one statement, and nothing can stop them between that and its commit. Here
    the first sends them in a transaction, as `ctx.session` does, so that it can be stopped with all its locks held.
    """
    async with AsyncExitStack() as stack:
        watch = await stack.enter_async_context(watching(url))
        stack.enter_context(_patient_reapers())
        first = await stack.enter_async_context(_process(url))
        second = await stack.enter_async_context(_process(url))
        first.database.dialect.single_statements = frozenset()
        gate = Gate()
        first.store.on_statement = gate
        await first.line.connect()  # again: it takes the gate from its store
        retries = stack.enter_context(_counted())
        yield Arena(first=first, second=second, gate=gate, watch=watch, retries=retries)


@contextmanager
def _patient_reapers() -> Iterator[None]:
    before = server_database.REAP_PATIENCE_SECONDS
    server_database.REAP_PATIENCE_SECONDS = REAPERS_PATIENCE_SECONDS
    try:
        yield
    finally:
        server_database.REAP_PATIENCE_SECONDS = before


@asynccontextmanager
async def _process(url: str) -> AsyncGenerator[Process]:
    store = open_store(url)
    await store.open()
    line = store.lease_line()
    await line.connect()
    process = Process(store=store, line=line)
    try:
        # Every connection is made now, and knows the workers.
        await contents.load(await arranged(SITUATIONS[0]), store)
        for worker in (W1, W2):
            await renew(worker).do(process.actor)
            await step(worker).do(process.actor)
            await store.claim(worker, workflows=("none",), limit=1)
            await store.reap(worker)
        yield process
    finally:
        await line.close()
        await store.close()
