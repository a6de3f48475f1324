"""`edda db upgrade`: make the tables, or bring them up to date."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from edda.cli.options import url_of, with_database, with_json
from edda.cli.terminal import say, say_json
from edda.storage.sql import open_store

EXAMPLES = """\
  edda db upgrade
  edda db upgrade --db postgresql://edda@db.example.com/shop
"""


def add(parser: ArgumentParser) -> None:
    with_database(parser)
    with_json(parser)


async def run(options: Namespace) -> int:
    store = open_store(url_of(options))
    try:
        await store.open()
        version = await store.schema_version()
    finally:
        await store.close()
    if options.json:
        say_json({"version": version})
    else:
        say(f"The tables have version {version}.")
    return 0
