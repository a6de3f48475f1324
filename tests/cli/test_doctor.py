"""The doctor finds what was planted, says what to do, and finds nothing where nothing is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from edda.cli import doctor
from edda.core.commit import End
from edda.core.event import CloudEvent
from edda.core.lifecycle import Status
from edda.storage.outbox import Dead, Settlement
from edda.storage.sql import health, open_reader, open_store
from edda.storage.sql.health import Risk
from tests.cli.conftest import Run
from tests.databases import available, fresh_database
from tests.storage.support import W1, World, commit, do, message, new

SERVERS = [pytest.param(kind, marks=getattr(pytest.mark, kind)) for kind in ("postgresql", "mysql")]


@pytest.fixture(params=["sqlite", *SERVERS])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A healthy database with one worker that runs `order`."""
    if not available().get(request.param):
        pytest.skip(f"there is no {request.param} server")
    with fresh_database(request.param) as url:
        store = open_store(url)
        await store.open()
        world = World(store)
        await world.worker(W1)
        await store.announce(W1, ["order"])
        await world.start(new("a", owner=W1))
        try:
            yield world
        finally:
            await world.close()
            await store.close()


@contextlib.asynccontextmanager
async def opened_reader(world: World) -> AsyncIterator[Any]:
    reader = open_reader(_url_of(world))
    await reader.open()
    try:
        yield reader
    finally:
        await reader.close()


async def found(world: World) -> dict[str, str]:
    """What each check says, and its advice; settings of the server are not the tests' business."""
    async with opened_reader(world) as reader:
        findings = [
            finding for check in doctor.CHECKS if check is not doctor.settings for finding in await check(reader)
        ]
    assert all(finding.advice for finding in findings)
    return {finding.check: finding.what for finding in findings}


def _url_of(world: World) -> str:
    return str(world.store.database.url.dsn)


async def test_a_healthy_database_has_nothing(world: World) -> None:
    assert await found(world) == {}


async def a_missing_index(world: World) -> None:
    name = world.store.database.dialect.name
    await do(world.store, "drop index edda_instance_created" + (" on edda_instance" if name == "mysql" else ""))


async def a_dead_worker_with_instances(world: World) -> None:
    await do(world.store, "update edda_worker set lease_until_us = 5")


async def a_workflow_that_nobody_knows(world: World) -> None:
    await world.store.create(new("x", workflow="renamed"))
    await do(world.store, "update edda_instance set claimable_at_us = 5 where id = 'x'")


async def a_backlog(world: World) -> None:
    await world.store.create(new("x"))
    await do(world.store, "update edda_instance set claimable_at_us = 5 where id = 'x'")


async def no_worker(world: World) -> None:
    await a_backlog(world)
    await world.store.retire(W1)


async def set_aside(world: World) -> None:
    await world.start(new("x", owner=W1))
    await world.write(commit("x", 1, row=End(status=Status.NONDETERMINISTIC, error="{}")))


async def quarantined(world: World) -> None:
    await world.start(new("x", owner=W1))
    await world.write(commit("x", 1, row=End(status=Status.QUARANTINED, error="{}")))


async def not_undone(world: World) -> None:
    await world.start(new("x", owner=W1))
    await world.write(commit("x", 1, row=End(status=Status.COMPENSATION_FAILED, error="{}")))


async def silence(world: World) -> None:
    await do(world.store, "update edda_instance set created_at_us = 5, updated_at_us = 5")


async def a_dead_letter(world: World) -> None:
    await world.write(commit("a", 1, outbox=(message("a", 1),)))
    claims = await world.store.claim_outbox("r", limit=1, lease_us=10**9)
    await world.store.settle_outbox([Settlement(claims.leased[0], Dead("404 Not Found"))])


async def an_outbox_without_relayer(world: World) -> None:
    await world.write(commit("a", 1, outbox=(message("a", 1, at_us=5),)))


async def an_event_left_behind(world: World) -> None:
    await world.store.accept([CloudEvent("e", "/s", "t", json="{}")])
    await do(world.store, "update edda_inbox set accepted_at_us = 5")


PLANTED: dict[Callable[[World], Awaitable[None]], tuple[str, str]] = {
    a_missing_index: ("indexes", "edda_instance_created"),
    a_dead_worker_with_instances: ("workers", "counts as alive, but its lease ended"),
    a_workflow_that_nobody_knows: ("unrun", "1 instance of 'renamed' without a worker since"),
    a_backlog: ("lag", "1 instance of 'order' without a free worker"),
    no_worker: ("unrun", "no worker is alive"),
    set_aside: ("aside", "x (nondeterministic)"),
    quarantined: ("aside", "x (quarantined)"),
    not_undone: ("aside", "x (compensation_failed)"),
    silence: ("stuck", "nothing was recorded for more than 1 h by: a"),
    a_dead_letter: ("dead letters", "1 dead letter in the outbox; the latest, order.paid: 404 Not Found"),
    an_outbox_without_relayer: ("relay", "is due in the outbox since"),
    an_event_left_behind: ("unrouted", "1 event came in"),
}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
async def test_it_finds(world: World, plant: Callable[[World], Awaitable[None]]) -> None:
    await plant(world)
    check, what = PLANTED[plant]
    findings = await found(world)
    assert what in findings[check]
    assert set(findings) - {check} <= {"unrun", "workers"}


