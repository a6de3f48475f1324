"""The HTTP sink, with both clients, against a server that answers anything."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import httpx2
import pytest

from edda.cloudevents import parse
from edda.core.history import InstanceId
from edda.outbox.sink import Answer, Delivered, Outgoing, Reject, Retry, outgoing
from edda.outbox.sinks import http, sink_for
from edda.outbox.sinks.http import ANSWER_BYTES_MAX, HttpSink, after_seconds
from edda.outbox.sinks.http_aiohttp import AiohttpClient
from edda.outbox.sinks.http_httpx2 import Httpx2Client
from tests.outbox.web import Web, response, web
from tests.storage.support import message

JSON = outgoing(
    message("a", 1, id="0190-7", data='{"order_id":"ORD-1","price":9.50,"ü":"€"}', at_us=1_700_000_000_000_000)
)
BYTES = outgoing(
    message("a", 1, id="0190-8", data=None, blob=bytes(range(256)), content_type="application/x-protobuf", at_us=0)
)


FAILURES = (OSError, httpx2.HTTPError, aiohttp.ClientError)


@pytest.fixture
async def server() -> AsyncIterator[Web]:
    async with web() as server:
        yield server


@pytest.fixture(params=[Httpx2Client, AiohttpClient])
async def sink(request: pytest.FixtureRequest, server: Web) -> AsyncIterator[HttpSink]:
    sink = HttpSink(server.url, client=request.param)
    yield sink
    await sink.close()


async def publish(sink: HttpSink, event: Outgoing = JSON) -> Answer:
    (answer,) = await sink.publish([event])
    return answer


async def test_json_goes_in_structured_mode(sink: HttpSink, server: Web) -> None:
    assert await publish(sink) == Delivered()
    (request,) = server.requests
    assert request.line == "POST /broker?tenant=a%2Fb HTTP/1.1"
    assert request.header("content-type") == "application/cloudevents+json"
    assert json.loads(request.body) == {
        "specversion": "1.0",
        "id": "0190-7",
        "source": "/orders",
        "type": "order.paid",
        "time": "2023-11-14T22:13:20.000000Z",
        "datacontenttype": "application/json",
        "data": {"order_id": "ORD-1", "price": 9.5, "ü": "€"},
    }
    assert b'"price":9.50' in request.body
    assert parse(request.headers, request.body) == JSON.event


async def test_bytes_go_in_binary_mode_bit_for_bit(sink: HttpSink, server: Web) -> None:
    assert await publish(sink, BYTES) == Delivered()
    (request,) = server.requests
    assert request.body == bytes(range(256))
    assert request.header("content-type") == "application/x-protobuf"
    assert (request.header("ce-id"), request.header("ce-type")) == ("0190-8", "order.paid")
    assert parse(request.headers, request.body) == BYTES.event


async def test_each_delivery_of_an_event_is_the_same_bytes(sink: HttpSink, server: Web) -> None:
    for event in (JSON, JSON, BYTES, BYTES):
        await publish(sink, event)
    assert server.requests[0] == server.requests[1]
    assert server.requests[2] == server.requests[3]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_every_2xx_is_a_delivery(sink: HttpSink, server: Web, status: int) -> None:
    server.answer = lambda *_: response(status)
    assert await publish(sink) == Delivered()


@pytest.mark.parametrize("status", [404, 408, 409, 425, 429, 500, 501, 502, 503, 504, 507, 599])
async def test_these_mean_later(sink: HttpSink, server: Web, status: int) -> None:
    server.answer = lambda *_: response(status, b"come back", retry_after="7")
    assert await publish(sink) == Retry(f"HTTP {status}: come back", 7.0)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 304, 400, 401, 403, 405, 410, 413, 415, 422, 451])
async def test_these_mean_never_and_no_redirect_is_followed(sink: HttpSink, server: Web, status: int) -> None:
    server.answer = lambda *_: response(status, b"" if status == 304 else b"no", location=server.url)
    answer = await publish(sink)
    assert isinstance(answer, Reject)
    assert answer.reason.startswith(f"HTTP {status}")
    assert len(server.requests) == 1


async def test_a_server_that_hangs_up_or_is_not_there_is_an_error_to_be_tried_again(
    sink: HttpSink, server: Web
) -> None:
    server.answer = lambda *_: None
    with pytest.raises(FAILURES):
        await publish(sink)
    server.answer = lambda *_: response()
    assert await publish(sink) == Delivered()
    gone = HttpSink("http://127.0.0.1:1/", client=sink._make_client)
    with pytest.raises(FAILURES):
        await publish(gone)
    await gone.close()


async def test_of_an_answer_no_more_than_64_KiB_are_read_and_it_need_not_end(sink: HttpSink, server: Web) -> None:
    sent = 0
    released = asyncio.Event()

    async def endless(_: Any, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
        try:
            while not released.is_set():
                writer.write(b"x" * 65_536)
                sent += 65_536
                await writer.drain()
        except ConnectionError:
            released.set()

    server.answer = endless  # type: ignore[assignment]
    assert await publish(sink) == Delivered()
    await asyncio.wait_for(released.wait(), 10)
    assert sent < 100_000_000
    body = b"y" * (3 * ANSWER_BYTES_MAX)
    server.answer = lambda *_: response(400, body)
    answer = await publish(sink)
    assert isinstance(answer, Reject)
    assert len(answer.reason) < 300


async def test_a_server_that_answers_by_drops_is_given_up(
    sink: HttpSink, server: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def drops(_: Any, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
        for _ in range(1000):
            writer.write(b"o")
            await writer.drain()
            await asyncio.sleep(0.02)

    monkeypatch.setattr(http, "SECONDS_MAX", 0.2)
    server.answer = drops  # type: ignore[assignment]
    with pytest.raises(TimeoutError):
        await publish(sink)


async def test_a_packed_answer_is_not_unpacked(sink: HttpSink, server: Web) -> None:
    server.answer = lambda *_: response(503, b"\x1f\x8b\x08not gzip at all", content_encoding="gzip")
    assert isinstance(await publish(sink), Retry)


async def test_proxies_and_passwords_in_the_environment_are_not_used(
    sink: HttpSink, server: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert await publish(sink) == Delivered()


async def test_cookies_are_not_kept(sink: HttpSink, server: Web) -> None:
    server.answer = lambda *_: response(set_cookie="session=1")
    await publish(sink)
    await publish(sink)
    assert server.requests[1].header("cookie") is None


async def test_connections_are_used_again(sink: HttpSink, server: Web) -> None:
    for _ in range(5):
        await publish(sink)
    assert server.connections == 1


async def test_what_no_receiver_would_take_is_refused_here(sink: HttpSink, server: Web) -> None:
    answer = await publish(sink, outgoing(message("a", 1, source="")))
    assert isinstance(answer, Reject)
    assert "source" in answer.reason
    assert server.requests == []


async def test_the_url_says_which_sink_and_aiohttp_is_used_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(sink_for("https://example.org/x"), HttpSink)
    client = http.best_client()
    assert isinstance(client, AiohttpClient)
    await client.close()
    monkeypatch.setattr(http, "is_installed", lambda _: False)
    client = http.best_client()
    assert isinstance(client, Httpx2Client)
    await client.close()


NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Sun, 22 Nov 2026 12:01:30 GMT", 90.0),
        ("Sun, 22 Nov 2026 11:00:00 GMT", 0.0),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("1" * 400, 1111111111.0),
        ("١٢", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_nonsense_is_ignored(header: str | None, seconds: float | None) -> None:
    assert after_seconds(header, lambda: NOW) == seconds


@pytest.mark.parametrize("url", ["http://", "https:///x"])
def test_a_url_without_a_host_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="names no host"):
        sink_for(url)


def test_an_unknown_scheme_is_refused_without_telling_the_password() -> None:
    with pytest.raises(ValueError, match=r"no sink is known for broker_url='ftp://\.\.\.'; there are amqp, ") as caught:
        sink_for("ftp://me:secret@host/")
    assert "secret" not in str(caught.value)


def test_the_key_of_an_event_is_its_instance() -> None:
    assert JSON.key == InstanceId("a")
