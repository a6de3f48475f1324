"""`ctx.session`: the user's rows, the record and the outbox of one activity become durable together, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import random
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import String, insert, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool

from edda.core.commit import Batch, Commit, NewInstance, OutboxMessage, Verdict
from edda.core.history import HistoryEvent, InstanceId, Kind, WorkerId
from edda.exceptions import SessionUnavailableError, StorageError
from edda.storage.port import Fenced, UnknownOutcome, UserTransaction
from edda.storage.sql import open_store
from edda.storage.sql.session import check_same_database, is_serialization_failure
from edda.storage.sql.session_line import to_the_end, with_marks
from edda.storage.sql.session_server import ServerLine
from edda.storage.sql.store import SqlStore

sys.path.insert(0, str(Path(__file__).parents[2]))  # this file is also run as a program: see the end
from tests.databases import available, fresh_database

ORDER = InstanceId("order-1")
WORKER = WorkerId("worker-1")
SERVERS = ("postgresql", "mysql")


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(40))
    note: Mapped[str | None] = mapped_column(String(40), unique=True)


def record(seq: int, *, claim: int = 1, instance: str = ORDER) -> Commit:
    """The commit of one completed activity, with one message for the outbox."""
    history = HistoryEvent(
        InstanceId(instance), seq, claim, 1, Kind.ACTIVITY_COMPLETED, f"book:{seq}", "book", output="null"
    )
    message = OutboxMessage(
        id=f"{instance}:{seq}",
        instance_id=InstanceId(instance),
        seq=seq,
        ordinal=0,
        type="booked",
        source="test",
        data="{}",
        blob=None,
        content_type="application/json",
        at_us=1,
    )
    return Commit(instance_id=InstanceId(instance), claim=claim, records=(history,), outbox=(message,))


def new_instance(id: str, args_hash: str = "h") -> NewInstance:
    return NewInstance(id=InstanceId(id), workflow="order", input="{}", args_hash=args_hash)


@dataclass
class Home:
    """A store with a living worker, and a table of the user's beside it."""

    kind: str
    url: str
    store: SqlStore

    def transaction(self, label: str = "book") -> UserTransaction:
        return self.store.transaction(WORKER, label=label)

    def outside(self, **options: Any) -> contextlib.AbstractAsyncContextManager[Any]:
        return outside(self.kind, self.url, **options)

    async def items(self) -> list[int]:
        return [row[0] for row in await self.query("select id from item order by id")]

    async def recorded(self, instance: str = ORDER) -> list[int]:
        histories = await self.store.histories([InstanceId(instance)])
        return [event.seq for event in histories[InstanceId(instance)]]

    async def sent(self) -> list[int]:
        return [row[0] for row in await self.query("select seq from edda_outbox order by seq")]

    async def query(self, statement: str) -> Sequence[Any]:
        transaction = self.transaction()
        try:
            return (await transaction.session.execute(text(statement))).all()
        finally:
            await transaction.rollback()

    async def book(self, number: int) -> Verdict:
        transaction = self.transaction()
        transaction.session.add(Item(id=number, name="x"))
        return await transaction.commit(record(number))

    async def all_given_back(self) -> bool:
        """Whether nothing holds the gate or a connection."""
        if self.kind in SERVERS:
            return lines(self).engine().pool.checkedout() == 0
        return not database(self).gate.locked()


def database(home: Home) -> Any:
    return home.store.database


def lines(home: Home) -> Any:
    return home.store._lines  # type: ignore[attr-defined]


@pytest.fixture(
    params=[
        "sqlite",
        "memory",
        pytest.param("postgresql", marks=pytest.mark.postgresql),
        pytest.param("mysql", marks=pytest.mark.mysql),
    ]
)
def kind(request: pytest.FixtureRequest) -> str:
    kind = request.param
    if kind != "memory" and available()[kind] is None:
        pytest.skip(f"there is no {kind} server")
    return cast(str, kind)


@pytest.fixture(scope="module")
def server_urls() -> Iterator[Callable[[str], str]]:
    """One database on each server for all the tests: making one takes seconds."""
    with contextlib.ExitStack() as stack:
        yield functools.cache(lambda kind: stack.enter_context(fresh_database(kind)))


@pytest.fixture
def url(kind: str, server_urls: Callable[[str], str], tmp_path: Path) -> str:
    match kind:
        case "memory":
            return "sqlite://"
        case "sqlite":
            return f"sqlite:///{tmp_path}/edda.db"
        case _:
            return server_urls(kind)


@pytest.fixture
async def home(kind: str, url: str) -> AsyncIterator[Home]:
    async with open_home(kind, url) as home:
        yield home


@contextlib.asynccontextmanager
async def open_home(kind: str, url: str, **options: Any) -> AsyncIterator[Home]:
    store = open_store(url, **options)
    await store.open()
    if kind in SERVERS:
        await clear(kind, url)
    line = store.lease_line()
    try:
        await line.connect()
        await line.register(WORKER, service="test", lease_us=30_000_000)
        home = Home(kind, url, store)
        await make_tables(home)
        yield home
    finally:
        await line.close()
        await store.close()


