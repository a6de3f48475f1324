"""When something is stuck or fails, logs and `reason()` say what, of which instance, and what to do."""

import logging

import pytest

from edda import EddaApp, RetryPolicy, WorkflowContext, WorkflowHandle, activity, workflow
from edda.exceptions import SessionUnavailableError
from edda.workflow import Workflow
from tests.acceptance.conftest import Apps
from tests.acceptance.support import SOON, Attempts, Gate, eventually, on_every_database, reaches


async def test_each_failed_attempt_and_a_failed_end_are_logged(apps: Apps, caplog: pytest.LogCaptureFixture) -> None:
    @activity(retry_policy=RetryPolicy(initial_interval=0.01, max_attempts=2))
    async def divide(ctx: WorkflowContext) -> float:
        return 1 / 0

    @workflow
    async def order(ctx: WorkflowContext) -> float:
        return await divide(ctx)

    handle = await (await apps.open()).start(order)
    assert await reaches(handle, "failed") == "failed"
    assert f"divide:1 of {handle} failed in attempt 1, the next one follows in 0.0 s: ZeroDivisionError" in caplog.text
    line = f"({__file__}:{divide.function.__code__.co_firstlineno + 2})"
    assert f"divide:1 of {handle} failed for good: ZeroDivisionError: division by zero {line}" in caplog.text
    ends = [record for record in caplog.records if record.getMessage() == f"workflow instance {handle} ended as failed"]
    assert [(end.levelno, end.exc_info is not None) for end in ends] == [(logging.ERROR, True)]
    assert (await handle.reason()).startswith("RetryExhaustedError: Activity divide failed after 2 attempts")


