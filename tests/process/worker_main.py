"""The process that the kill test runs, several at once: a worker that also starts its share of the workflows.

    python -m tests.process.worker_main --url URL --log FILE --slot 0 --slots 4 --workflows 2000 --seed 1 ...

It writes what happens to it into a JSONL file of its slot, by O_APPEND, so that the file outlives every SIGKILL; a
successor in the same slot reads there how far the starting came, and starts the last unacknowledged one again.

SIGTERM shuts the app down cleanly. SIGUSR1 and SIGUSR2 lay an ambush: at the next place of a kind drawn by chance
(before a write, between fence and COMMIT, after the answer...) the process kills, or stops, itself.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

from edda import EddaApp, NotCancellableError, NotRepairableError
from edda.core.lifecycle import Status
from edda.exceptions import StorageError
from edda.storage.port import Fenced, UnknownOutcome
from edda.storage.sql import session_server, session_sqlite
from tests.process import programs

WINDOW_MAX: Final = 80
"""Own instances under way at once: enough that every kill meets some, few enough that a backlog is seen."""

AMBUSH_SECONDS: Final = 0.8
"""For so long an ambush lasts: less than the nemesis waits before it strikes by its own hand."""
PLACES: Final = (
    *["write:send", "write:statement", "write:done"] * 3,
    *["session:statement", "session:commit", "session:fenced", "session:done"] * 2,
    *["claim:send", "claim:done", "reap:statement", "reap:done", "create:statement"],
)


class Log:
    """One line per event, with the time on the clock that all processes share."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __call__(self, event: str, **details: Any) -> None:
        line = {"t": round(time.monotonic(), 4), "at": round(time.time(), 4), "p": os.getpid(), "e": event} | details
        os.write(self._descriptor, f"{json.dumps(line, default=str)}\n".encode())