async def clear(kind: str, url: str) -> None:
    async with outside(kind, url) as engine, engine.begin() as connection:
        for table in ("edda_worker", "edda_instance", "edda_history", "edda_outbox"):
            await connection.execute(text(f"delete from {table}"))
        for table in ("item", "once", "other"):
            await connection.execute(text(f"drop table if exists {table}"))


async def make_tables(home: Home) -> None:
    if home.kind == "mysql":  # DDL commits there
        async with home.outside() as engine, engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        return
    transaction = home.transaction("setup")
    await (await transaction.session.connection()).run_sync(Base.metadata.create_all)
    assert await transaction.commit(record(1, instance=f"setup-{secrets.token_hex(4)}")) is Verdict.COMMITTED
    transaction = home.transaction("setup")
    await transaction.session.execute(text("delete from edda_outbox"))
    assert await transaction.commit(Commit(instance_id=InstanceId("setup"), claim=1)) is Verdict.COMMITTED


@contextlib.asynccontextmanager
async def outside(kind: str, url: str, **options: Any) -> AsyncIterator[Any]:
    """An engine of the user's own on the same database."""
    scheme = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "mysql": "mysql+asyncmy"}[kind]
    engine = create_async_engine(make_url(url).set(drivername=scheme), poolclass=NullPool, **options)
    try:
        yield engine
    finally:
        await engine.dispose()


def only(*kinds: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "kind", [pytest.param(kind, marks=[getattr(pytest.mark, kind)] if kind in SERVERS else []) for kind in kinds]
    )


# -- together, or not at all ------------------------------------------------------------------------------------------


async def test_rows_and_record_and_outbox_are_there_together_after_the_commit(home: Home) -> None:
    transaction = home.transaction()
    transaction.session.add(Item(id=1, name="book"))
    assert await transaction.commit(record(1)) is Verdict.COMMITTED
    assert (await home.items(), await home.recorded(), await home.sent()) == ([1], [1], [1])


async def test_nothing_is_opened_before_the_first_statement(home: Home) -> None:
    transaction = home.transaction()
    transaction.session.add(Item(id=1, name="book"))
    assert not transaction.opened
    assert await home.all_given_back()
    assert await transaction.flush()
    assert transaction.opened
    await transaction.rollback()
    assert await home.items() == []


async def test_an_untouched_session_opens_nothing_and_its_commit_writes_the_record(home: Home) -> None:
    transaction = home.transaction()
    await transaction.session.commit()
    assert not await transaction.flush()
    assert await transaction.commit(record(1)) is Verdict.COMMITTED
    assert await home.recorded() == [1]


async def test_rollback_leaves_nothing_and_may_be_repeated(home: Home) -> None:
    transaction = home.transaction()
    await transaction.rollback()
    transaction = home.transaction()
    transaction.session.add(Item(id=1, name="book"))
    await transaction.session.commit()
    await transaction.rollback()
    await transaction.rollback()
    assert (await home.items(), await home.recorded()) == ([], [])


async def test_commit_and_rollback_of_the_user_touch_a_savepoint_only(home: Home) -> None:
    transaction = home.transaction()
    session = transaction.session
    session.add(Item(id=1, name="kept"))
    await session.commit()
    session.add(Item(id=2, name="undone"))
    await session.flush()
    await session.rollback()
    async with session.begin():
        session.add(Item(id=3, name="kept"))
    assert await home_sees_nothing(home)
    assert await transaction.commit(record(1)) is Verdict.COMMITTED
    assert (await home.items(), await home.recorded()) == ([1, 3], [1])


async def home_sees_nothing(home: Home) -> bool:
    """Whether others see none of it: asked on another connection, where there is another."""
    if home.kind == "memory":
        return True
    async with home.outside() as engine, engine.connect() as connection:
        return not (await connection.execute(text("select id from item"))).all()


async def test_what_the_user_committed_is_undone_with_the_attempt(home: Home) -> None:
    transaction = home.transaction()
    async with transaction.session.begin():
        transaction.session.add(Item(id=1, name="x"))
    async with transaction.session.begin_nested():
        transaction.session.add(Item(id=2, name="x"))
    await transaction.session.commit()
    await transaction.rollback()
    assert await home.items() == []


async def test_an_error_inside_a_nested_transaction_undoes_only_that(home: Home) -> None:
    transaction = home.transaction()
    session = transaction.session
    session.add(Item(id=1, name="kept"))
    await session.flush()
    with pytest.raises(IntegrityError):
        async with session.begin_nested():
            await session.execute(insert(Item).values(id=1, name="twice"))
    session.add(Item(id=2, name="kept"))
    assert await transaction.commit(record(1)) is Verdict.COMMITTED
    assert (await home.items(), await home.recorded()) == ([1, 2], [1])


async def test_a_constraint_broken_at_the_last_flush_leaves_nothing(home: Home) -> None:
    assert await home.book(1) is Verdict.COMMITTED
    transaction = home.transaction()
    transaction.session.add(Item(id=2, name="x"))
    await transaction.session.flush()
    transaction.session.add(Item(id=1, name="twice"))
    with pytest.raises(IntegrityError):
        await transaction.commit(record(2))
    assert (await home.items(), await home.recorded()) == ([1], [1])
    assert await home.all_given_back()


