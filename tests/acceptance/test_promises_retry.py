"""Promises R55-R69: retries. Of n attempts there are n - 1 delays, so five attempts wait 1, 2, 4 and 8 seconds."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from edda import RetryExhaustedError, RetryPolicy, TerminalError, WorkflowContext, activity, workflow
from edda.retry import DEFAULT_RETRY_POLICY
from tests.acceptance.conftest import Apps
from tests.acceptance.support import QUICK, SOON, Attempts, Gate, events_of, eventually


class Unlucky(Exception):
    """What an outside system may answer."""


def failing(attempts: Attempts, *, times: int = 1000, error: type[Exception] = Unlucky, **options: Any) -> Any:
    """A workflow of one activity, `flaky`, that fails so many times and then returns the number of its attempts."""

    @activity(**options)
    async def flaky(ctx: WorkflowContext) -> int:
        number = attempts.begin()
        if number <= times:
            raise error(f"attempt {number}")
        return number

    @workflow
    async def trying(ctx: WorkflowContext) -> int:
        return await flaky(ctx)

    return trying


@pytest.mark.parametrize("error", [Unlucky, ValueError, OSError, AssertionError, TimeoutError, KeyError])
async def test_R055_any_exception_is_retried_without_code_for_it(apps: Apps, error: type[Exception]) -> None:
    attempts = Attempts()
    handle = await (await apps.open(default_retry_policy=QUICK)).start(failing(attempts, times=2, error=error))
    assert await handle.result(timeout=SOON) == 3
    assert len(await events_of(handle, "ActivityAttemptFailed")) == 2


async def test_R055_the_delays_grow_exponentially_and_are_never_shorter(apps: Apps) -> None:
    attempts, policy = Attempts(), RetryPolicy(initial_interval=0.1)
    handle = await (await apps.open(default_retry_policy=policy)).start(failing(attempts, times=3))
    assert await handle.result(timeout=SOON) == 4
    first, second, third = attempts.gaps
    assert first >= 0.1
    assert second >= 0.2
    assert third >= 0.4
    assert attempts.times[-1] - attempts.times[0] < 3


async def test_R056_five_attempts_are_made_and_the_first_one_counts(apps: Apps) -> None:
    attempts = Attempts()
    handle = await (await apps.open(default_retry_policy=QUICK)).start(failing(attempts))
    with pytest.raises(RetryExhaustedError):
        await handle.result(timeout=SOON)
    assert attempts.count == 5
    assert RetryPolicy().max_attempts == DEFAULT_RETRY_POLICY.max_attempts == 5


async def test_R057_by_default_the_first_delay_is_a_second_and_each_is_twice_the_one_before(apps: Apps) -> None:
    attempts = Attempts()
    handle = await (await apps.open()).start(failing(attempts, times=1))
    assert await handle.result(timeout=SOON) == 2
    assert 1.0 <= attempts.gaps[0] < 3
    assert [RetryPolicy().calculate_delay(number) for number in (1, 2, 3, 4)] == [1, 2, 4, 8]


async def test_R058_five_attempts_have_four_delays(apps: Apps) -> None:
    attempts = Attempts()
    handle = await (await apps.open(default_retry_policy=QUICK)).start(failing(attempts, times=4))
    assert await handle.result(timeout=SOON) == 5
    assert len(attempts.gaps) == 4
    (event,) = await events_of(handle, "ActivityCompleted")
    assert [error["attempt"] for error in event.event_data["retry_metadata"]["errors"]] == [1, 2, 3, 4]


async def test_R059_no_delay_is_longer_than_the_cap_of_a_minute(apps: Apps) -> None:
    attempts = Attempts()
    policy = RetryPolicy(initial_interval=0.01, backoff_coefficient=1000, max_interval=0.05)
    handle = await (await apps.open(default_retry_policy=policy)).start(failing(attempts, times=4))
    assert await handle.result(timeout=SOON) == 5
    assert all(gap >= 0.05 for gap in attempts.gaps[1:])
    assert RetryPolicy().max_interval == 60
    assert RetryPolicy().calculate_delay(30) == 60


async def test_R060_attempts_and_delays_together_end_after_five_minutes(apps: Apps) -> None:
    attempts = Attempts()
    policy = RetryPolicy(initial_interval=0.05, backoff_coefficient=1, max_attempts=None, max_duration=0.3)
    handle = await (await apps.open(default_retry_policy=policy)).start(failing(attempts))
    with pytest.raises(RetryExhaustedError):
        await handle.result(timeout=SOON)
    assert 0.2 <= attempts.times[-1] - attempts.times[0] < 2
    assert 2 <= attempts.count <= 8
    assert RetryPolicy().max_duration == 300


SAMPLE_POLICY = RetryPolicy(
    max_attempts=3, initial_interval=0.5, backoff_coefficient=2.0, max_interval=10.0, max_duration=60.0
)


async def test_R061_an_activity_may_have_a_policy_of_its_own(apps: Apps) -> None:
    attempts = Attempts()
    handle = await (await apps.open()).start(failing(attempts, times=1, retry_policy=SAMPLE_POLICY))
    assert await handle.result(timeout=SOON) == 2
    assert 0.5 <= attempts.gaps[0] < 1
    assert len(await events_of(handle, "ActivityAttemptFailed")) == 1


async def test_R062_that_policy_makes_three_attempts_after_half_a_second_and_a_second(apps: Apps) -> None:
    attempts = Attempts()
    handle = await (await apps.open()).start(failing(attempts, retry_policy=SAMPLE_POLICY))
    with pytest.raises(RetryExhaustedError):
        await handle.result(timeout=SOON)
    first, second = attempts.gaps
    assert 0.5 <= first < 1
    assert 1.0 <= second < 2


async def test_R063_the_app_has_a_default_policy_whose_other_fields_keep_their_defaults(apps: Apps) -> None:
    attempts, policy = Attempts(), RetryPolicy(max_attempts=10, initial_interval=2.0)
    assert (policy.backoff_coefficient, policy.max_interval, policy.max_duration) == (2.0, 60.0, 300.0)
    hurried = replace(policy, initial_interval=0.001)
    handle = await (await apps.open(default_retry_policy=hurried)).start(failing(attempts))
    with pytest.raises(RetryExhaustedError):
        await handle.result(timeout=SOON)
    assert attempts.count == 10


async def test_R064_a_terminal_error_fails_the_activity_at_once(apps: Apps) -> None:
    attempts = Attempts()
    handle = await (await apps.open()).start(failing(attempts, error=TerminalError))
    with pytest.raises(TerminalError, match="attempt 1"):
        await handle.result(timeout=SOON)
    assert attempts.count == 1
    assert await handle.status() == "failed"
    assert len(await events_of(handle, "ActivityFailed", "flaky:1")) == 1


async def test_R065_what_was_retried_is_in_the_history_by_itself(apps: Apps) -> None:
    app = await apps.open(default_retry_policy=QUICK)
    handle = await app.start(failing(Attempts(), times=2))
    await handle.result(timeout=SOON)
    (event,) = await events_of(handle, "ActivityCompleted")
    metadata = event.event_data["retry_metadata"]
    assert [error["message"] for error in metadata["errors"]] == ["attempt 1", "attempt 2"]
    assert {error["error_type"] for error in metadata["errors"]} == {"Unlucky"}
    handle = await app.start(failing(Attempts()))
    with pytest.raises(RetryExhaustedError):
        await handle.result(timeout=SOON)
    (event,) = await events_of(handle, "ActivityFailed")
    metadata = event.event_data["retry_metadata"]
    assert (metadata["total_attempts"], metadata["exhausted"]) == (5, True)


async def test_R066_a_history_event_has_the_documented_shape(apps: Apps) -> None:
    policy = RetryPolicy(initial_interval=0.1)
    handle = await (await apps.open(default_retry_policy=policy)).start(failing(Attempts(), times=2))
    await handle.result(timeout=SOON)
    (event,) = await events_of(handle, "ActivityCompleted")
    assert event.event_type == "ActivityCompleted"
    assert event.event_data["activity_name"] == "flaky"
    assert event.event_data["result"] == 3
    metadata = event.event_data["retry_metadata"]
    assert metadata.keys() >= {"total_attempts", "total_duration_ms", "last_error", "exhausted", "errors"}
    assert 300 <= metadata["total_duration_ms"] < 5000
    assert metadata["last_error"]["error_type"] == "Unlucky"
    assert metadata["last_error"]["message"] == "attempt 2"
    assert metadata["exhausted"] is False


async def test_R067_the_number_of_attempts_counts_the_success(apps: Apps) -> None:
    attempts = Attempts()
    handle = await (await apps.open(default_retry_policy=QUICK)).start(failing(attempts, times=2))
    await handle.result(timeout=SOON)
    (event,) = await events_of(handle, "ActivityCompleted")
    assert event.event_data["retry_metadata"]["total_attempts"] == attempts.count == 3


async def test_R068_the_policy_of_the_activity_comes_before_the_one_of_the_app_and_that_before_the_default(
    apps: Apps,
) -> None:
    async def count(app: Any, **options: Any) -> int:
        attempts = Attempts()
        handle = await app.start(failing(attempts, **options))
        with pytest.raises(RetryExhaustedError):
            await handle.result(timeout=SOON)
        return attempts.count

    own = RetryPolicy(max_attempts=2, initial_interval=0.001)
    of_the_app = RetryPolicy(max_attempts=3, initial_interval=0.001)
    app = await apps.open(default_retry_policy=of_the_app)
    assert await count(app, retry_policy=own) == 2
    assert await count(app) == 3
    attempts, app = Attempts(), await apps.restart()
    handle = await app.start(failing(attempts))
    await eventually(lambda: attempts.count == 2)
    assert attempts.gaps[0] >= 1.0
    await handle.cancel()


async def test_R069_exhaustion_raises_retry_exhausted_error_in_the_workflow_and_at_the_caller(apps: Apps) -> None:
    handle = await (await apps.open(default_retry_policy=QUICK)).start(failing(Attempts()))
    with pytest.raises(RetryExhaustedError, match="flaky") as raised:
        await handle.result(timeout=SOON)
    assert "attempt 5" in str(raised.value.__cause__)
    assert await handle.status() == "failed"


async def test_R069_a_caught_exhaustion_does_not_fail_the_workflow_not_even_on_replay(apps: Apps) -> None:
    gate, caught = Gate(), list[str]()

    @activity
    async def flaky(ctx: WorkflowContext) -> None:
        await asyncio.sleep(0)
        raise Unlucky("no luck")

    @workflow
    async def careful(ctx: WorkflowContext) -> str:
        try:
            await flaky(ctx)
        except RetryExhaustedError as error:
            caught.append(repr(error.__cause__))
        await gate.pass_(ctx)
        return "went on"

    handle = await (await apps.open(default_retry_policy=QUICK)).start(careful)
    assert await (await apps.restart_at(gate, handle)).result(timeout=SOON) == "went on"
    assert len(caught) == 2
    assert caught[0] == caught[1]
    assert "no luck" in caught[0]
