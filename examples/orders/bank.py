"""The bank: a system outside, with a database of its own that no transaction of the shop includes.

So it can happen that the bank has taken the money and the shop's worker is killed before it hears of it; then the
worker asks again. What makes that harmless is the idempotency key: the bank answers a key it knows with what it did the
first time. As banks do, it declines some cards (`tok_declined_…`), and is now and then hard to reach (`tok_flaky_…`).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from examples.orders.refusals import CardDeclined

TABLES = """
create table if not exists entry (id integer primary key, key text unique, card text, kind text, amount_cents integer);
create table if not exists request (key text, repeated integer);
"""


@dataclass(frozen=True, slots=True)
class Bank:
    """The bank's counter. Every call may be repeated with the same key."""

    path: Path

    def open(self) -> None:
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("pragma journal_mode = wal")
            connection.executescript(TABLES)

    async def capture(self, card: str, amount_cents: int, *, key: str) -> str:
        """Take money; returns the bank's reference. Raises `CardDeclined`, or ConnectionError: then ask again."""
        if card.startswith("tok_declined_"):
            raise CardDeclined(f"the bank declined {card}")
        return await asyncio.to_thread(self._enter, "captured", card, amount_cents, key)

    async def refund(self, card: str, amount_cents: int, *, key: str) -> str:
        """Give money back; returns the bank's reference."""
        return await asyncio.to_thread(self._enter, "refunded", card, amount_cents, key)

    def statement(self) -> list[tuple[str, str, int]]:
        """Card, kind and amount of everything that moved money."""
        with self._ledger() as ledger:
            return ledger.execute("select card, kind, amount_cents from entry").fetchall()

    def repeated_requests(self) -> int:
        """How many requests moved no money because their key had moved it already."""
        with self._ledger() as ledger:
            (count,) = ledger.execute("select count(*) from request where repeated").fetchone()
            return int(count)

    def _enter(self, kind: str, card: str, amount_cents: int, key: str) -> str:
        with self._ledger() as ledger:
            (earlier,) = ledger.execute("select count(*) from request where key = ?", (key,)).fetchone()
            flaky = earlier if card.startswith("tok_flaky_") else None
            known = ledger.execute("select id from entry where key = ?", (key,)).fetchone()
            ledger.execute("insert into request values (?, ?)", (key, known is not None))
            if known is None and flaky != 0:
                entry = (key, card, kind, amount_cents)
                ledger.execute("insert into entry (key, card, kind, amount_cents) values (?, ?, ?, ?)", entry)
                known = ledger.execute("select last_insert_rowid()").fetchone()
        if flaky == 0 or known is None:
            raise ConnectionError("the bank cannot be reached")
        if flaky == 1:
            raise ConnectionError("the bank moved the money, but its answer was lost")
        return f"BANK-{known[0]:06}"

    @contextmanager
    def _ledger(self) -> Generator[sqlite3.Connection, None, None]:
        """One transaction at the bank."""
        with closing(sqlite3.connect(self.path, isolation_level=None, timeout=30)) as connection:
            connection.execute("pragma synchronous = off")
            connection.execute("begin immediate")
            yield connection
            connection.execute("commit")
