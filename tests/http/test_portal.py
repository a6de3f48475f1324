"""Synchronous code: a portal to the app, and the same routes under Flask and Django."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from edda import EddaApp, WorkflowContext, activity, wait_timer, workflow
from edda.core.event import CloudEvent, Receipt
from edda.exceptions import ShuttingDownError, WrongLoopError
from edda.http import BearerToken, HttpApp, HttpOptions, Portal
from edda.http.wsgi import scope_of
from tests.http.support import STRUCTURED, FakeDoor, event


@activity
async def double(ctx: WorkflowContext, n: int) -> int:
    return n * 2


@workflow
async def doubling(ctx: WorkflowContext, n: int) -> int:
    return await double(ctx, n)


@workflow
async def patience(ctx: WorkflowContext) -> None:
    await wait_timer(ctx, duration_seconds=3600)


@pytest.fixture
def portal(tmp_path: Path) -> Iterator[Portal]:
    edda = EddaApp(db_url=f"sqlite:///{tmp_path}/edda.db", workflows=[doubling, patience])
    portal = Portal(edda)
    yield portal
    portal.close()


# -- calls -----------------------------------------------------------------------------------------------------------


def test_synchronous_code_starts_a_workflow_and_waits_for_its_result(portal: Portal) -> None:
    handle = portal.start(doubling, 21)
    assert portal.call(handle.result(), timeout_seconds=10) == 42
    assert portal.call(handle.status()) == "completed"


def test_synchronous_code_cancels(portal: Portal) -> None:
    handle = portal.start(patience)
    portal.cancel(handle)
    with pytest.raises(Exception, match="was cancelled"):
        portal.call(handle.result(), timeout_seconds=10)


def test_many_threads_share_one_loop(portal: Portal) -> None:
    results: list[int] = []

    def work(n: int) -> None:
        results.append(portal.call(portal.start(doubling, n).result()))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [n * 2 for n in range(8)]
    assert sum(thread.name == "edda-portal" for thread in threading.enumerate()) == 1


def test_nothing_begins_before_the_first_call(tmp_path: Path) -> None:
    before = threading.active_count()
    with_nothing = Portal(EddaApp(db_url=f"sqlite:///{tmp_path}/edda.db"))
    assert threading.active_count() == before
    with_nothing.close()
    assert list(tmp_path.iterdir()) == []


def test_after_close_a_call_begins_anew(portal: Portal) -> None:
    for n in range(2):
        assert portal.call(portal.start(doubling, n).result()) == n * 2
        portal.close()
        portal.close()
    assert not any(thread.name == "edda-portal" for thread in threading.enumerate())


async def test_a_call_from_an_event_loop_is_refused_with_what_to_do(portal: Portal) -> None:
    async def never() -> None:
        raise AssertionError

    with pytest.raises(WrongLoopError, match="use the app itself"):
        portal.call(never())
    with pytest.raises(WrongLoopError, match="use the app itself"):
        portal.close()
    gc.collect()  # no coroutine is left that was never awaited


def test_a_call_from_the_loop_of_the_portal_itself_is_refused(portal: Portal) -> None:
    async def inside() -> None:
        portal.cancel("x")

    with pytest.raises(WrongLoopError):
        portal.call(inside())


def test_a_call_that_takes_too_long_is_cancelled() -> None:
    portal = Portal(door_app())
    cancelled = threading.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(TimeoutError):
        portal.call(hang(), timeout_seconds=0.01)
    assert cancelled.wait(10)
    portal.close()


def test_closing_ends_calls_that_are_under_way() -> None:
    portal = Portal(door_app())
    waits, errors = threading.Event(), list[BaseException]()

    async def hang() -> None:
        waits.set()
        await asyncio.Event().wait()

    def work() -> None:
        try:
            portal.call(hang())
        except ShuttingDownError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    waits.wait(10)
    portal.close()
    thread.join(10)
    assert len(errors) == 1


def test_an_event_is_handed_in() -> None:
    app = door_app()
    portal = Portal(app)
    paid = CloudEvent(id="1", source="/shop", type="order.paid")
    assert [portal.send(paid), portal.send(paid)] == [Receipt.STORED, Receipt.DUPLICATE]
    portal.close()
    assert app.life[-1] == "shutdown"


FORKED = """
import os, sys
from edda import EddaApp, WorkflowContext, workflow
from edda.http import Portal

@workflow
async def answer(ctx: WorkflowContext) -> int:
    return 42

portal = Portal(EddaApp(db_url=sys.argv[1]))
if sys.argv[2] == "used":
    portal.call(portal.start(answer).result())
