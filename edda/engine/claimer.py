"""Claiming: the one loop through which a worker takes up instances that exist already.

It must not know how instances are run, or what starts them. Laws:
- Every wake-up is a hint. The poll finds what a hint missed, and a look for orphans finds what no answer told.
- Nobody else takes up what exists: what this loop reads of an instance is true until the instance is driven.
- What was claimed is never given up because it cannot be read: it is ours, and nobody else will ever look after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import Callable, Collection, Container, Mapping
from typing import Final, Protocol

from edda.core.history import HistoryEvent, InstanceId, WorkerId
from edda.engine.driver import Driver
from edda.engine.environment import DatabaseClock, Environment
from edda.engine.log import log
from edda.engine.residents import Residents
from edda.engine.telemetry import Telemetry
from edda.exceptions import DatabaseUnavailableError, StorageError
from edda.storage.port import Claims, Fenced, InstanceRow, Store, UnknownOutcome
from edda.workflow import Workflow

CLAIM_MAX: Final = 100
"""Instances taken in one claim."""

ORPHAN_SECONDS: Final = 5.0
"""How often a worker compares what it holds with what it drives."""

DUE_MAX: Final = 100_000
"""Timers of parked instances remembered for punctuality; the poll finds the others."""

RETRY_SECONDS_MAX: Final = 5.0


class Claimant(Protocol):
    """The worker, as its claimer sees it."""

    id: WorkerId
    clock: DatabaseClock
    environment: Environment
    telemetry: Telemetry | None
    drivers: dict[InstanceId, Driver]

    @property
    def dead(self) -> bool: ...

    @property
    def trusted(self) -> bool:
        """Whether the worker's lease must still hold, by its own steady clock."""
        ...

    @property
    def room(self) -> int:
        """How many more instances may run."""
        ...

    @property
    def starting(self) -> Container[InstanceId]:
        """Starts in flight that will be driven here."""
        ...

    def drive(self, history: list[HistoryEvent], row: InstanceRow) -> None:
        """Run this instance of ours, from its history."""
        ...

    def declared_dead(self) -> None:
        """Nothing this worker writes counts any more."""
        ...


