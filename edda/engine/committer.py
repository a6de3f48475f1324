"""Group commit: what many instances want written travels together. Nobody else batches.

One transaction is in flight at a time, without a timer: what arrives meanwhile is the next batch, so a lonely commit is
not delayed. Nobody hears of a commit before its batch is durable. Commits of one batch have independent fates: storage
judges each alone, and when a whole batch is refused by the database its commits are tried one by one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edda.core.commit import Batch, BatchOutcome, Commit, Creation, NewInstance, Verdict
from edda.core.history import WorkerId
from edda.engine.environment import DatabaseClock, Environment
from edda.engine.log import log
from edda.exceptions import DatabaseUnavailableError, StorageError
from edda.storage.port import Fenced, Store, UnknownOutcome
from edda.telemetry import Meters

BATCH_COMMITS_MAX = 1000
"""Commits in one transaction: enough to hide the disk, few enough to keep a lock short."""

BATCH_BYTES_MAX = 8_000_000
"""Payload in one transaction; a commit that has more alone goes alone."""

RETRY_SECONDS_MAX = 5.0
"""Between attempts to reach a database that is away."""

_TOO_LATE = "This worker was declared dead; start again."

Ack = Callable[[Commit, Verdict | StorageError], None]


@dataclass(slots=True, eq=False)
class _Waiting:
    """One commit or start that waits for its batch."""

    commit: Commit | None
    start: NewInstance | None
    ack: Ack | None
    started: asyncio.Future[tuple[Creation, bool]] | None
    asked_twice: bool = False
    """The first answer was lost."""


class Committer:
    """The one way in which a worker writes, but for users' transactions."""

    def __init__(
        self,
        store: Store,
        worker: WorkerId,
        *,
        clock: DatabaseClock,
        environment: Environment,
        on_fenced: Callable[[], None],
        on_written: Callable[[Commit], None],
        meters: Meters | None = None,
    ) -> None:
        self._store = store
        self._worker = worker
        self._clock = clock
        self._environment = environment
        self._on_fenced = on_fenced
        self._on_written = on_written
        self._meters = meters
        self._queue: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._abandoned = False
        self._task: asyncio.Task[None] | None = None
        self.batches = 0
        """Transactions so far; with the commits, a measure of how well they share."""

    @property
    def waiting(self) -> int:
        """Commits and starts for the next batches."""
        return len(self._queue)

    def begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="edda-committer")
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broke_down(error)

    def _broke_down(self, error: BaseException) -> None:
        log.critical("a defect in edda: worker %s can write no more", self._worker, exc_info=error)
        self._on_fenced()

    def abandon(self) -> None:
        """Stop at once: this worker's commits no longer count."""
        self._abandoned = True
        if self._task is not None:
            self._task.cancel()
        for waiting in self._queue:
            if waiting.started is not None and not waiting.started.done():
                waiting.started.set_exception(DatabaseUnavailableError(_TOO_LATE))
        self._queue.clear()

    def submit(self, commit: Commit, ack: Ack) -> None:
        """Queue a commit; `ack` is called from the event loop with its verdict once that is durable.

        The ack gets a StorageError when the database refuses this very commit for good.
        """
        self._queue.append(_Waiting(commit, None, ack, None))
        self._wake.set()

    async def start(self, new: NewInstance) -> tuple[Creation, bool]:
        """Queue a start; returns once it is durable. True: it was asked twice, as the first answer was lost.

        Then an instance that "was there already", with this worker as its owner, is the one that it made itself.
        """
        if self._abandoned:
            raise DatabaseUnavailableError(_TOO_LATE)
        waiting = _Waiting(None, new, None, asyncio.get_running_loop().create_future())
        assert waiting.started is not None
        self._queue.append(waiting)
        self._wake.set()
        return await waiting.started

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            while self._queue:
                batch = self._next_batch()
                try:
                    await self._deliver(batch)
                except BaseException:  # abandoned, or a defect
                    self._fail_starts(batch)
                    raise
            self._wake.clear()

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        room = BATCH_BYTES_MAX
        while self._queue and len(batch) < BATCH_COMMITS_MAX:
            room -= _payload_bytes(self._queue[0])
            if room < 0 and batch:
                break
            batch.append(self._queue.popleft())
        return batch

    async def _deliver(self, waiting: list[_Waiting]) -> None:
        try:
            try:
                outcome = await self._write(_batch_of(waiting))
            except UnknownOutcome as error:
                log.warning("no answer to a COMMIT, looking what became of it: %s", error)
                waiting = await self._acknowledge_found(waiting)
                if waiting:
                    await self._deliver(waiting)
                return
        except Fenced:
            self._fail_starts(waiting)
            self._on_fenced()
        except StorageError as error:
            if len(waiting) > 1:
                for one in waiting:
                    await self._deliver([one])
            else:
                self._refuse(waiting[0], error)
        else:
            self.batches += 1
            if self._queue:  # first send the next batch, then work on this one while the database writes
                asyncio.get_running_loop().call_soon(self._acknowledge_beside, waiting, outcome)
            else:
                self._acknowledge(waiting, outcome)

    def _acknowledge_beside(self, waiting: list[_Waiting], outcome: BatchOutcome) -> None:
        """As a callback of the loop. A defect ends the worker here too: else the rest of the batch waits for ever."""
        try:
            self._acknowledge(waiting, outcome)
        except Exception as error:
            self._fail_starts(waiting)
            self._broke_down(error)

    async def _acknowledge_found(self, waiting: list[_Waiting]) -> list[_Waiting]:
        """After a COMMIT without an answer: acknowledge what is there, return what is not.

        A start needs no looking: written again it is found there, with this worker as its owner.
        """
        verdicts = iter(await self.settled(_batch_of(waiting)))
        missing: list[_Waiting] = []
        for one in waiting:
            verdict = next(verdicts) if one.commit is not None else None
            if verdict is None:
                one.asked_twice = True
                missing.append(one)
            else:
                self._acknowledge_commit(one, verdict)
        return missing

    def _acknowledge(self, waiting: list[_Waiting], outcome: BatchOutcome) -> None:
        verdicts = iter(outcome.verdicts)
        creations = iter(outcome.creations)
        for one in waiting:
            if one.commit is not None:
                self._acknowledge_commit(one, next(verdicts))
            elif one.started is not None:
                creation = next(creations)
                if not one.started.done():
                    one.started.set_result((creation, one.asked_twice))

    def _acknowledge_commit(self, one: _Waiting, verdict: Verdict) -> None:
        assert one.commit is not None
        assert one.ack is not None
        one.ack(one.commit, verdict)
        if verdict is Verdict.COMMITTED or verdict is Verdict.WOKEN:
            self._on_written(one.commit)

    def _refuse(self, one: _Waiting, error: StorageError) -> None:
        if one.commit is not None and one.ack is not None:
            one.ack(one.commit, error)
        elif one.started is not None and not one.started.done():
            one.started.set_exception(error)

    def _fail_starts(self, waiting: list[_Waiting]) -> None:
        for one in waiting:
            if one.started is not None and not one.started.done():
                one.started.set_exception(DatabaseUnavailableError(_TOO_LATE))

    async def _write(self, batch: Batch) -> BatchOutcome:
        """Write as soon as the database can be reached. Raises `UnknownOutcome` when the answer is lost."""
        delay = 0.05
        while True:
            sent = self._environment.steady_us()
            try:
                outcome = await self._store.write(self._worker, batch)
            except DatabaseUnavailableError as error:
                log.warning("the database is away, %d commits wait for it: %s", len(batch.commits), error)
                await asyncio.sleep(self._environment.jitter(delay))
                delay = min(delay * 2, RETRY_SECONDS_MAX)
            else:
                self._clock.learn(sent_us=sent, now_us=outcome.now_us)
                if self._meters is not None:
                    seconds = (self._environment.steady_us() - sent) / 1_000_000
                    self._meters.batch_written(commits=len(batch.commits) + len(batch.starts), seconds=seconds)
                return outcome

    async def settled(self, batch: Batch) -> tuple[Verdict | None, ...]:
        """What became of each commit of a batch whose COMMIT went unanswered, as soon as the database can tell.

        Whatever keeps it from telling (also locks that others hold for long) says nothing about the batch.
        """
        delay = 0.05
        while True:
            try:
                return await self._store.settle(self._worker, batch)
            except (StorageError, UnknownOutcome) as error:
                log.warning("cannot look what became of %d commits: %s", len(batch.commits), error)
                await asyncio.sleep(self._environment.jitter(delay))
                delay = min(delay * 2, RETRY_SECONDS_MAX)


def _payload_bytes(waiting: _Waiting) -> int:
    """Roughly: what the user's values take, in characters or bytes."""
    if waiting.commit is None:
        return len(waiting.start.input) if waiting.start is not None else 0
    size = 0
    for record in waiting.commit.records:
        size += len(record.input or "") + len(record.output or record.blob or "")
    for message in waiting.commit.outbox:
        size += len(message.data or message.blob or "")
    return size


def _batch_of(waiting: list[_Waiting]) -> Batch:
    return Batch(
        commits=tuple(one.commit for one in waiting if one.commit is not None),
        starts=tuple(one.start for one in waiting if one.start is not None),
    )