async def test_one_cause_is_one_finding_however_many_workflows_wait(world: World) -> None:
    await no_worker(world)
    await world.store.create(new("y", workflow="refund"))
    await do(world.store, "update edda_instance set claimable_at_us = 5 where id = 'y'")
    async with opened_reader(world) as reader:
        (finding,) = await doctor.unrun(reader)
    assert finding.what.startswith("3 instances of 2 workflows without a worker since")


async def test_it_finds_a_clock_that_is_wrong(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    if world.store.database.dialect.name == "sqlite":
        pytest.skip("its clock is this machine's")
    later = doctor.time.time_ns() + 60 * 10**9
    monkeypatch.setattr(doctor.time, "time_ns", lambda: later)
    assert "behind this machine's" in (await found(world))["clock"]


@pytest.mark.postgresql
async def test_it_finds_a_user_whose_commits_do_not_wait_for_the_disk() -> None:
    if not available().get("postgresql"):
        pytest.skip("there is no postgresql server")
    with fresh_database("postgresql") as url:
        store = open_store(url)
        await store.open()
        await do(store, f'alter database "{make_url(url).database}" set synchronous_commit = off')
        await store.close()
        assert "synchronous_commit is off" in _serious(await _risks(url))


@pytest.mark.parametrize(
    ("kind", "row", "said"),
    [
        ("postgresql", ("off", "on", "on", 150000, 0, "UTF8"), "fsync is off"),
        ("postgresql", ("on", "off", "on", 150000, 0, "UTF8"), "full_page_writes is off"),
        ("postgresql", ("on", "on", "on", 150000, 0, "SQL_ASCII"), "the encoding is SQL_ASCII"),
        ("mysql", (2, 1 << 26, 0, "REPEATABLE-READ"), "innodb_flush_log_at_trx_commit is 2"),
    ],
)
async def test_it_knows_settings_that_put_data_at_risk(
    kind: str, row: tuple[Any, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answered(_: Any, text: str) -> tuple[Any, ...]:
        return ("10.11-MariaDB",) if text == "select version()" else row

    monkeypatch.setattr(health, "_row", answered)
    database = open_store(f"{kind}://nowhere/x").database
    assert said in _serious(await health.risks(database))


async def test_it_knows_the_sqlite_that_can_corrupt_a_database(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/edda.db"
    store = open_store(url)
    await store.open()
    await store.close()
    monkeypatch.setattr(health.sqlite3, "sqlite_version_info", (3, 51, 2))
    assert any("WAL-reset bug" in risk.what for risk in await _risks(url))
    monkeypatch.setattr(health.sqlite3, "sqlite_version_info", (3, 51, 3))
    assert await _risks(url) == []


async def test_it_finds_a_sqlite_file_whose_readers_and_writer_wait_for_each_other(edda: Run, url: str) -> None:
    assert (await asyncio.to_thread(edda, "db", "upgrade")).code == 0
    with contextlib.closing(sqlite3.connect(make_url(url).database or "")) as connection:
        connection.execute("pragma journal_mode = delete")
    assert any("the journal mode is delete, not wal" in risk.what for risk in await _risks(url))


def test_it_finds_a_damaged_sqlite_file(edda: Run, url: str) -> None:
    assert edda("db", "upgrade").code == 0
    file = Path(make_url(url).database or "")
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
        (root,) = connection.execute("select rootpage from sqlite_master where name = 'edda_inbox'").fetchone()
        (size,) = connection.execute("pragma page_size").fetchone()
    content = bytearray(file.read_bytes())
    content[(root - 1) * size : (root - 1) * size + 64] = b"\xff" * 64
    file.write_bytes(content)
    told = edda("doctor")
    assert told.code == 1
    assert "BAD   the file is damaged" in told.out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("delete from edda_schema where version > 1", "Bring them up to date: edda db upgrade"),
        ("update edda_schema set version = 99, oldest_code = 99 where version = 1", "Install a newer edda"),
        ("delete from edda_schema", "Make them: edda db upgrade"),
    ],
    ids=["older", "newer", "none"],
)
def test_it_says_what_to_do_about_tables_of_another_version(edda: Run, url: str, change: str, said: str) -> None:
    assert edda("db", "upgrade").code == 0
    with contextlib.closing(sqlite3.connect(make_url(url).database or "")) as connection:
        connection.execute(change)
        connection.commit()
    told = edda("doctor", "--json")
    assert (told.code, told.out) == (4, "")
    assert said in told.err
    assert url in told.err


async def _risks(url: str) -> list[Risk]:
    reader = open_reader(url)
    await reader.open()
    try:
        return await health.risks(reader.database)
    finally:
        await reader.close()


def _serious(risks: list[Risk]) -> str:
    assert all(risk.advice for risk in risks)
    return "; ".join(risk.what for risk in risks if risk.serious)


def test_the_command_says_what_is_wrong_and_its_exit_code_tells(edda: Run, url: str) -> None:
    assert edda("db", "upgrade").code == 0
    healthy = edda("doctor", "--json")
    assert healthy.code == 0
    assert [one for one in healthy.json["findings"] if one["how"] == "bad"] == []

    async def plant() -> None:
        store = open_store(url)
        await store.open()
        await store.create(new("x"))
        await do(store, "update edda_instance set claimable_at_us = 5")
        await store.close()

    asyncio.run(plant())
    ill = edda("doctor")
    assert ill.code == 1
    assert "BAD   1 instance of 'order' without a worker since" in ill.out
    assert "Start one: edda run MODULE:APP" in ill.out
