"""A real app on SQLite under other frameworks: at any prefix, with and without a lifespan."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import Depends, FastAPI, Request
from hypercorn.middleware import DispatcherMiddleware
from quart import Quart
from starlette.applications import Starlette
from starlette.routing import Mount, Router

from edda import EddaApp, WorkflowContext, wait_timer, workflow
from edda.http import BearerToken
from tests.http.support import STRUCTURED, event


@workflow
async def mounted_child(ctx: WorkflowContext) -> str:
    await wait_timer(ctx, duration_seconds=3600)
    return "done"


@workflow
async def mounted_parent(ctx: WorkflowContext) -> str:
    return await mounted_child.run()


@pytest.fixture
async def edda(tmp_path: Path) -> AsyncIterator[EddaApp]:
    app = EddaApp(db_url=f"sqlite:///{tmp_path}/edda.db", workflows=[mounted_child, mounted_parent])
    yield app
    await app.shutdown()


def fastapi(edda: EddaApp) -> Any:
    api = FastAPI()
    api.mount("/workflows", edda)
    return api


def fastapi_with_lifespan(edda: EddaApp) -> Any:
    api = FastAPI(lifespan=edda.lifespan)
    api.mount("/workflows", edda)
    return api


def starlette_nested(edda: EddaApp) -> Any:
    return Starlette(routes=[Mount("/api", Router([Mount("/v1", Router([Mount("/workflows", edda)]))]))])


def starlette_with_lifespan(edda: EddaApp) -> Any:
    return Starlette(routes=[Mount("/workflows", edda)], lifespan=edda.lifespan)


def fastapi_within_fastapi(edda: EddaApp) -> Any:
    inner = FastAPI()
    inner.mount("/workflows", edda)
    outer = FastAPI(lifespan=edda.lifespan)
    outer.mount("/cancel", inner)
    return outer


def quart_and_edda(edda: EddaApp) -> Any:
    return DispatcherMiddleware({"/workflows": edda, "": Quart(__name__)})


def quart_that_dispatches(edda: EddaApp) -> Any:
    """By its own `asgi_app`, as its documentation has middleware; it does not touch the path."""
    quart = Quart(__name__)
    inner = quart.asgi_app

    @quart.while_serving
    async def life() -> AsyncIterator[None]:
        async with edda.lifespan():
            yield

    async def dispatch(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/workflows/"):
            await edda({**scope, "root_path": "/workflows"}, receive, send)
        else:
            await inner(scope, receive, send)

    quart.asgi_app = dispatch  # type: ignore[method-assign]
    return quart


def cuts_the_prefix(edda: EddaApp) -> Any:
    """As dispatchers did before ASGI said what `path` is under a mount."""

    async def dispatch(scope: Any, receive: Any, send: Any) -> None:
        scope = {**scope, "root_path": "/workflows", "path": scope["path"].removeprefix("/workflows")}
        await edda(scope, receive, send)

    return dispatch


def bare(edda: EddaApp) -> Any:
    return edda


MOUNTS = [
    (bare, "", False),
    (bare, "", True),
    (fastapi, "/workflows", False),
    (fastapi_with_lifespan, "/workflows", True),
    (fastapi_with_lifespan, "/workflows", False),
    (starlette_nested, "/api/v1/workflows", False),
    (starlette_with_lifespan, "/workflows", True),
    (fastapi_within_fastapi, "/cancel/workflows", True),
    (quart_that_dispatches, "/workflows", True),
    (quart_and_edda, "/workflows", False),
    (cuts_the_prefix, "/workflows", False),
]


@asynccontextmanager
async def served(app: Any, *, lifespan: bool) -> AsyncIterator[httpx2.AsyncClient]:
    client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://testserver")
    async with client, lived(app) if lifespan else nothing():
        yield client


@asynccontextmanager
async def nothing() -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def lived(app: Any) -> AsyncIterator[None]:
    """Speaks the lifespan protocol, as a server does."""
    incoming: asyncio.Queue[str] = asyncio.Queue()
    outgoing: asyncio.Queue[str] = asyncio.Queue()

    async def receive() -> dict[str, str]:
        return {"type": await incoming.get()}

    async def send(message: dict[str, str]) -> None:
        outgoing.put_nowait(message["type"])

    task = asyncio.create_task(app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send))
    for step in ("startup", "shutdown"):
        incoming.put_nowait(f"lifespan.{step}")
        assert await outgoing.get() == f"lifespan.{step}.complete"
        if step == "startup":
            yield
    await task


@pytest.mark.parametrize(("make", "prefix", "lifespan"), MOUNTS)
async def test_W42_a_cancel_works_wherever_the_app_is_mounted(
    edda: EddaApp, make: Callable[[EddaApp], Any], prefix: str, lifespan: bool
) -> None:
    async with served(make(edda), lifespan=lifespan) as client:
        assert (await client.get(f"{prefix}/healthz")).status_code == 200
        assert (await client.get(f"{prefix}/readyz")).status_code == 200
        handle = await edda.start(mounted_parent)
        child = await eventually(lambda: child_of(edda, handle))
        response = await client.post(f"{prefix}/cancel/{child.replace('/', '%2F')}")
        assert (response.status_code, response.json()["instance_id"]) == (202, child)
        assert (await client.post(f"{prefix}/cancel/{handle}")).status_code in (202, 409)
        assert (await client.post(f"{prefix}/cancel/nobody")).status_code == 404
        assert (await client.post(f"{prefix}/any/path", headers=STRUCTURED, json={})).status_code == 400
        assert (await client.get(f"{prefix}/any/path")).status_code == 405
        if lifespan:
            assert edda.running
    assert edda.running is not lifespan


async def child_of(edda: EddaApp, instance_id: str) -> str | None:
    history = await edda.history_of(instance_id)
    call = next((entry for entry in history if "hild" in entry.event_type), None)
    return None if call is None else f"{instance_id}/mounted_child:1"


async def eventually(look: Callable[[], Awaitable[str | None]]) -> str:
    async with asyncio.timeout(10):
        while True:
            if (found := await look()) is not None:
                return found


async def test_the_app_is_in_the_state_of_every_request(edda: EddaApp) -> None:
    api = FastAPI(lifespan=edda.lifespan)

    def app_of(request: Request) -> EddaApp:
        return request.state.edda  # type: ignore[no-any-return]

    @api.get("/worker")
    def worker(app: EddaApp = Depends(app_of)) -> str:  # noqa: B008
        return app.worker_id

    from starlette.testclient import TestClient

    with TestClient(api) as client:
        assert client.get("/worker").json()


async def test_a_cancel_of_what_has_ended_is_a_conflict_and_needs_a_token_where_one_is_set(tmp_path: Path) -> None:
    edda = EddaApp(db_url=f"sqlite:///{tmp_path}/e.db", workflows=[mounted_child], authorizer=BearerToken("token-1"))
    token = {"authorization": "Bearer token-1"}
    async with served(edda, lifespan=True) as client:
        handle = await edda.start(mounted_child)
        assert (await client.post(f"/cancel/{handle}")).status_code == 401
        assert (await client.post(f"/cancel/{handle}", headers=token)).status_code == 202
        with pytest.raises(Exception, match="cancelled"):
            await handle.result(timeout=10)
        again = await client.post(f"/cancel/{handle}", headers=token)
        assert (again.status_code, again.json()["error_type"]) == (409, "not_cancellable")


async def test_an_app_whose_database_cannot_be_opened_lives_but_is_not_ready(tmp_path: Path) -> None:
    edda = EddaApp(db_url=f"sqlite:///{tmp_path}/no/such/directory/e.db")
    async with served(edda, lifespan=False) as client:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503
        response = await client.post("/", headers=STRUCTURED, json=event())
        assert response.status_code in (500, 503)
        assert str(tmp_path) not in response.text
