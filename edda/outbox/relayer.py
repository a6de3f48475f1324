"""The relayer of one process: leases messages, hands them to the sink, and writes down what became of them.

It must not know the engine, SQL, or what a sink does. Laws:
- A message is published only while its lease is good for as long as a call may take; so another relayer gets it only
  when this one has given up, and a stalled one publishes nothing when it comes back.
- Of one instance one message is under way at a time, and the next is leased only when that is settled (`storage.outbox`
  says why this keeps the order).
- Whatever is unclear is tried again: an error, no answer, a settlement that did not get through. Nothing is forgotten
  but by settling it.
- What was leased for a worker that has been declared dead since is given back unsent: others may have it by now.
- Nothing here grows without bound: what is held is at most twice what the sink takes at a time, and with the message
  that reaches `held_bytes_max` no more are asked for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, NamedTuple

from edda.careful_log import CarefulLogger
from edda.core.text import one_line
from edda.exceptions import StorageError
from edda.outbox.backoff import delay_us
from edda.outbox.sink import Answer, Reject, Retry, Sink, outgoing
from edda.outbox.sink import Delivered as Taken
from edda.outbox.watching import Watch, WatchedCall
from edda.storage.outbox import (
    OUTBOX_BYTES_MAX,
    OUTBOX_LIMIT_MAX,
    Again,
    Dead,
    Delivered,
    GivenBack,
    LeasedMessage,
    OutboxStore,
    Outcome,
    Settlement,
    size_bytes,
)
from edda.storage.port import UnknownOutcome
from edda.telemetry import Meters, Tracing

log = CarefulLogger("edda.outbox")

PURGE_SECONDS: Final = 3600.0
"""How often old deliveries are deleted."""
PURGE_PAUSE_SECONDS: Final = 0.02
"""Between two steps of a purge, so that it is in nobody's way."""
TROUBLE_SECONDS_MAX: Final = 5.0
"""Between two attempts to reach a database that is away."""
SETTLING_SECONDS_MAX: Final = 5.0
"""How long `stop` tries to give back leases; after that they end by themselves."""
COMPLAINT_SECONDS: Final = 60
"""Between two complaints about a sink that takes nothing."""
REASON_CHARS_MAX: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySettings:
    """`lease_seconds` bounds everything: two thirds of it are for one call of the sink."""

    lease_seconds: float = 60.0
    held_bytes_max: int = OUTBOX_BYTES_MAX
    """Data in memory at a time, leased and not settled yet; the last message may exceed it."""
    poll_seconds: float = 1.0
    retention_seconds: float = 7 * 86400.0

    @property
    def call_seconds_max(self) -> float:
        return self.lease_seconds * 2 / 3


class Held(NamedTuple):
    """A leased message, and when its lease ends on the steady clock at the earliest."""

    leased: LeasedMessage
    until_us: int
    name: str
    """Under which it was leased."""
    bytes: int


