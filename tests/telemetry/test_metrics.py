"""What is counted, and that the number of series is bounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from edda import EddaApp, RetryPolicy, WorkflowContext, activity, send_event, wait_event, workflow
from edda.metrics import OTHER, Metrics
from tests.outbox.web import response, web


@activity(retry_policy=RetryPolicy(max_attempts=2, initial_interval=0.01))
async def counted_step(ctx: WorkflowContext, fail: bool) -> None:
    if fail:
        raise ValueError


@workflow
async def counted_order(ctx: WorkflowContext, fail: bool) -> None:
    await wait_event(ctx, "counted.paid")
    await counted_step(ctx, fail)


@workflow
async def counted_notice(ctx: WorkflowContext) -> None:
    await ctx.run("a", sum, [1])
    await ctx.run("b", sum, [1])
    await ctx.run("c", sum, [1])


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    return Metrics(CollectorRegistry(), refresh_seconds=0.01)


def value(metrics: Metrics, name: str, **labels: str) -> float:
    found = metrics.registry.get_sample_value(f"edda_{name}", labels)
    return 0.0 if found is None else found


def database(path: Path) -> str:
    return f"sqlite:///{path}/edda.db"


async def test_instances_slices_attempts_and_events_are_counted(tmp_path: Path, metrics: Metrics) -> None:
    async with EddaApp(db_url=database(tmp_path), metrics=metrics) as app:
        handles = [await app.start(counted_order, fail) for fail in (False, True)]
        for handle in handles:
            while await handle.status() != "waiting_for_event":
                pass
        assert value(metrics, "instances_started_total", workflow="counted_order") == 2
        while value(metrics, "slices_total", workflow="counted_order", outcome="parked") < 2:
            await app.check()
        assert value(metrics, "instances_resident") == 2
        assert value(metrics, "instances_running") == 0
        assert value(metrics, "workers") == 1
        assert 0 < value(metrics, "worker_lease_remaining_seconds") <= 30
        for handle in handles:
            await send_event("counted.paid", "test", {}, to=handle.id)
        await handles[0].result(timeout=20)
        with pytest.raises(Exception, match="counted_step"):
            await handles[1].result(timeout=20)
    for status in ("completed", "failed"):
        assert value(metrics, "instances_ended_total", workflow="counted_order", status=status) == 1
        assert value(metrics, "slices_total", workflow="counted_order", outcome=status) == 1
    assert value(metrics, "instance_duration_seconds_count", workflow="counted_order") == 2
    assert value(metrics, "activity_attempts_total", activity="counted_step", outcome="completed") == 1
    assert value(metrics, "activity_attempts_total", activity="counted_step", outcome="failed") == 2
    assert value(metrics, "activity_attempt_duration_seconds_count", activity="counted_step") == 3
    assert value(metrics, "events_accepted_total", receipt="stored") == 2
    assert value(metrics, "events_routed_total") == 2
    assert value(metrics, "claim_lag_seconds_count", workflow="counted_order") >= 2
    assert value(metrics, "commit_batch_commits_sum") >= 6
    assert value(metrics, "commit_batch_duration_seconds_count") == value(metrics, "commit_batch_commits_count")


async def test_an_instance_counts_as_started_once_however_often_it_replays(tmp_path: Path, metrics: Metrics) -> None:
    async with EddaApp(db_url=database(tmp_path), metrics=metrics, max_residents=0) as app:
        handle = await app.start(counted_order, False)
        while await handle.status() != "waiting_for_event":
            pass
        await send_event("counted.paid", "test", {}, to=handle.id)
        await handle.result(timeout=20)
    assert value(metrics, "instances_started_total", workflow="counted_order") == 1


async def test_deliveries_and_what_the_outbox_holds_are_seen(tmp_path: Path, metrics: Metrics) -> None:
    async with web() as sink:
        sink.answer = lambda *_: response(503)
        app = EddaApp(db_url=database(tmp_path), metrics=metrics, outbox_enabled=True, broker_url=sink.url)
        async with app:
            await send_event("counted.noted", "test", {})
            while not value(metrics, "outbox_pending_messages") or not value(
                metrics, "outbox_deliveries_total", outcome="retried"
            ):
                await app.check()
            assert value(metrics, "outbox_oldest_pending_age_seconds") > 0
            sink.answer = lambda *_: response(400)
            while not value(metrics, "outbox_dead_messages"):
                await app.check()
            assert value(metrics, "outbox_deliveries_total", outcome="rejected") == 1
            while value(metrics, "outbox_pending_messages"):
                await app.check()
            assert value(metrics, "outbox_oldest_pending_age_seconds") == 0


async def test_an_app_that_was_shut_down_is_not_seen_any_more(tmp_path: Path, metrics: Metrics) -> None:
    async with EddaApp(db_url=database(tmp_path), metrics=metrics):
        assert value(metrics, "workers") == 1
    assert value(metrics, "workers") == 0
    assert metrics.registry.get_sample_value("edda_outbox_pending_messages") is None
    async with EddaApp(db_url=database(tmp_path), metrics=metrics):
        assert value(metrics, "workers") == 1


async def test_names_beyond_the_limit_are_one_series(tmp_path: Path) -> None:
    metrics = Metrics(CollectorRegistry(), names_max=2)
    async with EddaApp(db_url=database(tmp_path), metrics=metrics) as app:
        await (await app.start(counted_notice)).result(timeout=20)
    counted = {name: value(metrics, "activity_attempts_total", activity=name, outcome="completed") for name in "abc"}
    assert counted == {"a": 1, "b": 1, "c": 0}
    assert value(metrics, "activity_attempts_total", activity=OTHER, outcome="completed") == 1


async def test_they_can_be_mounted_and_read_over_http(tmp_path: Path, metrics: Metrics) -> None:
    async with EddaApp(db_url=database(tmp_path), metrics=metrics) as app:
        await (await app.start(counted_notice)).result(timeout=20)
        routed = Starlette(routes=[Route("/metrics", metrics.asgi), Mount("/", app)])
        transport = httpx2.ASGITransport(app=routed)
        async with httpx2.AsyncClient(transport=transport, base_url="http://edda") as client:
            answer = await client.get("/metrics")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert families["edda_instances_started"].samples[0].value == 1
    assert all(family.documentation for name, family in families.items() if name.startswith("edda_"))
