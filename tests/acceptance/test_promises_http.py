"""Promises R97-R106 and R121-R125, faults W41-W43: what the README says of HTTP, on a real server and a real app."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from fastapi import FastAPI

from edda import EddaApp, WorkflowContext, wait_event, wait_timer, workflow
from edda.http import BearerToken
from tests.acceptance.conftest import Apps
from tests.acceptance.support import SOON, Tables, eventually, on_every_database, reaches

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


@workflow
async def awaiting_over_http(ctx: WorkflowContext, order_id: str) -> object:
    event = await wait_event(ctx, "order.paid", match={"order_id": order_id})
    return event.data


def paid(id: str, **attributes: object) -> dict[str, object]:
    return {"specversion": "1.0", "id": id, "source": "/shop", "type": "order.paid", **attributes}


@on_every_database
@pytest.mark.parametrize("path", ["/", "/any/path"])
async def test_R097_R098_R103_an_event_on_any_path_is_stored_and_reaches_who_waits(apps: Apps, path: str) -> None:
    app = await apps.open()
    handle = await app.start(awaiting_over_http, order_id="7")
    async with client_of(app) as client:
        for id, order in (("1", "6"), ("2", "7")):
            response = await client.post(path, json=paid(id, data={"order_id": order}), headers=CLOUD)
            assert (response.status_code, response.content) == (202, b'{"status": "accepted"}')
    assert await handle.result(timeout=SOON) == {"order_id": "7"}


async def test_R099_an_event_for_nobody_is_accepted_and_discarded_without_a_word(
    apps: Apps, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    app = await apps.open()
    async with client_of(app) as client:
        assert (await client.post("/", json=paid("1", type="nobody.waits"), headers=CLOUD)).status_code == 202
    await eventually(lambda: _is_routed(tables))
    assert await tables.count("edda_instance") == 0
    assert [record for record in caplog.records if record.levelname not in ("DEBUG", "INFO")] == []


async def _is_routed(tables: Tables) -> bool:
    """The database has an open question about no event: nobody will look at it again."""
    return {bool(row[0]) for row in await tables.rows("SELECT routed FROM edda_inbox")} == {True}


@pytest.mark.parametrize(
    "wrong",
    [
        {"specversion": "0.3"},
        {"source": ""},
        {"type": ""},
        {"id": ""},
        {"time": "yesterday"},
        {"Upper": "x"},
        {"x": {}},
    ],
)
async def test_R101_every_attribute_is_validated_and_nothing_wrong_is_stored(
    apps: Apps, tables: Tables, wrong: dict[str, object]
) -> None:
    app = await apps.open()
    async with client_of(app) as client:
        response = await client.post("/", json=paid("1") | wrong, headers=CLOUD)
        assert (response.status_code, response.json()["retryable"]) == (400, False)
        assert await tables.count("edda_inbox") == 0
        assert (await client.post("/", json=paid("1"), headers=CLOUD)).status_code == 202
    assert await tables.count("edda_inbox") == 1


@on_every_database
async def test_R102_W25_the_same_event_in_every_mode_is_one_row(apps: Apps, tables: Tables) -> None:
    event = paid("1", data={"order_id": "7", "amount": 1.10}, subject="Grüße", time="2026-01-01T00:00:00Z", tenant=7)
    binary = {f"ce-{name}": str(value) for name, value in event.items() if name != "data"}
    binary |= {"ce-subject": "Gr%C3%BC%C3%9Fe", "content-type": "application/json"}
    stored: list[tuple[object, ...]] = []
    select = "SELECT id, source, type, subject, time, datacontenttype, data, extensions FROM edda_inbox"
    app = await apps.open()
    async with client_of(app) as client:
        for _ in range(2):
            for response in (
                await client.post("/", json=event, headers=CLOUD),
                await client.post("/", json=event["data"], headers=binary),
                await client.post(
                    "/", json=[event, event], headers={"content-type": "application/cloudevents-batch+json"}
                ),
            ):
                assert response.status_code == 202
                stored += await tables.rows(select)
    assert len(stored) == 6
    assert len(set(stored)) == 1


@on_every_database
async def test_whatever_the_parser_takes_the_database_takes(apps: Apps) -> None:
    """Attributes at their limits, in characters of four bytes, with what is special to a database."""
    long = "\U0001f600" * 255
    app = await apps.open()
    async with client_of(app) as client:
        for event in (
            paid("1", type="t" * 256),
            paid("1", eddainstanceid="x" * 300),
            paid("1", eddainstanceid="a\x00b"),
            paid(long, source="/" + "s" * 1023, type=long, subject="'; DROP TABLE edda_inbox; --"),
            paid("2", subject="\U0001f600" * 256, data="\x00\u2028\\", dataschema="urn:" + "x" * 1020),
            paid("3", datacontenttype="text/plain", data="x" * 900_000),
            paid("4", **{f"extension{n}": "x" * 1024 for n in range(20)}),
            paid("5", data_base64="AAECAw==", datacontenttype="application/octet-stream"),
        ):
            response = await client.post("/", json=event, headers=CLOUD)
            assert response.status_code in (202, 400, 404, 413), response.text
            assert (await client.post("/", json=paid("z"), headers=CLOUD)).status_code == 202


@on_every_database
async def test_an_addressed_event_is_404_for_nobody_and_410_for_who_has_ended(apps: Apps) -> None:
    @workflow
    async def ends_at_once(ctx: WorkflowContext) -> None: ...

    app = await apps.open()
    ended, running = await app.start(ends_at_once), await app.start(kept_waiting)
    await ended.result(timeout=SOON)
    batch = [paid(str(n), eddainstanceid=target) for n, target in enumerate(("nobody", str(ended), str(running)))]
    async with client_of(app) as client:
        response = await client.post("/", json=batch, headers={"content-type": "application/cloudevents-batch+json"})
        assert response.status_code == 207
        assert [entry["status"] for entry in response.json()["events"]] == [404, 410, 202]
        assert (await client.post("/", json=batch[0], headers=CLOUD)).status_code == 404
        assert (await client.post("/", json=batch[1], headers=CLOUD)).status_code == 410


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


@on_every_database
async def test_R105_what_is_broken_here_is_5xx_to_be_retried_and_says_nothing_of_the_inside(
    apps: Apps, tables: Tables
) -> None:
    app = await apps.open()
    handle = await app.start(awaiting_over_http, order_id="7")
    async with client_of(app) as client:
        await tables.do("ALTER TABLE edda_inbox RENAME TO gone")
        response = await client.post("/", json=paid("1", data={"order_id": "7"}), headers=CLOUD)
        assert response.status_code in (500, 503)
        assert (response.json()["retryable"], "gone" in response.text, "edda_inbox" in response.text) == (
            True,
            False,
            False,
        )
        await tables.do("ALTER TABLE gone RENAME TO edda_inbox")
        assert (
            await client.post("/", json=paid("1", data={"order_id": "7"}), headers=CLOUD)
        ).status_code == 202  # the sender tried again
    assert await handle.result(timeout=SOON) == {"order_id": "7"}


@pytest.mark.parametrize(("method", "path"), [("POST", "/"), ("POST", "/cancel/nobody"), ("GET", "/"), ("PUT", "/x")])
async def test_R106_W43_every_error_says_its_type_and_whether_to_retry(apps: Apps, method: str, path: str) -> None:
    async with client_of(await apps.open()) as client:
        response = await client.request(method, path)
        assert response.status_code in (400, 404, 405)
        assert {"error", "error_type", "retryable"} <= response.json().keys()


def test_R107_workflows_need_no_events_and_load_nothing_of_them(db_url: str) -> None:
    code = f"""