class Relayer:
    """See the head of this file. `name` gives the id of the worker that this process has now, where it has one."""

    def __init__(
        self,
        store: OutboxStore,
        sink: Sink,
        *,
        name: Callable[[], str],
        settings: RelaySettings,
        steady_us: Callable[[], int],
        random: Random,
        tracing: Tracing | None = None,
        meters: Meters | None = None,
        system: str = "",
    ) -> None:
        self._store = store
        self._sink = sink
        self._name = name
        self._settings = settings
        self._steady_us = steady_us
        self._random = random
        self._watch: Watch | None = None
        if tracing is not None or meters is not None:
            self._watch = Watch(tracing, meters, system=system, steady_us=steady_us)
        self._held_max = 2 * sink.batch_max * sink.calls_max
        self._ready: deque[Held] = deque()
        self._calls: dict[asyncio.Task[None], list[Held]] = {}
        self._answers: deque[tuple[Held, Outcome]] = deque()
        self._settling = 0
        self._held_bytes = 0
        self._hint = asyncio.Event()
        self._answered = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self._stopping = False
        self._complain_again_us = 0

    # -- life --------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        loops = {"claim": self._claim_loop, "settle": self._settle_loop, "purge": self._purge_loop}
        for name, loop in loops.items():
            task = asyncio.get_running_loop().create_task(loop(), name=f"edda-outbox-{name}")
            task.add_done_callback(_report)
            self._loops.append(task)

    def hint(self) -> None:
        """There may be something to send. Without any hint the poll finds it."""
        self._hint.set()

    async def stop(self, *, grace_seconds: float) -> None:
        """Take no more, let calls under way end within the grace, give back the rest."""
        self._stopping = True
        self._hint.set()
        claiming, settling, purging = self._loops
        purging.cancel()
        # Not cancelled: what a claim is about to get has to be given back, too.
        await asyncio.wait({claiming}, timeout=grace_seconds)
        self._give_back(self._ready)
        if self._calls:
            await asyncio.wait(self._calls, timeout=grace_seconds)
        for call in self._calls:
            call.cancel()
        if self._calls:
            await asyncio.wait(self._calls)
        self._answered.set()
        await asyncio.wait({settling}, timeout=SETTLING_SECONDS_MAX)
        for loop in self._loops:
            loop.cancel()
        await asyncio.wait(self._loops)
        await self._sink.close()

    def _give_back(self, held: deque[Held]) -> None:
        while held:
            self._settle_later(held.popleft(), GivenBack())

    # -- claiming ----------------------------------------------------------------------------------------------------

    @property
    def _room(self) -> int:
        held = len(self._ready) + sum(map(len, self._calls.values())) + len(self._answers) + self._settling
        full = self._stopping or self._bytes_room <= 0
        return 0 if full else min(OUTBOX_LIMIT_MAX, self._held_max - held)

    @property
    def _bytes_room(self) -> int:
        return self._settings.held_bytes_max - self._held_bytes

    async def _claim_loop(self) -> None:
        trouble = 0.0
        while not self._stopping:
            seconds = self._settings.poll_seconds
            try:
                if self._room > 0:
                    seconds = await self._claim()
                trouble = 0.0
            except (StorageError, UnknownOutcome) as error:
                log.warning("cannot look into the outbox: %s", error)
                trouble = _longer(trouble)
            except Exception:
                log.exception("a defect in edda: looking into the outbox broke down, and is tried again")
                trouble = _longer(trouble)
            await self._wait_for_hint(max(trouble, seconds))

    async def _claim(self) -> float:
        """Lease what there is room for. Returns the seconds until it is worth asking again."""
        sent_us = self._steady_us()
        lease_us = round(self._settings.lease_seconds * 1_000_000)
        name = self._name()
        claims = await self._store.claim_outbox(name, limit=self._room, lease_us=lease_us, bytes_max=self._bytes_room)
        for leased in claims.leased:
            held = Held(leased, sent_us + lease_us, name, size_bytes(leased.message))
            self._held_bytes += held.bytes
            self._ready.append(held)
        self._pump()
        if claims.more and self._room > 0:
            return 0.0
        poll = self._settings.poll_seconds * self._random.uniform(0.75, 1.25)
        if claims.next_due_us is None:
            return poll
        return min(poll, max(0.001, (claims.next_due_us - claims.now_us) / 1_000_000))

    async def _wait_for_hint(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._hint.wait()
        except TimeoutError:
            pass
        self._hint.clear()

    # -- publishing --------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Begin as many calls of the sink as it takes."""
        if self._stopping:
            self._give_back(self._ready)
        while self._ready and len(self._calls) < self._sink.calls_max:
            batch: list[Held] = []
            while self._ready and len(batch) < self._sink.batch_max:
                held = self._ready.popleft()
                if self._is_good(held):
                    batch.append(held)
                else:
                    self._settle_later(held, GivenBack())
            if batch:
                task = asyncio.get_running_loop().create_task(self._call(batch), name="edda-outbox-call")
                self._calls[task] = batch
                task.add_done_callback(self._call_ended)

    def _is_good(self, held: Held) -> bool:
        """Its lease lasts for a whole call, and nobody has ended it early, as far as we know."""
        if held.name != self._name():
            return False
        return self._steady_us() + round(self._settings.call_seconds_max * 1_000_000) < held.until_us

    async def _call(self, batch: list[Held]) -> None:
        watched = self._watch.begin([held.leased for held in batch]) if self._watch is not None else None
        try:
            answers = await self._answers_to(batch, watched)
        except asyncio.CancelledError:
            if watched is not None:
                watched.cut_off()
            raise
        if watched is not None:
            watched.ended(answers)
        for held, answer in zip(batch, answers, strict=True):
            self._settle_later(held, self._outcome(held.leased, answer))
        self._note(answers)

    async def _answers_to(self, batch: list[Held], watched: WatchedCall | None) -> Sequence[Answer]:
        seconds = self._settings.call_seconds_max
        events = [outgoing(held.leased.message) for held in batch]
        if watched is not None:
            events = watched.marked(events)
        try:
            async with asyncio.timeout(seconds):
                answers = list(await self._sink.publish(events))  # a sink of others may give anything
        except TimeoutError:
            answers = [Retry(f"no answer within {seconds:g} seconds")] * len(batch)
        except Exception as error:
            answers = [Retry(f"{type(error).__name__}: {error}")] * len(batch)
        missing = len(batch) - len(answers)
        return [*map(_understood, answers[: len(batch)]), *[Retry("the sink gave no answer")] * missing]

    def _call_ended(self, task: asyncio.Task[None]) -> None:
        batch = self._calls.pop(task)
        if task.cancelled():
            for held in batch:
                self._settle_later(held, GivenBack())
        else:
            _report(task)
        self._pump()

    def _outcome(self, leased: LeasedMessage, answer: Answer) -> Outcome:
        match answer:
            case Taken():
                return Delivered()
            case Retry(reason=reason, after_seconds=after_seconds):
                return Again(delay_us(leased.attempts, after_seconds, self._random), storable(reason))
            case Reject(reason=reason):
                message = leased.message
                log.error(
                    "event %s of workflow instance %s was refused for good and is a dead letter now: %s",
                    message.id,
                    message.instance_id,
                    storable(reason),
                    extra={"instance_id": message.instance_id},
                )
                return Dead(storable(reason))

    def _note(self, answers: Sequence[Answer]) -> None:
        """An outage is a line now and then, not one for each message."""
        failed = next((answer for answer in answers if isinstance(answer, Retry)), None)
        if failed is not None and self._steady_us() >= self._complain_again_us:
            self._complain_again_us = self._steady_us() + COMPLAINT_SECONDS * 1_000_000
            log.warning("events cannot be delivered, they wait and are tried again: %s", storable(failed.reason))

    # -- settling ----------------------------------------------------------------------------------------------------

    def _settle_later(self, held: Held, outcome: Outcome) -> None:
        self._answers.append((held, outcome))
        self._answered.set()

    async def _settle_loop(self) -> None:
        while not (self._stopping and self._is_idle()):
            await self._answered.wait()
            self._answered.clear()
            while self._answers:
                batch = [self._answers.popleft() for _ in range(min(len(self._answers), OUTBOX_LIMIT_MAX))]
                self._settling = len(batch)
                await self._settle(batch)
                self._settling = 0
                self._held_bytes -= sum(held.bytes for held, _ in batch)
                self._hint.set()  # there is room, and what was behind the settled ones is due

    def _is_idle(self) -> bool:
        return not (self._ready or self._calls or self._answers) and self._loops[0].done()

    async def _settle(self, batch: list[tuple[Held, Outcome]]) -> None:
        """Until it is written down, or no longer counts: then the leases are over, and somebody delivers it again."""
        settlements = [Settlement(held.leased, outcome) for held, outcome in batch]
        latest_us = max(held.until_us for held, _ in batch)
        trouble = 0.0
        while True:
            try:
                held = await self._store.settle_outbox(settlements)
            except (StorageError, UnknownOutcome) as error:
                log.warning("cannot note %d deliveries: %s", len(batch), error)
            except Exception:
                log.exception("a defect in edda: noting %d deliveries broke down, and is tried again", len(batch))
            else:
                if not all(held):
                    log.warning("%d events took longer than their lease and are delivered twice", held.count(False))
                return
            if self._steady_us() > latest_us:
                return
            trouble = _longer(trouble)
            await asyncio.sleep(trouble * self._random.uniform(0.75, 1.25))

    # -- purging -----------------------------------------------------------------------------------------------------

    async def _purge_loop(self) -> None:
        retention = self._settings.retention_seconds
        every = min(PURGE_SECONDS, max(1.0, retention / 10))
        while True:
            await asyncio.sleep(every * self._random.uniform(0.75, 1.25))
            try:
                await self._purge(age_us=round(retention * 1_000_000))
            except (StorageError, UnknownOutcome) as error:
                log.warning("cannot delete old events: %s", error)

    async def _purge(self, *, age_us: int) -> None:
        deleted = OUTBOX_LIMIT_MAX
        while deleted == OUTBOX_LIMIT_MAX:
            deleted = await self._store.purge_outbox(age_us=age_us)
            await asyncio.sleep(PURGE_PAUSE_SECONDS)


def _understood(answer: object) -> Answer:
    """Sinks may be written by others."""
    if isinstance(answer, Taken | Retry | Reject):
        return answer
    return Retry(f"the sink gave an answer that is none: {answer!r}")


def _longer(seconds: float) -> float:
    """The pause after one more failure."""
    return min(seconds * 2 + 0.1, TROUBLE_SECONDS_MAX)


def storable(reason: str) -> str:
    """What somebody outside said, as text that every database takes and that is fit for a log."""
    return one_line(str(reason), chars_max=REASON_CHARS_MAX)  # whatever a sink of others put there


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("a defect in edda: the outbox relayer broke down", exc_info=error)
