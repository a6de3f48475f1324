"""`edda why ID`: why an instance is where it is, and what to do."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from edda.cli.opening import reader_of
from edda.cli.options import with_database, with_json
from edda.cli.terminal import clean, say, say_json
from edda.core.history import InstanceId
from edda.exceptions import InstanceNotFoundError
from edda.why import look, why

EXAMPLES = """\
  edda why order-42
"""


def add(parser: ArgumentParser) -> None:
    parser.add_argument("id", help="of the instance")
    with_database(parser)
    with_json(parser)


async def run(options: Namespace) -> int:
    async with reader_of(options) as reader:
        situation = await look(reader, InstanceId(options.id))
    if situation is None:
        raise InstanceNotFoundError(options.id)
    answer = why(situation)
    if options.json:
        say_json({"id": options.id, "status": situation.row.status, "why": answer.sentence, "advice": answer.advice})
        return 0
    say(clean(f"{options.id}: {answer.sentence}.", most=None))
    if answer.advice:
        say(clean(f"{answer.advice}.", most=None))
    return 0