class Claimer:
    """See the head of this file."""

    def __init__(
        self,
        claimant: Claimant,
        store: Store,
        residents: Residents,
        *,
        workflows: Callable[[], Mapping[str, Workflow[..., object]]],
        poll_seconds: float,
    ) -> None:
        self._claimant = claimant
        self._store = store
        self._residents = residents
        self._workflows = workflows
        self._poll_seconds = poll_seconds
        self._clock = claimant.clock
        self._environment = claimant.environment
        self._hint = asyncio.Event()
        self._wanted: dict[InstanceId, None] = {}
        """Instances worth claiming by id: known to be due or woken."""
        self._due: list[tuple[int, InstanceId]] = []
        self._polled_us = 0
        self._unclear: set[InstanceId] = set()
        self._taking: set[InstanceId] = set()
        """Being looked up by the loop, which will drive them if they are ours."""
        self._announced: tuple[str, ...] | None = None
        """The workflows that others know to run here."""
        self._missing: dict[InstanceId, int] = {}
        self._looked_for_orphans_us = self._environment.steady_us()

    # -- hints -------------------------------------------------------------------------------------------------------

    def want(self, ids: Collection[InstanceId]) -> None:
        """These may be claimable now."""
        self._wanted.update(dict.fromkeys(ids))
        self._hint.set()

    def poll_now(self) -> None:
        """Something may be claimable; nobody knows what."""
        self._polled_us = 0
        self._hint.set()

    def look_again(self) -> None:
        """There may be more to take than a moment ago."""
        self._hint.set()

    def due_at(self, due_us: int, instance_id: InstanceId) -> None:
        """This parked instance has a timer, which shall be punctual."""
        if len(self._due) >= DUE_MAX:
            return
        heapq.heappush(self._due, (due_us, instance_id))
        if self._due[0][1] == instance_id:
            self._hint.set()

    def unclear(self, instance_id: InstanceId) -> None:
        """A start was asked for twice and found what one of us had made: tell whether it runs here already."""
        self._unclear.add(instance_id)
        self._hint.set()

    def is_taking(self, instance_id: InstanceId) -> bool:
        """Whether this instance is being looked up, and will be driven if it is ours."""
        return instance_id in self._taking

    # -- the loop ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled, or until the worker is dead."""
        delay = 0.0
        while True:
            try:
                more = await self._look()
                delay = 0.0
            except Fenced:
                self._claimant.declared_dead()
                return
            except (DatabaseUnavailableError, UnknownOutcome, StorageError) as error:
                log.warning("cannot claim: %s", error)
                more, delay = False, min(delay * 2 + 0.1, RETRY_SECONDS_MAX)
            if not more:
                await self._wait_for_hint(max(delay, self._next_look_seconds()))

    async def _look(self) -> bool:
        """Once everywhere; True when there may be more to take at once."""
        if self._environment.steady_us() - self._looked_for_orphans_us > ORPHAN_SECONDS * 1_000_000:
            self._looked_for_orphans_us = self._environment.steady_us()
            await self._look_for_orphans()
        await self._announce()
        if self._unclear:
            await self._look_at_unclear()
        return await self._claim()

    async def _wait_for_hint(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._hint.wait()
        except TimeoutError:
            pass
        self._hint.clear()
        now = self._clock.at_least_us()
        while self._due and self._due[0][0] <= now:
            self._wanted[heapq.heappop(self._due)[1]] = None

    def _next_look_seconds(self) -> float:
        """Until the next poll, or the next timer that is known to be due."""
        seconds = self._environment.jitter(self._poll_seconds)
        if self._due:
            seconds = min(seconds, max((self._due[0][0] - self._clock.at_least_us()) / 1_000_000, 0))
        return seconds

    async def _announce(self) -> None:
        """For people, who wonder why nobody runs an instance; nothing depends on it."""
        names = tuple(sorted(self._workflows()))
        if names != self._announced:
            with contextlib.suppress(StorageError, UnknownOutcome):
                await self._store.announce(self._claimant.id, names)
                self._announced = names

    # -- what nobody holds -------------------------------------------------------------------------------------------

    async def _claim(self) -> bool:
        """Claim once; True when there may be more to take at once."""
        room = self._claimant.room
        if room <= 0 or not self._claimant.trusted:
            return False
        limit = min(room, CLAIM_MAX)
        sent = self._environment.steady_us()
        overdue = sent - self._polled_us >= self._poll_seconds * 1_000_000
        ids: list[InstanceId] | None = None
        if self._wanted and not overdue:
            ids = [self._wanted.popitem()[0] for _ in range(min(limit, len(self._wanted)))]
        else:
            self._polled_us = sent
        claims = await self._store.claim(
            self._claimant.id,
            workflows=list(self._workflows()),
            limit=limit,
            suspects=not any(driver.suspect for driver in self._claimant.drivers.values()),
            ids=ids,
        )
        self._clock.learn(sent_us=sent, now_us=claims.now_us)
        self._measure(claims)
        await self._take_up(claims.rows)
        return bool(self._wanted) or (ids is None and len(claims.rows) >= limit)

    def _measure(self, claims: Claims) -> None:
        telemetry = self._claimant.telemetry
        if telemetry is not None and (meters := telemetry.meters) is not None:
            for row, due_us in zip(claims.rows, claims.due_us, strict=False):
                meters.claimed(row.workflow, lag_seconds=max(claims.now_us - due_us, 0) / 1_000_000)

    async def _take_up(self, rows: Collection[InstanceRow]) -> None:
        """Resume what is resident, replay the rest."""
        drivers = self._claimant.drivers
        rest: list[InstanceRow] = []
        for row in rows:
            if (old := drivers.pop(row.id, None)) is not None:
                old.drop()  # its park is durable, or we could not have claimed; it has not been told yet
            driver = self._residents.take(row.id, claim=row.claim)
            if driver is not None:
                drivers[row.id] = driver
                driver.resume(row)
            else:
                rest.append(row)
        if not rest:
            return
        histories = await self._read_histories([row.id for row in rest])
        for row in rest:
            if not self._claimant.dead:
                self._claimant.drive(histories[row.id], row)

    async def _read_histories(self, ids: list[InstanceId]) -> Mapping[InstanceId, list[HistoryEvent]]:
        """Until it succeeds: these instances are ours, and nobody else will ever look after them."""
        delay = 0.05
        while True:
            try:
                return await self._store.histories(ids)
            except StorageError as error:
                log.warning("cannot read the histories of %d claimed instances: %s", len(ids), error)
                await asyncio.sleep(self._environment.jitter(delay))
                delay = min(delay * 2, RETRY_SECONDS_MAX)

    # -- what is ours, and nobody told us ----------------------------------------------------------------------------

    async def _look_at_unclear(self) -> None:
        """Starts whose answer was lost: take up what is there under the first claim, which only we can have made."""
        ids = [instance_id for instance_id in self._unclear if instance_id not in self._claimant.starting]
        if not ids:
            return
        self._unclear.difference_update(ids)
        try:
            await self._take_back(ids, of_claim=1)
        except StorageError:
            self._unclear.update(ids)
            raise

    async def _look_for_orphans(self) -> None:
        """Instances that are ours without a driver: the answer to their claim was lost, and nobody else may run them.

        One look may come in the middle of a start or an end; what is missing in two looks running is missing.
        """
        held = await self._store.held(self._claimant.id)
        missing = {name: claim for name, claim in held.items() if name not in self._claimant.drivers}
        orphans = [name for name, claim in missing.items() if self._missing.get(name) == claim]
        self._missing = missing
        if orphans:
            log.warning("taking up %d instances whose claim went unanswered", len(orphans))
            await self._take_back(orphans)

    async def _take_back(self, ids: Collection[InstanceId], *, of_claim: int | None = None) -> None:
        """Run those of these instances that belong to this worker although nothing here drives them.

        No start begins to drive one of them meanwhile: what is read here is true until it is driven.
        """
        claimant = self._claimant
        self._taking = {name for name in ids if name not in claimant.drivers and name not in claimant.starting}
        try:
            rows = (await self._store.instances(sorted(self._taking))).values()
            await self._take_up([row for row in rows if row.owner == claimant.id and of_claim in (None, row.claim)])
        finally:
            self._taking = set()
