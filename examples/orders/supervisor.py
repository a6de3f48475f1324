"""The supervisor: starts the worker, kills it while it works, starts it again, until all orders have ended.

It is the demo's villain and its stopwatch, and no part of an order service: in production, what starts your processes
again is systemd or Kubernetes. It knows of the work only what the worker says, and never touches a database.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from asyncio.subprocess import Process
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from examples.orders.progress import Progress
from examples.orders.workflow import BANK_FILE

SILENCE_SECONDS_MAX: Final = 60.0
"""A worker that says nothing for so long hangs."""

KILLS_BETWEEN: Final = (0.15, 0.85)
"""Share of the orders that have ended when a kill may come: there is work under way, before and after."""


class WorkerFailedError(Exception):
    """The worker ended by itself, and not well; or it hangs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where everything is."""

    db_url: str
    bank: Path
    log: Path
    """What the workers write to stderr: warnings, and how they failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One SIGKILL."""

    at_share: float
    """Of the orders that had ended."""
    at_seconds: float
    """On the monotonic clock."""
    under_way: frozenset[str] = frozenset()
    """Orders that had begun and not ended."""
    recovery_seconds: float | None = None
    """Until the next worker had recorded its first step: its start, taking over, and the step itself.

    None where no activity was left to do, only compensations and endings."""


@dataclass(slots=True, kw_only=True)
class Run:
    """What came to pass."""

    total: int
    outcomes: dict[str, str] = field(default_factory=dict[str, str])
    begun: set[str] = field(default_factory=set[str])
    replayed: int = 0
    kills: list[Kill] = field(default_factory=list[Kill])
    workers: int = 0
    seconds: float = 0.0

    @property
    def share(self) -> float:
        return len(self.outcomes) / self.total

    @property
    def under_way(self) -> frozenset[str]:
        return frozenset(self.begun - self.outcomes.keys())

    @property
    def recovering(self) -> bool:
        return bool(self.kills) and self.kills[-1].recovery_seconds is None


class Supervisor:
    """Has `orders` orders fulfilled, with `kills` kills at moments that `seed` chooses."""

    def __init__(self, place: Place, *, orders: int, kills: int, seed: int, progress: Progress) -> None:
        self.run = Run(total=orders)
        self._place = place
        self._chance = random.Random(seed)
        self._thresholds = kill_thresholds(kills, self._chance)
        self._progress = progress

    async def supervise(self) -> Run:
        run = self.run
        while len(run.outcomes) < run.total:
            run.workers += 1
            worker = await self._start_worker()
            try:
                killed = await self._watch(worker)
            except BaseException:
                worker.kill()
                raise
            finally:
                await worker.wait()
            if not killed and (worker.returncode != 0 or len(run.outcomes) < run.total):
                raise WorkerFailedError(f"worker {run.workers} ended by itself, with code {worker.returncode}")
        run.seconds = self._progress.seconds
        self._progress.finish()
        return run

    async def _start_worker(self) -> Process:
        with self._place.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "examples.orders.worker", self._place.db_url, str(self.run.total)),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=os.environ | {BANK_FILE: str(self._place.bank)},
            )

    async def _watch(self, worker: Process) -> bool:
        """Listen to a worker to its end. True: we were its end."""
        assert worker.stdout is not None
        kill: Kill | None = None
        while line := await self._next_line(worker.stdout):
            if not line.endswith("\n"):
                break  # its last word was cut off
            self._heed(line)
            if kill is None and self._is_time_to_kill():
                await asyncio.sleep(self._chance.uniform(0, 0.01))  # anywhere between two lines
                worker.kill()
                kill = Kill(at_share=self.run.share, at_seconds=time.monotonic())
        if kill is not None:
            self._note_kill(kill)
        return kill is not None

    async def _next_line(self, lines: asyncio.StreamReader) -> str:
        try:
            async with asyncio.timeout(SILENCE_SECONDS_MAX):
                return (await lines.readline()).decode()
        except TimeoutError:
            silence = f"worker {self.run.workers} has said nothing for {SILENCE_SECONDS_MAX:.0f} s"
            raise WorkerFailedError(silence) from None

    def _is_time_to_kill(self) -> bool:
        run = self.run
        if len(run.kills) == len(self._thresholds) or run.recovering:
            return False
        return run.share >= self._thresholds[len(run.kills)] and bool(run.under_way)

    def _heed(self, line: str) -> None:
        run = self.run
        what, order_id, words = (*line.rstrip("\n").split(" ", maxsplit=2), "", "")[:3]
        match what:
            case "recorded":
                run.begun.add(order_id)
                self._note_recovery()
            case "replayed":
                run.replayed += 1
            case "ended":
                run.outcomes[order_id] = words
            case _:
                raise WorkerFailedError(f"worker {run.workers} said {line!r}")
        self._progress.show(len(run.outcomes), f"worker {run.workers}{' starts' if run.recovering else ''}")

    def _note_kill(self, kill: Kill) -> None:
        """What the worker said before it died has been heard; what it left unfinished is known only now."""
        run = self.run
        kill = replace(kill, under_way=run.under_way)
        run.kills.append(kill)
        self._progress.say(
            f"  SIGKILL to worker {run.workers} at {kill.at_share:.0%}, orders under way: {len(kill.under_way)}"
        )
        self._progress.show(len(run.outcomes), f"worker {run.workers + 1} starts")

    def _note_recovery(self) -> None:
        if not self.run.recovering:
            return
        kill = self.run.kills[-1]
        seconds = time.monotonic() - kill.at_seconds
        self.run.kills[-1] = replace(kill, recovery_seconds=seconds)
        self._progress.say(f"  worker {self.run.workers} records its first step {seconds:.2f} s after the kill")


def kill_thresholds(kills: int, chance: random.Random) -> list[float]:
    """The shares of ended orders at which to kill: one in each of `kills` equal parts, so that they do not crowd."""
    first, last = KILLS_BETWEEN
    part = (last - first) / max(kills, 1)
    return [first + part * (number + chance.random()) for number in range(kills)]
