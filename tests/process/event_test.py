"""Events under SIGKILL and SIGSTOP of receivers and workers: none is lost, none comes twice, none is left lying.

    python -m tests.process.event_test --database postgresql --events 20000 --seconds 120 --seed 1

Receivers are uvicorn processes that serve an app over HTTP on loopback; workers run instances that wait. On SQLite
two processes are both: one has the place of the worker, the other is a client until that dies. The sender repeats an
event, under the same id, until it hears 202; some it repeats although it heard it. Then all is quiet, and what was
answered with 202 is compared with what the histories hold.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import heapq
import json
import shutil
import socket
import sys
import tempfile
import time
from base64 import b64decode
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import aiohttp

from edda.storage.sql import open_store
from tests.databases import available, fresh_database
from tests.process import event_checker
from tests.process.checker import LAST, Violation, read, statuses
from tests.process.event_checker import Sent
from tests.process.event_programs import (
    EVENTS_EACH,
    LISTENERS,
    delay_of,
    events_for,
    for_nobody,
    instance_id,
    tick,
)
from tests.process.nemesis import Appetite, Nemesis
from tests.process.worker_main import read_log

DRAIN_SECONDS: Final = 90.0
SENDERS: Final = 32
ANSWER_SECONDS: Final = 2.0
"""A receiver that does not answer for so long is stopped, or dead: the event is sent again, to any."""
BATCH_MAX: Final = 12
AGAIN_SHARE: Final = 0.05
"""Of the events that are sent once more after their 202."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    database: str
    events: int = 20_000
    seconds: float = 120.0
    """In which the instances are started; the strikes last as long."""
    lease: float = 2.0
    seed: int = 1
    appetite: Appetite = field(default_factory=lambda: Appetite(kill=2.5, stop=6.0, terminate=25.0))
    keep: Path | None = None

    @property
    def roles(self) -> tuple[str, ...]:
        return ("both", "both") if self.database == "sqlite" else ("receiver", "receiver", "worker", "worker")

    @property
    def ticks(self) -> int:
        """Broadcasts; each goes to all listeners."""
        return max(10, self.events // 100)

    @property
    def unwanted(self) -> int:
        return self.events // 50

    @property
    def instances(self) -> int:
        return LISTENERS + (self.events - self.ticks - self.unwanted) // EVENTS_EACH


@dataclass(slots=True, kw_only=True)
class Report:
    plan: Plan
    figures: dict[str, Any]
    violations: list[Violation]
    troubles: list[str]
    noise: Counter[str]

    @property
    def good(self) -> bool:
        return not self.violations and not self.troubles

    def __str__(self) -> str:
        width = max(map(len, self.figures))
        lines = [f"{name:<{width}}  {value}" for name, value in self.figures.items()]
        lines += [f"!!! {violation}"[:600] for violation in self.violations[:40]]
        lines += [f"!!! {trouble}" for trouble in self.troubles[:20]]
        lines += [f"log {count} x {message}" for message, count in self.noise.most_common(12)]
        return "\n".join(lines)


# -- sending -----------------------------------------------------------------------------------------------------------


class Sender:
    """Sends each event when it is due, in one of the modes of CloudEvents, until it hears 202."""

    def __init__(self, ports: list[int], random: Random) -> None:
        self._ports = ports
        self._random = random
        self._due: list[tuple[float, int, dict[str, Any]]] = []
        self._ready: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._count = 0
        self.sent: dict[str, Sent] = {}
        self.answers: Counter[str] = Counter()
        self.refused: list[str] = []
        self.open = 0

    def plan(self, event: dict[str, Any], *, delay: float, instance_id: str | None = None) -> None:
        self.sent[event["id"]] = Sent(event["id"], instance_id)
        self._push(event, delay)

    def _push(self, event: dict[str, Any], delay: float) -> None:
        self._count += 1
        self.open += 1
        heapq.heappush(self._due, (time.monotonic() + delay, self._count, event))

    async def run(self) -> None:
        """Until cancelled."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
            group.create_task(self._release())
            for _ in range(SENDERS):
                group.create_task(self._send_all(session))

    async def _release(self) -> None:
        while True:
            while self._due and self._due[0][0] <= time.monotonic():
                self._ready.put_nowait(heapq.heappop(self._due)[2])
            await asyncio.sleep(0.01)

    async def _send_all(self, session: aiohttp.ClientSession) -> None:
        while True:
            events = [await self._ready.get()]
            if self._random.random() < 0.2:
                while len(events) < BATCH_MAX and not self._ready.empty():
                    events.append(self._ready.get_nowait())
            await self._deliver(session, events)

    async def _deliver(self, session: aiohttp.ClientSession, events: list[dict[str, Any]]) -> None:
        """However often it takes; what was refused for good is written down."""
        delay = 0.05
        while events:
            events = await self._try(session, events)
            if events:
                await asyncio.sleep(self._random.uniform(0, delay))
                delay = min(1.0, delay * 2)

    async def _try(self, session: aiohttp.ClientSession, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those that are to be sent again."""
        now = time.time()
        for event in events:
            one = self.sent[event["id"]]
            one.first_sent = one.first_sent or now
            one.times += 1
        url = f"http://127.0.0.1:{self._random.choice(self._ports)}/events"
        try:
            async with session.post(url, **self._request(events)) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.answers[type(error).__name__] += 1
            return events
        self.answers[str(response.status)] += 1
        outcomes = json.loads(body).get("events") or [{"status": response.status}] * len(events)
        return [event for event, one in zip(events, outcomes, strict=True) if not self._done(event, one["status"])]

    def _request(self, events: list[dict[str, Any]]) -> dict[str, Any]:
        if len(events) > 1:
            return {"data": json.dumps(events), "headers": {"content-type": "application/cloudevents-batch+json"}}
        (event,) = events
        if self._random.random() < 0.5:
            return {"data": json.dumps(event), "headers": {"content-type": "application/cloudevents+json"}}
        names = [name for name in event if name not in ("data", "data_base64", "datacontenttype")]
        headers = {f"ce-{name}": event[name] for name in names}
        headers["content-type"] = event.get("datacontenttype", "application/json")
        body = b64decode(event["data_base64"]) if "data_base64" in event else json.dumps(event["data"]).encode()
        return {"data": body, "headers": headers}

    def _done(self, event: dict[str, Any], status: int) -> bool:
        one = self.sent[event["id"]]
        if status == 202:
            if one.heard is None:
                one.heard = time.time()
                if self._random.random() < AGAIN_SHARE:
                    self._push(event, self._random.uniform(0, 1.0))
        elif status == 410 and one.heard is not None:
            pass  # sent once more, to one that has ended meanwhile
        elif status in (408, 429) or status >= 500:
            return False
        else:
            self.refused.append(f"{one.id} was answered {status}")
        self.open -= 1
        return True


# -- the course --------------------------------------------------------------------------------------------------------


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago; their processes come back to them.

    No system gives one of these to a client, so a process that was killed finds its own free again.
    """
    ports: list[int] = []
    for port in Random().sample(range(20_000, 30_000), 200):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.append(port)
        if len(ports) == count:
            break
    return ports


async def run(plan: Plan) -> Report:
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(fresh_database(plan.database))
        directory = plan.keep or Path(tempfile.mkdtemp(prefix="edda_events_"))
        directory.mkdir(parents=True, exist_ok=True)
        if plan.keep is None:
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
        return await Run(plan, url, directory, free_ports(len(plan.roles))).whole()


class Run:
    """One run on one database."""

    def __init__(self, plan: Plan, url: str, directory: Path, ports: list[int]) -> None:
        self._plan = plan
        self._url = url
        self._directory = directory
        self._ports = ports
        self._booted: set[int] = set()
        self._nemesis = Nemesis(
            arguments=self._arguments,
            slots=len(plan.roles),
            random=Random(plan.seed),
            appetite=plan.appetite,
            directory=directory,
            boots=self._has_booted,
            program="tests.process.event_main",
        )
        serving = [port for port, role in zip(ports, plan.roles, strict=True) if role != "worker"]
        self._sender = Sender(serving, Random(plan.seed))
        self._started: set[int] = set()
        self._read_to: dict[int, int] = {}
        self._began = 0.0

    def _arguments(self, slot: int) -> list[str]:
        plan = self._plan
        starters = [place for place, role in enumerate(plan.roles) if role != "receiver"]
        arguments = (
            *("--url", self._url, "--log", self._log_path(slot), "--role", plan.roles[slot]),
            *("--port", self._ports[slot], "--slot", slot - starters[0] if slot in starters else 0),
            *("--slots", len(starters), "--instances", plan.instances, "--ticks", plan.ticks),
            *("--pause", len(starters) * plan.seconds / plan.instances * 0.7),
            *("--lease", plan.lease, "--seed", plan.seed),
        )
        return list(map(str, arguments))

    def _log_path(self, slot: int) -> Path:
        return self._directory / f"slot-{slot}.jsonl"

    def _has_booted(self, pid: int) -> bool:
        return pid in self._booted

    def _read_logs(self) -> None:
        """What the processes wrote since the last time: who is up, and which instances may be sent events."""
        for slot in range(len(self._plan.roles)):
            path = self._log_path(slot)
            if not path.exists():
                continue
            with path.open("rb") as log:
                log.seek(self._read_to.get(slot, 0))
                new = log.read()
            whole = new.rfind(b"\n") + 1
            self._read_to[slot] = self._read_to.get(slot, 0) + whole
            for line in new[:whole].splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    self._heard(json.loads(line))

    def _heard(self, line: dict[str, Any]) -> None:
        if line["e"] == "up":
            self._booted.add(line["p"])
        elif line["e"] == "started" and line["n"] not in self._started:
            self._started.add(line["n"])
            if line["n"] >= LISTENERS:
                for place, event in enumerate(events_for(line["n"])):
                    delay = delay_of(line["n"], place, self._plan.seed)
                    self._sender.plan(event, delay=delay, instance_id=instance_id(line["n"]))
            elif self._started >= set(range(LISTENERS)):
                self._plan_broadcasts()

    def _plan_broadcasts(self) -> None:
        plan = self._plan
        for place in range(plan.ticks):
            self._sender.plan(tick(place), delay=plan.seconds * 0.8 * place / plan.ticks)
        for place in range(plan.unwanted):
            self._sender.plan(for_nobody(place), delay=plan.seconds * 0.8 * place / plan.unwanted)

    async def whole(self) -> Report:
        plan = self._plan
        self._began = time.monotonic()
        sending = asyncio.create_task(self._sender.run())
        troubles: list[str] = []
        try:
            await asyncio.to_thread(self._nemesis.begin)
            sent = await self._strike()
            quiet = time.monotonic()
            drained = await self._drain()
            drain_seconds = time.monotonic() - quiet
            await asyncio.to_thread(self._nemesis.end)
        finally:
            sending.cancel()
            await asyncio.wait({sending})
            await asyncio.to_thread(self._nemesis.abort)
        troubles += self._nemesis.troubles + self._sender.refused
        if not sent or self._sender.open:
            troubles.append(f"not everything was sent: {len(self._started)} started, {self._sender.open} unsent")
        if not drained:
            troubles.append(f"not everything ended within {DRAIN_SECONDS} s after the last strike")
        final = event_checker.facts(self._url)
        figures = {
            "database": f"{plan.database}, lease {plan.lease} s, seed {plan.seed}, {'/'.join(plan.roles)}",
            **event_checker.figures(final, self._sender.sent.values()),
            "answers": dict(self._sender.answers),
            "SIGKILLs / SIGSTOPs / SIGTERMs": " / ".join(
                str(self._nemesis.count(what)) for what in ("kill", "stop", "terminate")
            ),
            "drained in": f"{drain_seconds:.1f} s",
            "took": f"{time.monotonic() - self._began:.0f} s",
            **await expire_all(self._url),
        }
        found = event_checker.violations(final, self._sender.sent)
        if figures["left after expiry"] or figures["routes left after expiry"]:
            found.append(Violation("conservation", "expiry", "does not delete all that is old"))
        return Report(plan=plan, figures=figures, violations=found, troubles=troubles, noise=self._noise())

    async def _strike(self) -> bool:
        """Until everything was started and sent, and the time is over."""
        plan = self._plan
        while time.monotonic() - self._began < 2.5 * plan.seconds + 60:
            await asyncio.to_thread(self._nemesis.tick, striking=time.monotonic() - self._began < plan.seconds)
            self._read_logs()
            over = time.monotonic() - self._began > plan.seconds
            if over and len(self._started) == plan.instances and not self._sender.open:
                return True
            await asyncio.sleep(0.02)
        return False

    async def _drain(self) -> bool:
        deadline = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < deadline:
            await asyncio.to_thread(self._nemesis.tick, striking=False)
            counts = await asyncio.to_thread(statuses, self._url)
            if all(status in LAST for status in counts) and not await asyncio.to_thread(_unrouted, self._url):
                return True
            await asyncio.sleep(0.1)
        return False

    def _noise(self) -> Counter[str]:
        paths = [self._log_path(slot) for slot in range(len(self._plan.roles))]
        lines = [line for path in paths if path.exists() for line in read_log(path) if line["e"] == "log"]
        return Counter(f"{line['level']} {line['message'][:110]}" for line in lines)


def _unrouted(url: str) -> int:
    (((count,),),) = read(url, "SELECT count(*) FROM edda_inbox WHERE routed = 0")
    return int(count)


async def expire_all(url: str) -> dict[str, int]:
    """All instances have ended: whatever is in the inbox may go, and takes everything of its own with it."""
    store = open_store(url)
    await store.open()
    expired = 0
    while count := await store.expire(before_us=10**18, limit=500):
        expired += count
    await store.close()
    ((events,),), ((routes,),), ((waits,),) = read(
        url, *(f"SELECT count(*) FROM edda_{name}" for name in ("inbox", "inbox_route", "wait"))
    )
    return {
        "expired": expired,
        "left after expiry": events,
        "routes left after expiry": routes,
        "waits left": waits,
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=["sqlite", "postgresql", "mysql"], required=True)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lease", type=float, default=2.0)
    parser.add_argument("--keep", type=Path, help="where the logs of the processes stay")
    chosen = parser.parse_args(arguments)
    available()
    report = asyncio.run(run(Plan(**vars(chosen))))
    print(report, flush=True)
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
