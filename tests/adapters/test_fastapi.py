"""edda in FastAPI: dependencies, errors, and a lifespan beside another."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request, WebSocket
from starlette.testclient import TestClient

from edda import EddaApp, WorkflowContext, wait_timer, workflow
from edda.adapters.fastapi import Edda, Instance, setup


@workflow(name="fastapi.nap")
async def nap(ctx: WorkflowContext, seconds: float) -> str:
    await wait_timer(ctx, seconds)
    return "awake"


LIFE: list[str] = []


@asynccontextmanager
async def own_lifespan(api: FastAPI) -> AsyncIterator[dict[str, Any]]:
    LIFE.append("begun")
    yield {"own": "state"}
    LIFE.append("ended")


def make_api(app: EddaApp) -> FastAPI:
    api = FastAPI(lifespan=own_lifespan)
    setup(api, app)

    @api.put("/naps/{instance_id}", status_code=202)
    async def start(instance_id: str, seconds: float, edda: Edda) -> str:
        return await edda.start(nap.options(id=instance_id), seconds)

    @api.get("/naps/{instance_id}")
    async def look(instance: Instance) -> dict[str, str]:
        return {"id": instance.id, "status": await instance.status()}

    @api.get("/naps/{instance_id}/result")
    async def result(instance: Instance) -> Any:
        return await instance.result(timeout=20)

    @api.delete("/naps/{instance_id}", status_code=202)
    async def cancel(instance: Instance) -> None:
        await instance.cancel()

    @api.post("/naps/{instance_id}/retry")
    async def retry(instance: Instance) -> None:
        await instance.retry()

    @api.get("/own")
    async def own(request: Request) -> str:
        return str(request.state.own)

    @api.websocket("/socket")
    async def socket(socket: WebSocket, edda: Edda) -> None:
        await socket.accept()
        await socket.send_text(edda.worker_id)
        await socket.close()

    return api


@pytest.fixture
def app(tmp_path: Path) -> EddaApp:
    return EddaApp(db_url=f"sqlite:///{tmp_path}/edda.db", workflows=[nap])


@pytest.fixture
def client(app: EddaApp) -> Iterator[TestClient]:
    LIFE.clear()
    with TestClient(make_api(app)) as client:
        yield client


def test_an_endpoint_starts_a_workflow_and_gives_its_result(client: TestClient) -> None:
    assert client.put("/naps/one?seconds=0.01").json() == "one"
    assert client.get("/naps/one/result").json() == "awake"
    assert client.get("/naps/one").json() == {"id": "one", "status": "completed"}


def test_an_instance_that_is_not_there_is_a_404_with_the_body_of_edda(client: TestClient) -> None:
    answer = client.get("/naps/nobody")
    assert answer.status_code == 404
    assert answer.json()["error_type"] == "instance_not_found"


def test_what_cannot_be_done_is_a_conflict(client: TestClient) -> None:
    client.put("/naps/long?seconds=3600")
    other = client.put("/naps/long?seconds=1")
    assert (other.status_code, other.json()["error_type"]) == (409, "conflict")
    assert client.post("/naps/long/retry").status_code == 409
    assert client.delete("/naps/long").status_code == 202
    client.put("/naps/short?seconds=0")
    client.get("/naps/short/result")
    assert (client.delete("/naps/short").status_code, client.delete("/naps/short").json()["error_type"]) == (
        409,
        "not_cancellable",
    )


def test_the_lifespan_that_was_there_goes_on_being_there(client: TestClient) -> None:
    assert client.get("/own").json() == "state"
    assert LIFE == ["begun"]


def test_the_app_ends_with_the_api(app: EddaApp) -> None:
    with TestClient(make_api(app)):
        assert app.running
    assert not app.running


def test_a_websocket_has_the_app_too(client: TestClient) -> None:
    with client.websocket_connect("/socket") as socket:
        assert socket.receive_text()


def test_without_setup_the_dependency_says_what_is_missing() -> None:
    api = FastAPI()

    @api.get("/")
    async def look(edda: Edda) -> None: ...

    with TestClient(api) as client, pytest.raises(RuntimeError, match=r"setup\(api, app\)"):
        client.get("/")


def test_without_fastapi_the_extra_is_named() -> None:
    program = "import sys; sys.modules['fastapi'] = None; import edda.adapters.fastapi"
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "pip install 'edda-framework[fastapi]'" in outcome.stderr
