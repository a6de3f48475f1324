"""What happens when connections break, locks are not had in time, and callers lose patience; and how much is sent."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from edda.core.commit import Batch, End, Park, Verdict
from edda.core.lifecycle import Status
from edda.exceptions import DatabaseUnavailableError, StorageError
from edda.storage.port import UnknownOutcome
from edda.storage.sql import open_reader, open_store
from edda.storage.sql.reads_store import SqlReader
from edda.storage.sql.runner import Runner
from edda.storage.sql.store import SqlStore
from edda.storage.sql.verb import Statement
from tests.storage.conftest import opened
from tests.storage.support import LEASE_US, W1, W2, World, commit, iid, message, new, select

PARK = Park(status=Status.WAITING_FOR_EVENT, reason="", due_us=None, seen_wakes=0)


@pytest.fixture
async def world(sql_store: SqlStore) -> AsyncIterator[World]:
    world = World(sql_store)
    await world.worker(W1)
    await world.start(new("a", owner=W1))
    try:
        yield world
    finally:
        sql_store.on_statement = None
        await world.close()


@pytest.fixture
async def server(server_url: str) -> AsyncIterator[World]:
    """The same, on servers only: nothing lies between us and SQLite that could break."""
    async with opened(server_url) as store:
        world = World(store)
        await world.worker(W1)
        await world.start(new("a", owner=W1))
        try:
            yield world
        finally:
            store.on_statement = None
            await world.close()


def listen(store: SqlStore, hear: Callable[[str, Any], None]) -> None:
    async def later(verb: str, statement: Any) -> None:
        hear(verb, statement)

    store.on_statement = hear if store.database.dialect.name == "sqlite" else later


def lane(world: World, name: str) -> Runner:
    runner: Runner = world.store.database.runner(name)
    return runner


# -- how much is sent -----------------------------------------------------------------------------------------------


async def test_a_batch_of_steps_is_one_commit_and_no_look_at_instances(world: World) -> None:
    said: list[Any] = []
    listen(world.store, lambda _, statement: said.append(statement))
    await world.write(*(commit(f"i{number}", 1) for number in range(100)))
    texts = ["COMMIT" if each == "COMMIT" else each.text for each in said]
    if world.store.database.dialect.name == "postgresql":
        assert len(texts) == 1
    else:
        assert len(texts) == 3
        assert texts[-1] == "COMMIT"
    assert not any("edda_instance" in text for text in texts)


async def test_a_batch_with_everything_in_it_needs_few_statements(world: World) -> None:
    names = [f"i{number}" for number in range(50)]
    await world.start(*(new(name, owner=W1) for name in names))
    said: list[Any] = []
    listen(world.store, lambda _, statement: said.append(statement))
    end = End(status=Status.COMPLETED, output="1")
    await world.store.write(
        W1,
        Batch(
            commits=tuple(
                commit(
                    name,
                    1,
                    row=end if number % 2 else PARK,
                    wakes=(iid(names[number - 1]),),
                    outbox=(message(name, 1),),
                    children=(new(f"{name}/c"),),
                )
                for number, name in enumerate(names)
            ),
            starts=tuple(new(f"s{number}") for number in range(50)),
        ),
    )
    assert len(said) == (1 if world.store.database.dialect.name == "postgresql" else 9)


# -- connections that break -----------------------------------------------------------------------------------------


async def break_before(world: World, verb: str, place: int) -> None:
    """The server ends the connection just before the n-th statement of a verb goes out, once."""
    passed = 0

    async def hook(name: str, _: Any) -> None:
        nonlocal passed
        if name == verb:
            passed += 1
            if passed == place + 1:
                await _end(world, lane(world, "commit" if verb == "write" else "desk"))

    world.store.on_statement = hook


async def _end(world: World, runner: Runner) -> None:
    other = await world.store.database.connect()
    kill = "select pg_terminate_backend({0})" if world.store.database.dialect.name == "postgresql" else "kill {0}"
    await other.execute(Statement(kill.format(runner.server_id)))
    await other.close()
    await asyncio.sleep(0.05)  # the server's farewell arrives


async def test_a_connection_that_breaks_before_commit_costs_nothing(server: World) -> None:
    """On PostgreSQL a batch is its own COMMIT, so there it is in doubt, and `settle` says: it is not there."""
    single = server.store.database.dialect.name == "postgresql"
    for place in range(1 if single else 3):
        await break_before(server, "write", place)
        step = Batch(commits=(commit("a", place + 1),))
        if single or place == 2:
            with pytest.raises(UnknownOutcome):
                await server.store.write(W1, step)
            assert await server.store.settle(W1, step) == (None,)
            assert (await server.store.write(W1, step)).verdicts == (Verdict.COMMITTED,)
        else:
            assert (await server.store.write(W1, step)).verdicts == (Verdict.COMMITTED,)
        assert await server.history("a") == list(range(1, place + 2))
    assert await select(server.store, "select count(*) from edda_worker") == [(1,)]


class Deaf:
    """A connection whose answer to the decisive statement is lost on the way."""

    def __init__(self, wire: Any, *, single: bool) -> None:
        self._wire = wire
        self._single = single

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wire, name)

    async def execute(self, statement: Any) -> Any:
        rows = await self._wire.execute(statement)
        if self._single:
            raise ConnectionResetError("the answer is lost")
        return rows

    async def commit(self) -> None:
        await self._wire.commit()
        raise ConnectionResetError("the answer is lost")


def lose_the_answer(world: World, name: str) -> None:
    runner = lane(world, name)
    runner._wire = Deaf(runner._wire, single=world.store.database.dialect.name == "postgresql")


async def test_a_commit_whose_answer_is_lost_is_found_afterwards(server: World) -> None:
    await server.write(commit("a", 1))
    lose_the_answer(server, "commit")
    batch = Batch(commits=(commit("a", 2, row=PARK), commit("x", 1)))
    with pytest.raises(UnknownOutcome):
        await server.store.write(W1, batch)
    assert await server.store.settle(W1, batch) == (Verdict.COMMITTED, Verdict.COMMITTED)


async def test_a_claim_whose_answer_is_lost_is_not_lost(server: World) -> None:
    await server.start(new("b"), new("c"))
    await server.claim(workflows=("unknown",))
    lose_the_answer(server, "desk")
    assert sorted(await server.claim()) == ["b", "c"]
    assert (await server.row("b")).claim == 1


async def test_reading_goes_on_after_a_break(server: World) -> None:
    await server.row("a")
    await _end(server, lane(server, "desk"))
    assert (await server.row("a")).id == "a"


async def test_a_lease_line_that_broke_takes_its_presence_again(server: World) -> None:
    line = server.lines[W1]
    await _end(server, line._runner)  # type: ignore[attr-defined]
    assert (await line.renew(W1, lease_us=LEASE_US)).alive
    await server.worker(W2)
    assert await server.store.absentees(W2) == ()


async def test_a_database_that_cannot_be_reached_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edda.storage.sql.runner.BACKOFF_SECONDS_MAX", 0.001)
    for url in ("postgresql://me@127.0.0.1:1/x", "mysql://me@127.0.0.1:1/x"):
        store = open_store(url)
        with pytest.raises(DatabaseUnavailableError):
            await store.open()
        await store.close()


# -- locks and patience ---------------------------------------------------------------------------------------------


async def test_a_lock_that_is_not_had_in_time_means_the_whole_batch_once_more(server: World) -> None:
    """MySQL's 1205 has rolled back one statement only: whoever goes on and commits has written half."""
    store = server.store
    await server.write(commit("x", 1))
    single = store.database.dialect.name == "postgresql"
    wire = lane(server, "commit")._wire
    assert wire is not None
    await wire.execute(Statement("set lock_timeout = '300ms'" if single else "set innodb_lock_wait_timeout = 1"))
    blocker = await store.database.connect()
    await blocker.begin()
    await blocker.execute(Statement("select id from edda_instance where id = 'a' for update"))
    writing = asyncio.ensure_future(server.write(commit("a", 1, row=PARK), commit("x", 2)))
    done, _ = await asyncio.wait({writing}, timeout=1.4)
    assert not done
    await blocker.rollback()
    await blocker.close()
    assert await writing == (Verdict.COMMITTED, Verdict.COMMITTED)
    assert (await server.history("a"), await server.history("x")) == ([1], [1, 2])


