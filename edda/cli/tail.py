"""`edda tail`: what happens, as it happens: the history of one instance, or the changes of all."""

from __future__ import annotations

import asyncio
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from edda.cli.opening import reader_of
from edda.cli.options import with_database, with_json
from edda.cli.show import history_line
from edda.cli.terminal import clean, exact, note, say, say_json, time_of
from edda.core.history import InstanceId
from edda.core.lifecycle import ENDED
from edda.exceptions import InstanceNotFoundError
from edda.storage.reads import PAGE_MAX, SCANNED_MAX, InstanceFilter, InstanceSummary

if TYPE_CHECKING:
    from edda.storage.sql.reads_store import SqlReader

POLL_SECONDS: Final = 0.5
LATE_US: Final = 2_000_000
EXAMPLES = """\
  edda tail                       every change of status, until Ctrl-C
  edda tail order-42              what one instance records, until it has ended
  edda tail order-42 --from-start
"""


def add(parser: ArgumentParser) -> None:
    parser.add_argument("id", nargs="?", help=f"of one instance; default: the newest {SCANNED_MAX:,}")
    parser.add_argument("--from-start", action="store_true", help="its whole history first")
    with_database(parser)
    with_json(parser)


async def run(options: Namespace) -> int:
    async with reader_of(options) as reader:
        await (_follow_all(reader, options) if options.id is None else _follow_one(reader, options))
    return 0


async def _follow_one(reader: SqlReader, options: Namespace) -> None:
    instance_id = InstanceId(options.id)
    row = await reader.instance(instance_id)
    if row is None:
        raise InstanceNotFoundError(options.id)
    latest = await reader.history_page(instance_id, limit=1, latest=True)
    seq = 1 if options.from_start or row.status in ENDED or not latest.rows else latest.rows[-1].seq
    while True:
        row = await reader.instance(instance_id)  # before the history: whatever ended it is in there
        while True:
            page = await reader.history_page(instance_id, from_seq=seq, limit=PAGE_MAX)
            for event in page.rows:
                seq = event.seq + 1
                _say_row(options, map(clean, history_line(event)), event)
            if page.next_seq is None:
                break
        if row is None or row.status in ENDED:
            if row is not None and not options.json:
                note(f"{row.status.value}")
            return
        await asyncio.sleep(POLL_SECONDS)


async def _follow_all(reader: SqlReader, options: Namespace) -> None:
    """Among the newest instances: no index finds changes, so older ones change unseen."""
    begin_us = from_us = await reader.clock()
    seen: set[tuple[InstanceId, int]] = set()
    told = False
    if not options.json:
        note("Waiting for changes; Ctrl-C ends it.")
    while True:
        now_us = await reader.clock()
        # What was written a moment ago may have become visible only now.
        recent_us = max(begin_us, from_us - LATE_US)
        rows, whole = await changed_since(reader, recent_us)
        if not whole and not told:
            note(f"Only the newest {SCANNED_MAX:,} instances are watched; for an older one: edda tail ID")
            told = True
        for row in sorted(rows, key=lambda row: (row.updated_at_us, row.id)):
            if (row.id, row.updated_at_us) not in seen:
                seen.add((row.id, row.updated_at_us))
                _say_row(options, _change_line(row), row)
        seen = {key for key in seen if key[1] >= recent_us}
        from_us = now_us
        await asyncio.sleep(POLL_SECONDS)


async def changed_since(reader: SqlReader, from_us: int) -> tuple[list[InstanceSummary], bool]:
    """What changed among the newest instances, and whether those are all."""
    rows: list[InstanceSummary] = []
    token: str | None = None
    while True:
        page = await reader.instance_page(InstanceFilter(updated_from_us=from_us), limit=PAGE_MAX, page=token)
        rows += page.rows
        token = page.next_page
        if token is None or not page.scanned_all:
            return rows, page.scanned_all


def _change_line(row: InstanceSummary) -> tuple[str, ...]:
    return time_of(row.updated_at_us), exact(row.id), row.status.value, clean(row.reason)


def _say_row(options: Namespace, cells: Iterable[str], value: object) -> None:
    if options.json:
        say_json(value)
    else:
        say("  ".join(cells).rstrip())
    sys.stdout.flush()
