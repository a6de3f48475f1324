"""A real Prometheus scrapes a real app; each panel of the dashboard and each alert is asked of it. And promtool's word.

`prometheus` and `promtool` are one package of Debian, `prometheus`. Where they are missing these tests are skipped,
loudly; `EDDA_REQUIRE=prometheus` makes that an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from prometheus_client import CollectorRegistry

from edda import EddaApp, RetryPolicy, WorkflowContext, activity, send_event_transactional, wait_event, workflow
from edda.core.event import TARGET, CloudEvent
from edda.metrics import Metrics
from tests.outbox.web import web

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "edda-rules.yml"
DASHBOARD = json.loads((DEPLOY / "grafana" / "edda.json").read_text())
SECONDS_MAX = 60.0


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        if "prometheus" in os.environ.get("EDDA_REQUIRE", "").replace(" ", "").split(","):
            pytest.fail(f"EDDA_REQUIRE asks for prometheus, but there is no {name}")
        pytest.skip(f"there is no {name}: apt-get install prometheus")
    return found


def promtool(*arguments: str, said: str = "") -> None:
    done = subprocess.run(
        [tool("promtool"), *arguments], input=said, capture_output=True, text=True, check=False, cwd=RULES.parent
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.process
def test_the_rules_are_valid() -> None:
    promtool("check", "rules", RULES.name)


@pytest.mark.process
def test_each_alert_is_raised_when_it_should_be_and_only_then() -> None:
    promtool("test", "rules", "edda-rules.test.yml")


@pytest.mark.process
def test_a_rule_that_is_wrong_is_found_by_its_test(tmp_path: Path) -> None:
    for path in RULES.parent.iterdir():
        text = path.read_text().replace("edda_outbox_dead_messages) > 0", "edda_outbox_dead_messages) > 1")
        (tmp_path / path.name).write_text(text)
    done = subprocess.run(
        [tool("promtool"), "test", "rules", str(tmp_path / "edda-rules.test.yml")], capture_output=True, check=False
    )
    assert done.returncode != 0


# -- the dashboard -----------------------------------------------------------------------------------------------------


def panels() -> Iterator[dict[str, Any]]:
    yield from DASHBOARD["panels"]


def expressions() -> dict[str, str]:
    """By panel and letter, with the dashboard's variables filled in."""
    found: dict[str, str] = {}
    for panel in panels():
        for target in panel.get("targets", []):
            text = target["expr"].replace("$__rate_interval", "5s").replace("$job", ".*")
            assert "$" not in text, text
            found[f"{panel['title']} {target['refId']}"] = text
    return found


def test_each_panel_has_its_own_place_a_description_and_a_query() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"]
            assert panel["targets"]
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))


def test_panels_and_rules_name_only_metrics_that_exist() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    assert metrics.registry is registry
    known = {family.name for family in registry.collect()}
    text = RULES.read_text() + "".join(expressions().values())
    named = set(re.findall(r"\bedda_[a-z_]+", text)) - {"edda_rules"}
    assert {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in named} <= known


# -- a real server -----------------------------------------------------------------------------------------------------


@activity(retry_policy=RetryPolicy(max_attempts=2, initial_interval=0.01))
async def scraped_step(ctx: WorkflowContext, fail: bool) -> None:
    await send_event_transactional(ctx, "scraped.done", "test", {})
    if fail:
        raise ValueError


@workflow
async def scraped_order(ctx: WorkflowContext, fail: bool) -> None:
    await wait_event(ctx, "scraped.paid")
    await scraped_step(ctx, fail)


class Announced(uvicorn.Server):
    """Says when it is up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set_result(self.servers[0].sockets[0].getsockname()[1])


@contextlib.asynccontextmanager
async def served(application: Any) -> AsyncIterator[int]:
    """The port."""
    server = Announced(uvicorn.Config(application, port=0, lifespan="off", log_level="warning"))
    serving = asyncio.create_task(server.serve())
    try:
        yield await server.up
    finally:
        server.should_exit = True
        await serving


@contextlib.asynccontextmanager
async def prometheus(target: int, directory: Path) -> AsyncIterator[str]:
    """The URL of a server that scrapes this port all the time."""
    program = tool("prometheus")
    config = {
        "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "200ms"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "shop", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}],
    }
    (directory / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        program,
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


async def ask(client: httpx2.AsyncClient, path: str, **parameters: str) -> Any:
    """The data of its answer; None while it does not answer."""
    try:
        answer = await client.get(path, params=parameters)
    except httpx2.TransportError:
        return None
    if answer.status_code == 503:  # it begins
        return None
    assert answer.status_code == 200, (parameters, answer.text)
    return answer.json()["data"]


async def work(app: EddaApp) -> None:
    """All that is measured, over and over."""
    fail = False
    while True:
        fail = not fail
        handle = await app.start(scraped_order, fail)
        while await handle.status() != "waiting_for_event":
            pass
        paid = CloudEvent(id=handle.id, source="test", type="scraped.paid", json="{}", extensions={TARGET: handle.id})
        await app.accept([paid])
        with contextlib.suppress(Exception):
            await handle.result(timeout=20)


@pytest.mark.process
@pytest.mark.timeout(180)
async def test_each_panel_and_each_alert_gets_an_answer_from_a_real_prometheus(tmp_path: Path) -> None:
    metrics = Metrics(CollectorRegistry(), refresh_seconds=0.2)
    async with web() as sink:
        app = EddaApp(
            db_url=f"sqlite:///{tmp_path}/edda.db",
            metrics=metrics,
            outbox_enabled=True,
            broker_url=sink.url,
            max_residents=0,
        )
        async with app, served(metrics.asgi) as target, prometheus(target, tmp_path) as url:
            working = asyncio.create_task(work(app))
            try:
                async with httpx2.AsyncClient(base_url=url, trust_env=False) as client:
                    await answered(client, expressions())
                    await evaluated(client)
                    exposition = await client.get(f"http://127.0.0.1:{target}/metrics")
            finally:
                working.cancel()
                await asyncio.wait({working})
    promtool("check", "metrics", said=exposition.text)


async def answered(client: httpx2.AsyncClient, wanted: dict[str, str]) -> None:
    """Each query has a number that is one."""
    waiting = dict(wanted)
    try:
        async with asyncio.timeout(SECONDS_MAX):
            while waiting:
                for name, expression in list(waiting.items()):
                    data = await ask(client, "/api/v1/query", query=expression)
                    if data is not None and any(one["value"][1] != "NaN" for one in data["result"]):
                        del waiting[name]
    except TimeoutError:
        raise AssertionError(f"no answer to {waiting}") from None


async def evaluated(client: httpx2.AsyncClient) -> None:
    """Each rule was evaluated, without an error."""
    async with asyncio.timeout(SECONDS_MAX):
        while True:
            groups = (await ask(client, "/api/v1/rules"))["groups"]
            rules = [rule for group in groups for rule in group["rules"]]
            if rules and all(rule["health"] != "unknown" for rule in rules):
                break
    assert [rule for rule in rules if rule["health"] != "ok"] == []
    firing = {rule["name"] for rule in rules if rule["state"] == "firing"}
    assert firing <= {"EddaInstancesFail"}
