"""Fulfil 300 orders with a worker that is killed three times, then check the books: `python -m examples.orders`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from examples.orders.bank import Bank
from examples.orders.books import differences, expected_books, read_books
from examples.orders.models import connect, open_shop
from examples.orders.order import Order, read_orders, read_stock
from examples.orders.progress import Progress
from examples.orders.report import count_steps, table, verdict
from examples.orders.supervisor import Place, Supervisor, WorkerFailedError


async def demo(place: Place, orders: list[Order], *, kills: int, seed: int) -> int:
    """Run the shop, print the report; returns the exit code."""
    engine = connect(place.db_url)
    opened = await open_shop(engine, read_stock())
    await engine.dispose()
    if not opened:
        print(f"There are orders of an earlier run in {place.db_url}; the demo needs an empty database.")
        return 2
    bank = Bank(place.bank)
    bank.open()
    print(f"{len(orders)} orders, a workflow for each. Their worker gets killed {kills} times, with SIGKILL.\n")
    progress = Progress(len(orders))
    run = await Supervisor(place, orders=len(orders), kills=kills, seed=seed, progress=progress).supervise()
    print(f"\n{table(run, await count_steps(place.db_url, orders), bank)}\n")
    code = await verify(place, orders)
    print("\nWhat ran is examples/orders/workflow.py; python -m examples.orders --help shows what else there is.")
    return code


async def verify(place: Place, orders: list[Order]) -> int:
    """Compare the books with the CSV; returns the exit code."""
    found = await read_books(place.db_url, Bank(place.bank), orders)
    wrong = differences(expected_books(orders, read_stock()), found)
    print(verdict(found, wrong))
    return 1 if wrong else 0


def main() -> int:
    options = arguments()
    orders = read_orders(options.orders)
    with tempfile.TemporaryDirectory(prefix="edda-demo-") as directory:
        place = where(options, Path(directory))
        try:
            if options.verify:
                return asyncio.run(verify(place, orders))
            return asyncio.run(demo(place, orders, kills=options.kills, seed=options.seed))
        except WorkerFailedError as error:
            print(f"\n{error}; it left this behind:\n{place.log.read_text(encoding='utf-8')[-4000:]}")
            return 1
        except KeyboardInterrupt:
            return 130


def where(options: argparse.Namespace, directory: Path) -> Place:
    file: Path = options.keep or directory / "orders.db"
    return Place(
        db_url=options.db or f"sqlite:///{file}",
        bank=file.with_suffix(".bank.db"),
        log=file.with_suffix(".log"),
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.orders", description=__doc__)
    parser.add_argument("--orders", type=int, default=300, metavar="N", help="how many of the 300 orders (300)")
    parser.add_argument("--kills", type=int, default=3, metavar="K", help="how often to kill the worker (3)")
    parser.add_argument("--seed", type=int, default=1, help="chooses the moments of the kills (1)")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="keep the SQLite database as FILE")
    parser.add_argument("--db", metavar="URL", help="an empty database: postgresql://… or mysql://…")
    parser.add_argument("--verify", action="store_true", help="only check the books that --keep has kept")
    options = parser.parse_args()
    if not 1 <= options.orders <= 300 or not 0 <= options.kills <= 20:
        parser.error("there are 1 to 300 orders, and 0 to 20 kills")
    if options.verify and options.keep is None:
        parser.error("--verify needs --keep FILE")
    return options


if __name__ == "__main__":
    sys.exit(main())