import asyncio, sys
from edda import EddaApp, WorkflowContext, workflow

@workflow
async def plain(ctx: WorkflowContext) -> str:
    return "done"

async def main() -> None:
    async with EddaApp(db_url={db_url!r}) as app:
        assert await (await app.start(plain)).result(timeout=15) == "done"

asyncio.run(main())
loaded = [name for name in sys.modules if name.startswith(("edda.http", "edda.cloudevents", "edda.outbox.sinks."))]
assert not {{"edda.http", "edda.cloudevents", "httpx2", "aiohttp"}} & set(loaded), loaded
"""
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True, timeout=60)


@on_every_database
async def test_R123_below_a_mount_events_on_any_path_reach_who_waits(apps: Apps) -> None:
    app = await apps.open()
    api = FastAPI()
    api.mount("/workflows", app)
    handle = await app.start(awaiting_over_http, order_id="7")
    async with client_of(api) as client:
        event = paid("1", data={"order_id": "7", "amount": 5})
        assert (await client.post("/any-path", json=event, headers=CLOUD)).status_code == 404  # FastAPI's own
        assert (await client.post("/workflows/any-path", json=event, headers=CLOUD)).status_code == 202
    assert await handle.result(timeout=SOON) == {"order_id": "7", "amount": 5}


async def test_R122_R124_W42_mounted_in_fastapi_it_takes_events_and_cancels(apps: Apps) -> None:
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


async def test_W41_an_error_inside_is_not_shown_to_the_client(apps: Apps, caplog: pytest.LogCaptureFixture) -> None:
    app = await apps.open()

    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("password=hunter2")

    app.cancel = broken  # type: ignore[method-assign]
    async with client_of(app) as client:
        response = await client.post("/cancel/x")
    assert (response.status_code, response.json()["retryable"]) == (500, True)
    assert "hunter2" not in response.text
    assert response.json()["error_id"] in caplog.text


async def test_W41_who_has_no_token_neither_sends_nor_cancels(apps: Apps, tables: Tables) -> None:
    app = await apps.open(authorizer=BearerToken("a-token-for-this-test-only"))
    handle = await app.start(kept_waiting)
    async with client_of(app) as client:
        for headers in ({}, {"authorization": "Bearer of-nothing"}):
            assert (await client.post(f"/cancel/{handle}", headers=headers)).status_code == 401
            assert (await client.post("/", json=paid("1"), headers=CLOUD | headers)).status_code == 401
        assert await tables.count("edda_inbox") == 0
        assert await handle.status() in ("running", "waiting_for_timer")
        token = {"authorization": "Bearer a-token-for-this-test-only"}
        assert (await client.post(f"/cancel/{handle}", headers=token)).status_code == 202
    assert await reaches(handle, "cancelled") == "cancelled"


async def test_W41_a_body_has_a_limit_and_a_get_is_no_event(apps: Apps, tables: Tables) -> None:
    headers = {f"ce-{name}": str(value) for name, value in paid("1").items()} | {"content-type": "text/plain"}
    async with client_of(await apps.open()) as client:
        assert (await client.post("/", content=b"x" * (2 << 20), headers=headers)).status_code == 413
        assert (await client.get("/", headers=headers)).status_code == 405
    assert await tables.count("edda_inbox") == 0


@pytest.mark.process
def test_W40_a_client_that_goes_in_the_middle_of_its_body_freezes_nothing(
    demo: tuple[subprocess.Popen[str], str],
) -> None:
    """On uvicorn, with a workflow that has to go on meanwhile."""
    _, url = demo
    address = urlsplit(url)
    for _ in range(5):
        with socket.create_connection((address.hostname, address.port), timeout=SOON) as client:
            client.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nhalf")
    with httpx2.Client(base_url=url, timeout=SOON, trust_env=False) as sender:
        assert sender.post("/", json=paid("1"), headers=CLOUD).status_code == 202
        assert sender.post("/cancel/demo").status_code == 202
