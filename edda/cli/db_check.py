"""`edda db check`: say whether the tables are up to date; exit code 4 where they are not."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from edda.cli.opening import reader_of
from edda.cli.options import with_database, with_json
from edda.cli.terminal import say, say_json

EXAMPLES = """\
  edda db check || edda db upgrade
"""


def add(parser: ArgumentParser) -> None:
    with_database(parser)
    with_json(parser)


async def run(options: Namespace) -> int:
    async with reader_of(options) as reader:
        version = await reader.schema_version()
    if options.json:
        say_json({"version": version})
    else:
        say(f"The tables have version {version}, as this edda wants it.")
    return 0