async def test_a_failed_flush_that_was_swallowed_is_not_forgotten(home: Home) -> None:
    """SQLAlchemy has undone everything since the last commit of the user, so recording success would lose rows."""
    assert await home.book(1) is Verdict.COMMITTED
    transaction = home.transaction()
    transaction.session.add(Item(id=2, name="lost"))
    await transaction.session.flush()
    transaction.session.add(Item(id=1, name="twice"))
    with contextlib.suppress(IntegrityError):
        await transaction.flush()
    with pytest.raises(PendingRollbackError):
        await transaction.commit(record(2))
    assert (await home.items(), await home.recorded()) == ([1], [1])


@only("postgresql")
async def test_a_constraint_checked_at_commit_is_the_users_error_and_not_unknown(home: Home) -> None:
    async with home.outside() as engine, engine.begin() as connection:
        await connection.execute(text("create table once (id int unique deferrable initially deferred)"))
    transaction = home.transaction()
    await transaction.session.execute(text("insert into once values (1), (1)"))
    with pytest.raises(IntegrityError):
        await transaction.commit(record(1))
    assert await home.recorded() == []
    assert await home.all_given_back()


async def test_orm_core_text_and_streams_share_the_transaction(home: Home) -> None:
    transaction = home.transaction()
    session = transaction.session
    session.add_all([Item(id=1, name="a"), Item(id=2, name="b")])
    await session.execute(insert(Item), [{"id": 3, "name": "c"}, {"id": 4, "name": "d"}])
    await session.execute(text("insert into item (id, name) values (5, 'e')"))
    item = await session.get(Item, 3)
    assert item is not None
    item.name = "changed"
    await session.execute(update(Item).where(Item.id == 4).values(name="changed"))
    changed = select(Item.id).where(Item.name == "changed").order_by(Item.id)
    assert [row[0] async for row in await session.stream(changed)] == [3, 4]
    await session.delete(await session.get_one(Item, 1))
    assert await transaction.commit(record(1)) is Verdict.COMMITTED
    assert item.name == "changed"  # not expired
    assert await home.items() == [2, 3, 4, 5]


# -- verdicts ---------------------------------------------------------------------------------------------------------


async def test_a_worker_declared_dead_lands_nothing(home: Home) -> None:
    transaction = home.transaction()
    transaction.session.add(Item(id=1, name="x"))
    if home.kind in SERVERS:
        await transaction.flush()
    await home.store.retire(WORKER)
    with pytest.raises(Fenced):
        await transaction.commit(record(1))
    assert (await home.items(), await home.recorded(), await home.sent()) == ([], [], [])
    assert await home.all_given_back()


async def test_a_record_that_exists_means_that_the_claim_is_lost_and_lands_nothing(home: Home) -> None:
    await home.store.write(WORKER, Batch(commits=(record(1, claim=2),)))
    transaction = home.transaction()
    transaction.session.add(Item(id=1, name="x"))
    assert await transaction.commit(record(1)) is Verdict.CLAIM_LOST
    assert (await home.items(), await home.recorded(), await home.sent()) == ([], [1], [1])
    assert await home.all_given_back()
    assert await home.book(2) is Verdict.COMMITTED


async def test_a_start_joins_the_transaction(home: Home) -> None:
    transaction = home.transaction()
    transaction.session.add(Item(id=1, name="x"))
    await transaction.flush()
    assert (await transaction.start(new_instance("child-1"))).created
    again = await transaction.start(new_instance("child-1"))
    assert (again.created, again.workflow, again.args_hash) == (False, "order", "h")
    await transaction.rollback()
    assert await home.store.instance(InstanceId("child-1")) is None

    transaction = home.transaction()
    transaction.session.add(Item(id=1, name="x"))
    await transaction.flush()
    assert (await transaction.start(new_instance("child-1"))).created
    assert await transaction.commit(record(1)) is Verdict.COMMITTED
    row = await home.store.instance(InstanceId("child-1"))
    assert row is not None
    assert row.owner is None
    assert row.claimable_at_us is not None


# -- the end of a session ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("committed", [True, False])
async def test_after_its_end_a_session_raises(home: Home, committed: bool) -> None:
    transaction = home.transaction()
    transaction.session.add(Item(id=1, name="x"))
    await transaction.flush()
    if committed:
        await transaction.commit(record(1))
    else:
        await transaction.rollback()
    for late in (
        lambda: transaction.session.execute(text("select 1")),
        lambda: transaction.session.get(Item, 1),
        lambda: transaction.session.connection(),
        lambda: transaction.start(new_instance("late")),
    ):
        with pytest.raises(SessionUnavailableError, match="book is over"):
            await cast(Callable[[], Coroutine[Any, Any, Any]], late)()
    transaction.session.add(Item(id=2, name="late"))
    with pytest.raises(SessionUnavailableError):
        await transaction.session.flush()
    assert await home.all_given_back()
    assert await home.items() == ([1] if committed else [])


async def test_committing_the_connection_itself_cannot_tear_rows_from_their_record(home: Home) -> None:
    transaction = home.transaction()
    transaction.session.add(Item(id=1, name="x"))
    await transaction.flush()
    with contextlib.suppress(StorageError):
        await (await transaction.session.connection()).commit()
    with pytest.raises((StorageError, InvalidRequestError)):
        await transaction.commit(record(1))
    assert (await home.items(), await home.recorded()) == ([], [])
    assert await home.book(2) is Verdict.COMMITTED
    assert await home.items() == [2]


