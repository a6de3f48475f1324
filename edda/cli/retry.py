"""`edda retry ID`: let an instance go on that was set aside, or could not be undone."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from edda.cli.opening import store_of
from edda.cli.options import with_database, with_json
from edda.cli.terminal import clean, say, say_json
from edda.core.history import InstanceId
from edda.core.lifecycle import REPAIRABLE
from edda.exceptions import InstanceNotFoundError, NotRepairableError

EXAMPLES = """\
  edda ls --aside
  edda retry order-42
"""


def add(parser: ArgumentParser) -> None:
    parser.add_argument("id", help="of the instance")
    with_database(parser)
    with_json(parser)


async def run(options: Namespace) -> int:
    async with store_of(options) as store:
        before = await store.retry(InstanceId(options.id))
        store.hint()
    if before is None:
        raise InstanceNotFoundError(options.id)
    if before.status not in REPAIRABLE:
        raise NotRepairableError(options.id, before.status.value)
    if options.json:
        say_json({"id": options.id, "before": before.status})
    else:
        say(clean(f"{options.id} goes on; it was {before.status}", most=None))
    return 0