class LogHandler(logging.Handler):
    """What the library says to its users, beside the rest."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            message += f" | {record.exc_info[1]!r}"
            print(self.format(record), file=sys.stderr, flush=True)
        self._log("log", level=record.levelname, logger=record.name, message=message[:600])


class Ambush:
    """Kills or stops this process at a place of its choice, when a signal has armed it."""

    def __init__(self, log: Log, random: Random, places: Sequence[str] = PLACES) -> None:
        self._log = log
        self._random = random
        self._places = places
        self._armed: tuple[str, signal.Signals, float] | None = None

    def arm(self, deadly: signal.Signals) -> None:
        place = self._random.choice(self._places)
        self._armed = (place, deadly, time.monotonic() + AMBUSH_SECONDS)
        self._log("armed", place=place, signal=deadly.name)

    def __call__(self, place: str) -> None:
        if self._armed is not None and self._armed[0] == place:
            _, deadly, until = self._armed
            self._armed = None
            if time.monotonic() > until:
                return
            self._log("ambush", place=place, signal=deadly.name)
            os.kill(os.getpid(), deadly)


class WatchedStore:
    """The store of the app, with every claim, takeover and refusal written down, and ambushes in between."""

    def __init__(self, store: Any, log: Log, ambush: Ambush) -> None:
        self._store = store
        self._log = log
        self._ambush = ambush
        self.engine: Any = None  # once there is one
        store.on_statement = self._on_statement_sync if store.database.url.kind == "sqlite" else self._on_statement

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def _on_statement(self, name: str, statement: object) -> None:
        self._ambush(f"{name}:statement")

    def _on_statement_sync(self, name: str, statement: object) -> None:
        if threading.current_thread() is not threading.main_thread():
            self._ambush(f"{name}:statement")

    @contextlib.contextmanager
    def _watching(self, where: str, worker: str) -> Any:
        self._ambush(f"{where}:send")
        try:
            yield
        except Fenced:
            self._log("fenced", where=where, worker=worker)
            raise
        self._ambush(f"{where}:done")

    async def write(self, worker: Any, batch: Any, **what: Any) -> Any:
        with self._watching("write", worker):
            outcome = await self._store.write(worker, batch, **what)
        lost = [c.instance_id for c, v in zip(batch.commits, outcome.verdicts, strict=True) if v.value == "claim lost"]
        if lost:
            self._log("claim-lost", where="write", ids=lost, worker=worker)
        return outcome

    async def settle(self, worker: Any, batch: Any) -> Any:
        self._log("settle", worker=worker, commits=len(batch.commits))
        with self._watching("settle", worker):
            return await self._store.settle(worker, batch)

    async def claim(self, worker: Any, **what: Any) -> Any:
        with self._watching("claim", worker):
            claims = await self._store.claim(worker, **what)
            if claims.rows:
                self._log("claim", worker=worker, ids=[[row.id, row.claim] for row in claims.rows])
        return claims

    async def reap(self, dead: Any) -> Any:
        began = time.monotonic()
        reaped = await self._store.reap(dead)
        if reaped is not None:
            self._log(
                "reap",
                dead=dead,
                freed=list(reaped.freed),
                quarantined=list(reaped.quarantined),
                seconds=round(time.monotonic() - began, 3),
            )
        self._ambush("reap:done")
        return reaped

    async def retire(self, worker: Any) -> None:
        held = list(self.engine.worker.drivers) if self.engine is not None and self.engine.worker is not None else []
        await self._store.retire(worker)
        self._log("retire", worker=worker, held=held)

    def lease_line(self) -> Any:
        return WatchedLine(self._store.lease_line(), self._log)

    def transaction(self, worker: Any, **what: Any) -> Any:
        return WatchedTransaction(self._store.transaction(worker, **what), self._log, self._ambush, worker)


class WatchedLine:
    def __init__(self, line: Any, log: Log) -> None:
        self._line = line
        self._log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._line, name)

    async def register(self, worker: Any, **what: Any) -> int:
        now_us: int = await self._line.register(worker, **what)
        self._log("registered", worker=worker)
        return now_us

    async def renew(self, worker: Any, **what: Any) -> Any:
        renewal = await self._line.renew(worker, **what)
        if not renewal.alive:
            self._log("fenced", where="renew", worker=worker)
        return renewal


class WatchedTransaction:
    def __init__(self, transaction: Any, log: Log, ambush: Ambush, worker: str) -> None:
        self._transaction = transaction
        self._log = log
        self._ambush = ambush
        self._worker = worker

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transaction, name)

    async def commit(self, commit: Any) -> Any:
        self._ambush("session:commit")
        try:
            verdict = await self._transaction.commit(commit)
        except Fenced:
            self._log("fenced", where="session", worker=self._worker)
            raise
        if verdict.value == "claim lost":
            self._log("claim-lost", where="session", ids=[commit.instance_id], worker=self._worker)
        self._ambush("session:done")
        return verdict


def watch_commits_of_sessions(ambush: Ambush) -> None:
    """A place between the statement that checks the fence and COMMIT, where there is no other seam."""
    for line in (session_server.ServerLine, session_sqlite.SqliteLine):
        commit = line.commit

        async def watched(self: Any, commit: Any = commit) -> None:
            ambush("session:fenced")
            await commit(self)

        line.commit = watched


class WatchedApp(EddaApp):
    """An app whose store is watched."""

    def __init__(self, *, log: Log, ambush: Ambush, presence: bool, **options: Any) -> None:
        super().__init__(**options)
        self._log = log
        self._ambush = ambush
        self._presence = presence

    def _make_store(self) -> Any:
        store: Any = super()._make_store()
        if not self._presence:  # the seam for servers that know no `?pgbouncer=1`
            store.database.has_presence = False
        self.watched = WatchedStore(store, self._log, self._ambush)
        return self.watched

    async def initialize(self) -> None:
        await super().initialize()
        self.watched.engine = self._engine


# -- starting workflows ------------------------------------------------------------------------------------------------


class Starter:
    """Starts this slot's share at an even pace, waits for the results, and cancels a few."""

    def __init__(self, app: EddaApp, log: Log, options: argparse.Namespace, done: set[int]) -> None:
        self._app = app
        self._log = log
        self._options = options
        self._done = done
        self._window = asyncio.Semaphore(WINDOW_MAX)
        self._waiting: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        options = self._options
        began = time.monotonic()
        missing = [n for n in range(options.slot, options.workflows, options.slots) if n not in self._done]
        for place, number in enumerate(missing):
            await asyncio.sleep(max(0.0, began + place / options.rate - time.monotonic()))
            await self._window.acquire()
            await self._start(number)
        self._log("all-started")

    async def _start(self, number: int) -> None:
        flow = programs.workflow_of(number)
        bound = flow.options(id=instance_id(number))
        while True:
            try:
                handle = await self._app.start(bound, number, self._options.seed)
                break
            except Exception as error:  # this worker was just declared dead, or the database is busy: start again
                self._log("start-failed", n=number, error=repr(error))
                await asyncio.sleep(0.1)
        self._log("started", n=number)
        task = asyncio.create_task(self._follow(number, handle))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _follow(self, number: int, handle: Any) -> None:
        random = Random(f"cancel/{self._options.seed}/{number}")
        try:
            if random.random() < self._options.cancel_share:
                await asyncio.sleep(random.choice((0.0, 0.05, 0.2, 0.8)))
                with contextlib.suppress(NotCancellableError):
                    await handle.cancel()
                    self._log("cancelled", n=number)
            result = await handle.result(timeout=None)
            self._log("result", n=number, result=result)
        except Exception as error:
            self._log("result", n=number, error=f"{type(error).__name__}: {error}"[:300])
        finally:
            self._window.release()


