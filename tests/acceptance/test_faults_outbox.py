"""Faults W30-W33 of the reference, each as a test that fails on an engine that has it: the relay of the outbox."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from edda import DeadLetterNotFoundError, WorkflowContext, activity, send_event_transactional, workflow
from edda.outbox import DeadLetter
from tests.acceptance.conftest import Apps
from tests.acceptance.support import SOON, Tables, eventually, on_every_database
from tests.outbox.web import Request, Web, response, web


@activity
async def announce_one(ctx: WorkflowContext, what: str, number: int) -> str:
    return await send_event_transactional(ctx, what, "test", {"number": number})


@workflow
async def announcing_many(ctx: WorkflowContext, what: str, count: int) -> list[str]:
    return [await announce_one(ctx, what, number) for number in range(count)]


@pytest.fixture
async def broker() -> AsyncIterator[Web]:
    async with web() as broker:
        yield broker


def event_of(request: Request) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(request.body)
    return event


def received(broker: Web) -> list[dict[str, Any]]:
    return [event_of(request) for request in broker.requests]


@on_every_database
async def test_W30_an_outage_longer_than_three_polls_loses_nothing(apps: Apps, broker: Web, tables: Tables) -> None:
    outages = iter([503, 500, 429, 408, 425, 404, 409, 502])
    broker.answer = lambda *_: response(next(outages, 202), retry_after="0")
    app = await apps.open(outbox_enabled=True, broker_url=broker.url, poll_seconds=0.05)
    handle = await app.start(announcing_many, "announced", 1)
    (event_id,) = await handle.result(timeout=SOON)
    # Between two of them lies a jittered back-off; the test has no patience, so it turns back the clock.
    while len(broker.requests) < 9:
        await _no_patience(tables)
        await asyncio.sleep(0.02)
    await eventually(lambda: _statuses(tables, {"delivered"}))
    assert {event["id"] for event in received(broker)} == {event_id}
    assert len({request.body for request in broker.requests}) == 1, "each delivery is the same bytes"
    assert await app.dead_letters() == []


@on_every_database
async def test_W31_events_that_are_refused_for_ever_block_no_others_and_can_be_requeued(
    apps: Apps, broker: Web, tables: Tables
) -> None:
    picky = True

    def answer(request: Request, _: object) -> bytes:
        return response(400, b"no such type") if picky and event_of(request)["type"] == "poison" else response()

    broker.answer = answer
    app = await apps.open(outbox_enabled=True, broker_url=broker.url, poll_seconds=0.05)
    poisoned = await (await app.start(announcing_many, "poison", 12)).result(timeout=SOON)
    good = await (await app.start(announcing_many, "good", 12)).result(timeout=SOON)
    await eventually(lambda: _statuses(tables, {"delivered", "dead"}))
    assert [event["id"] for event in received(broker) if event["type"] == "good"] == good
    letters = await app.dead_letters()
    assert sorted(letter.id for letter in letters) == sorted(poisoned)
    letter = next(letter for letter in letters if letter.id == poisoned[0])
    assert isinstance(letter, DeadLetter)
    assert (letter.type, letter.data, letter.attempts) == ("poison", {"number": 0}, 1)
    assert letter.reason == "HTTP 400: no such type"
    picky = False
    await app.requeue(letter.id)
    await eventually(lambda: received(broker)[-1]["id"] == letter.id)
    with pytest.raises(DeadLetterNotFoundError, match=letter.id):
        await app.requeue(letter.id)
    await eventually(lambda: _statuses_of(tables, letter.id, "delivered"))
    assert len(await app.dead_letters()) == 11


@on_every_database
async def test_W31_an_instance_whose_events_are_put_off_delays_no_other(apps: Apps, broker: Web) -> None:
    broker.answer = lambda request, _: response(503 if event_of(request)["type"] == "stuck" else 202)
    app = await apps.open(outbox_enabled=True, broker_url=broker.url, poll_seconds=0.05)
    for _ in range(10):
        await app.start(announcing_many, "stuck", 3)
    good = await (await app.start(announcing_many, "good", 20)).result(timeout=SOON)
    await eventually(lambda: len([each for each in received(broker) if each["type"] == "good"]) == 20)
    assert [each["id"] for each in received(broker) if each["type"] == "good"] == good
    assert {each["data"]["number"] for each in received(broker) if each["type"] == "stuck"} <= {0}


@pytest.mark.process
@on_every_database
async def test_W32_what_a_process_that_died_was_about_to_deliver_is_delivered_by_another(
    program: Any, broker: Web, apps: Apps, tables: Tables
) -> None:
    hanging = True

    async def answer(_: Request, writer: asyncio.StreamWriter) -> None:
        if hanging:
            await asyncio.sleep(3600)
        writer.write(response())

    broker.answer = answer  # type: ignore[assignment]
    relaying = program(f"""
        @activity
        async def announce(ctx: WorkflowContext) -> str:
            return await send_event_transactional(ctx, "announced", "test", {{}})

        @workflow
        async def announcing(ctx: WorkflowContext) -> str:
            return await announce(ctx)

        async def main():
            async with EddaApp(db_url=DB_URL, outbox_enabled=True, broker_url={broker.url!r}, lease_seconds=1) as app:
                say(await (await app.start(announcing)).result(timeout=20))
                await asyncio.sleep(60)
    """)
    process = await asyncio.to_thread(relaying.start)
    await eventually(lambda: broker.requests, within_seconds=30)
    process.kill()
    hanging = False
    await apps.open(outbox_enabled=True, broker_url=broker.url, poll_seconds=0.05, lease_seconds=1)
    await eventually(lambda: _statuses(tables, {"delivered"}))
    first, *others = received(broker)
    assert others
    assert others[-1] == first


@on_every_database
async def test_W33_bytes_are_sent_as_they_are_with_their_content_type(apps: Apps, broker: Web) -> None:
    sent = bytes(range(256))

    @workflow
    async def sending(ctx: WorkflowContext) -> None:
        await send_event_transactional(ctx, "scanned", "test", sent, content_type="image/png")
        await send_event_transactional(ctx, "parsed", "test", b"\x08\x01")

    app = await apps.open(outbox_enabled=True, broker_url=broker.url, poll_seconds=0.05)
    await (await app.start(sending)).result(timeout=SOON)
    await eventually(lambda: len(broker.requests) == 2)
    scanned, parsed = broker.requests
    assert (scanned.body, scanned.header("content-type"), scanned.header("ce-type")) == (sent, "image/png", "scanned")
    assert (parsed.body, parsed.header("content-type")) == (b"\x08\x01", "application/octet-stream")


@on_every_database
async def test_W33_delivered_events_are_deleted_by_themselves(apps: Apps, broker: Web, tables: Tables) -> None:
    broker.answer = lambda request, _: response(400 if event_of(request)["type"] == "poison" else 202)
    app = await apps.open(outbox_enabled=True, broker_url=broker.url, poll_seconds=0.05, outbox_retention_seconds=0.5)
    await (await app.start(announcing_many, "poison", 1)).result(timeout=SOON)
    await (await app.start(announcing_many, "good", 3)).result(timeout=SOON)
    await eventually(lambda: len(broker.requests) == 4)
    await eventually(lambda: _statuses(tables, {"dead"}))
    assert len(await tables.outbox()) == 1


async def _statuses(tables: Tables, wished: set[str]) -> bool:
    return {row["status"] for row in await tables.outbox()} == wished


async def _statuses_of(tables: Tables, event_id: str, wished: str) -> bool:
    return [row["status"] for row in await tables.outbox() if row["id"] == event_id] == [wished]


async def _no_patience(tables: Tables) -> None:
    """Whatever waits for the end of a back-off is due."""
    await tables.do("UPDATE edda_outbox SET due_at_us = 1 WHERE status = 'pending' AND relayer IS NULL")
