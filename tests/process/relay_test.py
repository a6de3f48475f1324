"""Real relayers under SIGKILL, SIGSTOP and a broker that behaves badly: nothing is lost, and all comes in order.

    python -m tests.process.relay_test --database postgresql --workflows 1500 --seconds 180 --outage 60

Processes run workflows and relay their events to a web server of ours. That answers as brokers do on a bad day: 503,
429 with `Retry-After`, too late, or not at all, also after it has taken the event. Every second or so a process is
killed or stopped; for a while nobody listens at all. Then all is quiet, and what was committed is compared with what
arrived.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from edda.cloudevents import parse
from edda.core.event import CloudEvent
from tests.acceptance.support import Tables
from tests.databases import available, fresh_database
from tests.outbox.web import Request, Web, response, web

ROOT = Path(__file__).parents[2]
EVENTS_OF_A_WORKFLOW = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    database: str
    processes: int = 3
    workflows: int = 60
    seconds: float = 8.0
    outage_seconds: float = 2.0
    lease: float = 1.0
    longest: float = 2.0
    seed: int = 1

    @property
    def pause_seconds(self) -> float:
        """Between two starts of a process."""
        return self.processes * self.seconds / self.workflows / 3

    @property
    def drain_seconds(self) -> float:
        """A minute, after the last process has asked for all its starts once more, which takes it this third twice."""
        return 60 + 2 * self.seconds / 3


@dataclass
class Report:
    plan: Plan
    figures: dict[str, Any] = field(default_factory=dict[str, Any])
    violations: list[str] = field(default_factory=list[str])

    def __str__(self) -> str:
        lines = [str(self.plan), *(f"  {name}: {value}" for name, value in self.figures.items())]
        return "\n".join([*lines, *(f"VIOLATION {each}" for each in self.violations)])


class BadBroker:
    """Takes events, mostly. An event counts as taken when it is in `taken`, whatever the answer was."""

    def __init__(self, server: Web, random: Random) -> None:
        self._random = random
        self.moods: Counter[str] = Counter()
        self.bad = True
        self.taken: list[tuple[str, bytes]] = []
        """Id and all that was sent, in the order of arrival."""
        server.answer = self.answer  # type: ignore[assignment]

    def take(self, request: Request) -> None:
        event = parse(request.headers, request.body)
        assert isinstance(event, CloudEvent)
        self.taken.append((event.id, repr(event).encode() + request.body))

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        moods = ["503", "429", "late", "taken late", "hang up", "taken, hang up"]
        mood = self._random.choices([*moods, "good"], [4, 3, 1, 1, 3, 3, 25])[0] if self.bad else "good"
        self.moods[mood] += 1
        match mood:
            case "503":
                writer.write(response(503))
            case "429":
                writer.write(response(429, retry_after="1"))
            case "late":
                await asyncio.sleep(3)
                writer.write(response(503))
            case "taken late":
                self.take(request)
                await asyncio.sleep(3)
                writer.write(response(202))
            case "hang up":
                writer.transport.abort()
            case "taken, hang up":
                self.take(request)
                writer.transport.abort()
            case _:
                self.take(request)
                writer.write(response(202))


class Fleet:
    """The processes, and what is done to them."""

    def __init__(self, plan: Plan, url: str, broker: str, directory: Path, random: Random) -> None:
        self._plan = plan
        self._url = url
        self._broker = broker
        self._directory = directory
        self._random = random
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self.deeds: Counter[str] = Counter()

    async def begin(self) -> None:
        for slot in range(self._plan.processes):
            await self._spawn(slot)

    async def _spawn(self, slot: int) -> None:
        plan = self._plan
        arguments = {
            "url": self._url,
            "broker": self._broker,
            "slot": slot,
            "slots": plan.processes,
            "workflows": plan.workflows,
            "lease": plan.lease,
            "longest": plan.longest,
            "pause": plan.pause_seconds,
        }
        words = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
        with (self._directory / f"slot-{slot}.log").open("ab") as log:
            self._processes[slot] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.process.relay_main", *words,
                cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=log, stderr=log,
            )  # fmt: skip

    async def strike(self) -> None:
        """One deed to one process; the dead are replaced at once."""
        slot = self._random.choice(list(self._processes))
        process = self._processes[slot]
        deed = self._random.choices(["kill", "stop", "terminate"], [5, 4, 1])[0]
        self.deeds[deed] += 1
        if deed == "stop":
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(self._random.uniform(0.5, 4) * self._plan.lease)
            process.send_signal(signal.SIGCONT)
            return
        await self.replace(slot, signal.SIGKILL if deed == "kill" else signal.SIGTERM)

    async def replace(self, slot: int, how: signal.Signals) -> None:
        process = self._processes[slot]
        process.send_signal(how)
        await process.wait()
        await self._spawn(slot)

    async def end(self) -> None:
        for process in self._processes.values():
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)
                process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            try:
                await asyncio.wait_for(process.wait(), 15)
            except TimeoutError:
                process.kill()
                await process.wait()
                self.deeds["did not end"] += 1


async def run(plan: Plan) -> Report:
    with fresh_database(plan.database) as url, tempfile.TemporaryDirectory() as directory:
        report = await _run(plan, url, Path(directory))
        if report.violations:
            report.figures |= _logs(Path(directory))
        return report


def _logs(directory: Path) -> dict[str, str]:
    return {log.name: log.read_text(errors="replace")[-3000:] for log in sorted(directory.glob("*.log"))}


async def _run(plan: Plan, url: str, directory: Path) -> Report:
    random, report, tables = Random(plan.seed), Report(plan), Tables(url)
    await tables.do("CREATE TABLE bookings (number INTEGER, place INTEGER)")
    async with web() as server:
        broker = BadBroker(server, random)
        fleet = Fleet(plan, url, server.url, directory, random)
        await fleet.begin()
        try:
            began = time.monotonic()
            while time.monotonic() - began < plan.seconds / 2:
                await fleet.strike()
                await asyncio.sleep(random.uniform(0.3, 1.2))
            await server.stop_listening()
            await asyncio.sleep(plan.outage_seconds)
            await server.listen_again()
            while time.monotonic() - began < plan.seconds + plan.outage_seconds:
                await fleet.strike()
                await asyncio.sleep(random.uniform(0.3, 1.2))
            broker.bad = False
            quiet = time.monotonic()
            all_delivered = await drained(tables, plan)
            report.figures["drained after"] = f"{time.monotonic() - quiet:.1f} s"
        finally:
            await fleet.end()
        rows = await tables.outbox()
        report.figures |= {
            "events": len(rows),
            "deliveries": len(broker.taken),
            "answers": dict(broker.moods),
            "deeds": dict(fleet.deeds),
        }
        if not all_delivered:
            report.violations.append(f"not all delivered {plan.drain_seconds:.0f} s after the last trouble")
        report.violations += list(violations(plan, rows, broker.taken))
        if fleet.deeds["did not end"]:
            report.violations.append("a process did not end after SIGTERM")
    return report


async def drained(tables: Tables, plan: Plan) -> bool:
    deadline = time.monotonic() + plan.drain_seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(Exception):  # no tables yet, a lock of SQLite
            ended = await tables.rows("SELECT count(*) FROM edda_instance WHERE status = 'completed'")
            open_ = await tables.rows("SELECT count(*) FROM edda_outbox WHERE status <> 'delivered'")
            if (ended[0][0], open_[0][0]) == (plan.workflows, 0):
                return True
        await asyncio.sleep(0.1)
    return False


def violations(plan: Plan, rows: list[dict[str, Any]], taken: list[tuple[str, bytes]]) -> list[str]:
    """The laws I40-I42, on what was committed (in its order) and what arrived."""
    found: list[str] = []
    committed = {row["id"]: (row["instance_id"], row["seq"], row["ordinal"]) for row in rows}
    if len(committed) != plan.workflows * EVENTS_OF_A_WORKFLOW:
        found.append(f"{len(committed)} events were committed, not {plan.workflows * EVENTS_OF_A_WORKFLOW}")
    first: dict[str, bytes] = {}
    order: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for event_id, content in taken:
        if event_id not in committed:
            found.append(f"{event_id} arrived and was never committed")
        elif event_id not in first:
            first[event_id] = content
            order[committed[event_id][0]].append(committed[event_id])
        elif first[event_id] != content:
            found.append(f"{event_id} arrived with other content than before")
    found += [f"{event_id} of {place} never arrived" for event_id, place in committed.items() if event_id not in first]
    found += [f"{name} arrived as {places}" for name, places in order.items() if places != sorted(places)]
    found += [f"{row['id']} is {row['status']}" for row in rows if row["status"] != "delivered"]
    return found


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=["sqlite", "postgresql", "mysql"], required=True)
    parser.add_argument("--workflows", type=int, default=1500)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--outage", type=float, default=60.0)
    parser.add_argument("--longest", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    available()
    plan = Plan(
        database=chosen.database,
        processes=1 if chosen.database == "sqlite" else 3,
        workflows=chosen.workflows,
        seconds=chosen.seconds,
        outage_seconds=chosen.outage,
        longest=chosen.longest,
        seed=chosen.seed,
    )
    report = asyncio.run(run(plan))
    print(report, flush=True)
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
