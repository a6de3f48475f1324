"""The worker: starts a workflow for each order and runs them. This is the process that gets killed.

It has no state and knows nothing of earlier crashes. Started again it does the same again: an order whose workflow
exists is not started twice (the order's id is the instance's id), and what was under way goes on where it was.

What happens it says on stdout, one line each: `recorded ORD-1001 charge:1`, `replayed ORD-1001 charge:1` and
`ended ORD-1001 completed`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from edda import EddaApp
from examples.orders.order import Order, read_orders
from examples.orders.refusals import COMPLETED, OrderRefused
from examples.orders.workflow import fulfil

ORDERS_AT_ONCE = 16
"""The other ones wait in the database for their turn."""


class Announcer:
    """Hooks of the app. They are for logs and metrics like this, and cannot influence the work."""

    async def on_activity_complete(
        self, instance_id: str, activity_id: str, activity_name: str, result: object, cache_hit: bool
    ) -> None:
        say("replayed" if cache_hit else "recorded", instance_id, activity_id)


async def run(db_url: str, orders: list[Order]) -> None:
    """Fulfil the orders; returns when each of them has ended."""
    async with EddaApp("orders", db_url, hooks=Announcer(), max_running=ORDERS_AT_ONCE):
        await asyncio.gather(*(follow(order) for order in orders))


async def follow(order: Order) -> None:
    """Start the workflow of an order, unless that has been done, and say how it ended."""
    handle = await fulfil.options(id=order.id).start(order)
    try:
        await handle.result()
    except OrderRefused as refusal:
        say("ended", order.id, refusal.outcome)
    else:
        say("ended", order.id, COMPLETED)


def say(what: str, order_id: str, words: str) -> None:
    sys.stdout.write(f"{what} {order_id} {words}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.orders.worker", description=__doc__)
    parser.add_argument("db_url", help="the database, such as sqlite:///orders.db")
    parser.add_argument("orders", type=int, help="how many orders of the CSV to fulfil")
    options = parser.parse_args()
    asyncio.run(run(options.db_url, read_orders(options.orders)))
