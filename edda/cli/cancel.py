"""`edda cancel ID`."""

from __future__ import annotations

import getpass
from argparse import ArgumentParser, Namespace

from edda.cli.opening import store_of
from edda.cli.options import with_database, with_json
from edda.cli.terminal import clean, say, say_json
from edda.core.history import InstanceId
from edda.core.lifecycle import CANCELLABLE
from edda.exceptions import InstanceNotFoundError, NotCancellableError

EXAMPLES = """\
  edda cancel order-42
  edda cancel order-42 --by ann
"""


def add(parser: ArgumentParser) -> None:
    parser.add_argument("id", help="of the instance")
    parser.add_argument("--by", help="who wants it; default: you, on this machine")
    with_database(parser)
    with_json(parser)


async def run(options: Namespace) -> int:
    async with store_of(options) as store:
        before = await store.cancel(InstanceId(options.id), by=options.by or _me())
        store.hint()
    if before is None:
        raise InstanceNotFoundError(options.id)
    if before.status not in CANCELLABLE:
        raise NotCancellableError(options.id, before.status.value)
    if options.json:
        say_json({"id": options.id, "before": before.status})
    else:
        say(clean(f"{options.id} will be cancelled; what it did is undone. See: edda why {options.id}", most=None))
    return 0


def _me() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without a name for its user
        return "command line"
