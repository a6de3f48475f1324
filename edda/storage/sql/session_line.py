"""What lies between a `ctx.session` and the database: one line per transaction, made for it and gone after it.

A line knows how its kind of database begins, ends and abandons a transaction; it knows nothing of activities. Laws:
- After `commit` or `rollback`, however they ended, the connection (and on SQLite the gate) has been given back.
- Nothing that was begun is left behind when a task is cancelled: what has to happen to the end runs in `to_the_end`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol, TypeVar

from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncTransaction

from edda.exceptions import StorageError
from edda.storage.sql.runner import formatted, numbered
from edda.storage.sql.verb import Rows, Statement, Verb, drive_sync

T = TypeVar("T")


class Line(Protocol):
    """One transaction on one connection."""

    async def open(self) -> AsyncConnection:
        """Take a connection and begin. If it raises, everything has been given back."""
        ...

    def check(self) -> None:
        """Raise `StorageError` if the transaction was lost meanwhile."""
        ...

    async def run(self, verb: Verb[T]) -> T:
        """Run a verb inside the transaction."""
        ...

    async def commit(self) -> None:
        """COMMIT. Raises `UnknownOutcome`, or why the database refused; then it has been rolled back."""
        ...

    async def rollback(self) -> None:
        """Never raises an error of the database, and may be called at any time, also twice."""
        ...


class Lines(Protocol):
    """Where the lines of one store come from."""

    def line(self, *, worker: str, label: str) -> Line: ...

    async def dispose(self) -> None: ...


async def to_the_end(work: Awaitable[T]) -> T:
    """Wait for `work` whatever happens. A cancellation meanwhile takes effect at the caller's next await.

    So the caller learns the outcome of what can no longer be stopped, and is cancelled all the same.
    """
    task = asyncio.ensure_future(work)
    cancellations = 0
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            cancellations += 1
    caller = asyncio.current_task()
    assert caller is not None
    for _ in range(cancellations):
        caller.uncancel()  # or whoever counts the requests (asyncio.timeout, TaskGroup) would see one too many
        caller.cancel()
    return task.result()


def check_alive(connection: AsyncConnection, transaction: AsyncTransaction | None, label: str) -> None:
    """Raise `StorageError` if the transaction ended behind our back: nothing may be written on that connection then."""
    if connection.invalidated:
        raise StorageError(
            f"the transaction of ctx.session in {label} is lost: its connection broke, or a statement was cancelled"
        )
    if transaction is not None and not transaction.is_active:
        raise StorageError(
            f"the transaction of ctx.session in {label} is over: its connection was committed or rolled back directly. "
            "Use session.commit() and session.rollback(), which touch a savepoint"
        )


def run_verb(connection: Connection, verb: Verb[T]) -> T:
    """Run a verb on a SQLAlchemy connection, inside the transaction that is open there."""
    style = connection.dialect.paramstyle

    def execute(statement: Statement) -> Rows:
        text = with_marks(statement.text, style)
        if statement.many:
            rows: Sequence[Any] = [tuple(row) for row in statement.params]
            result = connection.exec_driver_sql(text, list(rows)) if rows else None
        else:
            result = connection.exec_driver_sql(text, tuple(statement.params))
        if result is None:
            return Rows((), 0)
        return Rows(result.fetchall() if result.returns_rows else (), result.rowcount)

    return drive_sync(verb, execute)


def with_marks(text: str, style: str) -> str:
    """The statement with the placeholders of a DBAPI parameter style instead of `?`."""
    match style:
        case "qmark":
            return text
        case "format" | "pyformat":
            return formatted(text)
        case "numeric_dollar":
            return numbered(text)
        case _:
            raise StorageError(f"edda cannot write through a driver with the parameter style '{style}'")
