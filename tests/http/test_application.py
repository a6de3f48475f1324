"""The application at scope level: probes, cancels, limits, life; what a client hears, and what it never hears."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edda.exceptions import DatabaseUnavailableError, ShuttingDownError
from edda.http import BearerToken, HttpApp, HttpOptions
from edda.http.asgi import Message
from tests.http.support import GONE, FakeDoor, call, chunk, exchange, scope_of


@pytest.fixture
def door() -> FakeDoor:
    door = FakeDoor()
    door.running = {"order-1", "order-1/pay:1", "Grüße", "a b"}
    door.ended = {"order-0"}
    return door


# -- probes ----------------------------------------------------------------------------------------------------------


async def test_a_process_that_lives_says_so_whatever_its_database_does(door: FakeDoor) -> None:
    door.failure = DatabaseUnavailableError()
    response = await call(HttpApp(door), "GET", "/healthz")
    assert (response.status, response.json) == (200, {"status": "alive"})
    assert door.life == []


async def test_a_probe_for_readiness_begins_an_app_that_nobody_told_of_a_lifespan(door: FakeDoor) -> None:
    assert (await call(HttpApp(door), "GET", "/readyz")).status == 200
    assert door.life == ["initialize"]


@pytest.mark.parametrize("failure", [None, DatabaseUnavailableError("no password for 10.0.0.1"), ValueError("secret")])
async def test_an_app_that_cannot_serve_is_not_ready_and_says_no_more(
    door: FakeDoor, failure: Exception | None
) -> None:
    door.ready, door.failure = False, failure
    response = await call(HttpApp(door), "GET", "/readyz")
    assert response.status == 503
    assert response.json == {
        "error": "This worker cannot serve now",
        "error_type": "not_ready",
        "retryable": True,
    }
    assert int(response.headers["retry-after"]) > 0


async def test_head_has_the_head_of_get_and_no_body(door: FakeDoor) -> None:
    app = HttpApp(door)
    head, get = await call(app, "HEAD", "/healthz"), await call(app, "GET", "/healthz")
    assert (head.status, head.headers, head.body) == (get.status, get.headers, b"")
    assert (await call(app, "HEAD", "/x")).body == b""


# -- cancels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("instance_id", ["order-1", "order-1/pay:1", "Grüße", "a b"])
async def test_a_cancel_reaches_the_instance_of_exactly_that_id(door: FakeDoor, instance_id: str) -> None:
    response = await call(HttpApp(door), "POST", f"/cancel/{instance_id}")
    assert (response.status, response.json) == (202, {"status": "cancelling", "instance_id": instance_id})
    assert door.cancelled == [(instance_id, "http")]


async def test_a_cancel_works_below_any_mount(door: FakeDoor) -> None:
    app = HttpApp(door)
    for root_path in ("/workflows", "/api/v1/workflows", "/cancel"):
        response = await call(app, "POST", f"{root_path}/cancel/order-1", root_path=root_path)
        assert response.status == 202
    assert len(door.cancelled) == 3


@pytest.mark.parametrize(
    ("path", "status", "error_type"),
    [
        ("/cancel/nobody", 404, "instance_not_found"),
        ("/cancel/order-0", 409, "not_cancellable"),
        ("/cancel/", 400, "missing_instance_id"),
        ("/cancel", 400, "missing_instance_id"),
        ("/cancel/a\x00b", 400, "invalid_instance_id"),
        ("/cancel/a\ud800b", 400, "invalid_instance_id"),
        ("/cancel/" + "x" * 256, 400, "invalid_instance_id"),
    ],
)
async def test_a_cancel_that_cannot_be_says_why(door: FakeDoor, path: str, status: int, error_type: str) -> None:
    response = await call(HttpApp(door), "POST", path)
    assert (response.status, response.json["error_type"]) == (status, error_type)
    assert response.json["retryable"] is False
    assert door.cancelled == []


# -- methods ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/", "POST"),
        ("PUT", "/x", "POST"),
        ("OPTIONS", "/", "POST"),
        ("GET", "/cancel/order-1", "POST"),
        ("POST", "/readyz", "GET, HEAD"),
        ("DELETE", "/healthz", "GET, HEAD"),
    ],
)
async def test_another_method_is_refused_with_the_ones_that_are_answered(
    door: FakeDoor, method: str, path: str, allow: str
) -> None:
    response = await call(HttpApp(door), method, path)
    assert (response.status, response.headers["allow"]) == (405, allow)
    assert response.json["error_type"] == "method_not_allowed"


async def test_the_webhook_handshake_is_answered_for_the_origins_that_may_deliver(door: FakeDoor) -> None:
    app = HttpApp(door, options=HttpOptions(webhook_origins=("shop.example",), webhook_requests_per_minute=120))
    ask = {"webhook-request-origin": "shop.example", "webhook-request-rate": "1000"}
    response = await call(app, "OPTIONS", "/hook", headers=ask)
    assert response.status == 200
    assert response.headers["webhook-allowed-origin"] == "shop.example"
    assert response.headers["webhook-allowed-rate"] == "120"
    assert response.headers["allow"] == "POST"
    refused = await call(app, "OPTIONS", "/hook", headers={"webhook-request-origin": "evil.example"})
    assert refused.status == 403
    assert "webhook-allowed-origin" not in refused.headers
    assert (await call(app, "OPTIONS", "/hook")).status == 400


# -- errors ----------------------------------------------------------------------------------------------------------


async def test_an_internal_error_is_an_id_to_the_client_and_everything_to_the_log(
    door: FakeDoor, caplog: pytest.LogCaptureFixture
) -> None:
    door.failure = RuntimeError("postgresql://admin:hunter2@db/prod: relation edda_instances")
    response = await call(HttpApp(door), "POST", "/cancel/order-1")
    assert (response.status, response.json["error_type"], response.json["retryable"]) == (500, "internal_error", True)
    assert b"hunter2" not in response.body
    assert b"edda_instances" not in response.body
    assert re.fullmatch("[0-9a-f]{16}", response.json["error_id"])
    assert response.json["error_id"] in caplog.text
    assert "hunter2" in caplog.text


@pytest.mark.parametrize(
    ("failure", "error_type"),
    [(DatabaseUnavailableError("db at 10.0.0.1"), "database_unavailable"), (ShuttingDownError(), "shutting_down")],
)
async def test_what_time_may_solve_is_503_with_a_time_to_come_again(
    door: FakeDoor, failure: Exception, error_type: str
) -> None:
    door.failure = failure
    response = await call(HttpApp(door), "POST", "/cancel/order-1")
    assert (response.status, response.json["error_type"], response.json["retryable"]) == (503, error_type, True)
    assert int(response.headers["retry-after"]) >= 1
    assert b"10.0.0.1" not in response.body


async def test_a_door_that_hangs_does_not_hold_its_place_for_ever(door: FakeDoor) -> None:
    door.before = asyncio.Event().wait  # type: ignore[assignment]
    app = HttpApp(door, options=HttpOptions(answer_timeout_seconds=0.01, max_in_flight=1))
    for _ in range(2):
        response = await call(app, "POST", "/cancel/order-1")
        assert (response.status, response.json["error_type"], response.json["retryable"]) == (503, "timeout", True)


# -- limits ----------------------------------------------------------------------------------------------------------


def counted(messages: Iterable[Message], taken: list[Message]) -> Iterator[Message]:
    """Notes what has been taken."""
    for message in messages:
        taken.append(message)
        yield message


async def test_a_body_announced_too_large_is_refused_before_a_byte_is_read(door: FakeDoor) -> None:
    taken: list[Message] = []
    app = HttpApp(door, options=HttpOptions(max_body_bytes=10))
    messages = counted([chunk(b"x" * 11)], taken)
    response = await exchange(app, scope_of("POST", "/", {"content-length": "11"}), messages)
    assert response is not None
    assert (response.status, response.json["error_type"]) == (413, "body_too_large")
    assert response.headers["connection"] == "close"
    assert taken == []


@pytest.mark.parametrize("headers", [{}, {"content-length": "3"}, {"content-length": "many"}, {"content-length": "-1"}])
async def test_reading_stops_at_the_limit_whatever_was_announced(door: FakeDoor, headers: dict[str, str]) -> None:
    taken: list[Message] = []
    app = HttpApp(door, options=HttpOptions(max_body_bytes=10))
    messages = counted([chunk(b"x" * 6, more=True)] * 100, taken)
    response = await exchange(app, scope_of("POST", "/", headers), messages)
    assert response is not None
    assert response.status == 413
    assert len(taken) == 2


async def test_a_client_that_goes_in_the_middle_of_its_body_gets_no_answer_and_cancels_nothing(door: FakeDoor) -> None:
    app = HttpApp(door, options=HttpOptions(max_in_flight=1))
    for messages in ([GONE], [chunk(b"", more=True), GONE], [chunk(b"{", more=True), chunk(b"}", more=True), GONE]):
        assert await exchange(app, scope_of("POST", "/cancel/order-1"), messages) is None
    assert door.cancelled == []
    assert (await call(app, "POST", "/cancel/order-1")).status == 202  # and no place is lost


async def test_a_slow_body_is_given_up(door: FakeDoor) -> None:
    app = HttpApp(door, options=HttpOptions(read_timeout_seconds=0.01))
    sent: list[Message] = []
    taken: list[bool] = []

    async def receive() -> Message:
        if not taken:
            taken.append(True)
            return chunk(b"x", more=True)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope_of("POST", "/cancel/order-1", {"transfer-encoding": "chunked"}), receive, send)
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]


async def test_a_server_that_never_waits_cannot_keep_a_slow_body_alive(door: FakeDoor) -> None:
    app = HttpApp(door, options=HttpOptions(read_timeout_seconds=0.01))

    endless = itertools.repeat(chunk(b"", more=True))
    response = await exchange(app, scope_of("POST", "/cancel/order-1"), endless)
    assert response is not None
    assert response.status == 408


async def test_too_many_headers_are_refused_unread(door: FakeDoor) -> None:
    app = HttpApp(door, options=HttpOptions(max_headers=3, max_header_bytes=50))
    assert (await call(app, "POST", "/cancel/order-1", headers=[("a", "b")] * 3)).status == 202
    assert (await call(app, "POST", "/cancel/order-1", headers=[("a", "b")] * 4)).status == 431
    assert (await call(app, "POST", "/cancel/order-1", headers=[("a", "b" * 50)])).status == 431


class Held:
    """A request whose body is not there yet."""

    def __init__(self, app: HttpApp, client: str = "127.0.0.1") -> None:
        self.sent: list[Message] = []
        self._rest = asyncio.Event()
        self.reading = asyncio.Event()
        scope = scope_of("POST", "/cancel/order-1")
        scope["client"] = (client, 1)
        self.task = asyncio.create_task(app(scope, self._receive, self._send))  # type: ignore[arg-type]

    async def _receive(self) -> Message:
        self.reading.set()
        await self._rest.wait()
        return chunk(b"")

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    async def finish(self) -> int:
        self._rest.set()
        await self.task
        return int(self.sent[0]["status"])


async def test_beyond_the_requests_in_flight_the_next_is_told_to_come_again(door: FakeDoor) -> None:
    app = HttpApp(door, options=HttpOptions(max_in_flight=2, retry_after_seconds=7))
    assert (await call(app, "POST", "/cancel/order-1")).status == 202
    handled, may_go_on = asyncio.Semaphore(0), asyncio.Event()

    async def before() -> None:
        handled.release()
        await may_go_on.wait()

    door.before = before
    under_way = [asyncio.create_task(call(app, "POST", "/cancel/order-1")) for _ in range(2)]
    for _ in under_way:
        await handled.acquire()
    response = await call(app, "POST", "/cancel/order-1")
    assert (response.status, response.json["error_type"], response.json["retryable"]) == (
        429,
        "too_many_requests",
        True,
    )
    assert response.headers["retry-after"] == "7"
    assert (await call(app, "GET", "/healthz")).status == 200
    may_go_on.set()
    assert [(await task).status for task in under_way] == [202, 202]
    assert (await call(app, "POST", "/cancel/order-1")).status == 202


async def test_slow_bodies_keep_nobody_out_whose_body_is_there(door: FakeDoor) -> None:
    app = HttpApp(door, options=HttpOptions(max_in_flight=1, max_reading=4))
    held = [Held(app, f"10.0.0.{n}") for n in range(3)]
    for request in held:
        await request.reading.wait()
    assert (await call(app, "POST", "/cancel/order-1")).status == 202
    held.append(Held(app, "10.0.0.4"))
    await held[-1].reading.wait()
    assert (await call(app, "POST", "/cancel/order-1")).status == 429
    assert [await request.finish() for request in held] == [202] * 4
    assert (await call(app, "POST", "/cancel/order-1")).status == 202


async def test_one_client_cannot_hold_more_than_its_share_of_the_places(door: FakeDoor) -> None:
    app = HttpApp(door, options=HttpOptions(max_reading_per_client=2))
    held = [Held(app, "10.0.0.1") for _ in range(2)]
    for request in held:
        await request.reading.wait()
    assert await Held(app, "10.0.0.1").finish() == 429
    assert await Held(app, "10.0.0.2").finish() == 202
    assert [await request.finish() for request in held] == [202, 202]
    assert await Held(app, "10.0.0.1").finish() == 202


# -- scopes and life -------------------------------------------------------------------------------------------------


async def test_a_websocket_is_closed_and_an_unknown_scope_is_an_error(door: FakeDoor) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await HttpApp(door)({"type": "websocket", "path": "/"}, receive, send)
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1003)]
    with pytest.raises(NotImplementedError, match="gopher"):
        await HttpApp(door)({"type": "gopher"}, receive, send)


async def lifespan(app: HttpApp, *kinds: str) -> list[Message]:
    sent: list[Message] = []
    incoming = iter(kinds)

    async def receive() -> Message:
        return {"type": f"lifespan.{next(incoming)}"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": "lifespan"}, receive, send)
    return sent


async def test_a_server_begins_and_ends_the_app_by_the_lifespan_protocol(door: FakeDoor) -> None:
    sent = await lifespan(HttpApp(door), "startup", "shutdown")
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert door.life == ["initialize", "shutdown"]


async def test_a_beginning_that_fails_is_told_to_the_server(door: FakeDoor) -> None:
    door.failure = DatabaseUnavailableError("no database")
    (failed,) = await lifespan(HttpApp(door), "startup")
    assert failed["type"] == "lifespan.startup.failed"
    assert "no database" in failed["message"]


async def test_after_the_end_a_late_request_does_not_begin_the_app_anew(door: FakeDoor) -> None:
    app = HttpApp(door)
    async with app.lifespan() as state:
        assert state == {"edda": door}
        assert (await call(app, "POST", "/cancel/order-1")).status == 202
    late = await call(app, "POST", "/cancel/order-1")
    assert (late.status, late.json["error_type"]) == (503, "shutting_down")
    assert (await call(app, "GET", "/readyz")).status == 503
    assert door.life == ["initialize", "shutdown"]


async def test_requests_that_come_together_begin_the_app_once(door: FakeDoor) -> None:
    app = HttpApp(door)
    responses = await asyncio.gather(*(call(app, "POST", "/cancel/order-1") for _ in range(5)))
    assert [response.status for response in responses] == [202] * 5
    assert door.life == ["initialize"]


async def test_a_client_that_goes_while_the_app_begins_does_not_stop_it_for_the_others(door: FakeDoor) -> None:
    may_begin, begins = asyncio.Event(), asyncio.Event()

    async def before() -> None:
        begins.set()
        await may_begin.wait()

    door.before = before
    app = HttpApp(door)
    first = asyncio.create_task(call(app, "POST", "/cancel/order-1"))
    await begins.wait()
    second = asyncio.create_task(call(app, "POST", "/cancel/order-1"))
    first.cancel()
    may_begin.set()
    assert (await second).status == 202
    assert door.life == ["initialize"]


async def test_an_app_that_could_not_begin_is_begun_by_the_next_request(door: FakeDoor) -> None:
    app = HttpApp(door)
    door.failure = DatabaseUnavailableError()
    assert (await call(app, "POST", "/cancel/order-1")).status == 503
    door.failure = None
    assert (await call(app, "POST", "/cancel/order-1")).status == 202


# -- who can reach it ------------------------------------------------------------------------------------------------


async def test_without_an_authorizer_a_public_address_is_worth_one_warning(
    door: FakeDoor, caplog: pytest.LogCaptureFixture
) -> None:
    app = HttpApp(door)
    for host in ("127.0.0.1", "::1", None, "/run/edda.sock", "testserver", "192.0.2.7", "192.0.2.8"):
        scope = scope_of("GET", "/healthz")
        scope["server"] = None if host is None else (host, 80)
        await exchange(app, scope, [chunk(b"")])
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].startswith("192.0.2.7 can be reached by others")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 202),
        ({"origin": "http://localhost:8000", "host": "localhost:8000"}, 202),
        ({"origin": "http://evil.example", "host": "localhost:8000"}, 403),
        ({"origin": "null", "host": "localhost:8000"}, 403),
        ({"sec-fetch-site": "same-origin", "origin": "https://public.example", "host": "internal"}, 202),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "none"}, 202),
    ],
)
async def test_a_web_page_of_another_site_cannot_use_an_app_that_has_no_authorizer(
    door: FakeDoor, headers: dict[str, str], status: int
) -> None:
    assert (await call(HttpApp(door), "POST", "/cancel/order-1", headers=headers)).status == status
    assert len(door.cancelled) == (status == 202)


async def test_with_an_authorizer_the_token_decides_and_not_the_origin(door: FakeDoor) -> None:
    headers = {"origin": "https://shop.example", "host": "api.example", "authorization": "Bearer token-1"}
    app = HttpApp(door, authorizer=BearerToken("token-1"))
    assert (await call(app, "POST", "/cancel/order-1", headers=headers)).status == 202


STEPS = st.sampled_from(["begin", "end", "cancel", "probe", "break", "mend"])


@given(st.lists(STEPS, max_size=12))
async def test_in_whatever_order_it_begins_ends_and_is_asked_it_is_open_or_says_that_it_is_not(
    steps: list[str],
) -> None:
    door = FakeDoor()
    door.running = {"order-1"}
    app, over, begun = HttpApp(door), False, False
    life = app._life
    for step in steps:
        if step in ("break", "mend"):
            door.failure = DatabaseUnavailableError() if step == "break" else None
        elif step == "begin":
            over = False
            with suppress(DatabaseUnavailableError):
                await life.begin()
            begun = begun or door.failure is None
        elif step == "end":
            over, begun = True, False
            await life.end()
        else:
            works = not over and door.failure is None
            path, method = ("/cancel/order-1", "POST") if step == "cancel" else ("/readyz", "GET")
            response = await call(app, method, path)
            assert (response.status < 300) == works
            assert response.status < 300 or (response.status == 503 and response.json["retryable"])
            begun = begun or works
    initialised = [len(list(group)) for step, group in itertools.groupby(door.life) if step == "initialize"]
    assert all(times == 1 for times in initialised)  # never twice without an end in between
    assert begun == bool(door.life and door.life[-1] == "initialize")
