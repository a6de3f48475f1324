"""How a verb of storage is written: as a generator that yields statements and receives their rows.

A verb holds no connection and awaits nothing, so the same text runs in SQLite's writer thread, over asyncpg or asyncmy,
inside a user's SQLAlchemy transaction, and under a test that stops it before each of its statements.

Law: whoever runs a verb runs it inside exactly one transaction, rolls back on any error, and starts it anew from the
beginning to retry: nothing read before a rollback is ever used again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, NamedTuple, TypeVar

Row = Sequence[Any]
T = TypeVar("T")


class Statement(NamedTuple):
    """One SQL statement with `?` for each parameter; the runner translates placeholders for its driver."""

    text: str
    params: Sequence[Any] = ()
    many: bool = False
    """`params` is a sequence of rows, and the statement is executed for each of them; it returns no rows."""


class Rows(NamedTuple):
    """What a statement gave: its rows, and how many it changed."""

    rows: Sequence[Row]
    changed: int


Verb = Generator[Statement, Rows, T]


async def drive(verb: Verb[T], execute: Callable[[Statement], Awaitable[Rows]]) -> T:
    """Run a verb over an asynchronous connection; errors of a statement are raised into the verb."""
    try:
        statement = next(verb)
        while True:
            try:
                rows = await execute(statement)
            except BaseException as error:
                statement = verb.throw(error)
            else:
                statement = verb.send(rows)
    except StopIteration as end:
        result: T = end.value
        return result


def drive_sync(verb: Verb[T], execute: Callable[[Statement], Rows]) -> T:
    """Run a verb over a synchronous connection."""
    try:
        statement = next(verb)
        while True:
            try:
                rows = execute(statement)
            except BaseException as error:
                statement = verb.throw(error)
            else:
                statement = verb.send(rows)
    except StopIteration as end:
        result: T = end.value
        return result
