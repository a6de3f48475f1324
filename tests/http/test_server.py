"""Behind a real uvicorn on loopback, over raw sockets: what clients do that no library would."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn

from edda.http import HttpApp, HttpOptions
from tests.http.support import FakeDoor, event

EVENT = json.dumps(event()).encode()
SOON = 10.0


@dataclass
class Server:
    door: FakeDoor
    port: int
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Closed with the server, at the latest."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer

    async def talk(self, *parts: bytes) -> bytes:
        """Everything that the server answers until it closes the connection, or slams it."""
        reader, writer = await self.connect()
        async with asyncio.timeout(SOON):
            with suppress(ConnectionError):  # what was answered before can still be read
                for part in parts:
                    writer.write(part)
                    await writer.drain()
            return await until_closed(reader)

    async def is_well(self) -> bool:
        return (await self.talk(head("GET", "/healthz", "connection: close"))).startswith(b"HTTP/1.1 200")


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server closes, or slams: it resets a connection whose client still writes."""
    answer = b""
    with suppress(ConnectionError):
        while received := await reader.read(65536):
            answer += received
    return answer


class Announced(uvicorn.Server):
    """Says when it is up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


@asynccontextmanager
async def listening(app: Any) -> AsyncIterator[int]:
    """uvicorn on a port of its own."""
    server = Announced(uvicorn.Config(app, log_config=None, lifespan="on"))
    listener = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(server.serve([listener]))
    await server.up.wait()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listener.close()


@asynccontextmanager
async def serving(options: HttpOptions) -> AsyncIterator[Server]:
    door = FakeDoor()
    door.running = {"order-1", "order-1/pay:1"}
    async with listening(HttpApp(door, options=options)) as port:
        client = Server(door, port)
        try:
            yield client
        finally:
            for writer in client.writers:
                writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving(HttpOptions(max_body_bytes=4096, max_reading=8, max_reading_per_client=3)) as server:
        yield server


def head(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: edda", *headers, "", ""]).encode("latin-1")


STRUCTURED = "content-type: application/cloudevents+json"
CLOSE = "connection: close"


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


async def test_R021_an_event_is_stored_and_the_lifespan_is_spoken(server: Server) -> None:
    answer = await server.talk(head("POST", "/any/path", STRUCTURED, f"content-length: {len(EVENT)}", CLOSE), EVENT)
    assert status_of(answer) == 202
    assert answer.endswith(b'{"status": "accepted"}')
    assert list(server.door.stored) == [("/shop", "1")]
    assert server.door.life == ["initialize"]


async def test_ids_that_hold_slashes_are_percent_decoded_once(server: Server) -> None:
    for path in ("/cancel/order-1%2Fpay%3A1", "/cancel/order-1/pay:1"):
        assert status_of(await server.talk(head("POST", path, "content-length: 0", CLOSE))) == 202
    assert status_of(await server.talk(head("POST", "/cancel/order-1%252Fpay:1", "content-length: 0", CLOSE))) == 404
    assert [instance_id for instance_id, _ in server.door.cancelled] == ["order-1/pay:1"] * 2


async def test_W40_a_client_that_announces_a_body_and_goes_freezes_nothing(server: Server) -> None:
    for _ in range(20):
        _, writer = await server.connect()
        writer.write(head("POST", "/", STRUCTURED, f"content-length: {len(EVENT)}") + EVENT[:10])
        await writer.drain()
        writer.transport.abort()
    assert await server.is_well()
    async with asyncio.timeout(SOON):  # until the server has seen them all go
        while True:
            answer = await server.talk(head("POST", "/", STRUCTURED, f"content-length: {len(EVENT)}", CLOSE), EVENT)
            if status_of(answer) == 202:
                break
    assert len(server.door.stored) == 1


async def test_one_client_with_many_half_sent_bodies_does_not_take_all_places(server: Server) -> None:
    held = [await server.connect() for _ in range(3)]
    for _, writer in held:
        writer.write(head("POST", "/", STRUCTURED, "expect: 100-continue", "content-length: 9"))
    for reader, _ in held:
        assert status_of(await reader.readuntil(b"\r\n\r\n")) == 100  # so each of them is being read
    refused = await server.talk(head("POST", "/", STRUCTURED, f"content-length: {len(EVENT)}"), EVENT)
    assert status_of(refused) == 429
    assert b"retry-after: 1" in refused
    assert await server.is_well()


async def test_a_body_byte_by_byte_is_given_up_when_its_time_is_over() -> None:
    async with serving(HttpOptions(read_timeout_seconds=0.2)) as server:
        reader, writer = await server.connect()
        writer.write(head("POST", "/", STRUCTURED, f"content-length: {len(EVENT)}"))
        drip = asyncio.create_task(dripping(writer, EVENT))
        async with asyncio.timeout(SOON):
            answer = await until_closed(reader)
        drip.cancel()
        assert status_of(answer) == 408
        assert b"connection: close" in answer
        assert await server.is_well()
        assert server.door.stored == {}


async def dripping(writer: asyncio.StreamWriter, body: bytes) -> None:
    for byte in body:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.05)  # the client's slowness, not a wait of the test


async def test_ten_thousand_headers_are_refused(server: Server) -> None:
    many = [f"x-{n}: {n}" for n in range(10_000)]
    answer = await server.talk(head("POST", "/", STRUCTURED, *many, "content-length: 0", CLOSE))
    assert answer == b"" or status_of(answer) in (400, 431)
    more_than_we_take = [f"x-{n}: {n}" for n in range(150)]
    answer = await server.talk(head("POST", "/", STRUCTURED, *more_than_we_take, "content-length: 0", CLOSE))
    assert status_of(answer) == 431
    assert await server.is_well()


async def test_a_body_with_two_lengths_is_never_two_requests(server: Server) -> None:
    smuggled = head("POST", "/cancel/order-1", "content-length: 0")
    body = b"0\r\n\r\n" + smuggled
    answer = await server.talk(
        head("POST", "/", STRUCTURED, f"content-length: {len(body)}", "transfer-encoding: chunked", CLOSE), body
    )
    assert answer.count(b"HTTP/1.1 ") == 1
    assert status_of(answer) == 400
    assert server.door.cancelled == []


async def test_chunks_are_one_body_and_their_sum_is_limited(server: Server) -> None:
    chunks = b"".join(b"1\r\n" + bytes([byte]) + b"\r\n" for byte in EVENT) + b"0\r\n\r\n"
    chunked = head("POST", "/", STRUCTURED, "transfer-encoding: chunked", CLOSE)
    assert status_of(await server.talk(chunked, chunks)) == 202
    too_many = b"".join(b"400\r\n" + b"x" * 1024 + b"\r\n" for _ in range(5)) + b"0\r\n\r\n"
    assert status_of(await server.talk(chunked, too_many)) == 413


async def test_who_asks_before_sending_too_much_is_told_so_at_once(server: Server) -> None:
    ask = ("expect: 100-continue", "content-length: 4097")
    reader, writer = await server.connect()
    writer.write(head("POST", "/", STRUCTURED, *ask))
    async with asyncio.timeout(SOON):
        answer = await until_closed(reader)
    assert status_of(answer) == 413


async def test_who_asks_before_sending_is_told_to_go_on(server: Server) -> None:
    reader, writer = await server.connect()
    writer.write(head("POST", "/", STRUCTURED, "expect: 100-continue", f"content-length: {len(EVENT)}", CLOSE))
    async with asyncio.timeout(SOON):
        assert status_of(await reader.readuntil(b"\r\n\r\n")) == 100
        writer.write(EVENT)
        assert status_of(await until_closed(reader)) == 202


@pytest.mark.parametrize(("method", "status"), [("HEAD", 405), ("OPTIONS", 405), ("PUT", 405), ("GET", 405)])
async def test_other_methods_are_told_what_is_answered(server: Server, method: str, status: int) -> None:
    answer = await server.talk(head(method, "/x", f"content-length: {len(EVENT)}", STRUCTURED, CLOSE), EVENT)
    assert status_of(answer) == status
    assert b"\r\nallow: POST\r\n" in answer
    assert server.door.stored == {}
    if method == "HEAD":
        assert answer.endswith(b"\r\n\r\n")


async def test_deep_json_is_the_senders_error(server: Server) -> None:
    async with serving(HttpOptions()) as generous:
        for deep in (
            b"[" * 200_000,
            b'{"a":' * 100_000,
            b'{"specversion":"1.0","data":' + b"[" * 500 + b"]" * 500 + b"}",
        ):
            lines = head("POST", "/", STRUCTURED, f"content-length: {len(deep)}", CLOSE)
            assert status_of(await generous.talk(lines, deep)) == 400
        assert await generous.is_well()


async def test_on_a_connection_that_stays_one_answer_follows_the_other(server: Server) -> None:
    reader, writer = await server.connect()
    for n in range(3):
        body = json.dumps(event(str(n))).encode()
        writer.write(head("POST", "/", STRUCTURED, f"content-length: {len(body)}") + body)
        async with asyncio.timeout(SOON):
            assert status_of(await reader.readuntil(b'{"status": "accepted"}')) == 202
    assert len(server.door.stored) == 3