async def test_a_caller_that_loses_patience_breaks_nothing(world: World) -> None:
    for seq in range(1, 30):
        writing = asyncio.ensure_future(world.write(commit("a", seq)))
        reading = asyncio.ensure_future(world.row("a"))
        await asyncio.sleep(0.0005 * (seq % 5))
        writing.cancel()
        reading.cancel()
        await asyncio.gather(writing, reading, return_exceptions=True)
        assert (await world.row("a")).id == "a"
    history = await world.history("a")
    assert history == sorted(set(history))


async def test_a_reaper_that_nobody_waits_for_any_more_fails_silently(server: World) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def fail(verb: str, _: Any) -> None:
        if verb == "reap":
            begun.set()
            await go_on.wait()
            raise StorageError("the database is gone")

    server.store.on_statement = fail
    reaping = asyncio.ensure_future(server.store.reap(W2))
    await begun.wait()
    reaping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reaping
    del reaping
    go_on.set()
    await lane(server, "reaper").close()  # when that is over, the failure is, too
    await asyncio.sleep(0)
    gc.collect()
    assert complaints == []


async def test_a_closed_store_says_so(sql_store: SqlStore) -> None:
    await sql_store.close()
    with pytest.raises(StorageError, match="closed"):
        await sql_store.instance(iid("a"))
    await sql_store.close()


