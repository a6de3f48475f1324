"""The process that the relay test runs, several at once: a worker that starts workflows and relays what they send.

    python -m tests.process.relay_main --url URL --broker URL --slot 0 --slots 3 --workflows 60 --longest 2

It starts its share again from the beginning after each death; starts are idempotent. SIGTERM shuts it down cleanly.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from typing import Any

from sqlalchemy import text

from edda import EddaApp, WorkflowContext, activity, send_event_transactional, workflow
from edda.outbox import backoff

EVENTS_OF_A_WORKFLOW = 6


@activity
async def announce(ctx: WorkflowContext, number: int, place: int) -> None:
    """Two events in one history row, one of them bytes."""
    data = {"workflow": number, "place": place}
    await send_event_transactional(ctx, "announced", "/relay-test", data)
    await send_event_transactional(ctx, "scanned", "/relay-test", f"{number}/{place}".encode() * 20)


@activity
async def book(ctx: WorkflowContext, number: int, place: int) -> None:
    """An event beside a row of the user's."""
    await ctx.session.execute(text("INSERT INTO bookings (number, place) VALUES (:n, :p)"), {"n": number, "p": place})
    await send_event_transactional(ctx, "booked", "/relay-test", {"workflow": number, "place": place})


@workflow
async def relayed(ctx: WorkflowContext, number: int) -> None:
    await announce(ctx, number, 1)
    await book(ctx, number, 2)
    await send_event_transactional(ctx, "half-way", "/relay-test", {"workflow": number, "place": 3})
    await announce(ctx, number, 4)


async def main(options: argparse.Namespace) -> None:
    terminated = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
    app = EddaApp(
        db_url=options.url,
        outbox_enabled=True,
        broker_url=options.broker,
        lease_seconds=options.lease,
        poll_seconds=0.2,
        shutdown_grace_seconds=2,
    )
    await app.initialize()
    starting = asyncio.create_task(_start_all(app, options))
    await terminated.wait()
    starting.cancel()
    await app.shutdown()


async def _start_all(app: EddaApp, options: argparse.Namespace) -> None:
    for number in range(options.slot, options.workflows, options.slots):
        await _start(app, number)
        await asyncio.sleep(options.pause)


async def _start(app: EddaApp, number: int) -> None:
    bound: Any = relayed.options(id=f"r-{number:05}")
    while True:
        try:
            await app.start(bound, number)
            return
        except Exception as error:  # this worker was just declared dead, or the database is busy
            logging.getLogger("relay-test").warning("cannot start %d: %r", number, error)
            await asyncio.sleep(0.1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--slot", type=int, required=True)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--workflows", type=int, required=True)
    parser.add_argument("--lease", type=float, default=1.0)
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between two starts")
    parser.add_argument("--longest", type=float, default=2.0, help="the longest back-off")
    return parser.parse_args()


if __name__ == "__main__":
    chosen = parse()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    backoff.LONGEST_SECONDS = chosen.longest  # type: ignore[misc]
    asyncio.run(main(chosen))
