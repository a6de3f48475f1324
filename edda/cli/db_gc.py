"""`edda db gc`: forget instances that ended long ago, in small steps beside the work."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser, Namespace
from typing import Final

from edda.cli.opening import store_of
from edda.cli.options import duration_us, with_database, with_json
from edda.cli.terminal import Progress, counted, say, say_json
from edda.storage.retention import walk

PAUSE_SECONDS: Final = 0.02
DAY_US: Final = 86_400_000_000
EXAMPLES = """\
  edda db gc --older-than 30d --dry-run   only say how many
  edda db gc --older-than 30d
"""


def add(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--older-than", type=duration_us, required=True, metavar="AGE", help="since their end: 12h, 30d, 1w"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say how many")
    with_database(parser)
    with_json(parser)


async def run(options: Namespace) -> int:
    instances = rows = workers = 0
    progress = Progress("counting" if options.dry_run else "forgetting")
    async with store_of(options) as store:
        async for step in walk(store, age_us=options.older_than, dry=options.dry_run):
            instances, rows = instances + step.instances, rows + step.rows
            progress.tell(counted(instances, "instance"))
            await asyncio.sleep(PAUSE_SECONDS)  # others come between two steps
        if not options.dry_run:
            workers = await store.forget_workers(age_us=max(options.older_than, DAY_US))
    progress.end()
    if options.json:
        say_json({"instances": instances, "history_rows": rows, "workers": workers, "dry_run": options.dry_run})
    else:
        verb = "would be forgotten" if options.dry_run else "forgotten"
        say(f"{counted(instances, 'instance')} with {counted(rows, 'row')} of history {verb}.")
    return 0
