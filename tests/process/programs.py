"""What the processes of the kill test run: six workflows, made of their number and seed alone.

So the checker knows, without having seen a run, what each has to return. Activities that write through `ctx.session`
leave a row in a table WITHOUT any unique key: what happened twice stands there twice. It must not know who kills whom.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from random import Random
from typing import Any, Final

from sqlalchemy import text

from edda import (
    RetryPolicy,
    WorkflowContext,
    activity,
    compensation,
    on_failure,
    wait_timer,
    workflow,
)

EFFECT: Final = "kill_effect"
CREATE_EFFECT: Final = (
    f"CREATE TABLE {EFFECT} (instance_id VARCHAR(255) NOT NULL, call_id VARCHAR(255) NOT NULL, "
    "kind VARCHAR(10) NOT NULL, attempt INTEGER NOT NULL, worker VARCHAR(255) NOT NULL)"
)
INSERT: Final = text(
    f"INSERT INTO {EFFECT} (instance_id, call_id, kind, attempt, worker) VALUES (:instance, :call, :kind, :attempt, "
    ":worker)"
)

QUICK: Final = RetryPolicy(initial_interval=0.1, backoff_coefficient=1.5, max_attempts=12)
PARKING: Final = RetryPolicy(initial_interval=1.1, backoff_coefficient=1.0, max_attempts=8)
"""Its back-offs are long enough to give the claim back."""

note: Callable[..., None] = lambda event, **details: None  # noqa: E731 - the worker process puts its log here
ambush: Callable[[str], None] = lambda place: None  # noqa: E731 - and here the place where it may be killed


def random_of(number: int, seed: int) -> Random:
    """The only chance there is: the same in the body, in each replay of it, and in the checker."""
    return Random(f"{seed}/{number}")


# -- activities --------------------------------------------------------------------------------------------------------


def _begin(ctx: WorkflowContext) -> None:
    note("begin", i=ctx.instance_id, c=ctx.activity.id, n=ctx.activity.attempt, w=ctx.worker_id)


def _end(ctx: WorkflowContext, outcome: str = "ok") -> None:
    note("end", i=ctx.instance_id, c=ctx.activity.id, n=ctx.activity.attempt, w=ctx.worker_id, o=outcome)


async def _write(ctx: WorkflowContext, kind: str) -> None:
    info = ctx.activity
    values = {
        "instance": ctx.instance_id,
        "call": info.id,
        "kind": kind,
        "attempt": info.attempt,
        "worker": ctx.worker_id,
    }
    await ctx.session.execute(INSERT, values)
    ambush("session:statement")


async def _work(pause_ms: int) -> None:
    await asyncio.sleep(pause_ms / 1000)


@activity(name="plain_step", retry_policy=QUICK)
async def plain(ctx: WorkflowContext, number: int, pause_ms: int) -> int:
    _begin(ctx)
    await _work(pause_ms)
    _end(ctx)
    return number + 1


@activity(retry_policy=QUICK)
def threaded(ctx: WorkflowContext, number: int, pause_ms: int) -> int:
    _begin(ctx)
    time.sleep(pause_ms / 1000)
    _end(ctx)
    return number + 2


@activity(retry_policy=QUICK)
async def book(ctx: WorkflowContext, number: int, pause_ms: int) -> int:
    _begin(ctx)
    await _write(ctx, "do")
    await _work(pause_ms)
    _end(ctx)
    return number + 3


@activity(name="flaky_step", retry_policy=QUICK)
async def flaky(ctx: WorkflowContext, number: int, failures: int) -> int:
    """Fails so often, each time with a row written: none of them may stay."""
    return await _fail_first(ctx, number, failures)


@activity(name="patient_step", retry_policy=PARKING)
async def patient(ctx: WorkflowContext, number: int, failures: int) -> int:
    """The same, with back-offs that park."""
    return await _fail_first(ctx, number, failures)


async def _fail_first(ctx: WorkflowContext, number: int, failures: int) -> int:
    _begin(ctx)
    await _write(ctx, "do")
    if ctx.activity.attempt <= failures:
        _end(ctx, "failed")
        raise ConnectionError("away")
    _end(ctx)
    return number + 4


@compensation(retry_policy=QUICK)
async def undo(ctx: WorkflowContext, number: int, pause_ms: int) -> None:
    """Every third fails at its first attempt, after it has written."""
    _begin(ctx)
    await _write(ctx, "undo")
    await _work(pause_ms)
    if number % 3 == 0 and ctx.activity.attempt == 1:
        _end(ctx, "failed")
        raise ConnectionError("away")
    _end(ctx)


@activity(retry_policy=QUICK)
@on_failure(undo)
async def hold(ctx: WorkflowContext, number: int, pause_ms: int) -> int:
    """Undoable, and written through the session."""
    _begin(ctx)
    await _write(ctx, "do")
    await _work(pause_ms)
    _end(ctx)
    return number + 5


@activity(retry_policy=QUICK)
@on_failure(undo)
async def call_out(ctx: WorkflowContext, number: int, pause_ms: int) -> int:
    """Undoable, without a session: its record travels in the group commit."""
    _begin(ctx)
    await _work(pause_ms)
    _end(ctx)
    return number + 6


SESSION_ACTIVITIES: Final = frozenset({"book", "flaky_step", "patient_step", "hold"})
"""Names of the activities that leave exactly one row when they complete. Compensations leave one each, too."""

# -- workflows ---------------------------------------------------------------------------------------------------------


def sequence_steps(number: int, seed: int) -> list[tuple[str, int]]:
    random = random_of(number, seed)
    names = ["plain", "book", "threaded", "plain", "book"]
    return [(random.choice(names), random.choice((1, 5, 20, 60))) for _ in range(random.randint(3, 7))]


@workflow
async def sequence(ctx: WorkflowContext, number: int, seed: int) -> list[int]:
    calls = {"plain": plain, "book": book, "threaded": threaded}
    return [await calls[name](ctx, number, pause_ms) for name, pause_ms in sequence_steps(number, seed)]


def saga_steps(number: int, seed: int) -> tuple[list[tuple[str, int]], bool]:
    random = random_of(number, seed)
    steps = [
        (random.choice(("hold", "call_out", "plain")), random.choice((1, 10, 40))) for _ in range(random.randint(3, 6))
    ]
    return steps, random.random() < 0.6


@workflow
async def saga(ctx: WorkflowContext, number: int, seed: int) -> list[int]:
    calls = {"hold": hold, "call_out": call_out, "plain": plain}
    steps, fails = saga_steps(number, seed)
    results = [await calls[name](ctx, number + place, pause_ms) for place, (name, pause_ms) in enumerate(steps)]
    if fails:
        raise ValueError(f"saga {number} fails")
    return results


@workflow
async def retrying(ctx: WorkflowContext, number: int, seed: int) -> list[int]:
    random = random_of(number, seed)
    return [
        await flaky(ctx, number, random.randint(0, 3)),
        await patient(ctx, number, random.randint(0, 2)),
        await book(ctx, number, 5),
    ]


@workflow
async def waiting(ctx: WorkflowContext, number: int, seed: int) -> list[int]:
    random = random_of(number, seed)
    first = await book(ctx, number, 5)
    await wait_timer(ctx, random.choice((0.1, 0.6, 1.3, 2.5)))
    second = await plain(ctx, number, 10)
    await asyncio.sleep(random.choice((0.05, 1.2)))
    return [first, second, await book(ctx, number, 5)]


@workflow
async def family(ctx: WorkflowContext, number: int, seed: int) -> list[Any]:
    """Three children at once, of which the last may fail and undo what it did."""
    first = await book(ctx, number, 5)
    children = await asyncio.gather(
        sequence.run(number + 1, seed),
        waiting.run(number + 2, seed),
        saga.run(number + 3, seed),
        return_exceptions=True,
    )
    return [first, [str(child) if isinstance(child, BaseException) else child for child in children]]


@workflow
async def gathering(ctx: WorkflowContext, number: int, seed: int) -> list[int]:
    random = random_of(number, seed)
    pauses = [random.choice((1, 10, 50)) for _ in range(4)]
    async with asyncio.TaskGroup() as group:
        beside = group.create_task(patient(ctx, number, random.randint(0, 1)))
        first = await asyncio.gather(*(book(ctx, number + place, pause) for place, pause in enumerate(pauses)))
        second = await asyncio.gather(
            plain(ctx, number, pauses[0]), threaded(ctx, number, 5), flaky(ctx, number, 1), book(ctx, number, 1)
        )
    return [*first, *second, beside.result()]


WORKFLOWS: Final = (sequence, saga, retrying, waiting, family, gathering)


def workflow_of(number: int) -> Any:
    return WORKFLOWS[number % len(WORKFLOWS)]


# -- what has to come out ----------------------------------------------------------------------------------------------

_ADDS: Final = {"plain": 1, "threaded": 2, "book": 3, "hold": 5, "call_out": 6}


def expected(name: str, number: int, seed: int) -> Any:
    """The result of a workflow that nobody cancels; None where it has to fail."""
    match name:
        case "sequence":
            return [number + _ADDS[step] for step, _ in sequence_steps(number, seed)]
        case "saga":
            steps, fails = saga_steps(number, seed)
            return None if fails else [number + place + _ADDS[step] for place, (step, _) in enumerate(steps)]
        case "retrying":
            return [number + 4, number + 4, number + 3]
        case "waiting":
            return [number + 3, number + 1, number + 3]
        case "family":
            last = expected("saga", number + 3, seed)
            children = [expected("sequence", number + 1, seed), expected("waiting", number + 2, seed)]
            return [number + 3, [*children, f"saga {number + 3} fails" if last is None else last]]
        case "gathering":
            first = [number + place + 3 for place in range(4)]
            return [*first, number + 1, number + 2, number + 4, number + 3, number + 4]
        case _:
            raise AssertionError(name)