# -- SQLite ---------------------------------------------------------------------------------------------------------

WORKER = """
import asyncio, sys
from edda.storage.sql import open_store

async def main(url):
    store = open_store(url)
    await store.open()
    line = store.lease_line()
    await line.connect()
    await line.register("other", service="x", lease_us=10**12)
    print("ready", flush=True)
    await asyncio.sleep(60)

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.process
async def test_a_second_worker_process_on_sqlite_waits_for_the_first_to_die(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{tmp_path}/edda.db"
    process = await asyncio.to_thread(_start, WORKER, url)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    world = World(open_store(url))
    await world.store.open()
    joining = asyncio.ensure_future(world.worker(W1))
    assert (await world.store.create(new("a"))).created  # as a client it may write
    assert any("WAL-reset" in record.getMessage() for record in caplog.records) == _has_reset_bug()
    assert await world.store.absentees(W1) == ()  # its lock is held, and its lease is good
    await asyncio.wait({joining}, timeout=0.2)
    assert not joining.done()
    process.kill()
    process.wait()
    process.stdout.close()
    await asyncio.wait_for(joining, timeout=5)
    assert await world.store.absentees(W1) == ("other",)
    assert await world.store.reap("other") is not None
    await world.close()
    await world.store.close()


@pytest.mark.process
async def test_who_only_looks_sees_at_once_that_a_sqlite_process_was_killed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/edda.db"
    process = await asyncio.to_thread(_start, WORKER, url)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    reader = open_reader(url)
    await reader.open()
    assert await _seen(reader) == [("other", None)]  # somebody has the lock; who, the file does not say
    process.kill()
    process.wait()
    process.stdout.close()
    assert await _seen(reader) == [("other", False)]
    (tmp_path / "edda.db.edda-lock").unlink()
    assert await _seen(reader) == [("other", None)]  # nothing is known, and nothing is made
    assert not (tmp_path / "edda.db.edda-lock").exists()
    await reader.close()


async def _seen(reader: SqlReader) -> list[tuple[str, bool | None]]:
    return [(worker.id, worker.present) for worker in (await reader.worker_views()).rows]


async def test_opening_waits_for_a_process_that_has_the_file_to_itself_for_a_moment(tmp_path: Path) -> None:
    """As one does that recovers the log after a kill, or closes last."""
    url = f"sqlite:///{tmp_path}/edda.db"
    first = open_store(url)
    await first.open()
    await first.close()
    alone = sqlite3.connect(tmp_path / "edda.db", isolation_level=None, check_same_thread=False)
    alone.execute("pragma locking_mode = exclusive")
    alone.execute("begin immediate")
    alone.execute("commit")
    second = open_store(url)
    opening = asyncio.ensure_future(second.open())
    await asyncio.wait({opening}, timeout=0.3)
    assert not opening.done()
    alone.close()
    await asyncio.wait_for(opening, timeout=5)
    await second.close()


async def test_opening_waits_for_who_writes_a_file_that_has_no_log_yet(tmp_path: Path) -> None:
    """SQLite itself would not wait here: it answers at once that the file is locked."""
    with contextlib.closing(sqlite3.connect(tmp_path / "edda.db", isolation_level=None)) as writer:
        writer.execute("create table theirs (id)")
        writer.execute("begin immediate")
        store = open_store(f"sqlite:///{tmp_path}/edda.db")
        opening = asyncio.ensure_future(store.open())
        await asyncio.wait({opening}, timeout=0.3)
        assert not opening.done()
        writer.execute("commit")
        await asyncio.wait_for(opening, timeout=5)
    await store.close()


async def test_opening_says_that_others_have_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edda.storage.sql.sqlite_database.BUSY_SECONDS_MAX", 0.1)
    with contextlib.closing(sqlite3.connect(tmp_path / "edda.db", isolation_level=None)) as alone:
        alone.execute("pragma journal_mode = wal")
        alone.execute("pragma locking_mode = exclusive")
        alone.execute("create table theirs (id)")
        with pytest.raises(DatabaseUnavailableError, match="in use by others"):
            await open_store(f"sqlite:///{tmp_path}/edda.db").open()


async def test_one_sqlite_file_has_one_worker_by_whatever_path(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "edda.db")
    first = World(open_store(f"sqlite:///{tmp_path}/edda.db"))
    second = World(open_store(f"sqlite:///{tmp_path}/link"))
    await first.store.open()
    await second.store.open()
    await first.worker(W1)
    joining = asyncio.ensure_future(second.worker(W2))
    await asyncio.wait({joining}, timeout=0.2)
    assert not joining.done()
    await first.close()
    await asyncio.wait_for(joining, timeout=5)
    for world in (first, second):
        await world.close()
        await world.store.close()


def _start(program: str, url: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program, url], stdout=subprocess.PIPE, text=True)


def _has_reset_bug() -> bool:
    return sqlite3.sqlite_version_info < (3, 51, 3)


async def test_waiting_for_the_lock_file_can_be_cancelled(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/edda.db"
    first, second = World(open_store(url)), World(open_store(url))
    await first.store.open()
    await second.store.open()
    await first.worker(W1)
    joining = asyncio.ensure_future(second.worker(W2))
    await asyncio.wait({joining}, timeout=0.1)
    joining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await joining
    await first.close()
    await second.worker(W2)
    for world in (first, second):
        await world.close()
        await world.store.close()


async def test_a_lease_is_renewed_from_another_loop_also_while_a_session_is_open(tmp_path: Any) -> None:
    store = open_store(f"sqlite:///{tmp_path}/edda.db")
    await store.open()
    world = World(store)
    await world.worker(W1)
    database: Any = store.database
    renew = lambda: asyncio.run(world.lines[W1].renew(W1, lease_us=LEASE_US))  # noqa: E731
    assert (await asyncio.to_thread(renew)).alive
    async with database.gate:
        await database.call(lambda connection: connection.execute("begin immediate"))
        assert (await asyncio.to_thread(renew)).alive
        await database.call(lambda connection: connection.execute("rollback"))
    await world.close()
    await store.close()