async def test_a_commit_in_sql_is_noticed_and_nothing_more_is_written(home: Home) -> None:
    transaction = home.transaction()
    transaction.session.add(Item(id=1, name="x"))
    await transaction.flush()
    await transaction.session.execute(text("commit"))
    with pytest.raises(DBAPIError, match=r"(?i)savepoint"):
        await transaction.commit(record(1))
    assert await home.recorded() == []
    assert await home.book(2) is Verdict.COMMITTED
    assert await home.recorded() == [2]


@only("mysql")
async def test_ddl_that_commits_is_noticed(home: Home) -> None:
    transaction = home.transaction()
    transaction.session.add(Item(id=1, name="x"))
    await transaction.session.execute(text("create table other (id int)"))
    with pytest.raises(DBAPIError, match="SAVEPOINT"):
        await transaction.commit(record(1))
    assert await home.recorded() == []


async def test_a_task_left_behind_by_the_activity_cannot_write_into_another_transaction(home: Home) -> None:
    transaction = home.transaction()
    session = transaction.session
    slow = {
        "postgresql": "select pg_sleep(0.3)",
        "mysql": "select sleep(0.3)",
    }.get(
        home.kind, "with recursive n(i) as (select 1 union all select i + 1 from n limit 300000) select max(i) from n"
    )
    session.add(Item(id=1, name="x"))
    await session.flush()

    over = asyncio.Event()

    async def straggle() -> None:
        await session.execute(text(slow))
        await over.wait()  # where the machine is faster than the rollback
        await session.execute(insert(Item).values(id=2, name="straggler"))

    straggler = asyncio.ensure_future(straggle())
    await asyncio.sleep(0.05)
    await transaction.rollback()
    over.set()
    assert await home.book(3) is Verdict.COMMITTED
    (failed,) = await asyncio.gather(straggler, return_exceptions=True)
    assert isinstance(failed, Exception)  # whatever its driver or SQLAlchemy makes of it
    assert (await home.items(), await home.recorded()) == ([3], [3])
    assert await home.all_given_back()


# -- beside each other ------------------------------------------------------------------------------------------------


async def test_more_sessions_than_connections_wait_for_each_other(home: Home) -> None:
    verdicts = await asyncio.gather(*(home.book(number) for number in range(1, 21)))
    assert set(verdicts) == {Verdict.COMMITTED}
    assert await home.items() == await home.recorded() == list(range(1, 21))
    assert await home.all_given_back()


async def test_the_rollback_of_a_session_takes_nobody_elses_rows_along(home: Home) -> None:
    """W35 of the reference: with one connection for all, it did."""
    transaction = home.transaction()
    transaction.session.add(Item(id=1, name="x"))
    await transaction.flush()
    plain = asyncio.ensure_future(home.store.write(WORKER, Batch(commits=(record(7),))))
    creating = asyncio.ensure_future(home.store.create(new_instance("bystander")))
    other = asyncio.ensure_future(home.book(2))
    await asyncio.sleep(0.05)
    await transaction.rollback()
    await asyncio.gather(plain, creating, other)
    assert (await home.items(), await home.recorded()) == ([2], [2, 7])
    assert await home.store.instance(InstanceId("bystander")) is not None


@only("sqlite", "memory")
async def test_a_plain_step_waits_for_one_session_at_most(home: Home) -> None:
    order: list[str] = []

    async def activity(number: int) -> None:
        transaction = home.transaction()
        transaction.session.add(Item(id=number, name="x"))
        await transaction.flush()
        await asyncio.sleep(0.01)
        await transaction.commit(record(number))
        order.append("session")

    async def plain() -> None:
        await home.store.write(WORKER, Batch(commits=(record(100),)))
        order.append("plain")

    activities = [asyncio.ensure_future(activity(number)) for number in range(1, 11)]
    await asyncio.sleep(0.005)
    await plain()
    assert order.count("session") <= 1
    await asyncio.gather(*activities)


@only("sqlite", "memory")
async def test_a_task_that_waits_to_open_when_its_attempt_ends_opens_nothing(home: Home) -> None:
    first = home.transaction()
    first.session.add(Item(id=1, name="x"))
    await first.flush()
    late = home.transaction()
    waiting = asyncio.ensure_future(late.session.execute(text("select 1")))
    await asyncio.sleep(0.01)
    await late.rollback()
    await first.rollback()
    with pytest.raises(SessionUnavailableError):
        await waiting
    assert await home.all_given_back()


async def test_two_tasks_of_one_activity_open_one_transaction(home: Home) -> None:
    transaction = home.transaction()
    await asyncio.gather(transaction.start(new_instance("a")), transaction.start(new_instance("b")))
    assert await transaction.commit(record(1)) is Verdict.COMMITTED
    assert len(await home.store.instances([InstanceId("a"), InstanceId("b")])) == 2
    assert await home.all_given_back()


