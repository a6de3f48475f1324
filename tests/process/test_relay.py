"""The short form of the relay test, and a look at whether its judge sees what it should."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.acceptance.support import Tables
from tests.databases import available, fresh_database
from tests.outbox.web import Request, web
from tests.process.relay_test import EVENTS_OF_A_WORKFLOW, BadBroker, Fleet, Plan, drained, run, violations

KINDS = [
    "sqlite",
    pytest.param("postgresql", marks=pytest.mark.postgresql),
    pytest.param("mysql", marks=pytest.mark.mysql),
]


@pytest.mark.process
@pytest.mark.timeout(180)
@pytest.mark.parametrize("database", KINDS)
async def test_relayers_that_die_and_a_broker_that_fails_lose_nothing_and_keep_the_order(database: str) -> None:
    if available()[database] is None:
        pytest.skip(f"there is no {database} server")
    report = await run(Plan(database=database, processes=1 if database == "sqlite" else 3))
    assert not report.violations, report


@pytest.mark.process
@pytest.mark.timeout(180)
@pytest.mark.parametrize("database", KINDS)
async def test_what_a_killed_relayer_had_leased_is_delivered_long_before_its_lease_ends(
    database: str, tmp_path: Path
) -> None:
    if available()[database] is None:
        pytest.skip(f"there is no {database} server")
    plan = Plan(database=database, processes=1, workflows=4, lease=3600)
    with fresh_database(database) as url:
        tables = Tables(url)
        await tables.do("CREATE TABLE bookings (number INTEGER, place INTEGER)")
        async with web() as server:
            held = asyncio.Event()

            async def never(request: Request, writer: asyncio.StreamWriter) -> None:
                held.set()
                await asyncio.Event().wait()

            server.answer = never  # type: ignore[assignment]
            fleet = Fleet(plan, url, server.url, tmp_path, Random(1))
            await fleet.begin()
            try:
                await asyncio.wait_for(held.wait(), 30)
                broker = BadBroker(server, Random(1))
                broker.bad = False
                await fleet.replace(0, signal.SIGKILL)
                assert await drained(tables, plan)
            finally:
                await fleet.end()
            assert violations(plan, await tables.outbox(), broker.taken) == []


PLAN = Plan(database="sqlite", workflows=1)
ROWS: list[dict[str, Any]] = [
    {"id": f"e{n}", "instance_id": "i", "seq": n, "ordinal": 0, "status": "delivered"}
    for n in range(EVENTS_OF_A_WORKFLOW)
]
TAKEN = [(row["id"], b"x") for row in ROWS]


@pytest.mark.parametrize(
    ("rows", "taken", "words"),
    [
        (ROWS, TAKEN, ""),
        (ROWS, [*TAKEN, TAKEN[0]], ""),
        (ROWS, TAKEN[1:], "never arrived"),
        (ROWS, [TAKEN[1], TAKEN[0], *TAKEN[2:]], "arrived as"),
        (ROWS, [*TAKEN, ("e1", b"y")], "other content"),
        (ROWS, [*TAKEN, ("alien", b"y")], "never committed"),
        (ROWS[1:], TAKEN[1:], "were committed"),
        ([*ROWS[:-1], ROWS[-1] | {"status": "dead"}], TAKEN, "is dead"),
    ],
)
def test_the_judge_sees_each_kind_of_violation(
    rows: list[dict[str, Any]], taken: list[tuple[str, bytes]], words: str
) -> None:
    found = violations(PLAN, rows, taken)
    assert bool(found) == bool(words)
    assert all(words in each for each in found)
