"""Section P of the promises: JSON and bytes, each as it was sent, in the database and on the wire."""

import asyncio
import json
import time

import httpx2
from google.protobuf import json_format, struct_pb2

from edda import EddaApp, ReceivedEvent, WorkflowContext, send_event, wait_event, workflow
from tests.acceptance.conftest import Apps
from tests.acceptance.support import SOON, Tables, eventually, on_every_database
from tests.outbox.web import web

DATA = {"order_id": "7", "umlauts": "Grüße ✓", "nested": {"list": [1, 2.5, None, True, {}]}, "large": 2**53 - 1}
HUNDRED = bytes(range(156, 256))
"""A hundred bytes, none of which any encoding of text would leave alone."""


@workflow
async def receiving(ctx: WorkflowContext, event_type: str = "sent") -> object:
    return (await wait_event(ctx, event_type)).data


@workflow
async def receiving_all_about_it(ctx: WorkflowContext) -> ReceivedEvent:
    return await wait_event(ctx, "sent")


async def post(app: EddaApp, content: bytes, **headers: str) -> int:
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://edda") as client:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return (await client.post("/", content=content, headers=names)).status_code


@on_every_database
async def test_R132_json_and_bytes_are_stored_and_transported_side_by_side(apps: Apps) -> None:
    """In by HTTP, out by HTTP, and through a restart in between."""
    async with web() as broker:
        options = {"outbox_enabled": True, "broker_url": broker.url}
        for data in (DATA, HUNDRED):
            app = await apps.open()
            is_json = isinstance(data, dict)
            body = json.dumps(data).encode() if isinstance(data, dict) else data
            kind = "application/json" if is_json else "application/x-protobuf"
            handle = await app.start(receiving, kind)
            ce = {"ce_specversion": "1.0", "ce_id": "1", "ce_source": f"/{kind}", "ce_type": kind}
            assert await post(app, body, content_type=kind, **ce) == 202
            app = await apps.restart(**options)
            assert await app.handle(handle).result(timeout=SOON) == data
            before = len(broker.requests)
            await send_event("out", "/x", data)
            await eventually(lambda before=before: len(broker.requests) > before)
            sent = broker.requests[-1].body
            assert (json.loads(sent)["data"] if is_json else sent) == data
            await app.shutdown()


@on_every_database
async def test_R133_the_data_of_an_event_is_the_dict_that_was_sent(apps: Apps) -> None:
    message = struct_pb2.Struct()
    message.update(DATA)
    app = await apps.open()
    handle = await app.start(receiving)
    await send_event("sent", "test", json_format.MessageToDict(message))
    received = await handle.result(timeout=SOON)
    assert received == DATA
    assert json_format.ParseDict(received, struct_pb2.Struct()) == message


@on_every_database
async def test_R134_json_can_be_read_in_the_database_and_goes_out_in_structured_mode(
    apps: Apps, tables: Tables
) -> None:
    async with web() as broker:
        await apps.open()
        await send_event("sent", "test", DATA)
        ((text, blob),) = await tables.rows("SELECT data, bytes FROM edda_inbox")
        assert "Grüße ✓" in text
        assert json.loads(text) == DATA
        assert blob is None
        app = await apps.restart(outbox_enabled=True, broker_url=broker.url)
        await send_event("sent", "test", DATA)
        await eventually(lambda: broker.requests)
        await app.shutdown()
    (request,) = broker.requests
    assert request.header("content-type") == "application/cloudevents+json"
    assert json.loads(request.body)["data"] == DATA


@on_every_database
async def test_R135_send_event_takes_bytes(apps: Apps) -> None:
    message = struct_pb2.Value(string_value="Grüße")
    app = await apps.open()
    handle = await app.start(receiving)
    await send_event("sent", "orders", message.SerializeToString())
    assert await handle.result(timeout=SOON) == message.SerializeToString()


@on_every_database
async def test_R136_R138_a_hundred_bytes_are_a_hundred_bytes_in_a_blob_of_the_database(
    apps: Apps, tables: Tables
) -> None:
    app = await apps.open()
    handle = await app.start(receiving)
    await send_event("sent", "test", HUNDRED)
    await handle.result(timeout=SOON)
    app = await apps.restart(outbox_enabled=True, broker_url="http://127.0.0.1:9/nobody")
    await send_event("sent", "test", HUNDRED)
    for name in ("edda_inbox", "edda_outbox", "edda_history"):
        stored = await tables.rows(f"SELECT bytes FROM {name} WHERE bytes IS NOT NULL")
        assert {bytes(row[0]) for row in stored} == {HUNDRED}, name


@on_every_database
async def test_R137_the_data_of_a_binary_event_are_bytes_that_protobuf_can_parse(apps: Apps) -> None:
    message = struct_pb2.Struct()
    message.update(DATA)
    app = await apps.open()
    handle = await app.start(receiving_all_about_it)
    ce = {"ce_specversion": "1.0", "ce_id": "1", "ce_source": "/x", "ce_type": "sent"}
    assert await post(app, message.SerializeToString(), content_type="application/x-protobuf", **ce) == 202
    event = await handle.result(timeout=SOON)
    assert isinstance(event.data, bytes)
    parsed = struct_pb2.Struct()
    parsed.ParseFromString(event.data)
    assert parsed == message
    assert event.datacontenttype == "application/x-protobuf"


@on_every_database
async def test_R139_binary_mode_is_spoken_in_both_directions(apps: Apps) -> None:
    """What goes out in binary mode comes in again as it is, and is the same event."""
    async with web() as broker:
        sender = await apps.open(outbox_enabled=True, broker_url=broker.url)
        event_id = await send_event("sent", "/x", HUNDRED, datacontenttype="application/x-protobuf")
        await eventually(lambda: broker.requests)
        await sender.shutdown()
    (request,) = broker.requests
    assert request.body == HUNDRED
    assert request.header("ce-id") == event_id
    app = await apps.open()
    handle = await app.start(receiving_all_about_it)
    headers = {name.decode(): value.decode() for name, value in request.headers if name.lower() != b"host"}
    assert await post(app, request.body, **headers) == 202
    event = await handle.result(timeout=SOON)
    assert (event.id, event.source, event.data) == (event_id, "/x", HUNDRED)


async def test_R140_many_binary_events_are_taken_in_one_transaction_each_group(apps: Apps) -> None:
    """A hint at throughput in the README. What can be promised on any machine: that events share transactions."""
    await apps.open()

    async def seconds_for(count: int, *, at_once: bool) -> float:
        begun = time.monotonic()
        sends = [send_event("nobody.waits", "test", HUNDRED) for _ in range(count)]
        if at_once:
            await asyncio.gather(*sends)
        else:
            for send in sends:
                await send
        return time.monotonic() - begun

    one_by_one = await seconds_for(200, at_once=False) / 200
    together = await seconds_for(2000, at_once=True) / 2000
    assert together < one_by_one / 2
