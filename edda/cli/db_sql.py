"""`edda db sql`: print the statements that make the tables, for somebody who may run them. It needs no database."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from edda.cli.failures import Usage
from edda.cli.options import url_of, with_database, with_json
from edda.cli.terminal import say, say_json
from edda.storage.sql import open_store
from edda.storage.sql.dialects.base import Dialect
from edda.storage.sql.migrate import MIGRATIONS
from edda.storage.sql.schema import SCHEMA
from edda.storage.sql.url import parse

EXAMPLES = """\
  edda db sql --db postgresql://
  edda db sql --db mysql:// --from-version 3   what comes after that version
"""


def add(parser: ArgumentParser) -> None:
    parser.add_argument("--from-version", type=int, default=0, metavar="N", help="only what comes after that one")
    with_database(parser)
    with_json(parser)


def run(options: Namespace) -> int:
    newest = MIGRATIONS[-1].version
    if not 0 <= options.from_version <= newest:
        raise Usage(f"there is no version {options.from_version}; the newest is {newest}")
    texts = statements(open_store(_by_kind(url_of(options))).database.dialect, options.from_version)
    if options.json:
        say_json({"statements": texts})
        return 0
    for text in texts:
        say(f"{text};\n")
    return 0


def _by_kind(url: str) -> str:
    """The dialect alone is wanted: no file, no host."""
    return f"{parse(url).kind}://" if "://" in url else url


def statements(dialect: Dialect, from_version: int) -> list[str]:
    found = [] if from_version else dialect.create_table(SCHEMA)
    for migration in MIGRATIONS:
        if migration.version > from_version:
            found += migration.statements(dialect)
            values = f"{migration.version}, {migration.oldest_code}, 0, 'edda'"
            # To be read by a person: nothing of it comes from anybody else.
            found.append(f"insert into edda_schema (version, oldest_code, applied_at_us, library) values ({values})")  # noqa: S608
    return found
