"""Lines of the log: written once although the body replays, and each names its instance."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edda import EddaApp, RetryPolicy, WorkflowContext, activity, on_failure, wait_event, workflow
from edda.compensation import compensation
from edda.context import NewEvent
from edda.logger import FIELDS, InstanceFilter

plain = logging.getLogger("shop.orders")


@activity
async def logged_charge(ctx: WorkflowContext, amount: int) -> int:
    ctx.logger.info("charging %d", amount)
    plain.info("in the activity")
    return amount


@workflow
async def logged_order(ctx: WorkflowContext) -> str:
    ctx.logger.info("begun")
    plain.info("begun, too")
    await wait_event(ctx, "logged.approved")
    ctx.logger.info("approved")
    await logged_charge(ctx, 7)
    ctx.logger.info("charged", extra={"attempt": 9, "amount": 7})
    await wait_event(ctx, "logged.paid")
    ctx.logger.info("paid")
    return "done"


@compensation
async def logged_refund(ctx: WorkflowContext) -> None:
    ctx.logger.info("refunding")


@activity
@on_failure(logged_refund)
async def logged_step(ctx: WorkflowContext) -> None:
    pass


@activity(retry_policy=RetryPolicy(max_attempts=2, initial_interval=0.01))
async def logged_failure(ctx: WorkflowContext) -> None:
    ctx.logger.info("trying")
    raise ValueError("no")


@workflow
async def logged_saga(ctx: WorkflowContext) -> None:
    await logged_step(ctx)
    await logged_failure(ctx)


class Listener(logging.Handler):
    """Keeps what it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def listening(filter: logging.Filter) -> Iterator[list[logging.LogRecord]]:
    listener, root = Listener(), logging.getLogger()
    listener.addFilter(filter)
    level = root.level
    root.addHandler(listener)
    root.setLevel(logging.INFO)
    try:
        yield listener.records
    finally:
        root.removeHandler(listener)
        root.setLevel(level)


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    with listening(InstanceFilter()) as records:
        yield records


def said(records: list[logging.LogRecord], *loggers: str) -> list[str]:
    return [record.getMessage() for record in records if record.name in loggers]


async def run_the_order(path: Path) -> str:
    """No body stays in memory, so each event has it replay."""
    async with EddaApp(db_url=f"sqlite:///{path}", max_residents=0) as app:
        handle = await app.start(logged_order)
        for event, rows in (("logged.approved", 1), ("logged.paid", 3)):
            while len(await handle.history()) < rows or await handle.status() != "waiting_for_event":
                pass
            await app.send(NewEvent(type=event, source="test", data={}, target=handle.id))
        assert await handle.result(timeout=20) == "done"
        return handle.id


async def test_a_line_is_logged_once_however_often_the_body_replays(
    tmp_path: Path, records: list[logging.LogRecord]
) -> None:
    await run_the_order(tmp_path / "a.db")
    assert said(records, "edda.workflow", "edda.activity") == ["begun", "approved", "charging 7", "charged", "paid"]


async def test_the_filter_drops_replayed_lines_of_other_loggers(
    tmp_path: Path, records: list[logging.LogRecord]
) -> None:
    await run_the_order(tmp_path / "a.db")
    assert said(records, "shop.orders") == ["begun, too", "in the activity"]


async def test_without_dropping_the_filter_only_adds_fields(tmp_path: Path) -> None:
    with listening(InstanceFilter(drop_replayed=False)) as records:
        await run_the_order(tmp_path / "a.db")
    assert said(records, "shop.orders") == ["begun, too", "begun, too", "in the activity", "begun, too"]


async def test_every_line_has_the_fields_of_its_instance(tmp_path: Path, records: list[logging.LogRecord]) -> None:
    instance_id = await run_the_order(tmp_path / "a.db")
    lines = {record.getMessage(): record for record in records if record.name != "edda.engine"}
    for message in ("begun", "approved", "charging 7", "in the activity", "charged", "paid"):
        record = lines[message]
        assert record.instance_id == instance_id
        assert record.workflow == "logged_order"
        assert record.worker
    assert [lines[message].activity for message in ("begun", "charging 7", "in the activity")] == [
        "", "logged_charge:1", "logged_charge:1",
    ]  # fmt: skip
    assert lines["charging 7"].attempt == 1
    assert lines["begun"].claim < lines["approved"].claim < lines["paid"].claim


async def test_fields_that_are_given_win(tmp_path: Path, records: list[logging.LogRecord]) -> None:
    await run_the_order(tmp_path / "a.db")
    record = next(record for record in records if record.getMessage() == "charged")
    assert (record.attempt, record.amount) == (9, 7)


async def test_the_library_names_the_instance_in_its_own_lines(
    tmp_path: Path, records: list[logging.LogRecord]
) -> None:
    async with EddaApp(db_url=f"sqlite:///{tmp_path}/a.db") as app:
        handle = await app.start(logged_saga)
        with pytest.raises(Exception, match="logged_failure"):
            await handle.result(timeout=20)
    ours = [record for record in records if record.name == "edda.engine"]
    assert [record.instance_id for record in ours] == [handle.id] * len(ours)
    assert [(record.activity, record.attempt) for record in ours[:2]] == [
        ("logged_failure:1", 1),
        ("logged_failure:1", 2),
    ]
    attempts = [(record.getMessage(), record.attempt) for record in records if record.name == "edda.activity"]
    assert attempts == [("trying", 1), ("trying", 2), ("refunding", 1)]


def test_lines_about_no_instance_can_be_formatted_too() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(InstanceFilter())
    handler.setFormatter(logging.Formatter("|".join(f"%({name})s" for name in FIELDS) + " %(message)s"))
    record = logging.LogRecord("shop", logging.INFO, __file__, 1, "hello", (), None)
    handler.handle(record)
    assert stream.getvalue() == "|||0||0 hello\n"
