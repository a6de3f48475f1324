"""What can be said of a database itself: its version, settings that put data at risk, and indexes that are missing."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from edda.storage.sql.database import Database, Lane
from edda.storage.sql.schema import INDEXES
from edda.storage.sql.verb import Statement, Verb

FIRST_SQLITE_WITHOUT_RESET_BUG: Final = (3, 51, 3)
CATALOGUES: Final = {
    "sqlite": "select name from sqlite_master where type = 'index'",
    "postgresql": "select indexname from pg_catalog.pg_indexes where schemaname = current_schema()",
    "mysql": "select distinct index_name from information_schema.statistics where table_schema = database()",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """`serious`: data may be lost, or work stops."""

    what: str
    advice: str
    serious: bool = False


async def about(database: Database) -> str:
    """Its kind and version."""
    kind = database.dialect.name
    if kind == "sqlite":
        return f"SQLite {sqlite3.sqlite_version}"
    version = str(await _one(database, "select version()"))
    return version.split(" on ")[0] if kind == "postgresql" else version if "Maria" in version else f"MySQL {version}"


async def missing_indexes(database: Database) -> tuple[str, ...]:
    found = await database.run("indexes", partial(_column, CATALOGUES[database.dialect.name]), lane=Lane.LOOK)
    return tuple(sorted({index.name for index in INDEXES} - {str(name) for name in found}))


async def risks(database: Database) -> list[Risk]:
    match database.dialect.name:
        case "sqlite":
            return await _of_sqlite(database)
        case "postgresql":
            return await _of_postgresql(database)
        case _:
            return await _of_mysql(database)


async def _of_sqlite(database: Database) -> list[Risk]:
    """`synchronous` belongs to a connection, and every one of ours that writes sets it to FULL."""
    found: list[Risk] = []
    if sqlite3.sqlite_version_info < FIRST_SQLITE_WITHOUT_RESET_BUG:
        found.append(
            Risk(
                what=f"SQLite {sqlite3.sqlite_version} can, rarely, corrupt a database that two processes write (the "
                "WAL-reset bug)",
                advice="Use SQLite 3.51.3 or newer, one writing process, or a database server",
            )
        )
    mode = str(await _one(database, "pragma journal_mode"))
    if mode != "wal":
        advice = "A file system without shared memory (NFS) forbids WAL: put the file on a local disk"
        found.append(
            Risk(what=f"the journal mode is {mode}, not wal: readers and the writer wait for each other", advice=advice)
        )
    verdict = str(await _one(database, "pragma quick_check(1)"))
    if verdict != "ok":
        advice = "Stop every process, copy the file away, and restore a backup"
        found.append(Risk(what=f"the file is damaged: {verdict}", advice=advice, serious=True))
    return found


async def _of_postgresql(database: Database) -> list[Risk]:
    text = (
        "select current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit'), "
        "current_setting('server_version_num')::int, pg_is_in_recovery()::int, current_setting('server_encoding')"
    )
    fsync, pages, synchronous, version, standby, encoding = await _row(database, text)
    return _unless(
        (fsync == "on", f"fsync is {fsync}: a power cut can lose or damage everything", "Set fsync = on", True),
        (
            pages == "on",
            f"full_page_writes is {pages}: a power cut can damage pages",
            "Set full_page_writes = on",
            True,
        ),
        (
            synchronous != "off",
            "synchronous_commit is off: the last moments before a power cut are lost, and with them what was answered",
            "Set synchronous_commit = on, at least for edda's user: alter role … set synchronous_commit = on",
            True,
        ),
        (
            version >= 130000,
            f"PostgreSQL {version // 10000} is older than any that edda is tested with",
            "Use 15",
            False,
        ),
        (not standby, "this is a standby: workers cannot write here", "Give workers the address of the primary", False),
        (encoding == "UTF8", f"the encoding is {encoding}: not every text can be stored", "Make it with UTF8", True),
    )


async def _of_mysql(database: Database) -> list[Risk]:
    text = "select @@innodb_flush_log_at_trx_commit, @@max_allowed_packet, @@read_only, @@global.tx_isolation"
    if "Maria" not in str(await _one(database, "select version()")):
        text = text.replace("tx_isolation", "transaction_isolation")
    flush, packet, read_only, isolation = await _row(database, text)
    return _unless(
        (
            int(flush) == 1,
            f"innodb_flush_log_at_trx_commit is {flush}: the last second before a crash is lost, and what was answered",
            "Set innodb_flush_log_at_trx_commit = 1",
            True,
        ),
        (
            int(packet) >= 4 << 20,
            f"max_allowed_packet is {packet} bytes: groups of large results are refused",
            "Set max_allowed_packet = 64M",
            False,
        ),
        (not int(read_only), "the server is read only: workers cannot write here", "Use the primary", False),
        (
            isolation in ("REPEATABLE-READ", "READ-COMMITTED"),
            f"the server's isolation is {isolation}: edda sets its own, but ctx.session has this one",
            "REPEATABLE-READ and READ-COMMITTED are tested",
            False,
        ),
    )


def _unless(*checks: tuple[object, str, str, bool]) -> list[Risk]:
    """The risks whose condition does not hold."""
    return [Risk(what=what, advice=advice, serious=serious) for fine, what, advice, serious in checks if not fine]


async def _one(database: Database, text: str) -> object:
    return (await _row(database, text))[0]


async def _row(database: Database, text: str) -> tuple[Any, ...]:
    return await database.run("health", partial(_first, text), lane=Lane.LOOK)


def _first(text: str) -> Verb[tuple[Any, ...]]:
    rows, _ = yield Statement(text)
    return tuple(rows[0])


def _column(text: str) -> Verb[list[object]]:
    rows, _ = yield Statement(text)
    return [row[0] for row in rows]
