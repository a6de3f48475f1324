"""Opening the database of a command: to look, or to act. Acting never changes the tables: `edda db upgrade` does."""

from __future__ import annotations

import contextlib
from argparse import Namespace
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from edda.cli.options import url_of
from edda.storage.sql import open_reader, open_store

if TYPE_CHECKING:
    from edda.storage.sql.reads_store import SqlReader
    from edda.storage.sql.store import SqlStore


@contextlib.asynccontextmanager
async def reader_of(options: Namespace) -> AsyncGenerator[SqlReader]:
    reader = open_reader(url_of(options))
    try:
        await reader.open()
        yield reader
    finally:
        await reader.close()


@contextlib.asynccontextmanager
async def store_of(options: Namespace) -> AsyncGenerator[SqlStore]:
    """Only where the tables are there and up to date, so that a mistyped URL makes no database."""
    async with reader_of(options):
        pass
    store = open_store(url_of(options), notifications=True)
    try:
        await store.open()
        yield store
    finally:
        await store.close()