# -- holding SQLite too long ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["file", "sqlite://"])
@pytest.mark.parametrize("last", ["commit", "statement"])
async def test_a_session_held_too_long_is_rolled_back_and_its_attempt_fails(
    url: str, last: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edda.storage.sql.session_sqlite.HOLD_WARNING_SECONDS", 0.05)
    url = f"sqlite:///{tmp_path}/edda.db" if url == "file" else url
    async with open_home("sqlite", url) as home:
        await home.items()
        monkeypatch.setattr(lines(home), "_hold_seconds", 0.3)
        transaction = home.transaction("charge_card")
        monkeypatch.setattr(lines(home), "_hold_seconds", 20)
        transaction.session.add(Item(id=1, name="x"))
        await transaction.flush()
        await home.store.write(WORKER, Batch(commits=(record(7),)))  # gets the gate when the session is thrown out
        late = transaction.commit(record(1)) if last == "commit" else transaction.session.execute(text("select 1"))
        with pytest.raises(StorageError, match=r"charge_card has held ctx\.session for more than 0\.3 seconds"):
            await late
        await transaction.rollback()
        assert (await home.items(), await home.recorded()) == ([], [7])
        assert await home.book(2) is Verdict.COMMITTED
    warnings = [entry for entry in caplog.records if "charge_card has held ctx.session" in entry.getMessage()]
    assert [(entry.name, entry.levelno) for entry in warnings] == [("edda.storage", logging.WARNING)]


# -- cancelling -------------------------------------------------------------------------------------------------------


@types.coroutine
def _watched(work: Coroutine[Any, Any, Any], on_suspension: Callable[[], None]) -> Any:
    """Run a coroutine, and be told whenever it is about to wait."""
    step: Callable[[Any], Any] = work.send
    value: Any = None
    while True:
        try:
            waiting = step(value)
        except StopIteration as end:
            return end.value
        on_suspension()
        try:
            value, step = (yield waiting), work.send
        except BaseException as error:
            value, step = error, work.throw


async def cancelled_at(place: int, work: Coroutine[Any, Any, Any]) -> bool:
    """Run `work` and cancel it at its n-th suspension. Returns whether it came so far."""
    reached = 0

    def on_suspension() -> None:
        nonlocal reached
        reached += 1
        if reached == place:
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_soon(task.cancel)

    async def run() -> None:
        await _watched(work, on_suspension)

    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.ensure_future(run())
    return reached >= place


async def test_cancelled_at_any_await_it_is_whole_or_nothing_and_everything_is_given_back(home: Home) -> None:
    async def attempt(number: int) -> None:
        transaction = home.transaction()
        session = transaction.session
        try:
            session.add(Item(id=number, name="x"))
            await session.commit()
            await session.execute(update(Item).where(Item.id == number).values(name="y"))
            await transaction.start(new_instance(f"child-{number}"))
            assert await transaction.commit(record(number)) is Verdict.COMMITTED
        except BaseException:
            await transaction.rollback()
            raise

    place = 0
    while await cancelled_at(place := place + 1, attempt(place)):
        assert await home.all_given_back(), place
        assert await home.items() == await home.recorded() == await home.sent(), place
    assert place > 10
    assert place in await home.items()  # the last one was not cancelled any more
    assert await home.book(1000) is Verdict.COMMITTED


async def test_cancelling_during_commit_is_heard_of_after_the_verdict(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    transaction = home.transaction()
    transaction.session.add(Item(id=1, name="x"))
    heard: list[object] = []

    async def attempt() -> None:
        line = cast(Any, transaction)._line
        real = line.commit

        async def commit() -> None:
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_soon(task.cancel)
            await real()

        monkeypatch.setattr(line, "commit", commit)
        heard.append(await transaction.commit(record(1)))
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            heard.append("cancelled")
            raise

    with pytest.raises(asyncio.CancelledError):
        await asyncio.ensure_future(attempt())
    assert heard == [Verdict.COMMITTED, "cancelled"]
    assert (await home.items(), await home.recorded()) == ([1], [1])


async def test_a_statement_cut_short_by_the_user_costs_the_attempt_and_nothing_else(home: Home) -> None:
    slow = {"postgresql": "select pg_sleep(30)", "mysql": "select sleep(30)"}.get(
        home.kind, "with recursive n(i) as (select 1 union all select i + 1 from n limit 1000000) select max(i) from n"
    )
    transaction = home.transaction()
    transaction.session.add(Item(id=1, name="x"))
    await transaction.flush()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await transaction.session.execute(text(slow))
    with pytest.raises(StorageError, match="a statement was cancelled"):
        await transaction.commit(record(1))
    assert (await home.items(), await home.recorded()) == ([], [])
    assert await home.all_given_back()
    async with asyncio.timeout(5):  # nothing is locked any more
        assert await home.book(1) is Verdict.COMMITTED


async def test_to_the_end_keeps_the_result_and_passes_the_cancellation_on() -> None:
    async def work() -> int:
        await asyncio.sleep(0.02)
        return 7

    async def caller() -> None:
        got.append(await to_the_end(work()))
        await asyncio.sleep(1)

    got: list[int] = []
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await caller()
    assert got == [7]


# -- servers that break -----------------------------------------------------------------------------------------------


async def kill_connections(home: Home) -> None:
    """End every connection of `ctx.session` that the worker's row names, as an administrator would."""
    own = {str(runner.server_id) for runner in database(home)._runners.values()}
    async with home.outside() as engine, engine.connect() as connection:
        ((noted,),) = await connection.execute(text(f"select server_ids from edda_worker where id = '{WORKER}'"))
        for number in set(noted.split(",")) - own:
            statement = f"select pg_terminate_backend({number})" if home.kind == "postgresql" else f"kill {number}"
            with contextlib.suppress(DBAPIError):
                await connection.execute(text(statement))


@only(*SERVERS)
async def test_a_pooled_connection_that_the_server_closed_is_replaced_unnoticed(home: Home) -> None:
    assert await home.book(1) is Verdict.COMMITTED
    await kill_connections(home)
    await asyncio.sleep(0.1)
    assert await home.book(2) is Verdict.COMMITTED
    assert await home.items() == [1, 2]


@only(*SERVERS)
async def test_a_connection_lost_before_commit_has_written_nothing(home: Home) -> None:
    transaction = home.transaction()
    transaction.session.add(Item(id=1, name="x"))
    await transaction.flush()
    await kill_connections(home)
    with pytest.raises((DBAPIError, StorageError)):
        await transaction.commit(record(1))
    assert (await home.items(), await home.recorded()) == ([], [])
    assert await home.all_given_back()


@only(*SERVERS)
async def test_a_connection_lost_at_commit_is_an_unknown_outcome_that_can_be_settled(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    transaction = home.transaction()
    transaction.session.add(Item(id=1, name="x"))
    real = ServerLine._answered

    async def killed_first(self: ServerLine, work: Coroutine[Any, Any, None], **options: Any) -> None:
        monkeypatch.undo()
        await kill_connections(home)
        await real(self, work, **options)

    monkeypatch.setattr(ServerLine, "_answered", killed_first)
    with pytest.raises(UnknownOutcome):
        await transaction.commit(record(1))
    assert await home.store.settle(WORKER, Batch(commits=(record(1),))) == (None,)
    assert await home.all_given_back()
    assert await home.book(1) is Verdict.COMMITTED


@only(*SERVERS)
async def test_a_commit_that_is_never_answered_becomes_unknown(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edda.storage.sql.session_server.COMMIT_SECONDS_MAX", 0.2)
    transaction = home.transaction()
    transaction.session.add(Item(id=1, name="x"))
    await transaction.flush()
    line = cast(Any, transaction)._line
    driver = (await line._connection.get_raw_connection()).driver_connection

    async def never() -> None:
        if home.kind == "postgresql":
            await driver.execute("select pg_sleep(2)")
        else:
            await driver.query("select sleep(2)")

    monkeypatch.setattr(line, "_transaction", types.SimpleNamespace(commit=never, is_active=True))
    with pytest.raises(UnknownOutcome):
        await transaction.commit(record(1))
    assert await home.all_given_back()


@only(*SERVERS)
async def test_the_servers_number_of_each_connection_stands_in_the_workers_row(home: Home) -> None:
    query = "select pg_backend_pid()" if home.kind == "postgresql" else "select connection_id()"
    ((number,),) = await home.query(query)
    ((noted,),) = await home.query(f"select server_ids from edda_worker where id = '{WORKER}'")
    assert str(number) in noted.split(",")


@only(*SERVERS)
async def test_a_session_reads_what_is_committed_and_its_idle_transaction_ends(home: Home) -> None:
    if home.kind == "postgresql":
        rows = await home.query(
            "select current_setting('transaction_isolation'), current_setting('idle_in_transaction_session_timeout')"
        )
        assert tuple(rows[0]) == ("read committed", "30s")
    else:
        ((isolation,),) = await home.query("select @@tx_isolation")
        assert isolation == "READ-COMMITTED"
        if "MariaDB" in (await home.query("select version()"))[0][0]:
            assert (await home.query("select @@idle_transaction_timeout"))[0][0] == 30


@only("mysql")
async def test_an_update_that_changes_nothing_has_found_its_row(home: Home) -> None:
    """SQLAlchemy counts the rows found, as every other database does; else the ORM takes the row for gone."""
    assert await home.book(1) is Verdict.COMMITTED
    transaction = home.transaction()
    result = await transaction.session.execute(update(Item).where(Item.id == 1).values(name="x"))
    assert result.rowcount == 1
    await transaction.rollback()


# -- serialization failures -------------------------------------------------------------------------------------------


@only(*SERVERS)
async def test_a_deadlock_between_users_is_recognised_also_when_it_was_swallowed(home: Home) -> None:
    await home.book(1)
    await home.book(2)
    entered = asyncio.Barrier(2)

    async def attempt(first: int, second: int, seq: int) -> BaseException | None:
        transaction = home.transaction()
        session = transaction.session
        try:
            await session.execute(update(Item).where(Item.id == first).values(name=str(seq)))
            await entered.wait()
            try:
                await session.execute(update(Item).where(Item.id == second).values(name=str(seq)))
            except DBAPIError:
                await session.rollback()  # on MySQL this raises in its turn: the savepoint is gone
                raise
            assert await transaction.commit(record(seq)) is Verdict.COMMITTED
        except Exception as error:
            await transaction.rollback()
            return error
        return None

    errors = [error for error in await asyncio.gather(attempt(1, 2, 11), attempt(2, 1, 12)) if error is not None]
    assert len(errors) == 1
    assert is_serialization_failure(errors[0])
    assert home.store.is_serialization_failure(errors[0])
    assert len(await home.recorded()) == 3


def test_other_errors_are_no_serialization_failures() -> None:
    class Reported(Exception):
        sqlstate = "23505"

    class Conflict(Exception):
        sqlstate = "40001"

    def wrapped(orig: Exception) -> DBAPIError:
        return DBAPIError("select 1", {}, orig)

    assert not is_serialization_failure(ValueError(1213))
    assert not is_serialization_failure(wrapped(Reported()))
    assert is_serialization_failure(Conflict())
    assert is_serialization_failure(wrapped(Conflict()))
    error = ValueError("my own")
    error.__cause__ = wrapped(Conflict())
    assert is_serialization_failure(error)
    error.__cause__ = error
    assert not is_serialization_failure(error)


# -- a transaction of the user's own ----------------------------------------------------------------------------------


@only("sqlite", *SERVERS)
async def test_an_instance_started_in_the_callers_transaction_shares_its_fate(home: Home) -> None:
    async with home.outside() as engine:
        async with AsyncSession(engine) as session:
            session.add(Item(id=1, name="x"))
            assert (await home.store.create_in(session, new_instance("a"))).created
            await session.rollback()
        assert await home.store.instance(InstanceId("a")) is None
        async with AsyncSession(engine) as session:
            session.add(Item(id=1, name="x"))
            assert (await home.store.create_in(session, new_instance("a"))).created
            await session.commit()
    row = await home.store.instance(InstanceId("a"))
    assert row is not None
    assert (row.owner, row.status) == (None, "running")
    assert await home.items() == [1]


@only("sqlite", *SERVERS)
@pytest.mark.parametrize("isolation", [None, "REPEATABLE READ"])
async def test_an_instance_that_exists_does_not_abort_the_callers_transaction(
    home: Home, isolation: str | None
) -> None:
    if isolation and home.kind == "sqlite":
        pytest.skip("SQLite has one isolation level")
    options = {"isolation_level": isolation} if isolation else {}
    async with home.outside(**options) as engine, AsyncSession(engine) as session:
        if home.kind == "mysql":
            await session.execute(text("select * from item"))  # its snapshot begins here
        await home.store.create(new_instance("a", "other"))
        session.add(Item(id=1, name="x"))
        found = await home.store.create_in(session, new_instance("a"))
        assert (found.created, found.workflow, found.args_hash) == (False, "order", "other")
        session.add(Item(id=2, name="x"))
        await session.commit()
    assert await home.items() == [1, 2]


@only("sqlite")
async def test_a_synchronous_session_may_start_instances_too(home: Home) -> None:
    from sqlalchemy import create_engine

    engine = create_engine(home.url)
    try:
        with Session(engine) as session:
            session.add(Item(id=1, name="x"))
            assert (await home.store.create_in(session, new_instance("a"))).created
            assert not (await home.store.create_in(session, new_instance("a"))).created
            session.commit()
    finally:
        engine.dispose()
    assert await home.store.instance(InstanceId("a")) is not None


async def test_ctx_session_itself_may_be_handed_over(home: Home) -> None:
    transaction = home.transaction()
    assert (await home.store.create_in(transaction.session, new_instance("a"))).created
    assert await transaction.commit(record(1)) is Verdict.COMMITTED
    assert await home.store.instance(InstanceId("a")) is not None


async def test_a_session_on_another_database_is_refused(home: Home) -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    try:
        async with AsyncSession(engine) as session:
            with pytest.raises(StorageError, match="only on the same database"):
                await home.store.create_in(session, new_instance("a"))
    finally:
        await engine.dispose()
    assert await home.store.instance(InstanceId("a")) is None


@pytest.mark.parametrize(
    ("theirs", "ours", "same"),
    [
        ("postgresql+psycopg://u:p@localhost/db", "postgresql+asyncpg://v@127.0.0.1:5432/db", True),
        ("postgresql://u@db.example/db", "postgresql+asyncpg://u@DB.example:5432/db", True),
        ("postgresql://u@db.example/db", "postgresql+asyncpg://u@db.example:5433/db", False),
        ("postgresql://u@db.example/one", "postgresql+asyncpg://u@db.example/two", False),
        ("postgresql://u@/db?host=/run/postgresql", "postgresql+asyncpg://u@localhost/db", True),
        ("mysql+pymysql://u@h/db", "mysql+asyncmy://u@h:3306/db", True),
        ("mariadb+pymysql://u@h/db", "mysql+asyncmy://u@h/db", True),
        ("mysql+pymysql://u@h/db", "postgresql+asyncpg://u@h/db", False),
        ("sqlite:///some/../x.db", "sqlite+aiosqlite:///x.db", True),
        ("sqlite:///x.db", "sqlite+aiosqlite:///y.db", False),
        ("sqlite://", "sqlite+aiosqlite:///:memory:", False),
    ],
)
def test_databases_are_compared_by_address(theirs: str, ours: str, same: bool) -> None:
    with contextlib.nullcontext() if same else pytest.raises(StorageError, match="only on the same database"):
        check_same_database(make_url(theirs), make_url(ours))


def test_the_refusal_shows_no_password() -> None:
    with pytest.raises(StorageError) as raised:
        check_same_database(make_url("postgresql://u:secret@h/a"), make_url("postgresql://u:secret@h/b"))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("style", "expected"),
    [("qmark", "a ? like '%' ?"), ("numeric_dollar", "a $1 like '%' $2"), ("format", "a %s like '%%' %s")],
)
def test_placeholders_follow_the_driver(style: str, expected: str) -> None:
    assert with_marks("a ? like '%' ?", style) == expected


def test_importing_edda_does_not_import_sqlalchemy() -> None:
    program = "import edda, edda.storage.sql.store, sys; sys.exit('sqlalchemy' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


# -- kill -9 ----------------------------------------------------------------------------------------------------------
# One SQLite connection, two users: 50 session activities that hold it for 100 ms each, beside 1,000 plain steps. The
# child says what was acknowledged: p(lain), s(ession), u(ndone by the user, then recorded), r(olled back).

CHAINS, STEPS_PER_CHAIN, ACTIVITIES = 50, 20, 50
KILL_ROUNDS = int(os.environ.get("EDDA_KILL_ROUNDS", "3"))


async def child(url: str, prefix: str) -> None:
    async with open_home("sqlite", url) as home:

        def acknowledge(what: str, number: int) -> None:
            os.write(1, f"{what} {number}\n".encode())

        waiting: list[tuple[Commit, asyncio.Future[None]]] = []
        arrived = asyncio.Event()

        async def committer() -> None:
            while True:
                await arrived.wait()
                arrived.clear()
                batch, waiting[:] = list(waiting), []
                outcome = await home.store.write(WORKER, Batch(commits=tuple(commit for commit, _ in batch)))
                assert set(outcome.verdicts) == {Verdict.COMMITTED}
                for _, done in batch:
                    done.set_result(None)

        async def chain(number: int) -> None:
            for seq in range(1, STEPS_PER_CHAIN + 1):
                done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                waiting.append((record(seq, instance=f"{prefix}-plain-{number}"), done))
                arrived.set()
                await done
                acknowledge("p", number * STEPS_PER_CHAIN + seq)

        async def activity(number: int) -> None:
            transaction = home.transaction(f"activity {number}")
            transaction.session.add(Item(id=number, name="x", note=f"{prefix}-{number}"))
            await transaction.flush()
            await asyncio.sleep(0.1)
            match number % 4:
                case 1:
                    await transaction.session.rollback()
                case 2:
                    await transaction.rollback()
                    acknowledge("r", number)
                    return
                case 3:
                    await transaction.session.commit()
                case _:
                    pass
            assert await transaction.commit(record(number, instance=f"{prefix}-session")) is Verdict.COMMITTED
            acknowledge("u" if number % 4 == 1 else "s", number)

        task = asyncio.ensure_future(committer())
        await asyncio.gather(*map(chain, range(CHAINS)), *map(activity, range(1, ACTIVITIES + 1)))
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    acknowledge("e", 0)


def killed_round(path: Path, number: int, delay_seconds: float) -> dict[str, set[int]]:
    """Run the child, kill it after a while, and say what it had acknowledged."""
    command = [sys.executable, __file__, f"sqlite:///{path}", f"round-{number}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()  # it is at work
        assert said, "the child has died by itself"
        time.sleep(delay_seconds)
        process.send_signal(signal.SIGKILL)
        said += process.stdout.read()
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    acknowledged: dict[str, set[int]] = {what: set() for what in "psure"}
    for line in said.decode().splitlines():
        what, seq = line.split()
        acknowledged[what].add(int(seq))
    return acknowledged


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.timeout(30 + 10 * KILL_ROUNDS)
def test_killed_at_any_moment_no_plain_step_is_lost_and_rows_go_with_their_records(tmp_path: Path) -> None:
    path = tmp_path / "edda.db"
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    total = {what: 0 for what in "psure"}
    for number in range(KILL_ROUNDS):
        acknowledged = killed_round(path, number, chance.uniform(0, 5))
        for what, seqs in acknowledged.items():
            total[what] += len(seqs)
        connection = sqlite3.connect(path)
        try:
            assert connection.execute("pragma integrity_check").fetchall() == [("ok",)], seed
            rows = {row[0] for row in connection.execute("select id from item")}
            where = "select seq from edda_history where instance_id = ?"
            recorded = {row[0] for row in connection.execute(where, (f"round-{number}-session",))}
            plain = {
                chain * STEPS_PER_CHAIN + row[0]
                for chain in range(CHAINS)
                for row in connection.execute(where, (f"round-{number}-plain-{chain}",))
            }
            connection.execute("delete from item")
            connection.commit()
        finally:
            connection.close()
        assert rows == {seq for seq in recorded if seq % 4 in (0, 3)}, seed
        assert acknowledged["s"] | acknowledged["u"] <= recorded, seed
        assert not acknowledged["r"] & recorded, seed
        assert acknowledged["p"] <= plain, seed
        assert len(plain - acknowledged["p"]) <= CHAINS, seed
    print(json.dumps({"rounds": KILL_ROUNDS, "acknowledged": total, "seed": seed}))


if __name__ == "__main__":
    asyncio.run(child(sys.argv[1], sys.argv[2]))