class Speechless(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


async def test_an_error_whose_message_cannot_be_had_is_an_error_like_others(apps: Apps) -> None:
    attempts = 0

    @activity(retry_policy=RetryPolicy(initial_interval=0.01, max_attempts=2))
    async def stammer(ctx: WorkflowContext) -> None:
        nonlocal attempts
        attempts += 1
        raise Speechless

    @workflow
    async def speech(ctx: WorkflowContext) -> None:
        await stammer(ctx)

    handle = await (await apps.open()).start(speech)
    assert await reaches(handle, "failed") == "failed"
    assert attempts == 2
    said = "Activity stammer failed after 2 attempts: Speechless: <Speechless whose str() failed>"
    assert await handle.reason() == f"RetryExhaustedError: {said}"


@pytest.mark.parametrize("message", ["half a pair: \ud800", "NUL: \0"], ids=["surrogate", "nul"])
@on_every_database
async def test_a_message_that_no_database_could_hold_is_stored_as_far_as_it_can_be(apps: Apps, message: str) -> None:
    @activity(retry_policy=RetryPolicy(initial_interval=0.01, max_attempts=2))
    async def mumble(ctx: WorkflowContext) -> None:
        raise ValueError(message)

    @workflow
    async def lecture(ctx: WorkflowContext) -> None:
        await mumble(ctx)

    handle = await (await apps.open()).start(lecture)
    assert await reaches(handle, "failed") == "failed"
    assert (await handle.reason()).endswith(message.replace("\ud800", "\\ud800"))


@on_every_database
async def test_an_instance_waits_for_its_retry_whatever_the_failure_said(apps: Apps) -> None:
    attempts = Attempts()

    @activity(retry_policy=RetryPolicy(initial_interval=60))
    async def garble(ctx: WorkflowContext) -> None:
        attempts.begin()
        raise ValueError("NUL: \0,\nand a second line")

    @workflow
    async def dictation(ctx: WorkflowContext) -> None:
        await garble(ctx)

    handle = await (await apps.open()).start(dictation)
    said = "retry of garble:1 (attempt 1 failed: ValueError: NUL:  , and a second line)"
    assert await eventually(handle.reason) == said
    assert attempts.count == 1


async def test_what_others_say_is_one_line_of_a_log_and_not_a_long_one(
    apps: Apps, caplog: pytest.LogCaptureFixture
) -> None:
    @activity(retry_policy=RetryPolicy(max_attempts=1))
    async def quote(ctx: WorkflowContext) -> None:
        raise ValueError("it failed\nERROR:edda.engine:all is lost" + 100_000 * "!")

    @workflow
    async def quoting(ctx: WorkflowContext) -> None:
        await quote(ctx)

    handle = await (await apps.open()).start(quoting)
    assert await reaches(handle, "failed") == "failed"
    (line,) = [record.getMessage() for record in caplog.records if "failed for good" in record.getMessage()]
    assert "ValueError: it failed ERROR:edda.engine:all is lost!!!" in line
    assert "\n" not in line
    assert len(line) < 2_000


async def test_many_long_failures_are_no_burden_for_the_row_of_the_end(apps: Apps) -> None:
    attempts = Attempts()

    @activity(retry_policy=RetryPolicy(initial_interval=0.0001, max_interval=0.0001, max_attempts=None))
    async def complain(ctx: WorkflowContext) -> int:
        number = attempts.begin()
        if number <= 70:
            raise ValueError(f"{number} " + 10_000 * "\N{FACE WITH COLD SWEAT}")
        return number

    @workflow
    async def complaint(ctx: WorkflowContext) -> int:
        return await complain(ctx)

    handle = await (await apps.open()).start(complaint)
    assert await handle.result(timeout=SOON) == 71
    (end,) = [event for event in await handle.history() if "retry_metadata" in event.event_data]
    metadata = end.event_data["retry_metadata"]
    assert metadata["total_attempts"] == 71
    assert [error["attempt"] for error in metadata["errors"]] == [*range(1, 11), *range(31, 71)]
    assert metadata["errors_left_out"] == 20
    assert {len(error["message"]) for error in metadata["errors"]} == {2_001}


class Deaf(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("the log service is away")


async def test_a_log_handler_that_raises_harms_neither_instance_nor_worker(
    apps: Apps, capsys: pytest.CaptureFixture[str]
) -> None:
    @activity(retry_policy=RetryPolicy(initial_interval=0.01, max_attempts=2))
    async def stumble(ctx: WorkflowContext) -> None:
        raise ValueError("a stone")

    @workflow
    async def walk(ctx: WorkflowContext) -> None:
        await stumble(ctx)

    handler = Deaf()
    logging.getLogger("edda").addHandler(handler)
    try:
        app = await apps.open()
        for _ in range(3):
            assert await reaches(await app.start(walk), "failed") == "failed"
        assert app.store_in_use is not None
        workers = (await app.store_in_use.worker_views()).rows
    finally:
        logging.getLogger("edda").removeHandler(handler)
    assert len(workers) == 1  # none was replaced
    assert "the log service is away" in capsys.readouterr().err


async def test_the_reason_of_an_instance_that_waits_for_a_retry_tells_of_the_last_failure(apps: Apps) -> None:
    @activity(retry_policy=RetryPolicy(initial_interval=60))
    async def call(ctx: WorkflowContext) -> None:
        raise ConnectionError("the bank is away")

    @workflow
    async def order(ctx: WorkflowContext) -> None:
        await call(ctx)

    handle = await (await apps.open()).start(order)
    assert await eventually(handle.reason) == "retry of call:1 (attempt 1 failed: ConnectionError: the bank is away)"


@on_every_database
async def test_an_instance_that_workers_die_of_says_so_and_what_to_do(
    apps: Apps, caplog: pytest.LogCaptureFixture
) -> None:
    @workflow
    async def greedy(ctx: WorkflowContext) -> None:
        raise MemoryError

    handle = await (await apps.open(lease_seconds=1.5)).start(greedy)
    assert await reaches(handle, "quarantined") == "quarantined"
    reason = await handle.reason()
    assert reason.startswith("3 workers died one after the other while they ran it")
    assert "handle.retry()" in reason
    await eventually(
        lambda: f"workflow instance {handle} is set aside: {reason}" in caplog.text
    )  # told after the commit


async def _run_to_its_end(app: EddaApp, what: Workflow[[], str]) -> WorkflowHandle[str]:
    handle = await app.start(what)
    await handle.result(timeout=SOON)
    return handle


async def test_a_call_that_nobody_awaits_is_named(apps: Apps, caplog: pytest.LogCaptureFixture) -> None:
    @activity
    async def ship(ctx: WorkflowContext) -> None: ...

    @workflow
    async def order(ctx: WorkflowContext) -> str:
        ship(ctx)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
        return "done"

    app = await apps.open()
    with pytest.warns(RuntimeWarning, match="coroutine 'ship' was never awaited"):
        handle = await _run_to_its_end(app, order)
    assert f"workflow instance {handle} ended without an `await` of ship:1: nothing of that was done" in caplog.text


async def test_wrong_use_of_edda_in_an_activity_is_not_tried_again(apps: Apps) -> None:
    attempts = Attempts()

    @activity
    def book(ctx: WorkflowContext) -> None:
        attempts.begin()
        ctx.session.execute("select 1")

    @workflow
    async def order(ctx: WorkflowContext) -> None:
        await book(ctx)

    handle = await (await apps.open()).start(order)
    with pytest.raises(SessionUnavailableError, match="async def"):
        await handle.result(timeout=SOON)
    assert attempts.count == 1


async def test_an_input_that_does_not_fit_todays_code_says_what_to_do(apps: Apps) -> None:
    gate = Gate()

    @workflow(name="order")
    async def of_yesterday(ctx: WorkflowContext) -> None:
        await gate.pass_(ctx)

    app = await apps.open()
    handle = await app.start(of_yesterday)
    await gate.reached()
    await app.shutdown()

    @workflow(name="order")
    async def of_today(ctx: WorkflowContext, must: int) -> None: ...

    today = (await apps.open(workflows=[of_today])).handle(handle)
    assert await reaches(today, "quarantined") == "quarantined"
    reason = await today.reason()
    assert f"the stored input of workflow instance {handle} does not fit today's order()" in reason
    assert "must" in reason
    assert "handle.retry()" in reason


@activity(retry_policy=RetryPolicy(max_attempts=1))
def take_the_first(ctx: WorkflowContext, of: list[str]) -> str:
    return next(iter(of))


@activity(retry_policy=RetryPolicy(max_attempts=1))
async def take_the_first_in_another(ctx: WorkflowContext, of: list[str]) -> str:
    return await take_the_first(ctx, of)


@workflow
async def taking_the_first(ctx: WorkflowContext, within: bool, of: list[str]) -> str:
    return await (take_the_first_in_another if within else take_the_first)(ctx, of)


@pytest.mark.parametrize("within", [False, True], ids=["itself", "called by another"])
async def test_an_iterator_at_its_end_fails_an_activity_like_any_error(apps: Apps, within: bool) -> None:
    """No future takes a StopIteration: whoever waits for one would wait for ever."""
    app = await apps.open()
    assert await (await app.start(taking_the_first, within, ["a"])).result(timeout=SOON) == "a"
    handle = await app.start(taking_the_first, within, [])
    assert await reaches(handle, "failed") == "failed"
    assert "RuntimeError: take_the_first() raised StopIteration" in await handle.reason()
