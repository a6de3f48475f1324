"""`app.instances(...)`: users list what they started."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edda import EddaApp, InstanceEntry, WorkflowContext, wait_event, workflow


@workflow
async def listed(ctx: WorkflowContext, order_id: str) -> str:
    if order_id == "bad":
        raise ValueError(order_id)
    if order_id == "waits":
        await wait_event(ctx, "never", match={"order_id": order_id})
    return order_id


@pytest.fixture
def app(tmp_path: Path) -> EddaApp:
    return EddaApp("test", db_url=f"sqlite:///{tmp_path / 'edda.db'}", workflows=[listed])


async def test_instances_are_listed_newest_first_and_by_what_they_are(app: EddaApp) -> None:
    async with app:
        for order_id in ("a", "b", "bad"):
            handle = await app.start(listed.options(id=f"o-{order_id}"), order_id=order_id)
            try:
                await handle.result()
            except ValueError:
                assert order_id == "bad"

        async def ids(**which: object) -> list[str]:
            return [entry.id async for entry in app.instances(**which)]  # type: ignore[arg-type]

        assert await ids() == ["o-bad", "o-b", "o-a"]
        assert await ids(limit=2) == ["o-bad", "o-b"]
        assert await ids(status="failed") == ["o-bad"]
        assert await ids(status=["completed", "failed"], workflow="listed") == ["o-bad", "o-b", "o-a"]
        assert await ids(argument=("order_id", "b")) == ["o-b"]
        assert await ids(id_prefix="o-b") == ["o-bad", "o-b"]
        assert await ids(started_since=datetime.now(UTC) + timedelta(hours=1)) == []
        (entry,) = [entry async for entry in app.instances(id_prefix="o-a")]
        assert isinstance(entry, InstanceEntry)
        assert (entry.workflow, entry.status, entry.parent_id) == ("listed", "completed", None)
        assert entry.created_at.tzinfo is UTC
        with pytest.raises(ValueError, match="finished"):
            await ids(status="finished")


async def test_what_has_ended_is_forgotten_after_the_retention_time(tmp_path: Path) -> None:
    app = EddaApp("t", db_url=f"sqlite:///{tmp_path / 'e.db'}", workflows=[listed], retention_seconds=1e-6)
    async with app:
        waiting = await app.start(listed, order_id="waits")
        await (await app.start(listed, order_id="a")).result()
        engine = await app._ready()
        assert engine._retention is not None
        await engine._retention.round()
        assert [entry.id async for entry in app.instances()] == [waiting]
