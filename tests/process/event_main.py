"""The process that the event test runs, several at once: a receiver of events over HTTP, a worker, or both.

    python -m tests.process.event_main --url URL --log FILE --role both --port 8080 --slot 0 --slots 2 ...

Signals as for `worker_main`; the ambushes are those of the inbox: before and after an event is stored, led on, looked
for, and before each of these commits. A worker starts its share of the instances, none of them twice.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import uvicorn

from edda import EddaApp, NotRepairableError
from edda.core.lifecycle import Status
from edda.exceptions import StorageError
from edda.storage.port import UnknownOutcome
from tests.process import event_programs
from tests.process.worker_main import Ambush, Log, LogHandler, WatchedStore, read_log

PLACES = (
    *["accept:send", "accept:statement", "accept:done"] * 3,
    *["route:send", "route:statement", "route:done"] * 3,
    *["look:statement", "look:done", "write:statement", "write:done", "announce_fields:statement"],
)


class InboxStore(WatchedStore):
    """Watched where events go."""

    async def accept(self, events: Any) -> Any:
        with self._watching("accept", ""):
            return await self._store.accept(events)

    async def route(self, keys: Any) -> Any:
        with self._watching("route", ""):
            return await self._store.route(keys)

    async def look(self, looks: Any, **what: Any) -> Any:
        with self._watching("look", ""):
            return await self._store.look(looks, **what)


class WatchedApp(EddaApp):
    """An app whose store is watched."""

    def __init__(self, *, log: Log, ambush: Ambush, **options: Any) -> None:
        super().__init__(**options)
        self._log = log
        self._ambush = ambush

    def _make_store(self) -> Any:
        self.watched = InboxStore(super()._make_store(), self._log, self._ambush)
        return self.watched


class Server(uvicorn.Server):
    """Signals are ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def start_share(app: EddaApp, options: argparse.Namespace, log: Log) -> None:
    """At an even pace, so that there are always some that have just begun."""
    done = {line["n"] for line in read_log(options.log) if line["e"] == "started"}
    for number in range(options.slot, options.instances, options.slots):
        if number in done:
            continue
        bound = event_programs.workflow_of(number).options(id=event_programs.instance_id(number))
        while True:
            try:
                await app.start(bound, number, options.ticks)
                break
            except Exception as error:  # this worker was just declared dead, or the database is busy: start again
                log("start-failed", n=number, error=repr(error))
                await asyncio.sleep(0.1)
        log("started", n=number)
        await asyncio.sleep(options.pause)


async def repair(app: WatchedApp, log: Log) -> None:
    """As a person would who sees that an instance was only in bad company when three processes were killed."""
    while True:
        await asyncio.sleep(2.0)
        with contextlib.suppress(StorageError, UnknownOutcome, NotRepairableError):
            for row in await app.watched.list_instances(status=Status.QUARANTINED):
                await app.handle(row.id).retry()
                log("repaired", i=row.id)


async def main(options: argparse.Namespace, log: Log) -> None:
    loop = asyncio.get_running_loop()
    ambush = Ambush(log, Random(f"{options.seed}/{os.getpid()}"), PLACES)
    terminated = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, terminated.set)
    loop.add_signal_handler(signal.SIGUSR1, ambush.arm, signal.SIGKILL)
    loop.add_signal_handler(signal.SIGUSR2, ambush.arm, signal.SIGSTOP)
    app = WatchedApp(
        log=log,
        ambush=ambush,
        db_url=options.url,
        lease_seconds=options.lease,
        poll_seconds=0.5,
        shutdown_grace_seconds=2,
        workflows=[] if options.role == "receiver" else None,
    )
    await app.initialize()
    running: list[asyncio.Task[Any]] = []
    server = None
    if options.role != "worker":
        config = uvicorn.Config(
            app, port=options.port, log_config=None, lifespan="on", timeout_graceful_shutdown=2, access_log=False
        )
        server = Server(config)
        running.append(asyncio.create_task(server.serve()))
    if options.role != "receiver":
        running += [asyncio.create_task(start_share(app, options, log)), asyncio.create_task(repair(app, log))]
    log("up", worker=app.worker_id)
    await terminated.wait()
    log("terminating")
    for task in running[server is not None :]:
        task.cancel()
    if server is not None:
        server.should_exit = True
        await running[0]
    await app.shutdown()
    log("down")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--role", choices=["receiver", "worker", "both"], required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--slot", type=int, required=True, help="among those that start instances")
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--instances", type=int, required=True)
    parser.add_argument("--ticks", type=int, required=True)
    parser.add_argument("--pause", type=float, required=True, help="seconds between two starts")
    parser.add_argument("--lease", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(arguments)


def run(arguments: list[str]) -> None:
    """The whole process."""
    options = parse(arguments)
    log = Log(options.log)
    logging.getLogger().addHandler(LogHandler(log))
    asyncio.run(main(options, log))


if __name__ == "__main__":
    run(sys.argv[1:])
