"""The whole matrix, and its counts: `python -m tests.storage.verb_pairs --database postgresql`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterable

from edda.storage.sql import open_store
from tests.databases import fresh_database
from tests.storage.verb_pairs.forgetting import SITUATIONS, VERBS
from tests.storage.verb_pairs.matrix import Case, Cell, Matrix, Table, cases, total
from tests.storage.verb_pairs.orders import Order

COLUMNS = (
    "first",
    "second",
    "cases",
    "stops",
    "waited",
    "needlessly",
    *(order.value for order in Order),
    "retries",
    "violations",
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.storage.verb_pairs", description=__doc__)
    parser.add_argument("--database", choices=["postgresql", "mysql"], required=True)
    parser.add_argument("--first", choices=VERBS, help="only pairs that begin with this verb")
    parser.add_argument("--second", choices=VERBS, help="only pairs that end with this verb")
    parser.add_argument("--situation", choices=[each.name for each in SITUATIONS], help="only this one")
    parser.add_argument("--violations", type=int, default=20, help="show so many")
    options = parser.parse_args(arguments)
    chosen = cases(
        first=options.first,
        second=options.second,
        situations=[each for each in SITUATIONS if options.situation in (None, each.name)],
    )
    began = time.monotonic()
    with fresh_database(options.database) as url:
        matrix = Matrix(url)
        asyncio.run(_play(matrix, chosen))
    print("\n".join(lines(matrix.table)))
    violations = total(matrix.table.values()).violations
    print(f"\n{time.monotonic() - began:.0f} s, {len(violations)} violations")
    for violation in violations[: options.violations]:
        print(f"\n{violation}")
    return 1 if violations else 0


async def _play(matrix: Matrix, chosen: Iterable[Case]) -> None:
    store = open_store(matrix.url)
    await store.open()  # makes the tables
    await store.close()
    await matrix.play(chosen)


def lines(table: Table) -> list[str]:
    """The counts of each pair, and their sum."""
    rows = [COLUMNS]
    for first in VERBS:
        rows += [_row(first, second, table[first, second]) for second in VERBS if (first, second) in table]
    rows.append(_row("all", str(len(table)), total(table.values())))
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return ["  ".join(value.rjust(width) for value, width in zip(row, widths, strict=True)) for row in rows]


def _row(first: str, second: str, cell: Cell) -> tuple[str, ...]:
    counts = [cell.cases, cell.stops, cell.waited, cell.needless, *(cell.orders[order] for order in Order)]
    return (first, second, *(str(count) for count in (*counts, cell.retries, len(cell.violations))))


if __name__ == "__main__":
    sys.exit(main())
