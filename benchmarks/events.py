"""W10: events stored per second through real HTTP, one server process; and what each costs that process in CPU.

    python -m benchmarks.events                                        each database, one event per request
    python -m benchmarks.events --databases sqlite --batch 50
    python -m benchmarks.events --databases postgresql --profile       where the server's CPU goes, line by line

A uvicorn process serves an app on loopback; this process sends CloudEvents in structured mode over keep-alive
connections, each with the next event as soon as it hears 202. Afterwards the rows are counted. The client costs about
as much CPU as it takes to write and read a few hundred bytes; it runs on the same machine as the database.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import uvicorn

from benchmarks.figures import Report, percentile, table
from benchmarks.profile import Sampler
from edda import EddaApp
from tests.databases import available, fresh_database
from tests.process.checker import read

WARM_UP: Final = 0.1
"""Of the events; not counted."""
TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")


# -- the server --------------------------------------------------------------------------------------------------------


class Server(uvicorn.Server):
    """Says on its output on which port it is, and ends without killing itself once more."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        signal.signal(signal.SIGTERM, self.handle_exit)
        yield

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)


def serve(url: str, *, profile: bool, http: str) -> None:
    """The child process, until SIGTERM."""
    app = EddaApp(db_url=url, workflows=[])
    server = Server(uvicorn.Config(app, port=0, log_level="warning", access_log=False, http=http))
    if not profile:
        asyncio.run(server.serve())
        return
    with Sampler() as sampler:
        try:
            asyncio.run(server.serve())
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            used = resource.getrusage(resource.RUSAGE_SELF)
            sampler.show(1, used.ru_utime + used.ru_stime, top=40)
            sys.stdout.flush()


def cpu_seconds(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS_PER_SECOND


# -- the client --------------------------------------------------------------------------------------------------------


class Connection(asyncio.Protocol):
    """Sends one request after the other; a request is some events."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._sent_at = 0.0
        self._buffer = b""
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._next()

    def _next(self) -> None:
        request = self._load.next_request()
        if request is None:
            self._load.finished()
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        marker = head.find(b"content-length: ")
        if not rest or len(rest) < int(head[marker + 16 :].split(b"\r", 1)[0]):
            return
        assert head.startswith(b"HTTP/1.1 202"), self._buffer
        self._buffer = b""
        self._load.latencies.append(time.perf_counter() - self._sent_at)
        self._next()


class Load:
    """So many requests over so many connections."""

    def __init__(self, name: str, events: int, batch: int, connections: int) -> None:
        self._requests = iter([request_of(name, number, batch) for number in range(events // batch)])
        self._open = connections
        self._connections = connections
        self._done = asyncio.Event()
        self.latencies: list[float] = []

    def next_request(self) -> bytes | None:
        return next(self._requests, None)

    def finished(self) -> None:
        self._open -= 1
        if not self._open:
            self._done.set()

    async def run(self, port: int) -> float:
        """Seconds."""
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        for _ in range(self._connections):
            await loop.create_connection(lambda: Connection(self), "127.0.0.1", port)
        await self._done.wait()
        return time.perf_counter() - began


def request_of(name: str, number: int, batch: int) -> bytes:
    events = [_event(f"{name}-{number}-{place}") for place in range(batch)]
    body = json.dumps(events if batch > 1 else events[0]).encode()
    kind = "application/cloudevents-batch+json" if batch > 1 else "application/cloudevents+json"
    head = f"POST /events HTTP/1.1\r\nhost: bench\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _event(name: str) -> dict[str, Any]:
    data = {"order_id": name, "amount": 4200, "currency": "EUR", "lines": [1, 2, 3]}
    return {"specversion": "1.0", "id": name, "source": "/bench", "type": "order.paid", "data": data}


# -- a run -------------------------------------------------------------------------------------------------------------


async def load(kind: str, report: Report, chosen: argparse.Namespace) -> None:
    with fresh_database(kind) as url:
        arguments = [sys.executable, "-m", "benchmarks.events", "--serve", url, "--http", chosen.http]
        server = subprocess.Popen([*arguments, *(["--profile"] if chosen.profile else [])], stdout=subprocess.PIPE)  # noqa: ASYNC220
        assert server.stdout is not None
        try:
            port = int(server.stdout.readline())
            await Load("warm", round(chosen.events * WARM_UP), chosen.batch, chosen.connections).run(port)
            run = Load("run", chosen.events, chosen.batch, chosen.connections)
            busy = cpu_seconds(server.pid)
            seconds = await run.run(port)
            busy = cpu_seconds(server.pid) - busy
        finally:
            server.send_signal(signal.SIGTERM)
        print(server.stdout.read().decode(), end="")
        server.wait(20)
        (((stored,),),) = read(url, "SELECT count(*) FROM edda_inbox WHERE id LIKE 'run%'")
    assert stored == chosen.events // chosen.batch * chosen.batch, stored
    report.add(
        "w10",
        kind,
        connections=chosen.connections,
        batch=chosen.batch,
        events=stored,
        events_per_second=stored / seconds,
        cpu_us_per_event=busy / stored * 1e6,
        p50_ms=percentile(run.latencies, 50) * 1000,
        p99_ms=percentile(run.latencies, 99) * 1000,
        load=os.getloadavg()[0],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--databases", default=",".join(kind for kind, url in available().items() if url))
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--http", choices=["h11", "httptools", "auto"], default="auto", help="uvicorn's parser")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--serve", metavar="URL", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.serve:
        serve(chosen.serve, profile=chosen.profile, http=chosen.http)
        return 0
    report = Report()
    for _ in range(chosen.repeats):
        for kind in chosen.databases.split(","):
            asyncio.run(load(kind, report, chosen))
    columns = ["database", *list(report.rows[0])[2:]]
    print(table("W10: events stored through HTTP", columns, [[row[name] for name in columns] for row in report.rows]))
    if chosen.json:
        report.write(chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