def instance_id(number: int) -> str:
    return f"k-{number:06d}"


def started_before(path: Path) -> set[int]:
    """The numbers whose start was acknowledged to an earlier process of this slot."""
    if not path.exists():
        return set()
    return {line["n"] for line in read_log(path) if line["e"] == "started"}


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a log; one that a kill has torn is skipped."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(line)


async def repair(app: WatchedApp, log: Log) -> None:
    """What was quarantined is taken up again, as a person would do it who sees that nothing is wrong with it.

    A nemesis kills three processes in a row that all hold the same innocent instance; that is what the count is for.
    """
    while True:
        await asyncio.sleep(2.0)
        with contextlib.suppress(StorageError, UnknownOutcome, NotRepairableError):
            for row in await app.watched.list_instances(status=Status.QUARANTINED):
                await app.handle(row.id).retry()
                log("repaired", i=row.id)


# -- the process -------------------------------------------------------------------------------------------------------


async def main(options: argparse.Namespace, log: Log) -> None:
    loop = asyncio.get_running_loop()
    ambush = Ambush(log, Random(f"{options.seed}/{os.getpid()}"))
    programs.note, programs.ambush = log, ambush
    watch_commits_of_sessions(ambush)
    terminated = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, terminated.set)
    loop.add_signal_handler(signal.SIGUSR1, ambush.arm, signal.SIGKILL)
    loop.add_signal_handler(signal.SIGUSR2, ambush.arm, signal.SIGSTOP)
    app = WatchedApp(
        log=log,
        ambush=ambush,
        presence=not options.no_presence,
        service_name=f"slot-{options.slot}",
        db_url=options.url,
        lease_seconds=options.lease,
        shutdown_grace_seconds=options.grace,
    )
    done = started_before(options.log)
    log("booting", slot=options.slot)
    await app.initialize()
    log("up", worker=app.worker_id)
    starter = asyncio.create_task(Starter(app, log, options, done).run())
    starter.add_done_callback(lambda task: task.cancelled() or task.result())
    if options.slot == 0:
        repairing = asyncio.create_task(repair(app, log))
        terminated_first = asyncio.create_task(terminated.wait())
        await asyncio.wait({terminated_first, repairing}, return_when=asyncio.FIRST_COMPLETED)
        repairing.cancel()
    await terminated.wait()
    log("terminating", worker=app.worker_id)
    starter.cancel()
    await app.shutdown()
    log("down")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--slot", type=int, required=True)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--workflows", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="starts per second of this slot")
    parser.add_argument("--cancel-share", type=float, default=0.05)
    parser.add_argument("--lease", type=float, default=2.0)
    parser.add_argument("--grace", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-presence", action="store_true")
    return parser.parse_args(arguments)


def run(arguments: list[str]) -> None:
    """The whole process."""
    options = parse(arguments)
    log = Log(options.log)
    logging.getLogger().addHandler(LogHandler(log))
    asyncio.run(main(options, log))


if __name__ == "__main__":
    run(sys.argv[1:])
