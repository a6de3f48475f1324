"""A real app behind a real uvicorn, over raw sockets: what is refused leaves no trace, what is taken counts once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edda import EddaApp, WorkflowContext, wait_event, workflow
from edda.workflow import WorkflowHandle
from tests.http.support import FakeDoor, event
from tests.http.test_server import CLOSE, SOON, STRUCTURED, Server, head, listening, status_of

BODY_MAX = 1 << 20
AT_ONCE = 20
BYTES = "content-type: application/octet-stream"
asked: dict[str, str] = {}
"""The tokens of the instances that ask."""


@workflow
async def attacked_listener(ctx: WorkflowContext, count: int) -> list[Any]:
    return [(await wait_event(ctx, "attack", timeout_seconds=SOON)).data for _ in range(count)]


@workflow
async def attacked_question(ctx: WorkflowContext) -> Any:
    callback = await ctx.callback()
    asked[ctx.instance_id] = callback.token
    return await callback.wait()


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[EddaApp]:
    url = f"sqlite:///{tmp_path}/attacked.db"
    async with EddaApp(db_url=url, poll_seconds=0.05, max_payload_bytes=2 * BODY_MAX) as app:
        yield app


@pytest.fixture
async def server(app: EddaApp) -> AsyncIterator[Server]:
    async with listening(app) as port:
        client = Server(FakeDoor(), port)
        yield client
        for writer in client.writers:
            writer.close()


def attack(number: int = 1, **more: Any) -> bytes:
    return json.dumps(event(id=str(number), type="attack", **more)).encode()


def posted(body: bytes, *headers: str, path: str = "/") -> bytes:
    return head("POST", path, *(headers or (STRUCTURED,)), f"content-length: {len(body)}", CLOSE) + body


def binary(*more: str) -> tuple[str, ...]:
    return ("ce-specversion: 1.0", "ce-id: b", "ce-source: /attacker", "ce-type: attack", *more)


async def waiting(app: EddaApp, handle: WorkflowHandle[Any]) -> None:
    async with asyncio.timeout(SOON):
        while await handle.status() != "waiting_for_event":  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # nothing tells of a status


async def test_a_body_as_large_as_is_allowed_arrives_whole_and_one_byte_more_is_refused(
    app: EddaApp, server: Server
) -> None:
    handle = await app.start(attacked_listener, 1)
    largest = bytes(range(256)) * (BODY_MAX // 256)
    assert status_of(await server.talk(posted(largest + b"x", *binary(BYTES)))) == 413
    assert status_of(await server.talk(posted(largest, *binary(BYTES)))) == 202
    assert await handle.result(timeout=SOON) == [largest]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (posted(b""), 400),
        (posted(b"\xff\xfe{}"), 400),
        (posted(attack().replace(b"/shop", b"/sh\xffp")), 400),
        (posted(b"", "content-type: application/cloudevents-batch+json"), 400),
        (posted(b"{}", *binary("ce-subject: \xff", "content-type: application/json")), 400),
        (posted(b"", path="/cancel/%ff%fe"), 404),
        (posted(b"", path="/cancel/"), 400),
        (posted(b"1", "content-type: application/json", path="/callback/%ff.%ff"), 404),
        (posted(b"1", "content-type: application/json", path="/callback/x.b3JkZXI"), 404),
    ],
)
async def test_nonsense_is_refused_and_stores_nothing(
    app: EddaApp, server: Server, request_: bytes, status: int
) -> None:
    handle = await app.start(attacked_listener, 1)
    await waiting(app, handle)
    assert status_of(await server.talk(request_)) == status
    assert status_of(await server.talk(posted(attack(data="good")))) == 202
    assert await handle.result(timeout=SOON) == ["good"]


async def test_an_event_may_have_no_data_and_bytes_that_are_no_text(app: EddaApp, server: Server) -> None:
    handle = await app.start(attacked_listener, 2)
    assert status_of(await server.talk(posted(b"", *binary()))) == 202
    await waiting(app, handle)
    assert (
        status_of(await server.talk(posted(b"\xff\x00\xfe", *binary(BYTES)).replace(b"ce-id: b", b"ce-id: c"))) == 202
    )
    assert await handle.result(timeout=SOON) == [None, b"\xff\x00\xfe"]


async def test_the_same_event_many_times_at_once_counts_once(app: EddaApp, server: Server) -> None:
    handle = await app.start(attacked_listener, 2)
    answers = await asyncio.gather(*(server.talk(posted(attack(1, data=1))) for _ in range(AT_ONCE)))
    assert {status_of(answer) for answer in answers} == {202}
    assert status_of(await server.talk(posted(attack(2, data=2)))) == 202
    assert await handle.result(timeout=SOON) == [1, 2]


async def test_bodies_that_are_never_finished_are_no_events(app: EddaApp, server: Server) -> None:
    handle = await app.start(attacked_listener, 1)
    whole = posted(attack(1, data=1))
    for size in range(1, len(whole), len(whole) // AT_ONCE):
        _, writer = await server.connect()
        writer.write(whole[:size])
        await writer.drain()
        writer.transport.abort()
    assert status_of(await server.talk(posted(attack(2, data=2)))) == 202
    assert await handle.result(timeout=SOON) == [2]
    assert await server.is_well()


async def test_clients_that_do_not_wait_for_the_answer_may_send_again(app: EddaApp, server: Server) -> None:
    """Whether the first copy was taken is not known to them: the second one counts as the same."""
    handle = await app.start(attacked_listener, AT_ONCE)
    for number in range(AT_ONCE):
        _, writer = await server.connect()
        writer.write(posted(attack(number, data=number)))
        await writer.drain()
        writer.transport.abort()
    answers = await asyncio.gather(*(server.talk(posted(attack(n, data=n))) for n in range(AT_ONCE)))
    assert {status_of(answer) for answer in answers} == {202}
    assert sorted(await handle.result(timeout=SOON)) == list(range(AT_ONCE))
    assert await server.is_well()


async def test_an_answer_and_a_cancel_at_once_have_one_outcome(app: EddaApp, server: Server) -> None:
    handles = [await app.start(attacked_question) for _ in range(AT_ONCE)]
    for handle in handles:
        await waiting(app, handle)
    yes = "content-type: application/json"
    requests: list[bytes] = []
    for number, handle in enumerate(handles):
        pair = [posted(b'"yes"', yes, path=f"/callback/{asked[handle]}"), posted(b"", path=f"/cancel/{handle}")]
        requests += pair if number % 2 else pair[::-1]
    statuses = [status_of(answer) for answer in await asyncio.gather(*map(server.talk, requests))]
    for number, handle in enumerate(handles):
        answered, cancelled = statuses[2 * number : 2 * number + 2][:: 1 if number % 2 else -1]
        async with asyncio.timeout(SOON):
            while (end := await handle.status()) not in ("completed", "cancelled"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # nothing tells of a status
        assert (answered, cancelled, end) in {
            (202, 202, "cancelled"),
            (410, 202, "cancelled"),
            (202, 409, "completed"),
        }
