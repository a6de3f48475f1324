"""Promises R100-R106 and R121-R125, faults W41-W43: what the README says of HTTP, on a real server and a real app."""

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI

from edda import EddaApp, WorkflowContext, wait_timer, workflow
from tests.acceptance.conftest import Apps
from tests.acceptance.support import SOON

CLOUD = {"content-type": "application/cloudevents+json"}

DEMO_APP = '''
import sys
from edda import EddaApp, WorkflowContext, wait_timer, workflow

@workflow
async def patience(ctx: WorkflowContext) -> None:
    await wait_timer(ctx, duration_seconds=3600)

edda = EddaApp(db_url="sqlite:///demo.db")

async def application(scope, receive, send):
    """Also starts an instance, so that there is one to cancel."""
    if scope["type"] == "http" and scope["path"] == "/cancel/demo":
        await patience.options(id="demo").start()
    await edda(scope, receive, send)
'''


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`uvicorn demo_app:application`, and where it listens."""
    (tmp_path / "demo_app.py").write_text(DEMO_APP)
    command = [sys.executable, "-m", "uvicorn", "demo_app:application", "--port", "0"]
    root = str(Path(__file__).parents[2])
    server = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env={"PYTHONPATH": f"{tmp_path}:{root}"}
    )
    assert server.stderr is not None
    try:
        for line in server.stderr:
            if found := re.search(r"running on (http://\S+)", line):
                yield server, found[1]
                break
        else:
            pytest.fail("uvicorn did not start")
    finally:
        server.kill()
        server.wait()
        server.stderr.close()


@workflow
async def kept_waiting(ctx: WorkflowContext) -> None:
    await wait_timer(ctx, duration_seconds=3600)


def client_of(app: EddaApp | FastAPI) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://edda")


@pytest.mark.process
def test_R121_uvicorn_serves_the_app_and_ends_it_in_order(demo: tuple[subprocess.Popen[str], str]) -> None:
    server, url = demo
    with httpx2.Client(base_url=url, timeout=SOON, trust_env=False) as client:
        assert client.get("/readyz").status_code == 200
        assert client.post("/cancel/demo").json() == {"status": "cancelling", "instance_id": "demo"}
    server.send_signal(signal.SIGTERM)
    assert server.wait(SOON) in (0, -signal.SIGTERM)
    assert server.stderr is not None
    rest = server.stderr.read()
    assert "shutdown complete" in rest
    assert "Traceback" not in rest


async def test_R100_a_post_to_cancel_cancels_the_workflow(apps: Apps) -> None:
    app = await apps.open()
    handle = await app.start(kept_waiting)
    async with client_of(app) as client:
        assert (await client.post(f"/cancel/{handle}")).status_code == 202
    with pytest.raises(Exception, match="was cancelled"):
        await handle.result(timeout=SOON)


async def test_R104_what_is_no_cloudevent_is_400_and_not_to_be_retried(apps: Apps) -> None:
    async with client_of(await apps.open()) as client:
        for content, headers in ((b"{}", CLOUD), (b"{", CLOUD), (b"", {}), (b"x", {"ce-id": "1"})):
            response = await client.post("/", content=content, headers=headers)
            assert response.status_code == 400
            assert response.json()["retryable"] is False


@pytest.mark.parametrize(("method", "path"), [("POST", "/"), ("POST", "/cancel/nobody"), ("GET", "/"), ("PUT", "/x")])
async def test_R106_W043_every_error_says_its_type_and_whether_to_retry(apps: Apps, method: str, path: str) -> None:
    async with client_of(await apps.open()) as client:
        response = await client.request(method, path)
        assert response.status_code in (400, 404, 405)
        assert {"error", "error_type", "retryable"} <= response.json().keys()


async def test_R122_R124_W042_mounted_in_fastapi_it_takes_events_and_cancels(apps: Apps) -> None:
    app = await apps.open()
    api = FastAPI()
    api.mount("/workflows", app)
    handle = await app.start(kept_waiting)
    async with client_of(api) as client:
        assert (await client.post("/workflows/any-path", content=b"{}", headers=CLOUD)).status_code == 400
        assert (await client.post(f"/workflows/cancel/{handle}")).status_code == 202
        assert (await client.post("/workflows/cancel/nobody")).status_code == 404


async def test_R125_a_mount_that_gets_no_lifespan_begins_with_the_first_request(db_url: str) -> None:
    app = EddaApp(db_url=db_url)
    api = FastAPI()
    api.mount("/workflows", app)
    async with client_of(api) as client:
        responses = await asyncio.gather(*(client.post("/workflows/cancel/nobody") for _ in range(10)))
        assert {response.status_code for response in responses} == {404}
    assert app.running
    await app.shutdown()


async def test_W041_an_error_inside_is_not_shown_to_the_client(apps: Apps, caplog: pytest.LogCaptureFixture) -> None:
    app = await apps.open()

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("password=hunter2")

    app.cancel = broken  # type: ignore[method-assign]
    async with client_of(app) as client:
        response = await client.post("/cancel/x")
    assert (response.status_code, response.json()["retryable"]) == (500, True)
    assert "hunter2" not in response.text
    assert response.json()["error_id"] in caplog.text