child = os.fork()
if child == 0:
    try:
        print("child:", portal.call(portal.start(answer).result(), timeout_seconds=20), flush=True)
    except Exception as error:
        print("child:", error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print("parent:", portal.call(portal.start(answer).result(), timeout_seconds=20), flush=True)
portal.close()
"""


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("used", "child"), [("unused", "child: 42"), ("used", "Initialise the app after the fork.")])
def test_a_portal_that_was_not_used_works_on_both_sides_of_a_fork(tmp_path: Path, used: str, child: str) -> None:
    command = [sys.executable, "-c", FORKED, f"sqlite:///{tmp_path}/edda.db", used]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert child in done.stdout
    assert "parent: 42" in done.stdout


# -- WSGI ------------------------------------------------------------------------------------------------------------


def door_app(**options: Any) -> Any:
    """A fake door and its HTTP application in one, as `EddaApp` is."""

    class DoorApp(FakeDoor):
        def __init__(self) -> None:
            super().__init__()
            self.running = {"order-1", "order-1/pay:1", "Grüße"}
            self._http = HttpApp(self, **options)

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self._http(scope, receive, send)

    return DoorApp()


@pytest.fixture
def door() -> Any:
    return door_app(options=HttpOptions(max_body_bytes=200_000))


def flask_app(door: Any) -> Iterator[Client]:
    flask = Flask(__name__)
    flask.add_url_rule("/", view_func=lambda: "flask")
    portal = Portal(door)
    flask.wsgi_app = DispatcherMiddleware(flask.wsgi_app, {"/workflows": portal})  # type: ignore[method-assign]
    yield Client(flask)
    portal.close()


def django_app(door: Any) -> Iterator[Client]:
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.urls import path

    if not settings.configured:
        settings.configure(
            ROOT_URLCONF=type("urls", (), {"urlpatterns": [path("", lambda _: HttpResponse("django"))]}),
            ALLOWED_HOSTS=["*"],
            SECRET_KEY="test",
            LOGGING_CONFIG=None,
        )
    portal = Portal(door)
    yield Client(portal.beside(get_wsgi_application(), "/workflows"))
    portal.close()


@pytest.fixture(params=[flask_app, django_app])
def client(request: pytest.FixtureRequest, door: Any) -> Iterator[Client]:
    yield from request.param(door)


def test_the_same_routes_are_served_beside_flask_and_django(client: Client, door: Any) -> None:
    assert client.get("/").text in ("flask", "django")
    assert client.get("/workflows/healthz").status_code == 200
    assert client.get("/workflows/readyz").status_code == 200
    assert client.head("/workflows/healthz").data == b""
    accepted = client.post("/workflows/any/path", json=event(), headers=STRUCTURED)
    assert (accepted.status_code, accepted.data) == (202, b'{"status": "accepted"}')
    assert list(door.stored) == [("/shop", "1")]
    refused = client.get("/workflows/any/path")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    assert client.get("/workflowsandmore").status_code == 404


@pytest.mark.parametrize("path", ["order-1", "order-1%2Fpay:1", "order-1/pay:1", "Gr%C3%BC%C3%9Fe"])
def test_a_cancel_finds_the_id_below_the_mount(client: Client, door: Any, path: str) -> None:
    assert client.post(f"/workflows/cancel/{path}").status_code == 202
    assert len(door.cancelled) == 1
    assert client.post("/workflows/cancel/nobody").status_code == 404


def test_a_large_body_is_read_in_pieces_up_to_the_limit(client: Client, door: Any) -> None:
    assert client.post("/workflows/", json=event(data="x" * 190_000), headers=STRUCTURED).status_code == 202
    too_large = client.post("/workflows/", json=event("2", data="x" * 200_000), headers=STRUCTURED)
    assert (too_large.status_code, too_large.json["error_type"]) == (413, "body_too_large")
    assert len(door.stored) == 1


def environ(method: str, path: str, body: object = b"", **more: Any) -> dict[str, Any]:
    stream = io.BytesIO(body) if isinstance(body, bytes) else body
    return {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.input": stream,
        "wsgi.url_scheme": "http",
        **more,
    }


def status_of(portal: Portal, environ: dict[str, Any]) -> int:
    statuses: list[str] = []
    portal(environ, lambda status, headers: statuses.append(status))
    return int(statuses[0].split()[0])


class Breaks:
    """A body whose client goes while it is read."""

    def __init__(self) -> None:
        self.reads = 0

    def read(self, size: int) -> bytes:
        self.reads += 1
        raise ConnectionResetError


def test_a_client_that_goes_in_the_middle_stores_nothing_and_holds_no_place(door: Any) -> None:
    with Portal(door) as portal:
        cloud = {"CONTENT_TYPE": "application/cloudevents+json", "CONTENT_LENGTH": "1000"}
        for body in (Breaks(), b'{"half": '):
            status_of(portal, environ("POST", "/", body, **cloud))
        assert door.stored == {}
        assert status_of(portal, environ("POST", "/cancel/order-1")) == 202


def test_a_body_is_not_touched_where_the_headers_are_enough_to_refuse_it() -> None:
    with Portal(door_app(authorizer=BearerToken("token-1"), options=HttpOptions(max_body_bytes=10))) as portal:
        body = Breaks()
        assert status_of(portal, environ("POST", "/", body, CONTENT_LENGTH="5")) == 401
        token = {"HTTP_AUTHORIZATION": "Bearer token-1"}
        assert status_of(portal, environ("POST", "/", body, CONTENT_LENGTH="11", **token)) == 413
        assert body.reads == 0


def test_a_body_without_a_length_is_read_where_the_server_ends_it(door: Any) -> None:
    import json

    body = json.dumps(event()).encode()
    cloud = {"CONTENT_TYPE": "application/cloudevents+json"}
    with Portal(door) as portal:
        assert status_of(portal, environ("POST", "/", body, **cloud)) == 400
        assert status_of(portal, environ("POST", "/", body, **cloud, **{"wsgi.input_terminated": True})) == 202


def test_headers_of_binary_mode_arrive_as_they_were_sent() -> None:
    scope = scope_of(environ("POST", "/a", HTTP_CE_ID="1", HTTP_CE_SOURCE="/ü", CONTENT_TYPE="text/plain"))
    assert (b"ce-id", b"1") in scope["headers"]
    assert (b"ce-source", b"/\xfc") in scope["headers"]
    assert (b"content-type", b"text/plain") in scope["headers"]


@pytest.mark.parametrize("prefix", ["", "/", "workflows", "/workflows/"])
def test_a_prefix_that_would_never_fit_is_refused(door: Any, prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix must begin"):
        Portal(door).beside(lambda environ, start_response: [], prefix)
