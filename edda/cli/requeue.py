"""`edda requeue EVENT`: have a dead letter of the outbox delivered after all."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from edda.cli.opening import reader_of, store_of
from edda.cli.options import limit, with_database, with_json
from edda.cli.terminal import clean, note, say, say_json, table, time_of
from edda.exceptions import DeadLetterNotFoundError
from edda.storage.outbox import DEAD
from edda.storage.reads import PAGE, PAGE_MAX

EXAMPLES = """\
  edda requeue                   what is dead, the latest first
  edda requeue 0198c2f4-…        deliver it
"""


def add(parser: ArgumentParser) -> None:
    parser.add_argument("event", nargs="?", help="id of the event; without it they are listed")
    parser.add_argument("--limit", type=limit(PAGE_MAX), default=PAGE, help=f"rows of the list, up to {PAGE_MAX}")
    parser.add_argument("--page", metavar="TOKEN", help="go on where the page before ended")
    with_database(parser)
    with_json(parser)


async def run(options: Namespace) -> int:
    if options.event is None:
        return await _list(options)
    async with store_of(options) as store:
        if not await store.requeue(options.event):
            raise DeadLetterNotFoundError(options.event)
        store.hint()
    if options.json:
        say_json({"id": options.event})
    else:
        say(clean(f"{options.event} is due again, at once", most=None))
    return 0


async def _list(options: Namespace) -> int:
    async with reader_of(options) as reader:
        page = await reader.outbox_page(status=DEAD, limit=options.limit, page=options.page)
    if options.json:
        say_json({"dead": page.rows, "next_page": page.next_page})
        return 0
    columns = ("ID", "TYPE", "INSTANCE", "DIED (UTC)", "ATTEMPTS", "REASON")
    table(
        columns,
        [
            (
                one.message.id,
                one.message.type,
                one.message.instance_id,
                time_of(one.due_at_us),
                one.attempts,
                one.reason,
            )
            for one in page.rows
        ],
    )
    if not page.rows:
        note("There is no dead letter.")
    if page.next_page is not None:
        note(f"There are more: --page {page.next_page}")
    return 0
